"""Webhooks are lost, doubled, late and out of order: that changes when something happens, never what."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.demo import seed
from deploy.demo.shop import POLICY, TEST_COMMAND
from tests.e2e.auditor import Auditor, kind_of
from tests.e2e.harness import Orch, Row, running_stack
from workflows.hints import Source

pytestmark = pytest.mark.embedded

SENDERS = ("plane", "gitea")
BY_THEMSELVES = {Source.TIMER, Source.RECONCILE}
"""What a timeline line says where no webhook and no person woke the task."""

GRACES = "\n[grace]\n" + "".join(
    f'{stage} = "10s"\n'
    for stage in ("analysis", "architecture", "development", "review", "testing", "deploy-staging", "deploy")
)

TROUBLE: dict[str, Row] = {
    "all lost": {"drop_probability": 1},
    "all doubled": {"double_probability": 1},
    "any order, seed 1": {"reorder_seconds": 2, "seed": 1},
    "any order, seed 2": {"delay_seconds": 0.5, "reorder_seconds": 3, "seed": 2},
    "lost, doubled and late, seed 3": {
        "drop_probability": 0.6, "double_probability": 1, "delay_seconds": 1, "reorder_seconds": 1, "seed": 3,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
async def healing() -> AsyncIterator[Orch]:
    """A stack whose stages look again after ten quiet seconds, and which has carried one task undisturbed."""
    async with running_stack() as orch:
        await shorten_graces(orch)
        await orch.carry_through("Nothing is lost")
        yield orch


@pytest.fixture(scope="module")
async def unreconciled() -> AsyncIterator[Orch]:
    """A stack where no reconcile pass wakes anybody."""
    async with running_stack(ORCH_RECONCILE_ENABLED="false") as orch:
        await slow_down_ci(orch)
        yield orch


async def shorten_graces(orch: Orch) -> None:
    """Let quiet stages look again soon: the shortest grace that a policy may ask for."""
    policy = POLICY.format(test=TEST_COMMAND, production_url=f"http://127.0.0.1:{orch.ports['production']}")
    await orch.commit_to_main(".orch/pipeline.toml", policy + GRACES)


async def slow_down_ci(orch: Orch) -> None:
    """Let CI take so long that the gate has to wait for it."""
    repository = {"owner": seed.OWNER, "name": "shop", "ci_command": f"sleep 3; {TEST_COMMAND}"}
    await orch.request("POST", "gitea", "/_sandbox/seed", {"repositories": [repository]})


async def lasting(orch: Orch, key: str) -> dict[str, Any]:
    """Everything that a task leaves in the world, in words that do not depend on the task or on time."""
    row = await orch.task(key)
    assert row is not None
    lines = await orch.rows("SELECT * FROM transitions WHERE task = $1 ORDER BY n", key)
    moves = [line["text"].partition(":")[0] for line in lines if re.match(r"[a-z-]+ -> [a-z-]+:", line["text"])]
    told = await orch.rows("SELECT text FROM notifications WHERE task = $1", key)
    states = await orch.rows("SELECT kind, status FROM effects WHERE starts_with(intent_key, $1)", f"{key}/")
    pulls = await orch.gitea("/pulls?state=all&limit=50")
    mine = [pull for pull in pulls if pull["head"]["ref"] == f"task/{key}"]
    deployed = await orch.rows("SELECT environment, status FROM deployments WHERE task = $1", key)
    landed = await orch.rows("SELECT status FROM merge_landings WHERE task = $1", key)
    return {
        "outcome": row["outcome"],
        "moves": moves,
        "comments": sorted(kind_of(comment).removeprefix(key) for comment in await orch.comments(key)),
        "told": sorted(
            re.sub(r"[0-9a-f]{10,40}", "*", line["text"].partition(":")[0]).replace(key, "*") for line in told
        ),
        "effects": Counter((state["kind"], state["status"]) for state in states),
        "pulls": [(pull["merged"], pull["state"]) for pull in mine],
        "deployed": sorted((one["environment"], one["status"]) for one in deployed),
        "landed": [one["status"] for one in landed],
        "runs": Counter((run["stage"], run["outcome"]) for run in await runs(orch, key)),
    }


async def deliveries(orch: Orch) -> dict[str, Row]:
    """Every webhook that was sent or lost, by its id."""
    logs = [await orch.request("GET", sender, "/_sandbox/deliveries") for sender in SENDERS]
    return {delivery["id"]: delivery for log in logs for delivery in log["deliveries"]}


async def runs(orch: Orch, key: str) -> list[Row]:
    """The agent runs of a task."""
    return await orch.rows("SELECT stage, outcome FROM agent_runs WHERE task = $1", key)


async def sources(orch: Orch, key: str) -> dict[str, str]:
    """What woke the task to see each thing in its timeline."""
    lines = await orch.rows("SELECT stage, text, source FROM transitions WHERE task = $1 ORDER BY n", key)
    return {f"{line['stage']}: {line['text']}": line["source"] for line in lines}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_the_same_end_whatever_becomes_of_webhooks(healing: Orch, trouble: str) -> None:
    """Whatever webhooks are lost, doubled, late or out of order, a task leaves the same things in the world."""
    plan = TROUBLE[trouble]
    try:
        for sender in SENDERS:
            await healing.faults(sender, **plan)
        before = await deliveries(healing)
        key = await healing.carry_through(f"Webhooks are {trouble}")
        for sender in SENDERS:
            await healing.faults(sender)
        await Auditor(healing).check(key)
        fresh = [one for name, one in (await deliveries(healing)).items() if name not in before]
        lost = [one for one in fresh if one["state"] == "dropped"]
        assert bool(lost) == bool(plan.get("drop_probability")), "the faults were not in force"
        assert plan.get("drop_probability") != 1 or len(lost) == len(fresh), "not everything was lost"
        assert await lasting(healing, key) == await lasting(healing, healing.keys[0]), await healing.report(key)
    except AssertionError as error:
        error.add_note(f"webhook faults of Plane and Gitea: {plan}")
        raise
    finally:
        for sender in SENDERS:
            await healing.faults(sender)


async def test_webhooks_alone_carry_a_task(unreconciled: Orch) -> None:
    """With reconciliation off and nothing lost, webhooks alone wake a task at each step, no timer does."""
    key = await unreconciled.carry_through("Woken by webhooks only")
    await Auditor(unreconciled).check(key)
    woken = await sources(unreconciled, key)
    assert not BY_THEMSELVES & set(woken.values()), woken
    approved = [source for line, source in woken.items() if "approved by olga" in line and "spec" in line]
    assert set(approved) == {Source.PLANE}, woken
    assert Source.GITEA in woken.values(), woken


async def test_the_stages_own_timers_heal_lost_ci_webhooks(unreconciled: Orch) -> None:
    """With reconciliation off and all of Gitea's webhooks lost, the stages' own timers see what CI said."""
    await shorten_graces(unreconciled)
    unreconciled.play()
    await unreconciled.faults("gitea", drop_probability=1)
    try:
        key = await unreconciled.carry_through("Gitea says nothing")
    finally:
        await unreconciled.faults("gitea")
    await Auditor(unreconciled).check(key)
    woken = await sources(unreconciled, key)
    assert Source.GITEA not in woken.values(), woken
    assert Source.TIMER in woken.values(), woken


async def test_forgejo_carries_a_task_without_status_webhooks(unreconciled: Orch) -> None:
    """Where the server is Forgejo, a task ends as done, and the stages' own timers see what CI said."""
    await shorten_graces(unreconciled)
    unreconciled.play()
    await unreconciled.request("PUT", "gitea", "/_sandbox/flavour", {"name": "forgejo"})
    try:
        before = await deliveries(unreconciled)
        key = await unreconciled.carry_through("Forgejo has no status webhook")
    finally:
        await unreconciled.request("PUT", "gitea", "/_sandbox/flavour", {"name": "gitea"})
    await Auditor(unreconciled).check(key)
    fresh = [one for name, one in (await deliveries(unreconciled)).items() if name not in before]
    events = {one["event"] for one in fresh}
    assert "action_run_success" in events, events
    assert not events & {"status", "workflow_run", "workflow_job"}, events
    rows = await unreconciled.rows("SELECT headers FROM webhook_deliveries WHERE event LIKE 'action_run%'")
    assert all("x-forgejo-event-type" in row["headers"] for row in rows), rows
    ci = [source for line, source in (await sources(unreconciled, key)).items() if "CI is green" in line]
    assert ci, await unreconciled.report(key)
    assert Source.TIMER in ci, ci
