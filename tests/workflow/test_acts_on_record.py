"""Acts that are rows before they are hints: taken exactly once, in order, or refused with words."""

from datetime import UTC, datetime, timedelta

from tests.fake_world import FakeWorld, judged
from tests.workflow.driving import Driver
from workflows.hints import Source, Topic
from workflows.model import GateOutcome, Stage, WaitingOn
from workflows.stages import Gate
from workflows.state import Act, OperatorAct
from workflows.task import TaskWorkflow
from workflows.watching import SURVEY_GRACE

A_BIT = timedelta(seconds=1)


def put(world: FakeWorld, *acts: Act) -> None:
    """Olga says something with the command line: rows, and nobody is told."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    world.on_record += [
        OperatorAct(act_id=f"{act}-{number}", act=act, by="olga", at=now, via="orch") for number, act in enumerate(acts)
    ]


async def waits_for_ci(driver: Driver, world: FakeWorld) -> None:
    """A task in development whose CI is silent."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    await driver.start_at(Stage.DEVELOPMENT)
    await world.waiting(WaitingOn.CI)


async def test_a_row_and_a_hint_pause(driver: Driver, world: FakeWorld) -> None:
    """An act on record is taken after a hint: it is marked, the task stands still and says so in its row."""
    await waits_for_ci(driver, world)
    looks = len(world.gate_calls(Gate.CI_GREEN))
    put(world, Act.PAUSE)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    await world.until(lambda: any(row.paused for row in world.progress), "paused")
    assert world.outcomes == {"pause-0": "taken"}
    paused = world.progress[-1].paused
    assert paused is not None
    assert paused.reason == "olga said pause"
    assert len(world.gate_calls(Gate.CI_GREEN)) == looks, "such a hint is nothing for a gate"
    assert [act.act.via for act in world.acts] == ["orch"]


async def test_a_lost_hint_only_costs_time(driver: Driver, world: FakeWorld) -> None:
    """Without any hint the watch finds the act on its timer; a paused task looks by itself, too."""
    await waits_for_ci(driver, world)
    put(world, Act.PAUSE)
    await driver.forward(SURVEY_GRACE + A_BIT)
    await world.until(lambda: any(row.paused for row in world.progress), "paused")
    put(world, Act.RESUME)
    await driver.forward(SURVEY_GRACE + A_BIT)
    await world.until(lambda: world.progress[-1].paused is None, "resumed")
    assert world.outcomes == {"pause-0": "taken", "resume-0": "taken"}


async def test_acts_take_effect_in_their_order(driver: Driver, world: FakeWorld) -> None:
    """Pause and resume that were put on record together are both taken: the second is judged after the first."""
    await waits_for_ci(driver, world)
    put(world, Act.PAUSE, Act.RESUME)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    await world.until(lambda: len(world.outcomes) == 2, "both are taken")
    await world.until(
        lambda: any("resumed: olga said resume" in line.text for row in world.progress for line in row.lines), "resumed"
    )
    assert world.outcomes == {"pause-0": "taken", "resume-1": "taken"}


async def test_what_is_not_possible_is_refused_on_record(driver: Driver, world: FakeWorld) -> None:
    """An act that the task refuses is marked with the reason, is on the timeline, and does not hide the next one."""
    await waits_for_ci(driver, world)
    put(world, Act.RESUME, Act.CANCEL)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    assert (await driver.handle().result()).outcome == "cancelled"
    assert world.outcomes["resume-0"].startswith("refused: nothing to resume: ")
    assert world.outcomes["cancel-1"] == "taken"
    assert any("resume by olga refused" in line.text for row in world.progress for line in row.lines)


async def test_an_act_is_taken_once_however_often_it_is_read(driver: Driver, world: FakeWorld) -> None:
    """A row that still looks open when it is read again does nothing twice."""
    await waits_for_ci(driver, world)
    put(world, Act.PAUSE)
    stale = list(world.on_record)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    await world.until(lambda: any(row.paused for row in world.progress), "paused")
    await driver.tell(TaskWorkflow.resume)
    await world.until(lambda: world.progress[-1].paused is None, "resumed")
    world.on_record = stale
    reads = world.begun("read_acts")
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    await world.until(lambda: world.ended.count("read_acts") > reads, "read again")
    assert "paused" not in (await driver.status()).why
    assert len([act for act in world.acts if act.act.act is Act.PAUSE]) == 1
    put(world, Act.CANCEL)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    assert (await driver.handle().result()).outcome == "cancelled", "it hides no later act"


async def test_a_retry_on_record_goes_to_the_stage_that_waits(driver: Driver, world: FakeWorld) -> None:
    """A retry from the record answers whoever waits for a person, in the stage."""
    world.policy = world.policy.model_copy(update={"caps": {"failures": 0}})
    world.script_gate(Gate.DESIGN_PRESENT, judged(Gate.DESIGN_PRESENT, GateOutcome.RED, "no headings"))
    await driver.start_at(Stage.ARCHITECTURE)
    await world.waiting(WaitingOn.PERSON, reason="0 of 0 failures are spent")
    put(world, Act.RETRY)
    await driver.hint(Topic.OPERATOR, Source.OPERATOR)
    await driver.left(Stage.ARCHITECTURE)
    assert world.outcomes == {"retry-0": "taken"}


async def test_an_act_read_while_the_stage_ends_is_not_forgotten(driver: Driver, world: FakeWorld) -> None:
    """A look at the record that is broken off by the end of a stage is made again by the next run."""
    with world.holding("read_acts"):
        with world.holding("show_status"):
            handle = await driver.start_at(Stage.REVIEW)
            await world.called("show_status")
            put(world, Act.CANCEL)
            await driver.hint(Topic.OPERATOR, Source.OPERATOR)
            await world.called("read_acts")
        await world.called("run_tests")
    assert (await handle.result()).outcome == "cancelled"
    assert world.outcomes == {"cancel-0": "taken"}


async def test_ci_that_is_silent_for_long_gives_the_lease_back(driver: Driver, world: FakeWorld) -> None:
    """A candidate whose CI needs a person holds nobody up; green at last, it queues again and spends nothing."""
    world.policy = world.policy.model_copy(
        update={"staging": None, "production": None, "caps": {"merge_rounds": 0, "developer_retries": 0}}
    )
    world.says(Gate.CANDIDATE_TESTED, GateOutcome.PENDING)
    handle = await driver.start_at(Stage.DEPLOY_STAGING)
    mark = await world.waiting(WaitingOn.CI)
    assert (await driver.status()).lease is not None
    while not world.epochs.released:
        await driver.forward(timedelta(hours=1))
        mark = await world.waiting(WaitingOn.CI, after=mark)
    status = await driver.status()
    assert status.lease is None
    assert status.waiting is not None
    assert status.waiting.needs_human
    assert len([row for row in world.progress if "needs you" in row.announce]) == 1
    world.says(Gate.CANDIDATE_TESTED, GateOutcome.GREEN)
    await driver.hint(Topic.CI)
    assert (await handle.result()).outcome == "landed"
    assert len(world.of("build_candidate")) == len(world.epochs.released) == 2
    assert len(world.of("land")) == 1
