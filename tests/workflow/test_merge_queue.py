"""What people and rows say to a merge queue: priority, freezes, passes, drops, phases; and how it outlives itself."""

from datetime import timedelta

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.fake_world import FakeWorld, a_sha
from tests.workflow.driving import Driver, closing, status_of
from workflows.contracts.landing import Landed, LandOutcome
from workflows.contracts.leases import BaseTested, HolderState
from workflows.lease_rules import BASE_TEST_FIRST, EXTENSIONS
from workflows.lease_state import LIMITS, Phase, QueueState, Release
from workflows.merge_queue import IDLE_END
from workflows.model import FreezeCause, GateOutcome, Policy, Priority, Stage, WaitingOn

A_BIT = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def only_landing(world: FakeWorld) -> None:
    """Without staging and production there is one lease only."""
    world.policy = Policy(test="make test", runner="scripted")


async def queued(driver: Driver, which: int) -> None:
    """Start a task at the merge gate and wait until it waits in the queue."""
    await driver.start_at(Stage.DEPLOY_STAGING, which)
    await driver.world.waiting(WaitingOn.MERGE_QUEUE, key=driver.world.key(which))


async def landed(driver: Driver, which: int) -> None:
    """Wait until a task has landed."""
    assert (await driver.handle(which).result()).outcome == "landed"


def holders(world: FakeWorld) -> list[str]:
    """Who was granted the merge lease, in order."""
    return [holder.removeprefix("task/") for _, holder, _ in world.epochs.granted]


def holding_of(state: QueueState) -> tuple[str, int] | None:
    """Who holds under which epoch."""
    return (state.holding.request.task, state.holding.epoch) if state.holding else None


async def test_an_urgent_item_overtakes_who_waits(driver: Driver, world: FakeWorld) -> None:
    """The item's priority in Plane puts its task before those who wait, behind the holder."""
    world.priorities[world.key(3)] = Priority.URGENT
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        await queued(driver, 3)
        assert await driver.in_line() == [world.key(3), world.key(2)]
    await landed(driver, 2)
    assert holders(world) == [world.key(1), world.key(3), world.key(2)]


async def test_a_bump_lets_a_task_overtake_and_is_on_record(driver: Driver, world: FakeWorld) -> None:
    """A person gives a waiting task another priority; what cannot be bumped is refused with a way to mend it."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        await queued(driver, 3)
        await driver.tell_queue("bump", 3, priority=Priority.HIGH, act_id="act-1", reason="hot")
        assert await driver.in_line() == [world.key(3), world.key(2)]
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await driver.tell_queue("bump", 1, priority=Priority.HIGH)
        assert isinstance(refused.value.cause, ApplicationError)
        assert "holds the lease (rebasing)" in refused.value.cause.message
    (act,) = world.lease_rows.tasks.acts
    assert (act["act"], act["task"], act["actor"], act["reason"]) == ("bump", world.key(3), "olga", "hot")


async def test_a_waiting_task_says_its_place_and_whom_it_waits_for(driver: Driver, world: FakeWorld) -> None:
    """The reason of the wait names position, holder and the holder's phase."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        await queued(driver, 3)
        reason = f"queued for the merge lease, 2nd of 2, behind {world.key(1)} (rebasing)"
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(3), reason=reason)


async def test_a_frozen_queue_grants_nobody_until_it_is_lifted(driver: Driver, world: FakeWorld) -> None:
    """A task that meets a freeze waits and says why; lifting the cause lets it land."""
    await driver.freeze(FreezeCause.OPERATOR)
    await queued(driver, 1)
    await world.waiting(WaitingOn.MERGE_QUEUE, reason="the merge queue is frozen: operator since 2026-01-01")
    assert not world.epochs.granted
    await driver.unfreeze(FreezeCause.OPERATOR)
    await landed(driver, 1)


async def test_a_pass_lets_one_task_through(driver: Driver, world: FakeWorld) -> None:
    """A task with a pass lands through the cause, which its lease names; the others go on waiting."""
    await driver.freeze(FreezeCause.BASE_REWOUND)
    await queued(driver, 1)
    await queued(driver, 2)
    await driver.tell_queue("grant_pass", 2)
    await landed(driver, 2)
    (build,) = world.of("build_candidate")
    assert build.lease.passes == (FreezeCause.BASE_REWOUND,)
    assert await driver.in_line() == [world.key(1)]
    assert [act["act"] for act in world.lease_rows.tasks.acts] == ["pass"]


async def test_a_pass_through_nothing_is_refused(driver: Driver, world: FakeWorld) -> None:
    """Where no cause stands a pass is refused, and nothing is recorded."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await driver.tell_queue("grant_pass", 2)
        assert "not frozen" in str(refused.value.cause)
    assert not world.lease_rows.tasks.acts


async def test_a_dropped_task_asks_a_person_and_keeps_its_place(driver: Driver, world: FakeWorld) -> None:
    """Whoever is dropped leaves the line, says by whom and why, and stands where it stood after a retry."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        await queued(driver, 3)
        await driver.tell_queue("drop", 2, reason="too big")
        asks = "dropped from the merge queue by olga: too big; retry queues it again"
        after = await world.waiting(WaitingOn.PERSON, key=world.key(2), reason=asks)
        assert await driver.in_line() == [world.key(3)]
        await driver.retry(2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2), after=after)
        assert await driver.in_line() == [world.key(2), world.key(3)]
    await landed(driver, 2)


async def test_a_re_queued_task_keeps_its_place(driver: Driver, world: FakeWorld) -> None:
    """A task thrown back because main moved asks under a new ticket and the same place."""
    world.script("land", Landed(outcome=LandOutcome.MAIN_MOVED, reason="main moved"))
    await driver.start_at(Stage.DEPLOY_STAGING)
    await landed(driver, 1)
    first, second = [request for request in world.of("request_lease") if request.kind == "merge"]
    assert first.place is not None
    assert (first.place, first.ticket < second.ticket) == (second.place, True)


async def test_production_goes_in_the_order_of_landing(driver: Driver, world: FakeWorld) -> None:
    """The wish for production carries when the task landed and no priority, however urgent its item is."""
    world.policy = world.policy.model_copy(update={"production": "make production"})
    world.priorities[world.key(1)] = Priority.URGENT
    handle = await driver.start_at(Stage.DEPLOY_STAGING)
    await handle.result()
    merge, production = world.of("request_lease")
    assert (merge.priority, production.priority) == (Priority.URGENT, Priority.NONE)
    assert production.place > merge.place


async def test_a_phase_is_shown_and_has_its_own_deadline(driver: Driver, world: FakeWorld) -> None:
    """The queue knows what its holder does, and asks about it at that phase's deadline."""
    with world.holding("run_tests"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("run_tests")
        holding = (await driver.shown()).holding
        assert holding is not None
        assert (holding.phase, holding.deadline - holding.since) == (Phase.TESTING, LIMITS[Phase.TESTING])


async def test_a_holder_without_progress_loses_the_lease(driver: Driver, world: FakeWorld) -> None:
    """A holder that runs and does not get on is reclaimed after its extensions; its late release clears nobody."""
    with world.holding("build_candidate"):
        first = await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        world.script("inspect_holder", *[HolderState(running=True, mark="g1 step 1.1")] * (EXTENSIONS + 1))
        for look in range(1, EXTENSIONS + 2):
            assert len(world.of("build_candidate")) == 1
            await driver.forward(LIMITS[Phase.REBASING] + A_BIT, driver.queue)
            await world.called("inspect_holder", look)
        await world.called("build_candidate", 2)
        old, new = (epoch for _, _, epoch in world.epochs.granted)
        await driver.queue.signal("release", Release(holder=first.id, epoch=old))
        assert holding_of(await driver.shown()) == (world.key(2), new)
    await landed(driver, 2)


async def test_a_newer_generation_is_not_the_holder(driver: Driver, world: FakeWorld) -> None:
    """A task whose next generation works under the same run of its id holds nothing any more."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        world.lease_rows.fences.marks[world.key(1)] = (2, "g2 step 1.1")
        await driver.forward(LIMITS[Phase.REBASING] + A_BIT, driver.queue)
        await world.called("build_candidate", 2)


async def test_who_has_landed_needs_the_lease_no_more(driver: Driver, world: FakeWorld) -> None:
    """A holder whose candidate is landed and read back does not block the next one, though it still runs."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        world.epochs.landed.add(world.epochs.last)
        await driver.forward(LIMITS[Phase.REBASING] + A_BIT, driver.queue)
        await world.called("build_candidate", 2)


async def test_a_queue_that_starts_anew_keeps_freeze_and_epoch(driver: Driver, world: FakeWorld) -> None:
    """After its workflow was terminated a queue finds the open lease and the freeze in the rows, and who waits asks."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        before = await driver.shown()
        await driver.queue.terminate("for the test")
        await driver.freeze(FreezeCause.OPERATOR)
        await world.called("inspect_holder")
        after = await driver.shown()
        assert holding_of(after) == holding_of(before)
        assert after.causes == (FreezeCause.OPERATOR,)
    await landed(driver, 1)
    assert len(world.epochs.granted) == 1


async def test_a_frozen_queue_outlives_its_idle_end(driver: Driver, world: FakeWorld) -> None:
    """A queue nobody waits in stays while it is frozen, and looks at its rows again; lifted, it ends."""
    await driver.freeze(FreezeCause.OPERATOR)
    await world.called("read_queue")
    looks = len(world.of("read_queue"))
    await driver.forward(IDLE_END + A_BIT, driver.queue)
    await world.called("read_queue", looks + 1)
    assert (await driver.shown()).causes == (FreezeCause.OPERATOR,)
    world.lease_rows.freezes.rows.clear()
    await driver.forward(IDLE_END + A_BIT, driver.queue)
    await world.called("read_queue", looks + 2)
    assert not (await driver.shown()).causes
    await driver.forward(IDLE_END + A_BIT, driver.queue)
    await driver.queue.result()


async def test_a_long_history_is_continued_with_everything(driver: Driver, world: FakeWorld) -> None:
    """Holder, line, freeze and pass go over into the queue's next run."""
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await queued(driver, 2)
        await driver.freeze(FreezeCause.DEPLOY_FAILED)
        await driver.tell_queue("grant_pass", 2)
        before, first_run = await driver.shown(), (await driver.queue.fetch_history()).run_id
        for _ in range(4):
            await driver.queue.signal("release", Release(holder="x" * 1_200_000, epoch=0))
        await driver.refresh()
        ended = driver.client.get_workflow_handle(driver.queue.id, run_id=first_run)
        while await status_of(ended) == 1:
            await driver.shown()
        assert closing(await ended.fetch_history()) == "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"
        assert await driver.shown() == before
    await landed(driver, 2)


async def test_a_red_base_is_tested_again_until_it_is_green(driver: Driver, world: FakeWorld) -> None:
    """The queue tests its base with growing waits, lifts the cause by itself and grants again."""
    red = BaseTested(outcome=GateOutcome.RED, sha=a_sha("main"), reason="1 failed")
    unknown = BaseTested(outcome=GateOutcome.UNKNOWN, reason="no policy")
    world.script("test_base", red, unknown)
    await driver.freeze(FreezeCause.BASE_RED)
    await queued(driver, 1)
    for test in range(3):
        assert len(world.of("test_base")) == test
        assert not world.epochs.granted
        await driver.forward(BASE_TEST_FIRST * 2**test + A_BIT, driver.queue)
        await world.called("test_base", test + 1)
        await driver.shown()
    await landed(driver, 1)
    (lift,) = (lift for lift in world.of("lift_freeze") if lift.cause is FreezeCause.BASE_RED)
    assert lift.by == "the merge queue"
    assert world.of("test_base")[0].repository == world.repository


async def test_news_of_the_base_bring_its_test_forward(driver: Driver, world: FakeWorld) -> None:
    """A queue that hears that its base moved tests it at once."""
    await driver.freeze(FreezeCause.BASE_RED)
    await world.called("read_queue")
    await driver.shown()
    await driver.queue.signal("base_moved")
    await world.called("lift_freeze")
