"""One life after another: what a person starts anew while the last one ends, and what only sounds like it."""

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.fake_world import FakeWorld
from tests.workflow.driving import Driver, closing, record
from workflows.contracts.items import Beginning, Start
from workflows.hints import Source, Topic
from workflows.model import GateOutcome, Stage, WaitingOn
from workflows.stages import Gate
from workflows.task import TaskWorkflow

ECHO = Beginning(start=Start.NOT_STARTED, reason="no person has started it anew")


async def cancelled_while(driver: Driver, world: FakeWorld, *topics: Topic) -> None:
    """A task is cancelled, and hints arrive while it closes its books."""
    world.says(Gate.REVIEW_PASSED, GateOutcome.PENDING)
    await driver.start_at(Stage.REVIEW)
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    with world.holding("remove_workspaces"):
        await driver.tell(TaskWorkflow.cancel)
        await world.called("remove_workspaces")
        for topic in topics:
            await driver.hint(topic, Source.PLANE)


async def test_a_restart_while_the_run_closes_is_the_next_generation(driver: Driver, world: FakeWorld) -> None:
    """A person who starts the item anew while the task is closing gets a new generation, on a new branch."""
    key = world.key()
    world.script("begin_generation", *[world.beginning(key, generation=2, start_activity="activity-9")] * 2)
    await cancelled_while(driver, world, Topic.ITEM)
    await world.called("prepare_workspace", 2)
    again = world.of("prepare_workspace")[1]
    assert (again.ref.generation, again.branch) == (2, f"task/{key}-g2")
    status = await driver.status()
    assert (status.generation, status.stage, status.round) == (2, Stage.ANALYSIS, 1)
    first = (await driver.runs(driver.handle()))[0]
    assert closing(first) == "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"
    record("task-next-generation", first)


async def test_our_own_echo_restarts_nothing(driver: Driver, world: FakeWorld) -> None:
    """When only the echo of our own closing comment woke it, the task asks Plane once, and ends."""
    world.script("begin_generation", ECHO)
    await cancelled_while(driver, world, Topic.ITEM)
    assert (await driver.handle().result()).outcome == "cancelled"
    assert len(world.of("begin_generation")) == 1


async def test_without_a_hint_nobody_is_asked_at_the_end(driver: Driver, world: FakeWorld) -> None:
    """A run that heard nothing while it closed, or only of CI, ends without looking for a restart."""
    await cancelled_while(driver, world, Topic.CI)
    assert (await driver.handle().result()).outcome == "cancelled"
    assert not world.of("begin_generation")


async def test_what_has_ended_takes_no_orders(driver: Driver, world: FakeWorld) -> None:
    """An act that comes while the task records its end is refused, with the way to a new generation."""
    world.says(Gate.REVIEW_PASSED, GateOutcome.PENDING)
    await driver.start_at(Stage.REVIEW)
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    with world.holding("remove_workspaces"):
        await driver.tell(TaskWorkflow.cancel)
        await world.called("remove_workspaces")
        release = world.holding("record_progress")
        release.__enter__()
    await world.until(lambda: world.of("record_progress")[-1].outcome == "cancelled", "the end is recorded")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await driver.tell(TaskWorkflow.pause)
    release.__exit__(None, None, None)
    assert "not running" in str(refused.value.cause)
    assert (await driver.handle().result()).outcome == "cancelled"


async def test_a_paused_task_waits_for_a_person(driver: Driver, world: FakeWorld) -> None:
    """A paused task says that it needs a person, and cannot be paused twice."""
    world.says(Gate.REVIEW_PASSED, GateOutcome.PENDING)
    await driver.start_at(Stage.REVIEW)
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    await driver.tell(TaskWorkflow.pause, reason="holidays")
    await world.waiting(WaitingOn.PERSON, reason="olga said pause: holidays")
    with pytest.raises(WorkflowUpdateFailedError):
        await driver.tell(TaskWorkflow.pause)
