"""Gates, hints and timers: what wakes a task, and what an answer does."""

from datetime import timedelta

from temporalio.exceptions import ApplicationError

from tests.fake_world import FakeWorld, agent_run, judged, verdict
from tests.workflow.driving import Driver, event_types, record
from workflows.contracts.gates import PolicyReading
from workflows.contracts.workspaces import RunAgent, RunTests
from workflows.hints import Source, Topic
from workflows.model import GateOutcome, Role, Stage, TestRun, WaitingOn
from workflows.stages import REGISTRY, Gate
from workflows.task_run import HUMAN_REMINDER, UNKNOWN_GRACE
from workflows.verdicts import AgentRun, VerdictOutcome

DEVELOPMENT_GRACE = REGISTRY[Stage.DEVELOPMENT].grace
A_BIT = timedelta(seconds=1)


async def test_a_lost_webhook_is_healed_by_the_timer(driver: Driver, world: FakeWorld) -> None:
    """CI turns green and nothing tells us: the grace timer looks again and the task goes on."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    await driver.start()
    await world.waiting(WaitingOn.CI)
    world.says(Gate.CI_GREEN, GateOutcome.GREEN)
    await driver.forward(DEVELOPMENT_GRACE + A_BIT)
    await world.until(lambda: bool(world.gate_calls(Gate.REVIEW_PASSED)), "review")
    healed = [line for row in world.progress for line in row.lines if line.text.startswith("ci green: green")]
    assert healed[0].source == Source.TIMER


async def test_the_timer_looks_at_growing_intervals(driver: Driver, world: FakeWorld) -> None:
    """A quiet wait doubles its interval with each look that finds nothing new."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    await driver.start()
    mark = await world.waiting(WaitingOn.CI)
    await driver.forward(DEVELOPMENT_GRACE + A_BIT)
    await world.waiting(WaitingOn.CI, after=mark)
    waits = [row.waiting.next_check - row.at for row in world.progress if row.waiting and row.waiting.on == "ci"]
    assert [round(wait / DEVELOPMENT_GRACE) for wait in waits] == [1, 2]


async def test_the_policy_sets_a_stages_grace(driver: Driver, world: FakeWorld) -> None:
    """Where the pinned policy names a grace for the stage, the first look comes after that."""
    world.policy = world.policy.model_copy(update={"graces": {Stage.DEVELOPMENT: timedelta(seconds=90)}})
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    await driver.start()
    await world.waiting(WaitingOn.CI)
    first = next(row for row in world.progress if row.waiting and row.waiting.on == "ci")
    assert first.waiting is not None
    assert round((first.waiting.next_check - first.at).total_seconds()) == 90


async def test_a_hint_is_faster_than_the_timer(driver: Driver, world: FakeWorld) -> None:
    """A hint makes the gate look at once: no timer has fired when the stage is left."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    handle = await driver.start()
    await world.waiting(WaitingOn.CI)
    world.says(Gate.CI_GREEN, GateOutcome.GREEN)
    await driver.hint(Topic.CI)
    await handle.result()
    assert not [event for run in await driver.runs(handle) for event in event_types(run) if event == "TIMER_FIRED"]
    line = next(line for row in world.progress for line in row.lines if line.text.startswith("ci green: green"))
    assert line.source == Source.GITEA


async def test_a_hint_while_the_gate_looks_makes_it_look_again(driver: Driver, world: FakeWorld) -> None:
    """What changes while a gate is reading is not missed: the hint is still there when the answer comes."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    with world.holding("evaluate_gate"):
        await driver.start()
        await world.called("evaluate_gate")
        await driver.hint(Topic.DECISION)
    await world.called("evaluate_gate", 2)


async def test_a_hundred_hints_are_few_looks(driver: Driver, world: FakeWorld) -> None:
    """Hints that come while a gate is reading coalesce into one more look."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    with world.holding("evaluate_gate"):
        await driver.start()
        await world.called("evaluate_gate")
        for _ in range(100):
            await driver.hint(Topic.DECISION)
    mark = await world.waiting(WaitingOn.PERSON)
    await world.waiting(WaitingOn.PERSON, after=mark)
    assert len(world.of("evaluate_gate")) == 2


async def test_an_unknown_is_never_red_and_is_asked_again(driver: Driver, world: FakeWorld) -> None:
    """A source that is down spends no round: the gate is asked again soon, and decides when it can."""
    world.says(Gate.CI_GREEN, GateOutcome.UNKNOWN)
    handle = await driver.start()
    await world.waiting(WaitingOn.SOURCE)
    status = await driver.status()
    assert (status.stage, status.round) == (Stage.DEVELOPMENT, 1)
    assert status.waiting is not None
    assert not status.waiting.needs_human
    world.says(Gate.CI_GREEN, GateOutcome.GREEN)
    await driver.forward(UNKNOWN_GRACE + A_BIT)
    await world.until(lambda: bool(world.gate_calls(Gate.REVIEW_PASSED)), "review")
    assert len(world.agent_calls(Role.DEVELOPER)) == 1
    await handle.terminate()


async def test_red_ci_leads_to_another_round_with_the_reason(driver: Driver, world: FakeWorld) -> None:
    """After red CI the developer works again, is told what failed, and the new head is judged."""
    world.script_gate(Gate.CI_GREEN, judged(Gate.CI_GREEN, GateOutcome.RED, "CI is red: lint", failing=("lint",)))
    handle = await driver.start()
    await world.until(lambda: bool(world.gate_calls(Gate.REVIEW_PASSED)), "review")
    first, second = world.agent_calls(Role.DEVELOPER)
    assert (first.ref.round, second.ref.round) == (1, 2)
    assert "CI is red: lint" in second.data["feedback.md"]
    one, two = world.gate_calls(Gate.CI_GREEN)
    assert two.baseline_sha == one.head_sha != two.head_sha
    await handle.result()
    record("task-development-red-ci", (await driver.runs(handle))[2])


async def test_the_last_round_asks_a_person_and_retry_goes_on(driver: Driver, world: FakeWorld) -> None:
    """A stage that went back as often as the policy allows waits for a person; `retry` gives it new rounds."""
    world.says(Gate.DESIGN_PRESENT, judged(Gate.DESIGN_PRESENT, GateOutcome.RED, "no headings"))
    await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="3 of 3 failures are spent")
    assert [job.ref.round for job in world.agent_calls(Role.ARCHITECT)] == [1, 2, 3, 4]
    assert (await driver.status()).waiting.needs_human  # type: ignore[union-attr]
    world.says(Gate.DESIGN_PRESENT, GateOutcome.GREEN)
    assert await driver.retry() == "retry by olga taken"
    await world.until(lambda: len(world.agent_calls(Role.ARCHITECT)) == 5, "another round")
    assert world.agent_calls(Role.ARCHITECT)[4].ref.round == 5, "a round is never used twice: intents are named by it"
    assert [record.act.by for record in world.acts] == ["olga"]


async def test_a_person_is_reminded_and_never_overruled(driver: Driver, world: FakeWorld) -> None:
    """A wait for a person only ever looks at the time again: no number of days goes on by itself."""
    world.script("read_policy", PolicyReading(problem=".orch/pipeline.toml is missing"))
    await driver.start()
    mark = await world.waiting(WaitingOn.PERSON, reason="pipeline.toml")
    await driver.forward(HUMAN_REMINDER + A_BIT)
    await world.waiting(WaitingOn.PERSON, reason="pipeline.toml", after=mark)
    assert not world.of("claim_host")
    await driver.retry()
    await world.called("claim_host")


async def test_what_is_refused_for_good_waits_for_a_person(driver: Driver, world: FakeWorld) -> None:
    """An activity error that no retry mends needs a person; `retry` runs it again under a later fence."""
    world.script("ensure_pull_request", ApplicationError("the token is refused", non_retryable=True))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="the token is refused")
    assert (await driver.status()).stage == Stage.DEVELOPMENT
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    first, second = world.of("ensure_pull_request")
    assert second.ref.step > first.ref.step


async def test_a_refusal_before_anything_has_begun_waits_too(driver: Driver, world: FakeWorld) -> None:
    """A policy that may not be read needs a person like any other refusal, and is read again at their word."""
    world.script("read_policy", ApplicationError("no access to the repository", non_retryable=True))
    await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="no access to the repository")
    await driver.retry()
    await world.called("prepare_workspace")
    assert len(world.of("read_policy")) == 2


async def test_what_could_not_be_found_out_is_retried(driver: Driver, world: FakeWorld) -> None:
    """An activity error that may pass costs nobody's attention: Temporal tries again and the task goes on."""
    world.script("claim_host", RuntimeError("connection reset"))
    await driver.start()
    await world.called("claim_host", 2)
    await world.called("prepare_workspace")
    assert not [row for row in world.progress if row.waiting]


async def test_an_agent_without_a_verdict_never_passes(driver: Driver, world: FakeWorld) -> None:
    """A verdict bound to another commit is refused, and the round is repeated with the reason."""

    def stale(arg: RunAgent) -> AgentRun:
        run = agent_run(arg)
        return run.model_copy(update={"binding": run.binding.model_copy(update={"head_sha": "0" * 40})})

    world.script_role(Role.REVIEWER, stale)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.REVIEWER)) == 2, "a second review")
    assert not [post for post in world.of("post_review") if post.ref.round == 1]
    assert "but the head is" in world.agent_calls(Role.REVIEWER)[1].data["feedback.md"]


async def test_a_reviewer_who_wants_changes_sends_it_back(driver: Driver, world: FakeWorld) -> None:
    """Changes requested are posted as such, and the developer gets the findings."""
    world.script_role(Role.REVIEWER, verdict(VerdictOutcome.CHANGES_REQUESTED, "the total is off by one"))
    world.script_gate(Gate.REVIEW_PASSED, judged(Gate.REVIEW_PASSED, GateOutcome.RED, "changes requested"))
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
    assert world.of("post_review")[0].approve is False
    assert "the total is off by one" in world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]


async def test_a_foreign_push_wants_a_review_of_the_new_head(driver: Driver, world: FakeWorld) -> None:
    """When somebody else has pushed, the task goes back to review and speaks of their commit."""
    moved = judged(Gate.TESTS_PASSED, GateOutcome.RED, "somebody pushed", "f" * 40, failing=("head moved",))
    world.script_gate(Gate.TESTS_PASSED, moved)

    def push_meanwhile(arg: RunTests) -> TestRun:
        world.foreign_push(f"task/{world.key()}")
        return TestRun(sha=arg.sha, passed=True, exit_code=0)

    world.script("run_tests", push_meanwhile)
    await driver.start()
    await world.until(lambda: len(world.gate_calls(Gate.REVIEW_PASSED)) == 2, "a second review")
    assert world.gate_calls(Gate.REVIEW_PASSED)[1].head_sha == world.heads[f"task/{world.key()}"]
    assert len(world.agent_calls(Role.DEVELOPER)) == 1
