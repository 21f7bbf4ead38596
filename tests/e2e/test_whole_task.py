"""Whole tasks on the embedded stack: many starts at once, two tasks at once."""

import asyncio
import hashlib
import hmac
import json
from collections import Counter

import pytest
from temporalio.client import Client

from api.naming import Wake
from api.signalling import Tasks
from deploy.demo import seed
from tests.e2e.auditor import Auditor, kind_of
from tests.e2e.harness import Orch, Row
from workflows.hints import Hint, Source, Topic
from workflows.names import task_workflow_id

pytestmark = pytest.mark.embedded

EACH = 25


async def test_one_task_from_item_to_production(orch: Orch) -> None:
    """An approved task ends as done with every effect exactly once."""
    await Auditor(orch).check(orch.keys[0])


async def post_webhook(orch: Orch, item: Row, number: int) -> None:
    """Tell the API that an item was updated, in words that no other delivery used."""
    data = {**item, "updated_at": f"2026-11-22T10:00:{number:02}.000000Z"}
    data |= {"project": item["project"], "state": {"id": item["state"], "name": "In Progress", "group": "started"}}
    body = json.dumps({"event": "issue", "action": "updated", "webhook_id": seed.BOT, "data": data}).encode()
    secret = orch.environment["ORCH_PLANE_WEBHOOK_SECRET"].encode()
    headers = {
        "Content-Type": "application/json",
        "X-Plane-Event": "issue",
        "X-Plane-Delivery": f"delivery-{number}",
        "X-Plane-Signature": hmac.new(secret, body, hashlib.sha256).hexdigest(),
    }
    url = f"http://127.0.0.1:{orch.ports['api']}/webhooks/plane"
    async with orch.http.post(url, data=body, headers=headers) as answer:
        assert answer.status == 202, await answer.text()


async def scheduled(client: Client, key: str) -> Counter[str]:
    """Which activities every run of a task has scheduled, by their types."""
    found: Counter[str] = Counter()
    async for execution in client.list_workflows(f'WorkflowId = "{task_workflow_id(key)}"'):
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        for event in (await handle.fetch_history()).events:
            found[event.activity_task_scheduled_event_attributes.activity_type.name] += 1
    return found


async def test_fifty_simultaneous_starts_make_one_task(orch: Orch) -> None:
    """However many sources say at once that an item was started, one workflow does the work once."""
    key = await orch.create("Start me fifty times")
    await orch.request("PUT", "plane", "/_sandbox/faults", {"webhooks": {"drop_probability": 1}})
    item = await orch.move(key, "In Progress")
    assert await orch.task(key) is None
    client = await orch.temporal()
    wake = Wake(task=key, hint=Hint(topic=Topic.ITEM, source=Source.PLANE, note="started"), start=True)
    await asyncio.gather(
        *(post_webhook(orch, item, number) for number in range(EACH)),
        *(Tasks(client).wake(key, [wake]) for _ in range(EACH)),
    )
    await orch.faults("plane")

    async def asked() -> bool:
        row = await orch.task(key)
        return bool(row and row["waiting_on"] == "person")

    await orch.until(f"{key} asks for a decision", asked, key)
    rows = await orch.rows("SELECT * FROM webhook_deliveries WHERE delivery_id LIKE 'delivery-%'")
    assert len(rows) == EACH, await orch.report(key)
    assert len(await orch.rows("SELECT 1 FROM tasks WHERE task = $1", key)) == 1
    branches = [branch["name"] for branch in await orch.gitea("/branches?limit=50")]
    assert [name for name in branches if name.startswith(f"task/{key}")] == [f"task/{key}"]
    assert (await scheduled(client, key))["prepare_workspace"] == 1
    runs = await orch.rows("SELECT role, outcome FROM agent_runs WHERE task = $1", key)
    assert runs == [{"role": "analyst", "outcome": "ok"}]
    comments = sorted(kind_of(comment) for comment in await orch.comments(key))
    said = ("analysis/r1/ask-1-comment", "analysis/r1/finish-*", "status-comment")
    assert comments == [f"{key}/g1/{name}" for name in said]
    await orch.approve_when_asked(key)
    await orch.done(key)
    await Auditor(orch).check(key)


async def test_two_tasks_at_once_land_one_after_the_other(orch: Orch) -> None:
    """Two tasks on one repository both end as done, and the later one lands rebased on the earlier one."""
    keys = [await orch.start(f"Both at once, {name}") for name in ("one", "two")]
    await asyncio.gather(*(orch.approve_when_asked(key) for key in keys))
    await asyncio.gather(*(orch.done(key) for key in keys))
    landed = await orch.rows(
        "SELECT * FROM merge_landings WHERE task = ANY($1) AND status = 'landed' ORDER BY settled_at", keys
    )
    first, second = landed
    assert {first["task"], second["task"]} == set(keys)
    assert second["base_sha"] == first["candidate"]
    assert first["settled_at"] <= second["opened_at"]
    pushed = await orch.rows(
        "SELECT sha FROM pushed_shas WHERE branch = $1 ORDER BY pushed_at", f"task/{second['task']}"
    )
    assert pushed[-1]["sha"] == second["candidate"]
    commits = await orch.gitea(f"/commits?sha={second['candidate']}&limit=50")
    assert first["candidate"] in [commit["sha"] for commit in commits]
    await Auditor(orch).check(*keys)
