"""Production on the embedded stack: in landing order whoever is faster, and failures that only people end."""

import pytest

from deploy.demo import shop
from tests.e2e.auditor import Auditor
from tests.e2e.harness import Orch, Row
from tests.e2e.test_worker_kills import serves
from workflows.interface import OperatorCommand
from workflows.names import task_workflow_id

pytestmark = pytest.mark.embedded

POLICY = ".orch/pipeline.toml"
ROLLBACK = 'rollback = "python3 .orch/deploy.py deploy {url}/production"\n\n[probes]'


async def say(orch: Orch, act: str, key: str) -> None:
    """Olga tells a task something, by an update."""
    handle = (await orch.temporal()).get_workflow_handle(task_workflow_id(key))
    await handle.execute_update(act, OperatorCommand(by="olga", reason="as tested"))


async def waits(orch: Orch, key: str, reason: str) -> Row:
    """Wait until a task says that it waits for this."""

    async def said() -> Row | None:
        row = await orch.task(key)
        return row if row and reason in row["waiting_reason"] else None

    return await orch.until(f"{key} waits: {reason}", said, key)


async def ended(orch: Orch, key: str) -> Row:
    """Wait until a task has ended, however."""

    async def over() -> Row | None:
        row = await orch.task(key)
        return row if row and row["ended_at"] else None

    return await orch.until(f"{key} has ended", over, key)


async def frozen(orch: Orch) -> list[str]:
    """Who has frozen for a failed deployment."""
    query = "SELECT by_whom FROM freezes WHERE cause = 'deploy failed' AND lifted_at IS NULL"
    return [row["by_whom"] for row in await orch.rows(query)]


async def fails(orch: Orch, name: str, effect: str) -> str:
    """A task that has landed, and whose deployment to production has failed."""
    broken = {"method": "POST", "path": "/production/deploy", "effect": effect, "status": 503, "times": None}
    await orch.faults("production", broken)
    key = await orch.start(name)
    await orch.approve_when_asked(key)
    await waits(orch, key, "production: the command ended with exit 1")
    await orch.faults("production")
    return key


async def test_a_merged_pull_request_is_not_done_while_production_fails(orch: Orch) -> None:
    """Gitea says merged, production says no: the task freezes, waits, and is done only when a retry has passed."""
    before = await serves(orch)
    key = await fails(orch, "Merged but not deployed", "before")
    row = await orch.task(key)
    assert row is not None
    (merged,) = [p for p in await orch.gitea("/pulls?state=all&limit=50") if p["head"]["ref"] == f"task/{key}"]
    assert merged["merged"]

    async def told() -> bool:
        query = """
            SELECT convert_from(body, 'UTF8') AS body FROM webhook_deliveries
            WHERE source = 'gitea' AND task = $1 AND status = 'forwarded'
        """
        return any('"merged":true' in one["body"].replace(" ", "") for one in await orch.rows(query, key))

    await orch.until("the merge event has been told", told, key)
    row = await waits(orch, key, "production: the command ended with exit 1")
    assert (row["outcome"], row["deployed_sha"], await frozen(orch)) == ("", "", [key])
    assert await serves(orch) == before
    await say(orch, "retry", key)
    row = await ended(orch, key)
    assert (row["outcome"], await serves(orch), await frozen(orch)) == ("done", row["landed_sha"], [])
    acts = await orch.rows("SELECT act, actor FROM operator_acts WHERE task = $1 AND act <> 'approve'", key)
    assert [tuple(act.values()) for act in acts] == [("retry", "olga")]


async def test_a_rollback_and_an_acceptance(orch: Orch) -> None:
    """What half came through is rolled back to what was served before; accepting that ends the task and the freeze."""
    url = f"http://127.0.0.1:{orch.ports['production']}"
    policy = shop.policy(url, shop.TEST_COMMAND).replace("\n[probes]", ROLLBACK.format(url=url))
    await orch.commit_to_main(POLICY, policy)
    before = await serves(orch)
    key = await fails(orch, "Half deployed", "after")
    row = await orch.task(key)
    assert row is not None
    assert await serves(orch) == row["landed_sha"] != before
    await say(orch, "rollback", key)
    await waits(orch, key, f"it was rolled back to {before[:10]}: say retry or accept")
    assert (await serves(orch), await frozen(orch)) == (before, [key])
    await say(orch, "accept", key)
    row = await ended(orch, key)
    assert (row["outcome"], row["deployed_sha"], await frozen(orch)) == ("landed, rolled back", "", [])
    (closing,) = [one for one in await orch.comments(key) if one["external_id"].endswith("/closing-comment")]
    assert "accepted as it is by olga, who says: as tested" in closing["comment_html"]
    commands = await orch.rows("SELECT kind, status FROM deployments WHERE task = $1 ORDER BY started_at", key)
    assert [tuple(one.values()) for one in commands][1:] == [("deploy", "failed"), ("rollback", "succeeded")]
    after = await orch.carry_through("After the acceptance")
    landed = await orch.task(after)
    assert landed is not None
    assert await serves(orch) == landed["landed_sha"]


async def test_two_tasks_in_the_wrong_order_of_speed(orch: Orch) -> None:
    """The one that landed first and deploys last finds its commit deployed; production stays on the newer one."""
    slow = {"method": "POST", "path": "/pulls/[0-9]+/merge", "delay_seconds": 2, "status": 503}
    await orch.faults("gitea", slow)
    first = await orch.start("Lands first, deploys last")
    await orch.approve_when_asked(first)

    async def lands() -> bool:
        return bool(await orch.rows("SELECT 1 FROM merge_landings WHERE task = $1 AND status = 'open'", first))

    await orch.until(f"{first} is landing", lands, first)
    await say(orch, "pause", first)
    await waits(orch, first, "olga said pause")
    paused = await orch.task(first)
    assert paused is not None
    assert paused["landed_sha"]
    second = await orch.carry_through("Lands last, deploys first")
    newer = await serves(orch)
    assert newer != paused["landed_sha"]
    await say(orch, "resume", first)
    assert (await ended(orch, first))["outcome"] == "done"
    assert await serves(orch) == newer
    (said,) = await orch.rows(
        "SELECT output_tail FROM deployments WHERE task = $1 AND environment = 'production'", first
    )
    assert f"{newer} is served, which contains {paused['landed_sha']}" in said["output_tail"]
    await Auditor(orch).check(first, second)
