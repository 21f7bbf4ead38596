"""People win over any agent, at any time: pause, resume, cancel, and what they do in Plane and Gitea."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from tests.fake_world import FakeWorld, a_sha
from tests.workflow.driving import Driver, record
from workflows.hints import Source, Topic
from workflows.model import GateOutcome, Stage, WaitingOn
from workflows.situation import ItemStanding, PullStanding, StateKind
from workflows.stages import REGISTRY, Gate
from workflows.task import TaskWorkflow
from workflows.watching import SURVEY_GRACE

STAGES = [stage for stage in Stage if stage is not Stage.DONE]
Way = Callable[[Driver, FakeWorld], Awaitable[None]]


async def pause_by_update(driver: Driver, world: FakeWorld) -> None:
    """An operator says pause."""
    await driver.tell(TaskWorkflow.pause)


async def resume_by_update(driver: Driver, world: FakeWorld) -> None:
    """An operator says resume."""
    await driver.tell(TaskWorkflow.resume)


async def pause_by_move(driver: Driver, world: FakeWorld) -> None:
    """A person moves the item back to a state in which nothing has started."""
    world.person_moves(StateKind.NOT_STARTED)
    await driver.hint(Topic.ITEM, Source.PLANE)


async def resume_by_move(driver: Driver, world: FakeWorld) -> None:
    """A person moves the item to In Progress."""
    world.person_moves(StateKind.IN_PROGRESS)
    await driver.hint(Topic.ITEM, Source.PLANE)


WAYS = {"update": (pause_by_update, resume_by_update), "move": (pause_by_move, resume_by_move)}


async def paused(driver: Driver, world: FakeWorld, reason: str = "") -> None:
    """Wait until the task stands still; then it has no activity, and holds no lease."""
    await world.until(
        lambda: any("is paused: " in row.announce and reason in row.announce for row in world.progress),
        f"paused {reason}",
    )
    status = await driver.status()
    assert "paused since" in status.why
    assert status.lease is None


def ended_agents(world: FakeWorld, stage: Stage) -> int:
    """How many agents of a stage have worked to their end."""
    begun = [job for job in world.of("run_agent") if job.ref.stage is stage]
    return len(begun) - world.cancelled.count("run_agent")


def all_given_back(world: FakeWorld, stage: Stage) -> bool:
    """Whether every lease that was held is free again; a task that starts at deploy holds one."""
    held = {epoch for _, _, epoch in world.epochs.granted} | ({world.held_epoch} if stage is Stage.DEPLOY else set())
    return world.epochs.released == held


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
async def test_a_pause_breaks_the_agent_off_and_resume_plays_the_round_again(
    driver: Driver, world: FakeWorld, stage: Stage, way: str
) -> None:
    """While a stage's agent works, a pause really breaks it off, and the contrary act plays the round again."""
    pause, resume = WAYS[way]
    with world.holding("run_agent"):
        handle = await driver.start_at(stage)
        await world.called("run_agent")
        await pause(driver, world)
        await paused(driver, world)
        assert world.cancelled.count("run_agent") == 1
    await resume(driver, world)
    await world.called("run_agent", 2)
    first, second = world.of("run_agent")[:2]
    assert (first.ref.stage, first.ref.round) == (second.ref.stage, second.ref.round) == (stage, 1)
    assert second.ref.step > first.ref.step
    await driver.left(stage)
    assert ended_agents(world, stage) == 1
    await handle.terminate()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
async def test_a_pause_while_a_gate_waits_costs_no_work(
    driver: Driver, world: FakeWorld, stage: Stage, way: str
) -> None:
    """While a stage's gate waits, pause and resume ask the gate again, and no agent's finished work is done again."""
    pause, resume = WAYS[way]
    gate = REGISTRY[stage].gate
    world.says(gate, GateOutcome.PENDING)
    handle = await driver.start_at(stage)
    await world.until(lambda: len(world.gate_calls(gate)) == 1, "the gate is asked")
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    looks = len(world.gate_calls(gate))
    deployed, landed = len(world.of("deploy")), len(world.of("land"))
    await pause(driver, world)
    await paused(driver, world)
    assert all_given_back(world, stage)
    world.says(gate, GateOutcome.GREEN)
    await resume(driver, world)
    await driver.left(stage)
    assert len(world.gate_calls(gate)) > looks
    assert ended_agents(world, stage) == 1
    assert world.of("publish_work")[1:] == []
    assert (len(world.of("land")), len(world.of("deploy"))) == (landed, deployed)
    if stage is Stage.DEPLOY_STAGING:
        assert len([name for name in world.names() if name == "request merge lease"]) == 2
    if (stage, way) == (Stage.REVIEW, "update"):
        record("task-review-paused", (await driver.runs(handle))[0])
    await handle.terminate()


@pytest.mark.parametrize("stage", STAGES)
async def test_cancel_ends_the_task_at_every_stage(driver: Driver, world: FakeWorld, stage: Stage) -> None:
    """Cancel before landing ends as cancelled, before production is judged as that; both clean up and say so."""
    with world.holding("run_agent"):
        handle = await driver.start_at(stage)
        await world.called("run_agent")
        await driver.tell(TaskWorkflow.cancel)
        result = await handle.result()
    landed = stage is Stage.DEPLOY
    assert result.outcome == ("deployed, not judged" if landed else "cancelled")
    assert world.cancelled.count("run_agent") == 1
    assert world.names()[-3:] == ["move item to cancelled", "post_comment", "remove_workspaces"]
    comment = world.of("post_comment")[-1]
    assert comment.effect == "closing-comment"
    assert ("git revert" in comment.body) == landed
    assert world.progress[-1].outcome == result.outcome
    if landed:
        record("task-deploy-cancelled", (await driver.runs(handle))[0])


async def test_an_item_moved_to_cancelled_ends_the_task(driver: Driver, world: FakeWorld) -> None:
    """A person's move to a cancelled state is a cancellation."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    handle = await driver.start_at(Stage.DEVELOPMENT)
    await world.waiting(WaitingOn.CI)
    world.person_moves(StateKind.CANCELLED)
    await driver.hint(Topic.ITEM, Source.PLANE)
    assert (await handle.result()).outcome == "cancelled"


async def test_a_lost_cancellation_is_found_without_a_hint(driver: Driver, world: FakeWorld) -> None:
    """When nobody tells us that an item was cancelled, the survey's timer finds it."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    handle = await driver.start_at(Stage.DEVELOPMENT)
    await world.waiting(WaitingOn.CI)
    world.person_moves(StateKind.CANCELLED)
    await driver.forward(SURVEY_GRACE + timedelta(seconds=1))
    assert (await handle.result()).outcome == "cancelled"
    assert len(world.of("read_situation")) == 1


GONE = {
    "missing": ({"item": ItemStanding.MISSING}, "deleted or archived", Topic.ITEM),
    "closed": ({"pull": PullStanding.CLOSED}, "was closed", Topic.PULL_REQUEST),
    "branch": ({"branch_gone": True}, "branch was deleted", Topic.BRANCH),
}


@pytest.mark.parametrize("what", GONE)
async def test_what_is_gone_pauses_and_what_is_back_resumes(driver: Driver, world: FakeWorld, what: str) -> None:
    """A missing item, a closed pull request or a deleted branch pauses the task; restoring it is enough to go on."""
    found, reason, topic = GONE[what]
    world.says(Gate.REVIEW_PASSED, GateOutcome.PENDING)
    await driver.start_at(Stage.REVIEW)
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    world.find(**found)
    await driver.hint(topic)
    await paused(driver, world, reason)
    world.says(Gate.REVIEW_PASSED, GateOutcome.GREEN)
    world.find()
    await driver.hint(topic)
    await driver.left(Stage.REVIEW)
    assert ended_agents(world, Stage.REVIEW) == 1


async def test_a_task_whose_item_is_gone_can_be_cancelled(driver: Driver, world: FakeWorld) -> None:
    """Cancelling while the item is missing writes nothing to Plane, and cleans up."""
    world.says(Gate.REVIEW_PASSED, GateOutcome.PENDING)
    handle = await driver.start_at(Stage.REVIEW)
    await world.until(lambda: any(row.waiting for row in world.progress), "the gate waits")
    world.find(item=ItemStanding.MISSING)
    await driver.hint(Topic.ITEM)
    await paused(driver, world)
    await driver.tell(TaskWorkflow.cancel)
    assert (await handle.result()).outcome == "cancelled"
    assert not world.of("move_item")
    assert world.names()[-1] == "remove_workspaces"


async def test_merged_by_hand_is_done_by_hand(driver: Driver, world: FakeWorld) -> None:
    """A person's merge ends the task, whatever it did: the item is done, and a comment says what was not tested."""
    with world.holding("run_agent"):
        handle = await driver.start_at(Stage.TESTING)
        await world.called("run_agent")
        world.find(pull=PullStanding.MERGED_BY_HAND, merged_sha=a_sha("hand"))
        await driver.hint(Topic.PULL_REQUEST)
        assert (await handle.result()).outcome == "done by hand"
    assert "move item to done" in world.names()
    assert "not tested or deployed" in world.of("post_comment")[-1].body
    assert not world.of("land")
    record("task-testing-merged-by-hand", (await driver.runs(handle))[0])


async def test_what_cannot_be_read_never_interrupts(driver: Driver, world: FakeWorld) -> None:
    """A source that is down or refuses is never taken for a person's act, not even when the activity itself fails."""
    world.script("read_situation", ApplicationError("no such project", type="ProjectNotConfigured", non_retryable=True))
    world.find(problem="plane answers 503", item=ItemStanding.MISSING, pull=PullStanding.CLOSED)
    with world.holding("run_agent"):
        await driver.start_at(Stage.REVIEW)
        await world.called("run_agent")
        for times in (1, 2):
            await driver.hint(Topic.ITEM)
            await world.until(lambda times=times: world.begun("read_situation") == times, "a look")  # type: ignore[misc]
    await driver.left(Stage.REVIEW)
    assert not world.cancelled


@pytest.mark.parametrize("command", ["pause", "cancel", "temporal cancel"])
@pytest.mark.parametrize("name", ["land", "deploy"])
async def test_a_landing_or_deployment_is_seen_through(
    driver: Driver, world: FakeWorld, name: str, command: str
) -> None:
    """What has begun to land or to deploy ends before a pause or a cancellation acts, and is not forgotten by it."""
    with world.holding(name):
        handle = await driver.start_at(Stage.DEPLOY)
        await world.called(name)
        if command == "temporal cancel":
            await handle.cancel()
            await driver.status()
        else:
            await driver.tell(getattr(TaskWorkflow, command))
            await world.called("record_act")
    if command == "pause":
        await paused(driver, world)
        assert (await driver.status()).landed_sha
        await driver.tell(TaskWorkflow.resume)
        assert (await handle.result()).outcome == "done"
        assert (len(world.of("land")), len(world.of("deploy"))) == (1, 1)
    else:
        result = await handle.result()
        expected = {"land": ("landed, not deployed", ""), "deploy": ("deployed, not judged", result.landed_sha)}
        assert (result.outcome, result.deployed_sha) == expected[name]
        said = world.of("post_comment")[-1].body
        assert ("nobody has judged it" in said) == (name == "deploy")
        assert "git revert" in said
    assert name not in world.cancelled
    assert all_given_back(world, Stage.DEPLOY)


async def test_temporals_own_cancel_ends_as_cancelled_and_cleans_up(driver: Driver, world: FakeWorld) -> None:
    """A cancelled workflow breaks its agent off, closes its books and leaves no folder, like a cancelled task."""
    with world.holding("run_agent"):
        handle = await driver.start_at(Stage.REVIEW)
        await world.called("run_agent")
        await handle.cancel()
        assert (await handle.result()).outcome == "cancelled"
    assert world.cancelled == ["run_agent"]
    assert world.names()[-3:] == ["move item to cancelled", "post_comment", "remove_workspaces"]


async def test_a_cancelled_activity_that_succeeds_all_the_same_revives_nothing(
    driver: Driver, world: FakeWorld
) -> None:
    """A stage that is broken off stays broken off, even if its activity ends well in spite of the cancellation."""
    with world.holding("run_agent", stubborn=True):
        await driver.start_at(Stage.REVIEW)
        await world.called("run_agent")
        await driver.tell(TaskWorkflow.pause)
        await world.called("record_act")
        await driver.status()
    await paused(driver, world)
    assert not world.of("post_review")
    assert not world.gate_calls(Gate.REVIEW_PASSED)
    await driver.tell(TaskWorkflow.resume)
    await driver.left(Stage.REVIEW)


async def test_a_pause_in_the_merge_queue_leaves_it_and_keeps_the_place(driver: Driver, world: FakeWorld) -> None:
    """A paused task leaves the line at once, blocks nobody, and stands where it stood when it goes on."""
    world.policy = world.policy.model_copy(update={"staging": None, "production": None})
    with world.holding("build_candidate"):
        await driver.start_at(Stage.DEPLOY_STAGING)
        await world.called("build_candidate")
        await driver.start_at(Stage.DEPLOY_STAGING, which=2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2))
        await driver.start_at(Stage.DEPLOY_STAGING, which=3)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(3))
        await driver.tell(TaskWorkflow.pause, which=2)
        await world.until(lambda: any("is paused" in row.announce for row in world.progress), "paused")
        assert await driver.in_line() == [world.key(3)]
        after = len(world.progress)
        await driver.tell(TaskWorkflow.resume, which=2)
        await world.waiting(WaitingOn.MERGE_QUEUE, key=world.key(2), after=after)
        assert await driver.in_line() == [world.key(2), world.key(3)]
    assert (await driver.handle(2).result()).outcome == (await driver.handle(3).result()).outcome == "landed"
    assert [holder for _, holder, _ in world.epochs.granted] == [driver.handle(n).id for n in (1, 2, 3)]


async def test_ask_again_after_a_pause_is_a_new_question(driver: Driver, world: FakeWorld) -> None:
    """After a pause the decision is asked for under a new intent, so that only answers after it count."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    await driver.start_at(Stage.ANALYSIS)
    await world.waiting(WaitingOn.PERSON)
    await pause_by_move(driver, world)
    await paused(driver, world)
    await resume_by_move(driver, world)
    await world.called("ask_decision", 2)
    asked = lambda: [question.ask_effect for question in world.gate_calls(Gate.SPEC_DECIDED)]  # noqa: E731
    await world.until(lambda: asked()[-1] == "ask-2", "the gate is asked about the new question")
    assert [question.effect for question in world.of("ask_decision")] == ["ask-1", "ask-2"]
    assert len(world.of("run_agent")) == 1


async def test_hints_for_the_watch_outlive_the_run(driver: Driver, world: FakeWorld) -> None:
    """A hint whose look is broken off by the end of a stage makes the next run look."""
    with world.holding("read_situation"):
        with world.holding("show_status"):
            handle = await driver.start_at(Stage.REVIEW)
            await world.called("show_status")
            world.person_moves(StateKind.CANCELLED)
            await driver.hint(Topic.ITEM, Source.PLANE)
            await world.called("read_situation")
        await world.called("run_tests")
    assert (await handle.result()).outcome == "cancelled"
    assert world.begun("read_situation") == 2


async def test_a_move_read_while_the_stage_ends_is_not_forgotten(driver: Driver, world: FakeWorld) -> None:
    """A cancellation that was read in the very moment the stage was left still ends the task."""
    with world.holding("show_status"), world.holding("read_situation"):
        handle = await driver.start_at(Stage.REVIEW)
        await world.called("show_status")
        world.person_moves(StateKind.CANCELLED)
        await driver.hint(Topic.ITEM, Source.PLANE)
        await world.called("read_situation")
    assert (await handle.result()).outcome == "cancelled"
