"""What a task spends when it goes back: each counter its own cap, each asked about by itself."""

from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from tests.fake_world import FakeWorld, a_sha, judged
from tests.workflow.driving import Driver
from workflows.contracts.landing import CandidateBuilt, CandidateOutcome
from workflows.contracts.workspaces import Publish, Published
from workflows.model import GateOutcome, Stage, WaitingOn
from workflows.stages import REGISTRY, Gate
from workflows.state import Counter
from workflows.task_run import UNKNOWN_GRACE


def red(world: FakeWorld, gate: Gate, failing: tuple[str, ...] = ()) -> None:
    """A gate that is red twice."""
    world.script_gate(gate, *[judged(gate, GateOutcome.RED, "red", failing=failing)] * 2)


def spend(world: FakeWorld, counter: Counter) -> Stage:
    """Let everything that spends a counter happen twice; answer at which stage."""
    match counter:
        case Counter.FAILURES:
            red(world, Gate.DESIGN_PRESENT)
            return Stage.ARCHITECTURE
        case Counter.NO_EVIDENCE:
            world.script("publish_work", *[Published(outcome=Publish.NOTHING_NEW, head_sha=a_sha("x"))] * 2)
            return Stage.DEVELOPMENT
        case Counter.CI_ROUNDS:
            red(world, Gate.CI_GREEN)
            return Stage.DEVELOPMENT
        case Counter.REVIEW_ROUNDS:
            red(world, Gate.REVIEW_PASSED)
            return Stage.REVIEW
        case Counter.DEVELOPER_RETRIES:
            world.script("build_candidate", *[CandidateBuilt(outcome=CandidateOutcome.CONFLICT)] * 2)
            return Stage.DEPLOY_STAGING
        case Counter.MERGE_ROUNDS:
            red(world, Gate.CANDIDATE_TESTED, ("main moved",))
            return Stage.DEPLOY_STAGING


@pytest.mark.parametrize("counter", Counter)
async def test_each_counter_spends_only_its_own_cap(driver: Driver, world: FakeWorld, counter: Counter) -> None:
    """What exhausts one cap asks a person though all others are unspent; `retry` goes on, and rounds never go back."""
    caps = {other.value: 0 if other is not counter else 1 for other in Counter}
    world.policy = world.policy.model_copy(update={"caps": caps, "staging": None})
    handle = await driver.start_at(spend(world, counter))
    await world.waiting(WaitingOn.PERSON, reason=f"1 of 1 {counter.replace('_', ' ')} are spent")
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    rounds: dict[Stage, int] = {}
    for row in world.progress:
        assert row.ref.round >= rounds.get(row.ref.stage, 0), "a round was used again"
        rounds[row.ref.stage] = row.ref.round
    assert max(rounds.values()) >= 3
    assert len([row for row in world.progress if "needs you" in row.announce]) == 1


async def test_retry_resets_exactly_the_counter_it_overrules(driver: Driver, world: FakeWorld) -> None:
    """After a retry the counter that asked starts anew; what others have spent stays spent."""
    world.policy = world.policy.model_copy(update={"caps": {"ci_rounds": 1, "review_rounds": 1}})
    ci = judged(Gate.CI_GREEN, GateOutcome.RED, "ci red")
    review = judged(Gate.REVIEW_PASSED, GateOutcome.RED, "review red")
    world.script_gate(Gate.CI_GREEN, ci)
    world.script_gate(Gate.REVIEW_PASSED, review, review)
    await driver.start_at(Stage.DEVELOPMENT)
    mark = await world.waiting(WaitingOn.PERSON, reason="1 of 1 review rounds are spent")
    world.script_gate(Gate.CI_GREEN, ci)
    await driver.retry()
    await world.waiting(WaitingOn.PERSON, reason="1 of 1 ci rounds are spent", after=mark)


@pytest.mark.parametrize("refusal", ["Unauthorized", "ProjectNotConfigured"])
async def test_a_parked_source_resumes_by_itself(driver: Driver, world: FakeWorld, refusal: str) -> None:
    """A refused token or a removed project waits, says so once, and goes on by itself; no counter is spent."""
    world.policy = world.policy.model_copy(update={"caps": {counter.value: 0 for counter in Counter}})
    world.script("post_review", *[ApplicationError("refused", type=refusal, non_retryable=True)] * 2)
    await driver.start_at(Stage.REVIEW)
    mark = await world.waiting(WaitingOn.SOURCE, reason="refused")
    await driver.forward(UNKNOWN_GRACE + timedelta(seconds=1))
    await world.waiting(WaitingOn.SOURCE, reason="refused", after=mark)
    await driver.forward(UNKNOWN_GRACE * 2 + timedelta(seconds=1))
    await driver.left(Stage.REVIEW)
    assert len([row for row in world.progress if "is parked" in row.announce]) == 1
    assert len(world.of("run_agent")) >= 1
    assert {arg.ref.round for arg in world.of("post_review")} == {1}


async def test_cancelled_ci_waits_for_a_person(driver: Driver, world: FakeWorld) -> None:
    """CI that was cancelled is neither red nor green: the task waits for a person and spends nothing."""
    cancelled = judged(Gate.CI_GREEN, GateOutcome.PENDING, "CI was cancelled; run it again")
    world.says(Gate.CI_GREEN, cancelled.model_copy(update={"waiting_on": WaitingOn.PERSON}))
    await driver.start_at(Stage.DEVELOPMENT)
    mark = await world.waiting(WaitingOn.PERSON, reason="CI was cancelled")
    await driver.forward(REGISTRY[Stage.DEVELOPMENT].grace + timedelta(seconds=1))
    await world.waiting(WaitingOn.PERSON, reason="CI was cancelled", after=mark)
    assert len(world.of("run_agent")) == 1
    assert len([row for row in world.progress if "needs you" in row.announce]) == 1


async def test_a_foreign_push_during_development_is_adopted(driver: Driver, world: FakeWorld) -> None:
    """Whoever pushes during development helps: CI judges the new head, in the same round."""
    moved = judged(Gate.CI_GREEN, GateOutcome.RED, "somebody pushed", a_sha("theirs"), failing=("head moved",))
    world.script_gate(Gate.CI_GREEN, moved)
    await driver.start_at(Stage.DEVELOPMENT)
    await driver.left(Stage.DEVELOPMENT)
    assert world.gate_calls(Gate.CI_GREEN)[1].head_sha == a_sha("theirs")
    assert {question.ref.round for question in world.gate_calls(Gate.CI_GREEN)} == {1}
    assert len(world.agent_calls(REGISTRY[Stage.DEVELOPMENT].role)) == 1


async def test_a_foreign_push_during_review_is_reviewed(driver: Driver, world: FakeWorld) -> None:
    """A push during review goes back to review, of the new head, and spends nothing."""
    world.policy = world.policy.model_copy(update={"caps": {counter.value: 0 for counter in Counter}})
    moved = judged(Gate.REVIEW_PASSED, GateOutcome.RED, "somebody pushed", a_sha("theirs"), failing=("head moved",))
    world.script_gate(Gate.REVIEW_PASSED, moved)
    await driver.start_at(Stage.REVIEW)
    await world.until(lambda: len(world.agent_calls(REGISTRY[Stage.REVIEW].role)) == 2, "a second review")
    assert [job.ref.round for job in world.agent_calls(REGISTRY[Stage.REVIEW].role)] == [1, 2]
