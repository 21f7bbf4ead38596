"""The sandbox's Gitea against the contract's payloads, with a real git client and a real CI."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.sandbox_harness import GATE, GITEA_SECRET, Harness, Received, eventually, harness, started
from tests.contract.shapes import assert_same_shape, recorded

BRANCH = "task/PAY-1"
TYPE = "X-Gitea-Event-Type"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Harness]:
    """A repository without CI and without protection."""
    async with harness(tmp_path / "home") as running:
        await running.seed()
        yield running


async def arrived(sandbox: Harness, kind: str, action: str | None = None) -> Received:
    """Wait for a webhook of this type (and action)."""

    def found() -> list[Received]:
        return [hook for hook in sandbox.receiver.of(TYPE, kind) if action in {None, hook.body.get("action")}]

    hook: Received = (await eventually(found))[-1]
    return hook


async def branch_with_pull(sandbox: Harness, folder: Path) -> tuple[Path, str, Any]:
    """A clone, a pushed branch, and its pull request."""
    clone = await sandbox.clone(folder / "clone")
    sha = await sandbox.push(clone, BRANCH, {"retry.py": "x = 1\n"})
    return clone, sha, await sandbox.open_pull(BRANCH)


def merge_form(sha: str, style: str = "fast-forward-only", **more: Any) -> dict[str, Any]:
    """A merge bound to a head."""
    return {"Do": style, "head_commit_id": sha, **more}


async def test_every_read_has_the_recorded_shape(sandbox: Harness, tmp_path: Path) -> None:
    """Each list and object of the API has the keys and types of the contract's payloads."""
    _, sha, pull = await branch_with_pull(sandbox, tmp_path)
    await sandbox.gitea("POST", "pulls/1/reviews", {"event": "APPROVED", "body": "ok"}, user="review-bot")
    none = await sandbox.gitea("GET", f"commits/{sha}/status")
    assert none.body["statuses"] is None
    status = {
        "state": "success",
        "context": "jenkins",
        "description": "ok",
        "target_url": "https://ci.example.com/1",
    }
    created = await sandbox.gitea("POST", f"statuses/{sha}", status)
    assert_same_shape(created.body, recorded("gitea", "rest_status_create")["body"])
    main = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]
    reads = {
        f"branches/{BRANCH}": "rest_branch_get",
        "branches/task%2FPAY-1": "rest_branch_get",
        f"commits/{sha}/status": "rest_combined_status_success",
        f"statuses/{sha}": "rest_statuses_list",
        f"compare/{main}...{sha}": "rest_compare",
        f"contents/retry.py?ref={BRANCH}": "rest_contents_get",
        "pulls": "rest_pulls_list",
        "pulls/1": "rest_pull_get",
        f"pulls/main/{BRANCH}": "rest_pull_get_by_base_head",
        "pulls/1/reviews": "rest_reviews_list",
        "pulls/999": "rest_error_404",
    }
    for path, name in reads.items():
        expected, answer = recorded("gitea", name), await sandbox.gitea("GET", path)
        assert answer.status == expected["status"], path
        assert_same_shape(answer.body, expected["body"])
    assert pull["url"] == f"{sandbox.sandbox.gitea_public_url}/acme/payments/pulls/1"
    assert not pull["url"].startswith(sandbox.sandbox.gitea_url)


async def test_writes_have_the_recorded_shape_and_status(sandbox: Harness, tmp_path: Path) -> None:
    """Creating branches, pulls, rules and hooks answers as the contract says, refusals too."""
    clone = await sandbox.clone(tmp_path / "clone")
    await sandbox.push(clone, BRANCH, {"retry.py": "x = 1\n"})
    pull = {"head": BRANCH, "base": "main", "title": "x"}
    hook = recorded("gitea", "rest_hook_create")["request"]["body"]
    rule = recorded("gitea", "rest_branch_protection_create")["request"]["body"]
    steps = [
        ("POST", "branches", {"new_branch_name": "task/two", "old_ref_name": "main"}, "rest_branch_create"),
        ("POST", "branches", {"new_branch_name": "task/two"}, "rest_branch_create_exists_409"),
        ("POST", "pulls", {**pull, "head": "task/two"}, "rest_pull_create_no_changes_422"),
        ("POST", "pulls", pull, "rest_pull_create"),
        ("POST", "pulls", pull, "rest_pull_create_conflict_409"),
        ("POST", "hooks", hook, "rest_hook_create"),
        ("POST", "branch_protections", rule, "rest_branch_protection_create"),
    ]
    for method, path, body, name in steps:
        expected, answer = recorded("gitea", name), await sandbox.gitea(method, path, body, user="root")
        assert answer.status == expected["status"], (name, answer.body)
        assert_same_shape(answer.body, expected["body"])
    without = await sandbox.call("GET", f"{sandbox.sandbox.gitea_url}/api/v1/user")
    assert (without.status, without.body["message"]) == (401, "token is required")
    assert (await sandbox.gitea("POST", "hooks", hook)).status == 403


async def test_a_push_fires_create_push_and_synchronized(sandbox: Harness, tmp_path: Path) -> None:
    """A new branch fires create and push; a force-push under a pull request adds synchronized."""
    clone, first, _ = await branch_with_pull(sandbox, tmp_path)
    created, pushed = await arrived(sandbox, "create"), await arrived(sandbox, "push")
    opened = await arrived(sandbox, "pull_request", "opened")
    assert_same_shape(created.body, recorded("gitea", "webhook_create_branch")["body"])
    assert_same_shape(pushed.body, recorded("gitea", "webhook_push_new_branch")["body"])
    assert_same_shape(opened.body, recorded("gitea", "webhook_pull_request_opened")["body"])
    assert pushed.body["commits"][0]["added"] == ["retry.py"]
    await sandbox.git("reset", "--quiet", "--hard", "origin/main", cwd=clone)
    second = await sandbox.push(clone, BRANCH, {"other.py": "y = 2\n"}, "--force")
    sync = await arrived(sandbox, "pull_request_sync")
    assert_same_shape(sync.body, recorded("gitea", "webhook_pull_request_synchronized_force_push")["body"])
    assert (sync.body["before"], sync.body["after"]) == (first, second)
    assert sync.headers["X-Gitea-Event"] == "pull_request"


async def test_webhooks_are_signed_over_their_bytes_and_tried_once(sandbox: Harness, tmp_path: Path) -> None:
    """All signatures fit the received bytes, the headers are the recorded ones, a 500 is final."""
    sandbox.receiver.status = 500
    clone = await sandbox.clone(tmp_path / "clone")
    await sandbox.push(clone, BRANCH, {"a<b>&c.txt": "x\n"})
    hook = await arrived(sandbox, "push")
    sha256 = hmac.new(GITEA_SECRET.encode(), hook.raw, hashlib.sha256).hexdigest()
    sha1 = hmac.new(GITEA_SECRET.encode(), hook.raw, hashlib.sha1).hexdigest()
    assert hook.headers["X-Gitea-Signature"] == hook.headers["X-Gogs-Signature"] == sha256
    assert hook.headers["X-Hub-Signature-256"] == f"sha256={sha256}"
    assert hook.headers["X-Hub-Signature"] == f"sha1={sha1}"
    assert set(recorded("gitea", "webhook_push_update")["headers"]) <= set(hook.headers)
    assert hook.raw.startswith(b'{\n  "ref": ')
    assert b"a\\u003cb\\u003e\\u0026c.txt" in hook.raw

    async def logged() -> Any:
        rows = (await sandbox.control("gitea", "GET", "deliveries")).body["deliveries"]
        return [row for row in rows if row["event"] == "push" and row["state"] == "failed"]

    assert len((await eventually(logged))[0]["attempts"]) == 1


async def test_protected_branches_refuse_direct_pushes(sandbox: Harness, tmp_path: Path) -> None:
    """Who is not on the push list cannot push to main, who is can, and reserved refs are nobody's."""
    listed = {"enable_push": True, "enable_push_whitelist": True, "push_whitelist_usernames": ["anna"]}
    await sandbox.gitea("POST", "branch_protections", {"rule_name": "main", **listed}, user="root")
    clone = await sandbox.clone(tmp_path / "clone")
    sha = await sandbox.push(clone, BRANCH, {"a.txt": "x\n"})
    refused = await sandbox.git("push", "origin", f"{sha}:main", cwd=clone, check=False)
    assert "Not allowed to push to protected branch main" in refused
    reserved = await sandbox.git("push", "origin", f"{sha}:refs/pull/9/head", cwd=clone, check=False)
    assert "reserved" in reserved
    theirs = await sandbox.clone(tmp_path / "anna", user="anna")
    await sandbox.git("push", "--quiet", "origin", f"origin/{BRANCH}:refs/heads/main", cwd=theirs)
    assert (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"] == sha
    stranger = sandbox.sandbox.gitea_url.replace("://", "://x:nobody@")
    out = await sandbox.git("ls-remote", f"{stranger}/acme/payments.git", cwd=clone, check=False)
    assert "Authentication failed" in out


async def test_merge_refusals_are_the_recorded_ones(sandbox: Harness, tmp_path: Path) -> None:
    """A moved head, a moved base, a closed and a conflicting pull request are refused, each in its way."""
    clone, sha, _ = await branch_with_pull(sandbox, tmp_path)
    moved = await sandbox.gitea("POST", "pulls/1/merge", merge_form("0" * 40))
    assert (moved.status, moved.body["message"]) == (409, "head out of date")
    act = {"actor": "anna", "branch": "main", "files": {"main.txt": "moved\n"}}
    await sandbox.control("gitea", "POST", "ui/repos/acme/payments/commits", act)

    async def checked() -> Any:
        answer = await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha))
        return answer if answer.body["message"] != "Please try again later" else None

    diverged = await eventually(checked)
    assert (diverged.status, diverged.body["message"]) == (409, "merge push out of date")
    await sandbox.control("gitea", "POST", "ui/repos/acme/payments/pulls/1/close", {"actor": "anna"})
    closed = await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha, "merge"))
    assert closed.status == recorded("gitea", "rest_merge_closed_404")["status"]
    event = await arrived(sandbox, "pull_request", "closed")
    assert_same_shape(event.body, recorded("gitea", "webhook_pull_request_closed_unmerged")["body"])
    assert event.body["pull_request"]["merged"] is False
    await sandbox.control("gitea", "POST", "ui/repos/acme/payments/pulls/1/reopen", {"actor": "anna"})
    await sandbox.push(clone, BRANCH, {"main.txt": "mine\n"})
    conflict = await sandbox.gitea("POST", "pulls/1/merge", {"Do": "merge"})
    assert (conflict.status, conflict.body["message"]) == (405, "Please try again later")


@pytest.mark.parametrize("style", ["fast-forward-only", "merge", "squash", "rebase"])
async def test_every_merge_style_lands_the_change(sandbox: Harness, tmp_path: Path, style: str) -> None:
    """A merge puts the change on main and tells it as closed, push and delete; a repeat is refused."""
    _, sha, _ = await branch_with_pull(sandbox, tmp_path)
    if style != "fast-forward-only":
        act = {"actor": "anna", "branch": "main", "files": {"main.txt": "moved\n"}}
        await sandbox.control("gitea", "POST", "ui/repos/acme/payments/commits", act)

    async def merged() -> bool:
        form = merge_form(sha, style, delete_branch_after_merge=True)
        answer = await sandbox.gitea("POST", "pulls/1/merge", form)
        return answer.status == 200 and answer.body is None

    await eventually(merged)
    pull = (await sandbox.gitea("GET", "pulls/1")).body
    tip = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]
    assert pull["merged"]
    assert pull["merge_commit_sha"] == tip
    assert (tip == sha) == (style == "fast-forward-only")
    assert (await sandbox.gitea("GET", "raw/retry.py?ref=main")).body == "x = 1\n"
    again = await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha, style))
    assert (again.status, again.body["message"]) == (405, "The PR is already merged")
    event = await arrived(sandbox, "pull_request", "closed")
    assert_same_shape(event.body, recorded("gitea", "webhook_pull_request_closed_merged")["body"])
    assert event.body["pull_request"]["head"]["sha"] == sha
    await eventually(lambda: [hook for hook in sandbox.receiver.of(TYPE, "push") if hook.body["after"] == tip])
    deleted = await arrived(sandbox, "delete")
    assert_same_shape(deleted.body, recorded("gitea", "webhook_delete_branch")["body"])
    found = await sandbox.gitea("GET", f"commits/{tip}/pull")
    assert_same_shape(found.body, recorded("gitea", "rest_commit_pull")["body"])


async def test_commits_that_land_by_hand_close_their_pull_request(sandbox: Harness, tmp_path: Path) -> None:
    """Commits pushed to main mark their pull request as merged by the pusher; a deleted branch closes it."""
    clone, sha, _ = await branch_with_pull(sandbox, tmp_path)
    await sandbox.git("push", "--quiet", "origin", f"{sha}:main", cwd=clone)
    pull = (await sandbox.gitea("GET", "pulls/1")).body
    assert (pull["merged"], pull["merged_by"]["login"]) == (True, "author-bot")
    await sandbox.push(clone, "task/two", {"two.py": "2\n"})
    await sandbox.open_pull("task/two")
    assert (await sandbox.gitea("DELETE", "branches/task/two")).status == 204
    pull = (await sandbox.gitea("GET", "pulls/2")).body
    assert (pull["merged"], pull["state"]) == (False, "closed")


async def test_reviews_bind_to_a_commit_and_never_to_their_author(sandbox: Harness, tmp_path: Path) -> None:
    """An author cannot approve; an approval is told, and the next push makes it stale and dismissed."""
    await sandbox.gitea(
        "POST", "branch_protections", {"rule_name": "main", "dismiss_stale_approvals": True}, user="root"
    )
    clone, sha, _ = await branch_with_pull(sandbox, tmp_path)
    own = await sandbox.gitea("POST", "pulls/1/reviews", {"event": "APPROVED"})
    assert (own.status, own.body["message"]) == (422, "approve your own pull is not allowed")
    body = {"event": "APPROVED", "body": "ok", "commit_id": sha}
    review = await sandbox.gitea("POST", "pulls/1/reviews", body, user="review-bot")
    assert_same_shape(review.body, recorded("gitea", "rest_review_create")["body"])
    event = await arrived(sandbox, "pull_request_review_approved")
    assert event.headers["X-Gitea-Event"] == "pull_request_approved"
    assert_same_shape(event.body, recorded("gitea", "webhook_pull_request_review_approved")["body"])
    await sandbox.push(clone, BRANCH, {"more.py": "1\n"})
    stored = (await sandbox.gitea("GET", "pulls/1/reviews")).body[0]
    assert (stored["stale"], stored["dismissed"]) == (True, True)
    act = {"actor": "anna", "event": "REQUEST_CHANGES", "body": "Handle 429"}
    await sandbox.control("gitea", "POST", "ui/repos/acme/payments/pulls/1/reviews", act)
    rejected = await arrived(sandbox, "pull_request_review_rejected")
    assert rejected.body["review"] == {"type": "pull_request_review_rejected", "content": "Handle 429"}


async def test_comments_on_a_pull_request_fire_their_event(sandbox: Harness, tmp_path: Path) -> None:
    """A comment arrives as issue_comment of type pull_request_comment and is listed."""
    await branch_with_pull(sandbox, tmp_path)
    await sandbox.gitea("POST", "issues/1/comments", {"body": "/retry please"}, user="anna")
    event = await arrived(sandbox, "pull_request_comment", "created")
    assert event.headers["X-Gitea-Event"] == "issue_comment"
    assert_same_shape(event.body, recorded("gitea", "webhook_issue_comment_on_pull_request")["body"])
    assert [row["body"] for row in (await sandbox.gitea("GET", "issues/1/comments")).body] == ["/retry please"]


async def test_the_combined_status_tells_of_its_page_only(sandbox: Harness) -> None:
    """With one status a page, state and total_count are that page's; a warning counts as failure."""
    sha = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]
    for context, state in (("one", "pending"), ("one", "success"), ("two", "warning")):
        await sandbox.gitea("POST", f"statuses/{sha}", {"state": state, "context": context})
    pages = [(await sandbox.gitea("GET", f"commits/{sha}/status?limit=1&page={page}")) for page in (1, 2)]
    assert [(page.body["state"], page.body["total_count"]) for page in pages] == [
        ("success", 1),
        ("failure", 1),
    ]
    assert pages[0].headers["X-Total-Count"] == "2"
    assert 'rel="next"' in pages[0].headers["Link"]
    assert len((await sandbox.gitea("GET", f"statuses/{sha}")).body) == 3


async def test_a_repository_starts_from_a_folder_or_from_git(sandbox: Harness, tmp_path: Path) -> None:
    """A folder becomes one commit, a git folder keeps its history, a second seed changes nothing."""
    source = await sandbox.clone(tmp_path / "source")
    tip = await sandbox.push(source, "main", {"run.sh": "#!/bin/sh\n"})
    common = {"owner": "acme", "ci_command": None}
    seed = {
        "repositories": [
            {**common, "name": "from-folder", "import_folder": str(source)},
            {**common, "name": "from-git", "import_git": str(source)},
        ]
    }
    first = (await sandbox.control("gitea", "POST", "seed", seed)).body
    assert (await sandbox.control("gitea", "POST", "seed", seed)).body == first
    made = first["repositories"]
    assert made["acme/from-git"]["branches"] == {"main": tip}
    listing = await sandbox.git("ls-tree", "main", cwd=Path(made["acme/from-folder"]["bare_path"]))
    assert [line.split()[0] for line in listing.splitlines()] == ["100644", "100755"]


async def test_pages_behind_public_links_show_escaped_text(sandbox: Harness, tmp_path: Path) -> None:
    """A person who opens the link of a pull request, a commit or a file sees it, and no script runs."""
    clone = await sandbox.clone(tmp_path / "clone")
    sha = await sandbox.push(clone, BRANCH, {"spec.md": "<script>alert(1)</script>\n"})
    pull = await sandbox.open_pull(BRANCH)
    public = f"{sandbox.sandbox.gitea_public_url}/acme/payments"
    for url in (pull["html_url"], public, f"{public}/commit/{sha}", f"{public}/src/branch/{BRANCH}/spec.md"):
        page = await sandbox.call("GET", url)
        assert page.status == 200, url
        assert "<script>" not in page.body
    assert "&lt;script&gt;" in page.body


async def test_ci_tests_each_commit_in_a_clean_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses end as success or failure in the recorded words, with a log; a merge is tested too."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    script = 'test ! -e .git && test -z "$SECRET_OF_THE_SERVER" && echo "it ran" && test ! -e broken'
    async with harness(tmp_path / "home") as sandbox:
        await sandbox.seed(ci_command=script, protected={"main": GATE})
        clone, sha, _ = await branch_with_pull(sandbox, tmp_path)
        early = await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha))
        assert early.status == 405
        combined = await sandbox.combined(sha, "success")
        assert_same_shape(combined, recorded("gitea", "rest_combined_status_success")["body"])
        item = combined["statuses"][0]
        assert item["context"] == "CI / test (push)"
        assert item["description"].startswith("Successful in ")
        told = [hook.body for hook in sandbox.receiver.of(TYPE, "status") if hook.body["sha"] == sha]
        assert_same_shape(told[-1], recorded("gitea", "webhook_status_success")["body"])
        assert {body["sender"]["login"] for body in told} == {"gitea-actions"}
        log = await sandbox.call("GET", sandbox.sandbox.gitea_public_url + item["target_url"])
        assert "it ran" in log.body
        runs = await sandbox.gitea("GET", f"actions/runs?head_sha={sha}")
        assert_same_shape(runs.body, recorded("gitea", "rest_actions_runs_by_sha")["body"])
        blocked = await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha))
        assert (blocked.status, blocked.body["message"]) == (405, "Does not have enough approvals")
        await sandbox.gitea("POST", "pulls/1/reviews", {"event": "APPROVED"}, user="review-bot")
        assert (await sandbox.gitea("POST", "pulls/1/merge", merge_form(sha, "merge"))).status == 200
        tip = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]
        await sandbox.combined(tip, "success")
        broken = await sandbox.push(clone, "task/broken", {"broken": "x\n"})
        failed = await sandbox.combined(broken, "failure")
        assert failed["statuses"][0]["description"].startswith("Failing after ")


async def test_a_cancelled_run_is_a_failure_told_apart_by_its_conclusion(tmp_path: Path) -> None:
    """Cancelling reports failure and shows cancelled in the runs; a rerun is the next attempt."""
    async with harness(tmp_path / "home") as sandbox:
        await sandbox.seed(ci_command=["sleep", "600"])
        sha = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]

        async def run(status: str, attempt: int = 1) -> Any:
            rows = (await sandbox.gitea("GET", f"actions/runs?head_sha={sha}")).body["workflow_runs"]
            return rows[0] if (rows[0]["status"], rows[0]["run_attempt"]) == (status, attempt) else None

        await eventually(lambda: run("in_progress"))
        target = {"repository": "acme/payments", "sha": sha}
        await sandbox.control("gitea", "POST", "ci/cancel", target)
        assert (await eventually(lambda: run("completed")))["conclusion"] == "cancelled"
        combined = await sandbox.combined(sha, "failure")
        assert combined["statuses"][0]["description"] == "Has been cancelled"
        await sandbox.control("gitea", "POST", "ci/rerun", target)
        await eventually(lambda: run("in_progress", 2))


async def test_a_slow_or_talkative_test_is_bounded(tmp_path: Path) -> None:
    """A command that takes too long fails, its children die with it, and the log keeps to its limit."""
    async with harness(tmp_path / "home", ci_timeout=1, ci_log_limit=2000) as sandbox:
        await sandbox.seed(ci_command="sleep 611 & yes talk")
        sha = (await sandbox.gitea("GET", "branches/main")).body["commit"]["id"]
        await sandbox.combined(sha, "failure")
        job = (await sandbox.gitea("GET", "actions/runs/1/jobs")).body["jobs"][0]["id"]
        log = (await sandbox.gitea("GET", f"actions/jobs/{job}/logs")).body
        assert "stopped: longer than 1 s" in log
        assert len(log) < 2300
        assert not started("sleep", "611")
