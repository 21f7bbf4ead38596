"""The sandbox as a process: restarts, kills, and the two smaller servers."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.contract.sandbox_harness import Harness, Receiver, eventually, harness, started
from tests.contract.shapes import differences

BOT = "/bot42:secret"


@pytest.mark.parametrize(
    ("actual", "expected"),
    [({}, {"a": 1}), ({"a": 1, "b": 2}, {"a": 1}), ({"a": "1"}, {"a": 1}), ([{}], [{"a": 1}])],
)
async def test_the_shape_comparison_sees_differences(actual: object, expected: object) -> None:
    """A missing key, an unknown key, another type, and any of them inside a list are found."""
    assert list(differences(actual, expected))


async def test_a_restart_finds_everything_again(tmp_path: Path) -> None:
    """Items, pull requests, git, statuses, hooks, messages, deployments and ports survive a restart."""
    home, receiver = tmp_path / "home", Receiver()
    async with harness(home, receiver) as sandbox:
        await sandbox.seed(ci_command="true")
        first_ids, first_urls = sandbox.plane_ids, sandbox.sandbox.urls
        await sandbox.plane("POST", "work-items/", {"name": "Add retry"})
        clone = await sandbox.clone(tmp_path / "clone")
        sha = await sandbox.push(clone, "task/PAY-1", {"a.py": "1\n"})
        await sandbox.open_pull()
        await sandbox.combined(sha, "success")
        await sandbox.control("telegram", "GET", "messages")
        await sandbox.call("POST", f"{sandbox.sandbox.telegram_url}{BOT}/sendMessage", {"chat_id": 1, "text": "hi"})
        deploy = {"owner": "acme", "repo": "payments", "sha": sha}
        await sandbox.call("POST", f"{sandbox.sandbox.production_url}/staging/deploy", deploy)
    async with harness(home, receiver) as sandbox:
        await sandbox.seed(ci_command="true")
        assert sandbox.plane_ids == first_ids
        assert sandbox.sandbox.urls == first_urls
        item = (await sandbox.plane("GET", "/api/v1/workspaces/acme/work-items/PAY-1/")).body
        assert (await sandbox.plane("GET", f"work-items/{item['id']}/activities/")).body["count"] == 1
        assert (await sandbox.gitea("GET", "pulls/1")).body["head"]["sha"] == sha
        assert (await sandbox.gitea("GET", f"statuses/{sha}")).headers["X-Total-Count"] == "3"
        assert len((await sandbox.control("telegram", "GET", "messages")).body["messages"]) == 1
        health = await sandbox.call("GET", f"{sandbox.sandbox.production_url}/staging/healthz")
        assert health.body == {"sha": sha}
        receiver.got.clear()
        await sandbox.push(clone, "task/PAY-1", {"b.py": "2\n"})
        await eventually(lambda: receiver.of("X-Gitea-Event-Type", "pull_request_sync"))


async def test_webhooks_queued_before_a_restart_are_sent_after_it(tmp_path: Path) -> None:
    """A delivery whose time has not come when the process ends is sent by the next one."""
    home, receiver = tmp_path / "home", Receiver()
    async with harness(home, receiver, plane_activity_delay=1) as sandbox:
        await sandbox.seed()
        await sandbox.plane("POST", "work-items/", {"name": "late"})
        assert not receiver.of("X-Plane-Event", "issue")
    async with harness(home, receiver):
        await eventually(lambda: receiver.of("X-Plane-Event", "issue"))


async def test_a_push_nobody_could_tell_is_told_at_the_next_start(tmp_path: Path) -> None:
    """A branch that moved right before a kill, without its events, is told and tested by the next process."""
    home, receiver = tmp_path / "home", Receiver()
    async with harness(home, receiver) as sandbox:
        await sandbox.seed(ci_command="true")
        clone = await sandbox.clone(tmp_path / "clone")
        first = await sandbox.push(clone, "task/PAY-1", {"a.py": "1\n"})
        await sandbox.open_pull()
        await sandbox.git("commit", "--quiet", "--allow-empty", "--message", "More", cwd=clone)
    await sandbox.git("push", "--quiet", str(home / "gitea/acme/payments.git"), "task/PAY-1", cwd=clone)
    async with harness(home, receiver) as sandbox:
        told = await eventually(lambda: receiver.of("X-Gitea-Event-Type", "pull_request_sync"))
        assert told[0].body["before"] == first
        await sandbox.combined(told[0].body["after"], "success")


async def start(home: Path) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """A sandbox of its own process, ready to answer; a killed one may have left its state file."""
    config = home.with_suffix(".json")
    config.write_text(json.dumps({"home": str(home)}))
    command = (sys.executable, "-m", "deploy.sandbox", "--config", str(config))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)

    def state() -> dict[str, Any] | None:
        path = home / "sandbox.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("pid") == process.pid else None

    return process, await eventually(state)


async def test_sigterm_stops_promptly_and_takes_the_tests_along(tmp_path: Path) -> None:
    """SIGTERM while a test runs ends the process with 0 within seconds, and the test's children with it."""
    process, state = await start(tmp_path / "home")
    seed = {"repositories": [{"owner": "acme", "name": "payments", "ci_command": "sleep 733 & sleep 733"}]}
    async with aiohttp.ClientSession() as session:
        for url in state["urls"].values():
            async with session.get(f"{url}/_sandbox/healthz") as response:
                assert response.status == 200
        async with session.post(f"{state['urls']['gitea']}/_sandbox/seed", json=seed) as response:
            assert response.status == 200
    await eventually(lambda: started("sleep", "733"))
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await process.wait() == 0
    assert not started("sleep", "733")


async def test_a_kill_loses_nothing_and_its_test_runs_again(tmp_path: Path) -> None:
    """After kill -9 the test that was going on is ended, run anew, and finishes."""
    home = tmp_path / "home"
    process, state = await start(home)
    command = f"echo x >> {tmp_path}/starts; test -e {tmp_path}/go || sleep 744"
    seed = {
        "users": [{"login": "bot", "token": "t"}],
        "repositories": [{"owner": "acme", "name": "payments", "ci_command": command}],
    }
    async with aiohttp.ClientSession(headers={"Authorization": "token t"}) as session:
        async with session.post(f"{state['urls']['gitea']}/_sandbox/seed", json=seed) as response:
            assert response.status == 200
        await eventually(lambda: started("sleep", "744"))
        process.kill()
        await process.wait()
        (tmp_path / "go").touch()
        process, again = await start(home)
        assert again["urls"] == state["urls"]

        async def passed() -> bool:
            async with session.get(
                f"{again['urls']['gitea']}/api/v1/repos/acme/payments/commits/main/status"
            ) as answer:
                return bool((await answer.json())["state"] == "success")

        await eventually(passed)
    assert not started("sleep", "744")
    assert (tmp_path / "starts").read_text() == "x\nx\n"
    process.terminate()
    await process.wait()


async def test_a_home_has_one_sandbox(tmp_path: Path) -> None:
    """A second process on the same home ends with 1 and leaves the first one alone."""
    home = tmp_path / "home"
    async with harness(home) as sandbox:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"home": str(home)}))
        command = (sys.executable, "-m", "deploy.sandbox", "--config", str(config))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, words = await process.communicate()
        assert (process.returncode, b"another sandbox" in words) == (1, True)
        assert json.loads((home / "sandbox.json").read_text())["urls"] == sandbox.sandbox.urls


async def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    """A misspelt key ends the process with 2 and names the key."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"home": str(tmp_path), "plane_prot": 1}))
    command = (sys.executable, "-m", "deploy.sandbox", "--config", str(config))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, words = await process.communicate()
    assert process.returncode == 2
    assert "plane_prot" in words.decode()


async def test_environments_serve_exactly_the_deployed_commit(tmp_path: Path) -> None:
    """An environment is 503 until a deployment, then serves that commit's files; an unknown commit is 422."""
    async with harness(tmp_path / "home") as sandbox:
        await sandbox.seed()
        root = f"{sandbox.sandbox.production_url}/production"
        assert (await sandbox.call("GET", f"{root}/healthz")).status == 503
        clone = await sandbox.clone(tmp_path / "clone")
        sha = await sandbox.push(clone, "task/PAY-1", {"index.html": "<p>v1</p>"})
        address = sandbox.sandbox.gitea_url.replace("://", "://x:g-author@")
        deploy = {"repository_url": f"{address}/acme/payments.git", "sha": sha}
        assert (await sandbox.call("POST", f"{root}/deploy", deploy)).body["sha"] == sha
        assert (await sandbox.call("GET", f"{root}/healthz")).body == {"sha": sha}
        assert (await sandbox.call("GET", f"{root}/files/index.html")).body == "<p>v1</p>"
        assert (await sandbox.call("GET", f"{root}/files/../../../sandbox.json")).status == 404
        refused = await sandbox.call("POST", f"{root}/deploy", {**deploy, "sha": "1" * 40})
        assert refused.status == 422
        assert "g-author" not in json.dumps(refused.body)
        assert (await sandbox.call("GET", f"{root}/healthz")).body == {"sha": sha}


async def telegram(sandbox: Harness, method: str, **body: Any) -> Any:
    """One call of the Bot API; the result, or the error's description."""
    answer = await sandbox.call("POST", f"{sandbox.sandbox.telegram_url}{BOT}/{method}", body)
    assert answer.body["ok"] == (answer.status == 200)
    return answer.body["result"] if answer.body["ok"] else answer.body["description"]


async def test_telegram_sends_edits_and_refuses_as_documented(tmp_path: Path) -> None:
    """A message is edited once per content; too long, broken or unknown ones get the known descriptions."""
    async with harness(tmp_path / "home") as sandbox:
        sent = await telegram(sandbox, "sendMessage", chat_id=-1001, text="<b>x &amp; y</b>", parse_mode="HTML")
        assert sent["text"] == "x & y"
        place = {"chat_id": -1001, "message_id": sent["message_id"]}
        assert (await telegram(sandbox, "editMessageText", **place, text="done"))["text"] == "done"
        assert "message is not modified" in await telegram(sandbox, "editMessageText", **place, text="done")
        assert "can't parse entities" in await telegram(
            sandbox, "sendMessage", chat_id=1, text="<b>x", parse_mode="HTML"
        )
        assert "message is too long" in await telegram(sandbox, "sendMessage", chat_id=1, text="😀" * 2049)
        assert "message to edit not found" in await telegram(
            sandbox, "editMessageText", chat_id=1, message_id=9, text="x"
        )
        listed = (await sandbox.control("telegram", "GET", "messages")).body["messages"]
        assert [message["text"] for message in listed] == ["done"]


async def test_a_pressed_button_reaches_a_polling_bot_until_confirmed(tmp_path: Path) -> None:
    """A long poll wakes for a press, repeats it until the offset moves on, and answers it once."""
    async with harness(tmp_path / "home") as sandbox:
        keyboard = {"inline_keyboard": [[{"text": "Approve", "callback_data": "a:1"}]]}
        sent = await telegram(sandbox, "sendMessage", chat_id=7, text="ok?", reply_markup=keyboard)
        poll = asyncio.create_task(telegram(sandbox, "getUpdates", timeout=20))
        press = {"bot": "42", "chat_id": 7, "message_id": sent["message_id"], "data": "a:1", "from_id": 5}
        await sandbox.control("telegram", "POST", "press", press)
        update = (await poll)[0]
        assert update["callback_query"]["data"] == "a:1"
        assert await telegram(sandbox, "getUpdates") == [update]
        assert await telegram(sandbox, "getUpdates", offset=update["update_id"] + 1) == []
        query = {"callback_query_id": update["callback_query"]["id"]}
        assert await telegram(sandbox, "answerCallbackQuery", **query) is True
        assert "query is too old" in await telegram(sandbox, "answerCallbackQuery", **query)
