"""The right to land: one holder, in order, whoever dies; and a queue that comes and goes."""

from datetime import UTC, datetime, timedelta

from temporalio.client import WorkflowExecutionStatus

from tests.fake_world import FakeWorld
from tests.workflow.driving import Driver, closing, record, status_of
from workflows.lease_standing import Standing
from workflows.lease_state import LIMITS, Phase
from workflows.merge_queue import IDLE_END
from workflows.model import GateOutcome, Lease, Policy, Stage, WaitingOn
from workflows.names import task_workflow_id
from workflows.stages import REGISTRY, Gate
from workflows.task import TaskWorkflow

A_BIT = timedelta(seconds=1)


def only_landing(world: FakeWorld) -> None:
    """Without staging and production there is one lease only."""
    world.policy = Policy(test="make test", runner="scripted")


async def test_the_second_task_waits_without_a_slot(driver: Driver, world: FakeWorld) -> None:
    """While one task holds the merge lease the other one waits with no activity running, then gets it."""
    only_landing(world)
    with world.holding("build_candidate"):
        first = await driver.start(1)
        await world.called("build_candidate")
        second = await driver.start(2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await world.until(lambda: len(world.of("build_candidate")) == 1, "only the holder builds")
        waiting = await driver.status(2)
        assert waiting.waiting is not None
        assert not waiting.waiting.needs_human
        queue = await driver.shown()
        assert queue.holding is not None
        assert queue.holding.request.task == world.key(1)
        assert [request.task for request in queue.waiting] == [world.key(2)]
    assert (await first.result()).outcome == (await second.result()).outcome == "landed"
    holders = [holder for _, holder, _ in world.epochs.granted]
    assert holders == [task_workflow_id(world.key(1)), task_workflow_id(world.key(2))]


async def test_a_waiting_task_runs_no_activity(driver: Driver, world: FakeWorld) -> None:
    """Once it has recorded its wait, a task in the merge queue has no pending activity at the server."""
    only_landing(world)
    with world.holding("build_candidate"):
        await driver.start(1)
        await world.called("build_candidate")
        second = await driver.start(2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await second.query(TaskWorkflow.status)  # answered only after the completed activity has been handled
        described = await second.describe()
        assert not described.raw_description.pending_activities


async def test_a_dead_holder_is_reclaimed(driver: Driver, world: FakeWorld) -> None:
    """A holder that was terminated loses the lease when it is inspected, and the next in line goes on."""
    only_landing(world)
    with world.holding("build_candidate"):
        first = await driver.start(1)
        await world.called("build_candidate")
        second = await driver.start(2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await first.terminate("for the test")
        await driver.forward(LIMITS[Phase.REBASING] + A_BIT, driver.queue)
        await world.until(lambda: len(world.of("build_candidate")) == 2, "the next one builds")
    assert (await second.result()).outcome == "landed"
    assert world.of("inspect_holder")[0].holder == first.id


async def test_a_holder_started_anew_does_not_keep_the_lease(driver: Driver, world: FakeWorld) -> None:
    """A task that was terminated and started again under its id runs, but is not the one that holds."""
    only_landing(world)
    with world.holding("build_candidate"):
        first = await driver.start(1)
        await world.called("build_candidate")
        second = await driver.start(2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await first.terminate("for the test")
        world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
        await driver.start(1)
        await world.waiting(WaitingOn.PERSON, key=world.key(1))
        await driver.forward(LIMITS[Phase.REBASING] + A_BIT, driver.queue)
        await world.until(lambda: len(world.of("build_candidate")) == 2, "the next one builds")
    assert (await second.result()).outcome == "landed"


async def test_a_living_holder_is_left_alone(driver: Driver, world: FakeWorld) -> None:
    """Slow is not dead: a holder that still runs keeps the lease past every inspection."""
    only_landing(world)
    with world.holding("build_candidate"):
        first = await driver.start(1)
        await world.called("build_candidate")
        epoch = (await driver.shown()).holding.epoch  # type: ignore[union-attr]
        await driver.forward(LIMITS[Phase.REBASING] * 2 + A_BIT, driver.queue)
        await world.called("inspect_holder", 2)
        holding = (await driver.shown()).holding
        assert holding is not None
        assert (holding.epoch, holding.request.holder) == (epoch, first.id)
    assert (await first.result()).outcome == "landed"


async def test_a_lost_request_is_repeated(driver: Driver, world: FakeWorld) -> None:
    """A wish that never reached the queue is repeated at the next look, and granted once."""
    only_landing(world)
    world.script("request_lease", Standing())
    handle = await driver.start()
    await world.waiting(WaitingOn.MERGE_QUEUE)
    await driver.forward(REGISTRY[Stage.DEPLOY_STAGING].grace + A_BIT)
    assert (await handle.result()).outcome == "landed"
    assert len({request.ticket for request in world.of("request_lease")}) == 1
    assert len(world.epochs.granted) == 1


async def test_a_grant_nobody_waits_for_is_given_back(driver: Driver, world: FakeWorld) -> None:
    """A lease granted to a wish that is over goes back at once, and does not keep the task awake."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON)
    lease = Lease(queue="merge/gone", epoch=7, ticket=99, granted_at=datetime(2026, 1, 1, tzinfo=UTC))
    await handle.signal(TaskWorkflow.lease_granted, lease)
    await world.called("release_lease")
    assert [release.lease for release in world.of("release_lease")] == [lease]
    assert not world.of("read_situation")
    assert len(world.gate_calls(Gate.SPEC_DECIDED)) == 1
    await handle.query(TaskWorkflow.status)
    assert not (await handle.describe()).raw_description.pending_activities


async def test_an_idle_queue_ends_and_comes_back(driver: Driver, world: FakeWorld) -> None:
    """A queue without entries and holder ends by itself; the next request starts it again, with a later epoch."""
    only_landing(world)
    assert (await (await driver.start(1)).result()).outcome == "landed"
    await world.called("close_lease")
    queue = driver.queue
    before = await queue.fetch_history()
    await driver.forward(IDLE_END + A_BIT, queue)
    await queue.result()
    ended = await driver.client.get_workflow_handle(queue.id, run_id=before.run_id).fetch_history()
    assert closing(ended) == "WORKFLOW_EXECUTION_COMPLETED"
    record("merge-queue", ended)

    assert (await (await driver.start(2)).result()).outcome == "landed"
    again = await queue.fetch_history()
    assert again.run_id != before.run_id
    first, second = (epoch for _, _, epoch in world.epochs.granted)
    assert second > first


async def test_a_queue_with_a_holder_never_ends(driver: Driver, world: FakeWorld) -> None:
    """However long a holder takes, the queue stays."""
    only_landing(world)
    with world.holding("build_candidate"):
        await driver.start()
        await world.called("build_candidate")
        await driver.forward(IDLE_END + A_BIT, driver.queue)
        assert await status_of(driver.queue) is WorkflowExecutionStatus.RUNNING
