"""Production that failed: frozen at once, and only a person says retry, rollback or accept."""

from datetime import timedelta

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.fake_world import FakeWorld, a_sha, judged, verdict
from tests.workflow.driving import Driver, Handle
from workflows.contracts.landing import Deployed, DeployOutcome
from workflows.hints import Topic
from workflows.model import FreezeCause, GateOutcome, Role, Stage, WaitingOn
from workflows.situation import PullStanding
from workflows.stages import Gate
from workflows.task import TaskWorkflow
from workflows.task_run import UNKNOWN_GRACE
from workflows.verdicts import VerdictOutcome

BEFORE = a_sha("what production served before")
FAILED = Deployed(outcome=DeployOutcome.FAILED, reason="exit 1", previous_sha=BEFORE, output="no such host")
WAYS = f"production: exit 1; say retry, rollback (to {BEFORE[:10]}) or accept"
FROZEN = Deployed(outcome=DeployOutcome.FROZEN, reason="DEMO-1 has failed to deploy")


async def failing(driver: Driver, world: FakeWorld, deployed: Deployed = FAILED) -> Handle:
    """A task whose deployment to production has failed and that asks a person."""
    world.script("deploy", deployed)
    handle = await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.PERSON, reason="production: exit 1")
    return handle


def production_calls(world: FakeWorld) -> list[str]:
    """What was done after landing, without agents and comments."""
    wanted = ("request production", "deploy to", "roll_back", "set_freeze", "lift_freeze", "release_lease")
    names = world.names()
    return [name for name in names[names.index("land") + 2 :] if name.startswith(wanted)]


@pytest.mark.parametrize("outcome", [DeployOutcome.FAILED, DeployOutcome.UNKNOWN])
async def test_a_failure_is_frozen_before_anybody_else_may_deploy(
    driver: Driver, world: FakeWorld, outcome: DeployOutcome
) -> None:
    """The freeze is set before the lease is given back; a green retry lifts it, and nothing lands twice."""
    handle = await failing(driver, world, FAILED.model_copy(update={"outcome": outcome}))
    await world.waiting(WaitingOn.PERSON, reason=WAYS)
    assert production_calls(world) == [
        "request production lease",
        "deploy to production",
        "set_freeze",
        "release_lease",
    ]
    (freeze,) = world.of("set_freeze")
    assert (freeze.cause, freeze.by, freeze.queue) == (
        FreezeCause.DEPLOY_FAILED,
        world.key(),
        f"merge/acme/shop-{world.number}/main",
    )
    assert "exit 1" in freeze.reason
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    assert [lift.cause for lift in world.of("lift_freeze")] == [FreezeCause.DEPLOY_FAILED]
    first, second = world.of("deploy")
    assert (first.despite_failure, second.despite_failure) == (False, True)
    assert second.ref.round == first.ref.round + 1
    assert len(world.of("land")) == 1


async def test_a_rollback_keeps_the_freeze_until_something_passes(driver: Driver, world: FakeWorld) -> None:
    """Production goes back once; then the task waits for retry or accept, and only a green deployment thaws."""
    handle = await failing(driver, world)
    await driver.tell(TaskWorkflow.rollback, reason="the shop is down")
    await world.waiting(WaitingOn.PERSON, reason=f"it was rolled back to {BEFORE[:10]}: say retry or accept")
    (back,) = world.of("roll_back")
    landed = (await driver.status()).landed_sha
    assert (back.sha, back.failed_sha, back.attempt) == (BEFORE, landed, 1)
    assert production_calls(world)[4:] == ["request production lease", "roll_back", "release_lease"]
    assert [record.act.act for record in world.acts] == ["rollback"]
    with pytest.raises(WorkflowUpdateFailedError):
        await driver.tell(TaskWorkflow.rollback)
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    assert len(world.of("lift_freeze")) == 1
    assert [record.act.act for record in world.acts] == ["rollback", "retry"]


async def test_a_rollback_that_fails_asks_again(driver: Driver, world: FakeWorld) -> None:
    """What a rollback came to is said, and the next one is another attempt."""
    world.script("roll_back", Deployed(outcome=DeployOutcome.FAILED, reason="exit 4"))
    await failing(driver, world)
    await driver.tell(TaskWorkflow.rollback)
    await world.waiting(WaitingOn.PERSON, reason="production: exit 1; rollback: exit 4; say retry, rollback")
    await driver.tell(TaskWorkflow.rollback)
    await world.waiting(WaitingOn.PERSON, reason="it was rolled back")
    assert [back.attempt for back in world.of("roll_back")] == [1, 2]


@pytest.mark.parametrize("rolled_back", [False, True])
async def test_a_person_accepts_production_as_it_is(driver: Driver, world: FakeWorld, rolled_back: bool) -> None:
    """The freeze is lifted, the item is done, and the last comment says who accepted what; the outcome is true."""
    handle = await failing(driver, world)
    if rolled_back:
        await driver.tell(TaskWorkflow.rollback)
        await world.waiting(WaitingOn.PERSON, reason="it was rolled back")
    await driver.tell(TaskWorkflow.accept, reason="mended by hand")
    result = await handle.result()
    assert result.outcome == ("landed, rolled back" if rolled_back else "done")
    assert result.deployed_sha == ""
    assert len(world.of("lift_freeze")) == 1
    assert "move item to done" in world.names()
    said = world.of("post_comment")[-1].body
    assert "production did not pass (exit 1) and was accepted as it is by olga, who says: mended by hand" in said
    assert (f"rolled back to {BEFORE[:10]}" in said) == rolled_back
    assert len(world.of("deploy")) == 1


async def test_nothing_is_rolled_back_to_the_unknown(driver: Driver, world: FakeWorld) -> None:
    """Where nobody knows what production served before, a rollback is not offered and is refused."""
    await failing(driver, world, FAILED.model_copy(update={"previous_sha": ""}))
    await world.waiting(WaitingOn.PERSON, reason="nothing is known of what it served before: say retry or accept")
    with pytest.raises(WorkflowUpdateFailedError):
        await driver.tell(TaskWorkflow.rollback)
    assert not world.of("roll_back")


async def test_rollback_and_accept_are_for_failed_production_only(driver: Driver, world: FakeWorld) -> None:
    """A task that waits for anything else refuses both, and nobody's act is on record."""
    world.script("deploy", Deployed(outcome=DeployOutcome.REFUSED, reason="nothing was run: no secret"))
    await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.PERSON, reason="production: nothing was run: no secret")
    for act in (TaskWorkflow.rollback, TaskWorkflow.accept):
        with pytest.raises(WorkflowUpdateFailedError):
            await driver.tell(act)
    assert not world.acts
    assert not world.of("set_freeze")


async def test_what_was_refused_is_run_in_the_same_round(driver: Driver, world: FakeWorld) -> None:
    """Nothing was run, so a retry is the same round, under a new lease; a lost lease is asked for anew by itself."""
    refused = Deployed(outcome=DeployOutcome.REFUSED, reason="no secret")
    world.script("deploy", Deployed(outcome=DeployOutcome.LEASE_LOST, reason="taken back"), refused)
    handle = await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.PERSON, reason="no secret")
    assert (await driver.status()).lease is None
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    assert {arg.ref.round for arg in world.of("deploy")} == {1}
    assert len({arg.lease.epoch for arg in world.of("deploy")}) == 3


async def test_a_merge_event_while_production_fails_is_not_done(driver: Driver, world: FakeWorld) -> None:
    """Our own landing, seen as a merged pull request, never ends a task whose deployment fails."""
    handle = await failing(driver, world)
    world.find(pull=PullStanding.LANDED, merged_sha=a_sha("landed"))
    looks = world.begun("read_situation")
    for topic in (Topic.PULL_REQUEST, Topic.BRANCH, Topic.ITEM):
        await driver.hint(topic)
    await world.until(lambda: world.begun("read_situation") > looks, "a look")
    status = await driver.status()
    assert (status.stage, status.outcome, status.deployed_sha) == (Stage.DEPLOY, "", "")
    assert WAYS in status.why
    assert not world.of("move_item")
    await driver.retry()
    assert (await handle.result()).outcome == "done"


async def test_a_pause_forgets_neither_the_failure_nor_the_freeze(driver: Driver, world: FakeWorld) -> None:
    """After pause and resume the same question is asked; nothing is deployed or frozen again."""
    handle = await failing(driver, world)
    await driver.tell(TaskWorkflow.pause)
    mark = await world.waiting(WaitingOn.PERSON, reason="olga said pause")
    with pytest.raises(WorkflowUpdateFailedError):
        await driver.tell(TaskWorkflow.accept)
    await driver.tell(TaskWorkflow.resume)
    await world.waiting(WaitingOn.PERSON, reason=WAYS, after=mark)
    assert (len(world.of("deploy")), len(world.of("set_freeze"))) == (1, 1)
    await driver.tell(TaskWorkflow.accept)
    assert (await handle.result()).outcome == "done"


async def test_a_paused_task_yields_its_turn_to_deploy(driver: Driver, world: FakeWorld) -> None:
    """A landed task that is paused in the queue for production leaves it, and is granted nothing."""
    with world.holding("deploy"):
        first = await driver.start_at(Stage.DEPLOY)
        await world.called("deploy")
        await driver.start_at(Stage.DEPLOY, which=2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await driver.tell(TaskWorkflow.pause, which=2)
        await world.waiting(WaitingOn.PERSON, key=world.key(2), reason="olga said pause")
    assert (await first.result()).outcome == "done"
    (granted,) = {epoch for _, _, epoch in world.epochs.granted}
    assert granted in world.epochs.released
    assert len(world.of("deploy")) == 1


async def test_who_finds_production_frozen_waits_without_the_lease(driver: Driver, world: FakeWorld) -> None:
    """It says why and looks again by itself; when the freeze is over it deploys, and nobody was asked."""
    world.script("deploy", FROZEN)
    handle = await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.MERGE_QUEUE, reason="production is frozen: DEMO-1 has failed to deploy")
    status = await driver.status()
    assert status.lease is None
    assert status.waiting is not None
    assert not status.waiting.needs_human
    await driver.forward(UNKNOWN_GRACE + timedelta(seconds=1))
    assert (await handle.result()).outcome == "done"
    assert [arg.despite_failure for arg in world.of("deploy")] == [False, False]
    assert not world.of("set_freeze")


async def test_a_person_lets_a_task_deploy_in_spite_of_a_failure(driver: Driver, world: FakeWorld) -> None:
    """`retry` says so to a task that waits for production to thaw."""
    world.script("deploy", FROZEN)
    handle = await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.MERGE_QUEUE, reason="production is frozen")
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    assert [arg.despite_failure for arg in world.of("deploy")] == [False, True]


async def test_production_that_does_not_pass_its_judge_has_failed(driver: Driver, world: FakeWorld) -> None:
    """What runs but does not work is frozen too; cancelling says that production serves it and what is wrong."""
    deployed = Deployed(outcome=DeployOutcome.SUCCEEDED, sha=a_sha("x"), previous_sha=BEFORE)
    world.script("deploy", lambda arg: deployed.model_copy(update={"sha": arg.sha}))
    world.script_role(Role.DEPLOYER, verdict(VerdictOutcome.FAILED, "the shop answers 500"))
    world.script_gate(Gate.DEPLOYED, judged(Gate.DEPLOYED, GateOutcome.RED, "the shop answers 500"))
    handle = await driver.start_at(Stage.DEPLOY)
    await world.waiting(WaitingOn.PERSON, reason="production: the shop answers 500; say retry, rollback (to")
    assert len(world.of("set_freeze")) == 1
    await driver.tell(TaskWorkflow.cancel)
    result = await handle.result()
    assert (result.outcome, result.deployed_sha) == ("deployed, not passed", result.landed_sha)
    said = world.of("post_comment")[-1].body
    assert f"**Production serves {result.landed_sha[:10]}**." in said
    assert "the shop answers 500" in said
    assert "stay frozen" in said
    assert not world.of("lift_freeze")


async def test_where_the_landed_policy_deploys_nothing_the_task_has_landed(driver: Driver, world: FakeWorld) -> None:
    """`production = "none"` at the commit that landed ends as landed, not as done."""
    world.script("deploy", Deployed(outcome=DeployOutcome.NOT_WANTED, reason="nothing there"))
    handle = await driver.start_at(Stage.DEPLOY)
    result = await handle.result()
    assert (result.outcome, result.deployed_sha) == ("landed", "")
    (asked,) = world.gate_calls(Gate.DEPLOYED)
    assert asked.policy.production is None


async def test_who_was_let_through_the_merge_queue_may_deploy(driver: Driver, world: FakeWorld) -> None:
    """A fix that a person lets land in spite of a failed deployment is let deploy too."""
    handle = await driver.start_at(Stage.DEPLOY, passes=(FreezeCause.DEPLOY_FAILED,))
    assert (await handle.result()).outcome == "done"
    assert [arg.despite_failure for arg in world.of("deploy")] == [True]
    assert len(world.of("lift_freeze")) == 1
