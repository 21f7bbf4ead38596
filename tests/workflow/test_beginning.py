"""Whether a task starts at all, and what reaches it before that is known."""

from datetime import UTC, datetime, timedelta

from tests.fake_world import FakeWorld
from tests.workflow.driving import Driver
from workflows.beginning import START_PATIENCE
from workflows.contracts.items import Beginning, Start
from workflows.hints import Hint, Source, Topic
from workflows.model import GateOutcome, Lease, WaitingOn
from workflows.stages import Gate
from workflows.task import TaskWorkflow

NOT_STARTED = Beginning(start=Start.NOT_STARTED, reason="no person has started it anew")
NOT_YET_KNOWN = Beginning(start=Start.NOT_YET_KNOWN, reason="Plane has not recorded who moved the item")


async def test_what_no_person_started_ends_at_once(driver: Driver, world: FakeWorld) -> None:
    """A run that no person started says why and leaves nothing behind: no row, no host, no comment."""
    world.script("begin_generation", NOT_STARTED)
    handle = await driver.start()
    assert (await handle.result()).outcome == "not started: no person has started it anew"
    assert [name for name, _ in world.calls] == ["begin_generation"]


async def test_a_late_activity_is_waited_for(driver: Driver, world: FakeWorld) -> None:
    """While Plane has not written who moved the item, the task asks again, and starts when it knows."""
    world.script("begin_generation", NOT_YET_KNOWN, NOT_YET_KNOWN)
    await driver.start()
    await world.called("begin_generation")
    assert "is looking whether a person started it" in (await driver.status()).why
    await driver.forward(timedelta(seconds=10))
    await world.called("prepare_workspace")
    assert len(world.of("begin_generation")) == 3


async def test_an_activity_that_never_comes_ends_the_wait(driver: Driver, world: FakeWorld) -> None:
    """After ten minutes without knowing who moved the item the task ends, and says so."""
    world.script("begin_generation", *[NOT_YET_KNOWN] * 100)
    handle = await driver.start()
    await world.called("begin_generation")
    await driver.forward(START_PATIENCE + timedelta(minutes=2))
    outcome = (await handle.result()).outcome
    assert outcome == f"not started: {NOT_YET_KNOWN.reason}; nobody's move was recorded within {START_PATIENCE}"
    assert not world.progress


async def test_signals_before_the_state_exists_are_not_lost(driver: Driver, world: FakeWorld) -> None:
    """Hints and grants that come while it is not known who started the task are kept until it is."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    lease = Lease(queue="merge/gone", epoch=7, ticket=3, granted_at=datetime(2026, 1, 1, tzinfo=UTC))
    with world.holding("begin_generation"):
        handle = await driver.start(hint=Hint(topic=Topic.ITEM, source=Source.PLANE))
        await driver.hint(Topic.DECISION)
        await handle.signal(TaskWorkflow.lease_granted, lease)
        await world.called("begin_generation")
        assert await handle.query(TaskWorkflow.timeline) == []
    await world.waiting(WaitingOn.PERSON)
    await world.called("release_lease")
    assert world.of("release_lease")[0].lease == lease


async def test_acts_before_the_state_exists_are_refused(driver: Driver, world: FakeWorld) -> None:
    """Nobody can approve what has not been asked: the validator refuses, and the task goes on."""
    import pytest
    from temporalio.client import WorkflowUpdateFailedError

    with world.holding("begin_generation"):
        await driver.start()
        await world.called("begin_generation")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await driver.retry()
    assert "this task is not running" in str(refused.value.cause)


async def test_a_second_generation_has_its_own_branch_and_later_steps(driver: Driver, world: FakeWorld) -> None:
    """A new life of a task works on a branch of its own, and its fences outrank a terminated run's."""
    key = world.key()
    world.script("begin_generation", world.beginning(key, generation=2, step=57, start_activity="activity-9"))
    await driver.start()
    await world.called("prepare_workspace")
    prepared = world.of("prepare_workspace")[0]
    assert (prepared.branch, prepared.ref.generation) == (f"task/{key}-g2", 2)
    assert prepared.ref.step > 57


async def test_a_broken_policy_waits_for_a_person(driver: Driver, world: FakeWorld) -> None:
    """A missing or broken pipeline file is never taken for defaults: a person mends it and says retry."""
    from workflows.contracts.gates import PolicyReading

    world.script("read_policy", PolicyReading(problem=".orch/pipeline.toml: commands.test: missing"))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="commands.test")
    assert "commands.test: missing" in await handle.query(TaskWorkflow.why)
    assert not world.of("prepare_workspace")
    await driver.retry()
    await world.called("prepare_workspace")
