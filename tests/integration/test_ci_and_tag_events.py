"""CI runs and tags, as Gitea delivers them over HTTP, down to the hint that a task gets."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from api.inbox import Inbox
from tests.fake_temporal import FakeTemporal
from tests.integration.test_forwarder import make_forwarder, open_task, push, rows
from tests.integration.test_webhooks_http import GITEA_SECRET, Api, serving
from tests.recorded import gitea_bytes, recorded
from workflows.hints import Topic

SHA = recorded("gitea/webhook_workflow_run_completed_success.json")["body"]["workflow_run"]["head_sha"]


@pytest.fixture
async def api(inbox: Inbox) -> AsyncIterator[Api]:
    """The API on empty tables."""
    async with serving(inbox) as running:
        yield running


async def deliver(api: Api, name: str, body: dict[str, Any]) -> None:
    """A recorded delivery of Gitea, with another body, signed anew."""
    raw = gitea_bytes(body)
    signature = hmac.new(GITEA_SECRET, raw, hashlib.sha256).hexdigest()
    headers = recorded(f"gitea/webhook_{name}.json")["headers"] | {"X-Gitea-Signature": signature}
    assert (await api.post("/webhooks/gitea", raw, headers))[0] == 202


@pytest.mark.parametrize("known_by", ["the commit we pushed", "the head seen last"])
@pytest.mark.parametrize("name", ["workflow_run_completed_success", "workflow_run_completed_failure"])
async def test_a_finished_run_wakes_the_task_of_its_commit(
    api: Api, pool: asyncpg.Pool, name: str, known_by: str
) -> None:
    """A run that names no branch (its event was the pull request's) wakes exactly the task of its commit."""
    temporal = FakeTemporal(running={"task/PAY-1", "task/PAY-2"})
    await open_task(pool, "PAY-1", "")
    await open_task(pool, "PAY-2", "task/PAY-2", head=SHA if known_by == "the head seen last" else "")
    if known_by == "the commit we pushed":
        await push(pool, "PAY-2", SHA)
    body = recorded(f"gitea/webhook_{name}.json")["body"]
    body["workflow_run"] |= {"head_branch": "", "head_sha": SHA}
    await deliver(api, name, body)
    await make_forwarder(pool, temporal.client).forward_batch()
    assert [(task, hint.topic) for task, hint in temporal.signals] == [("task/PAY-2", Topic.CI)]
    assert await rows(pool) == [("forwarded", "", "PAY-2")]


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("create_branch", {"ref": "v1.0.0", "ref_type": "tag"}, "a tag named v1.0.0, which is not a branch"),
        ("delete_branch", {"ref": "v1.0.0", "ref_type": "tag"}, "a tag named v1.0.0, which is not a branch"),
        ("create_branch", {"ref": "task/PAY-1", "ref_type": "tag"}, "a tag named task/PAY-1, which is not a branch"),
        ("push_branch_deleted_tag_only", {}, "pushes to refs/tags/v1.0.0, which is not a branch"),
        ("push_update", {"ref": "refs/tags/v1.0.0"}, "pushes to refs/tags/v1.0.0, which is not a branch"),
    ],
)
async def test_what_happens_to_tags_is_accepted_and_ignored(
    api: Api, pool: asyncpg.Pool, name: str, changes: dict[str, Any], what: str
) -> None:
    """Tags wake nobody and are not looked up, also when one is called as a task's branch; the row says so."""
    temporal = FakeTemporal(running={"task/PAY-1"})
    await open_task(pool, "PAY-1", "task/PAY-1")
    await deliver(api, name, recorded(f"gitea/webhook_{name}.json")["body"] | changes)
    await make_forwarder(pool, temporal.client).forward_batch()
    assert (temporal.signals, temporal.resolving) == ([], [])
    assert await rows(pool) == [("ignored", f"no task waits for Gitea's {what}", None)]
