"""The sandbox's Gitea: CI and tag webhooks, its Forgejo face, answers that break off in the middle."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.contract.sandbox_harness import Harness, Received, eventually, harness
from tests.contract.shapes import assert_same_shape, recorded

BRANCH = "task/PAY-1"
TYPE = "X-Gitea-Event-Type"
TAG = "v1.0.0"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Harness]:
    """A repository with a CI that succeeds at once."""
    async with harness(tmp_path / "home") as running:
        await running.seed(ci_command="test ! -e broken")
        yield running


def told(sandbox: Harness, kind: str, sha: str, member: str) -> dict[str, Received]:
    """The newest webhook of each action about a commit."""
    found = [hook for hook in sandbox.receiver.of(TYPE, kind) if hook.body[member]["head_sha"] == sha]
    return {hook.body["action"]: hook for hook in found}


async def pushed(sandbox: Harness, folder: Path, **files: str) -> tuple[Path, str]:
    """A clone and the head it pushed to the task's branch."""
    clone = await sandbox.clone(folder / "clone")
    return clone, await sandbox.push(clone, BRANCH, files or {"retry.py": "x = 1\n"})


@pytest.mark.parametrize(("files", "ends"), [({}, "success"), ({"broken": "x"}, "failure")])
async def test_a_ci_run_is_told_when_it_is_requested_starts_and_ends(
    sandbox: Harness, tmp_path: Path, files: dict[str, str], ends: str
) -> None:
    """Every step of a CI run is a workflow_run of the recorded shape that names the commit and its branch."""
    _, sha = await pushed(sandbox, tmp_path, **files)
    names = {
        "requested": "webhook_workflow_run_requested",
        "in_progress": "webhook_workflow_run_in_progress",
        "completed": f"webhook_workflow_run_completed_{ends}",
    }

    def all_told() -> dict[str, Received]:
        found = told(sandbox, "workflow_run", sha, "workflow_run")
        return found if set(found) == set(names) else {}

    found: dict[str, Received] = await eventually(all_told)
    for action, name in names.items():
        assert_same_shape(found[action].body, recorded("gitea", name)["body"])
        assert set(found[action].headers) >= set(recorded("gitea", name)["headers"])
    run = found["completed"].body["workflow_run"]
    assert (run["conclusion"], run["status"], run["head_branch"]) == (ends, "completed", BRANCH)
    assert "conclusion" not in found["requested"].body["workflow_run"]


async def test_the_job_of_a_ci_run_is_told_too(sandbox: Harness, tmp_path: Path) -> None:
    """The run's one job is a workflow_job of the recorded shape, from queued to completed."""
    _, sha = await pushed(sandbox, tmp_path)

    def all_told() -> dict[str, Received]:
        found = told(sandbox, "workflow_job", sha, "workflow_job")
        return found if set(found) == {"queued", "in_progress", "completed"} else {}

    found: dict[str, Received] = await eventually(all_told)
    assert_same_shape(found["completed"].body, recorded("gitea", "webhook_workflow_job_completed")["body"])
    assert found["completed"].body["workflow_job"]["conclusion"] == "success"


async def test_an_organization_is_named_only_where_one_owns_the_repository(sandbox: Harness, tmp_path: Path) -> None:
    """A run in a person's repository has no organization in its webhook; one in an organization's has."""
    _, sha = await pushed(sandbox, tmp_path)
    await eventually(lambda: "completed" in told(sandbox, "workflow_run", sha, "workflow_run"))
    assert told(sandbox, "workflow_run", sha, "workflow_run")["completed"].body["organization"]["username"] == "acme"
    hook = {"repository": "anna/tools", "url": f"{sandbox.receiver.url}/gitea", "secret": "s"}
    own = {"owner": "anna", "name": "tools", "ci_command": "true"}
    await sandbox.control("gitea", "POST", "seed", {"repositories": [{**own, "ci_command": None}], "hooks": [hook]})
    await sandbox.control("gitea", "POST", "seed", {"repositories": [own]})
    act = {"actor": "anna", "branch": "main", "files": {"a.txt": "x"}}
    await sandbox.control("gitea", "POST", "ui/repos/anna/tools/commits", act)

    def of_anna() -> list[Received]:
        runs = sandbox.receiver.of(TYPE, "workflow_run")
        return [hook for hook in runs if hook.body["repository"]["full_name"] == "anna/tools"]

    assert "organization" not in (await eventually(of_anna))[0].body


async def test_tags_are_told_as_the_contract_says(sandbox: Harness, tmp_path: Path) -> None:
    """A new tag is a push and a create, a deleted one a push to zero and a delete; no CI runs for it.

    Only the push of a deleted tag is recorded; the others have the shape of their twins for branches.
    """
    clone, sha = await pushed(sandbox, tmp_path)

    def of_tag(kind: str) -> Any:
        found = [hook for hook in sandbox.receiver.of(TYPE, kind) if hook.body["ref"] in {TAG, f"refs/tags/{TAG}"}]
        return found[-1].body if found else None

    await sandbox.git("tag", "--annotate", "--message", "One", TAG, cwd=clone)
    await sandbox.git("push", "--quiet", "origin", TAG, cwd=clone)
    tag = await sandbox.git("rev-parse", TAG, cwd=clone)
    created, push = await eventually(lambda: of_tag("create")), await eventually(lambda: of_tag("push"))
    assert_same_shape(created, recorded("gitea", "webhook_create_branch")["body"])
    assert (created["ref"], created["ref_type"], created["sha"]) == (TAG, "tag", tag)
    assert_same_shape({**push, "head_commit": None}, recorded("gitea", "webhook_push_branch_deleted_tag_only")["body"])
    assert (push["before"], push["after"], push["head_commit"]["id"]) == ("0" * 40, tag, sha)
    sandbox.receiver.got.clear()
    await sandbox.git("push", "--quiet", "--delete", "origin", TAG, cwd=clone)
    deleted, push = await eventually(lambda: of_tag("delete")), await eventually(lambda: of_tag("push"))
    assert_same_shape(deleted, recorded("gitea", "webhook_delete_branch")["body"])
    assert_same_shape(push, recorded("gitea", "webhook_push_branch_deleted_tag_only")["body"])
    assert (deleted["ref_type"], push["before"], push["after"]) == ("tag", tag, "0" * 40)
    runs = (await sandbox.gitea("GET", "actions/runs")).body["workflow_runs"]
    assert {run["head_branch"] for run in runs} == {"main", BRANCH}


async def test_as_forgejo_it_has_no_status_webhook(sandbox: Harness, tmp_path: Path) -> None:
    """As Forgejo it adds its own headers, sends no status and no workflow event, and lists runs its way."""
    chosen = await sandbox.control("gitea", "PUT", "flavour", {"name": "forgejo"})
    assert chosen.status == 200, chosen.body
    _, sha = await pushed(sandbox, tmp_path)
    await sandbox.combined(sha, "success")

    def ended() -> list[Received]:
        runs = sandbox.receiver.of(TYPE, "action_run_success")
        return [hook for hook in runs if hook.body["run"]["commit_sha"] == sha]

    (event,) = await eventually(ended)
    assert set(event.body) == {"action", "run", "prior_status", "last_run"}
    log = (await sandbox.control("gitea", "GET", "deliveries")).body["deliveries"]
    kinds = {delivery["event"] for delivery in log if sha in str(delivery["payload"])}
    assert kinds == {"create", "push", "action_run_success"}
    for name in ("Delivery", "Event", "Event-Type", "Signature"):
        assert event.headers[f"X-Forgejo-{name}"] == event.headers[f"X-Gitea-{name}"] != ""
    (run,) = (await sandbox.gitea("GET", f"actions/runs?head_sha={sha}")).body["workflow_runs"]
    assert (run["commit_sha"], run["prettyref"], run["status"]) == (sha, BRANCH, "success")
    assert "conclusion" not in run


async def test_the_flavour_outlives_a_restart(tmp_path: Path) -> None:
    """A sandbox that was told to be Forgejo still is one when it is started again."""
    async with harness(tmp_path / "home") as first:
        await first.seed()
        await first.control("gitea", "PUT", "flavour", {"name": "forgejo"})
    async with harness(tmp_path / "home", first.receiver) as second:
        act = {"actor": "anna", "branch": "side", "files": {"a.txt": "x"}}
        await second.control("gitea", "POST", "ui/repos/acme/payments/commits", act)
        push = (await eventually(lambda: second.receiver.of(TYPE, "push")))[-1]
        assert push.headers["X-Forgejo-Event"] == "push"


@pytest.mark.parametrize("server", ["plane", "gitea"])
@pytest.mark.parametrize("effect", ["before", "after"])
async def test_an_answer_can_break_off_in_the_middle(sandbox: Harness, server: str, effect: str) -> None:
    """A half body announces its whole length and ends early; after it the server answers as ever."""
    route = {"half_body": True, "effect": effect, "status": 200 if effect == "before" else None, "body": '{"id": 1}'}
    done = await sandbox.control(server, "PUT", "faults", {"routes": [route]})
    assert done.status == 200, done.body

    async def ask() -> int:
        if server == "plane":
            return (await sandbox.plane("GET", "states/")).status
        return (await sandbox.gitea("GET", "branches/main")).status

    with pytest.raises(aiohttp.ClientPayloadError, match="Not enough data"):
        await asyncio.wait_for(ask(), 10)
    assert await ask() == 200
