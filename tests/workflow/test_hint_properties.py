"""Hints change when something happens, never what: under every loss, repeat and order hypothesis can think of."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from temporalio.testing import WorkflowEnvironment

from tests.fake_world import WAITING_ON, FakeWorld
from tests.workflow.conftest import a_world
from tests.workflow.driving import Driver
from workflows.hints import Hint, Source, Topic
from workflows.model import Frozen, GateOutcome, WaitingOn
from workflows.stages import Gate
from workflows.task import TaskOutcome, TaskWorkflow

FACTS = (
    (Gate.SPEC_DECIDED, Topic.DECISION, Source.PLANE),
    (Gate.CI_GREEN, Topic.CI, Source.GITEA),
    (Gate.REVIEW_PASSED, Topic.PULL_REQUEST, Source.GITEA),
    (Gate.CANDIDATE_TESTED, Topic.CI, Source.GITEA),
    (Gate.DEPLOYED, Topic.BRANCH, Source.GITEA),
)
"""What becomes true in the world while a task waits for it, in order, and the hint that tells of it."""
A_WHILE = timedelta(hours=1)
"""Longer than every first grace."""


class Telling(Frozen):
    """What becomes of the hint that tells of one fact, and what else arrives about then."""

    copies: int
    """0: it is lost."""
    late: int
    """Copies that come only when the next fact has become true."""
    strays: tuple[Topic, ...]
    """Hints that tell of nothing."""
    strays_first: bool


TELLINGS = st.builds(
    Telling,
    copies=st.integers(0, 2),
    late=st.integers(0, 2),
    strays=st.lists(st.sampled_from(list(Topic)), max_size=3).map(tuple),
    strays_first=st.booleans(),
)
NOTHING_LOST = Telling(copies=1, late=0, strays=(), strays_first=False)
NOTHING_TOLD = Telling(copies=0, late=0, strays=(), strays_first=False)


async def carried_through(driver: Driver, tellings: Sequence[Telling]) -> TaskOutcome:
    """Let a task wait for every fact, make it true, and tell of it as planned; time passes only where nobody does."""
    world = driver.world
    for gate, _, _ in FACTS:
        world.says(gate, GateOutcome.PENDING)
    handle = await driver.start()
    late: list[Hint] = []
    for (gate, topic, source), telling in zip(FACTS, tellings, strict=True):
        await world.waiting(WAITING_ON.get(gate, WaitingOn.NOTHING), reason=f"{gate}")
        world.says(gate, GateOutcome.GREEN)
        hint = Hint(topic=topic, source=source)
        strays = [Hint(topic=stray, source=source) for stray in telling.strays]
        told = [*late, *[hint] * telling.copies]
        late = [hint] * telling.late
        for sent in [*strays, *told] if telling.strays_first else [*told, *strays]:
            await handle.signal(TaskWorkflow.hint, sent)
        if not told and not strays:
            await driver.forward(A_WHILE)
    return await handle.result()


def effects(world: FakeWorld) -> list[str]:
    """What the task did outside of itself, in order; how often it looked is not part of that."""
    return [name for name in world.names() if not name.startswith("gate:")]


@pytest.fixture(scope="module")
async def undisturbed(environment: WorkflowEnvironment) -> tuple[TaskOutcome, list[str]]:
    """The end and the effects of a task that is told of everything once; no timer of it ever fires."""
    async with a_world(environment) as driver:
        outcome = await carried_through(driver, [NOTHING_LOST] * len(FACTS))
        runs = await driver.runs(driver.handle())
        fired = [event for run in runs for event in run.events if event.HasField("timer_fired_event_attributes")]
        assert not fired, "hints alone did not carry the task"
        return outcome, effects(driver.world)


def plain(outcome: TaskOutcome) -> TaskOutcome:
    """The outcome without what names this world."""
    return outcome.model_copy(update={"key": "", "landed_sha": "", "deployed_sha": ""})


@pytest.mark.timeout(600)
@settings(
    max_examples=5,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(tellings=[NOTHING_TOLD] * len(FACTS))
@given(tellings=st.lists(TELLINGS, min_size=len(FACTS), max_size=len(FACTS)))
async def test_any_fate_of_hints_leads_to_the_same_effects(
    environment: WorkflowEnvironment, undisturbed: tuple[TaskOutcome, list[str]], tellings: list[Telling]
) -> None:
    """Whichever hints are lost, doubled, late or about nothing, a task has the same effects once and the same end."""
    expected, wanted = undisturbed
    async with a_world(environment) as driver:
        outcome = await carried_through(driver, tellings)
        assert plain(outcome) == plain(expected)
        assert effects(driver.world) == wanted
