"""The product's plain rules as functions of data: stages, verdicts, state, hints, names."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workflows import names
from workflows.hints import Hint, Source, Topic, note_hint
from workflows.model import (
    Item,
    Policy,
    Repository,
    Role,
    Stage,
    TaskRef,
    Waiting,
    WaitingOn,
    fingerprint,
    grace_growth,
)
from workflows.projects import ProjectFacts
from workflows.stages import REGISTRY, Gate, artifact_path, decision_digest, missing_headings
from workflows.state import (
    TIMELINE_KEPT,
    Act,
    Ask,
    Counter,
    Move,
    TaskState,
    act_refusal,
    entered,
    exhausted,
    told,
    why,
)
from workflows.usage import Usage
from workflows.verdicts import AgentRun, Binding, RunOutcome, Verdict, VerdictOutcome, refusal

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
REF = TaskRef(key="DEMO-1", generation=1, stage=Stage.REVIEW, round=2, step=7)
SHA = "a" * 40

# fmt: off
PIPELINE = [
    # stage, who works, gate, green leads to, red leads to, grace in minutes, does a person decide, artifact
    ("analysis",       Role.ANALYST,   Gate.SPEC_DECIDED,     "architecture",   "analysis",     15, True,  "spec.md"),
    ("architecture",   Role.ARCHITECT, Gate.DESIGN_PRESENT,   "development",    "architecture", 10, False, "design.md"),
    ("development",    Role.DEVELOPER, Gate.CI_GREEN,         "review",         "development",   5, False, None),
    ("review",         Role.REVIEWER,  Gate.REVIEW_PASSED,    "testing",        "development",  10, False, None),
    ("testing",        Role.TESTER,    Gate.TESTS_PASSED,     "deploy-staging", "development",  10, False, None),
    ("deploy-staging", Role.DEPLOYER,  Gate.CANDIDATE_TESTED, "deploy",         "development",   5, False, None),
    ("deploy",         Role.DEPLOYER,  Gate.DEPLOYED,         "done",           None,           10, False, None),
]
# fmt: on


# -- stages -------------------------------------------------------------------------------------------------


def test_the_pipeline_is_as_written_down() -> None:
    """The registry says of each stage who works, what must be true and where each answer leads: design section 3."""
    rows = [
        (
            spec.stage.value,
            spec.role,
            spec.gate,
            spec.green.value,
            spec.red.value if spec.red else None,
            spec.grace / timedelta(minutes=1),
            spec.person_decides,
            spec.artifact,
        )
        for spec in REGISTRY.values()
    ]
    assert rows == PIPELINE


def test_required_headings() -> None:
    """A spec names problem and acceptance, a design its decision and consequences."""
    wanted = {stage: spec.headings for stage, spec in REGISTRY.items() if spec.headings}
    assert wanted == {
        Stage.ANALYSIS: ("Problem", "Acceptance"),
        Stage.ARCHITECTURE: ("Decision", "Consequences"),
    }


def test_green_leads_through_every_stage_to_done() -> None:
    """Following green from analysis visits each stage once, in order, and ends at done."""
    way, stage = [], Stage.ANALYSIS
    while stage is not Stage.DONE:
        way.append(stage)
        stage = REGISTRY[stage].green
    assert [*way, Stage.DONE] == list(Stage)


def test_only_deploy_has_no_way_back() -> None:
    """Red in production never loops by itself; every other red leads to a stage at or before its own."""
    order = list(Stage)
    for stage, spec in REGISTRY.items():
        if stage is Stage.DEPLOY:
            assert spec.red is None
        else:
            assert spec.red is not None
            assert order.index(spec.red) <= order.index(stage)


def test_artifacts_live_below_the_tasks_own_folder() -> None:
    """Where a stage leaves a file, it is below `docs/tasks/<KEY>/`."""
    assert artifact_path("DEMO-1", REGISTRY[Stage.ANALYSIS]) == "docs/tasks/DEMO-1/spec.md"
    assert artifact_path("DEMO-1", REGISTRY[Stage.REVIEW]) is None


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("# Problem\n## acceptance\n", ()),
        ("### PROBLEM  \ntext\n#Acceptance", ()),
        ("Problem\n# Acceptance", ("Problem",)),
        ("# Problem and more\n# Acceptance", ("Problem",)),
        ("", ("Problem", "Acceptance")),
    ],
)
def test_missing_headings(text: str, missing: tuple[str, ...]) -> None:
    """A heading is a line that begins with `#` and is exactly the required words, without case."""
    assert missing_headings(text, ("Problem", "Acceptance")) == missing


def test_a_decision_is_on_one_text_of_one_round() -> None:
    """The digest changes with the text, the task, the generation and the round, and not with the step."""
    base = decision_digest(REF, b"spec")
    others = [
        decision_digest(REF, b"spec2"),
        decision_digest(REF.model_copy(update={"key": "DEMO-2"}), b"spec"),
        decision_digest(REF.model_copy(update={"generation": 2}), b"spec"),
        decision_digest(REF.model_copy(update={"round": 3}), b"spec"),
    ]
    assert len({base, *others}) == 5
    assert decision_digest(REF.model_copy(update={"step": 99}), b"spec") == base


# -- model --------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=10), max_size=6, unique=True), st.randoms())
def test_a_fingerprint_ignores_order(failing: list[str], random: Any) -> None:
    """The same red seen with its contexts in another order is the same red."""
    shuffled = list(failing)
    random.shuffle(shuffled)
    assert fingerprint(REF, "ci", SHA, tuple(failing)) == fingerprint(REF, "ci", SHA, tuple(shuffled))


def test_a_fingerprint_tells_reds_apart() -> None:
    """Another round, gate, commit or context is another red; another step is not."""
    base = fingerprint(REF, "ci", SHA, ("lint",))
    others = {
        fingerprint(REF.model_copy(update={"round": 3}), "ci", SHA, ("lint",)),
        fingerprint(REF.model_copy(update={"generation": 2}), "ci", SHA, ("lint",)),
        fingerprint(REF.model_copy(update={"stage": Stage.TESTING}), "ci", SHA, ("lint",)),
        fingerprint(REF, "tests", SHA, ("lint",)),
        fingerprint(REF, "ci", "b" * 40, ("lint",)),
        fingerprint(REF, "ci", SHA, ("unit",)),
    }
    assert len(others - {base}) == 6
    assert fingerprint(REF.model_copy(update={"step": 8}), "ci", SHA, ("lint",)) == base


def test_an_intent_names_the_round_and_not_the_step() -> None:
    """A repeat of an effect under a later step finds the intent of the first."""
    assert REF.intent("comment") == "DEMO-1/g1/review/r2/comment"
    assert REF.model_copy(update={"step": 8}).intent("comment") == REF.intent("comment")


@given(st.integers(0, 10_000))
def test_waits_grow_up_to_a_ceiling(looks: int) -> None:
    """Each quiet look doubles the wait, never past six hours, however many looks there were."""
    base = timedelta(minutes=5)
    wait = grace_growth(base, looks)
    assert base <= wait <= timedelta(hours=6)
    assert wait == min(base * 2 ** min(looks, 20), timedelta(hours=6))


def test_full_input_counts_the_cache() -> None:
    """Input is what was sent fresh, read from the cache and written to it."""
    assert Usage(input=1, cache_read=20, cache_creation=300, output=4000).full_input == 321


def test_a_role_uses_its_own_runner_first() -> None:
    """`runners` overrides `runner` for a role."""
    policy = Policy(test="t", runner="claude", runners={Role.REVIEWER: "codex"})
    assert (policy.runner_for(Role.REVIEWER), policy.runner_for(Role.TESTER)) == ("codex", "claude")


# -- verdicts -----------------------------------------------------------------------------------------------

BINDING = Binding(ref=REF, head_sha=SHA, nonce="n-1")


def a_run(binding: Binding = BINDING, **changes: Any) -> AgentRun:
    """A run whose verdict counts for `BINDING`."""
    known: dict[str, Any] = {
        "runner": "scripted",
        "session_id": "s",
        "outcome": RunOutcome.OK,
        "verdict": Verdict(nonce="n-1", outcome=VerdictOutcome.PASS, summary="fine"),
    }
    return AgentRun(binding=binding, **{**known, **changes})


def test_a_bound_verdict_counts() -> None:
    """A verdict for exactly what was asked is not refused, whatever step wrote it."""
    assert refusal(a_run(), BINDING) is None
    later = BINDING.model_copy(update={"ref": REF.model_copy(update={"step": 99})})
    assert refusal(a_run(later), BINDING) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("key", "DEMO-2"), ("generation", 2), ("stage", Stage.TESTING), ("round", 3)],
)
def test_a_verdict_of_other_work_is_refused(field: str, value: object) -> None:
    """A verdict for another task, generation, stage or round is refused, and says for which."""
    other = BINDING.model_copy(update={"ref": REF.model_copy(update={field: value})})
    refused = refusal(a_run(other), BINDING)
    assert refused is not None
    assert other.ref.intent("verdict") in refused


def test_a_verdict_of_another_commit_is_refused() -> None:
    """A verdict on another head is stale."""
    refused = refusal(a_run(BINDING.model_copy(update={"head_sha": "b" * 40})), BINDING)
    assert refused == f"the verdict is for {'b' * 10}, but the head is {SHA[:10]}"


def test_a_verdict_of_another_run_is_refused() -> None:
    """A verdict with another run's nonce, in its binding or in its file, is refused."""
    assert refusal(a_run(BINDING.model_copy(update={"nonce": "n-2"})), BINDING) is not None
    stolen = Verdict(nonce="n-2", outcome=VerdictOutcome.PASS, summary="fine")
    assert refusal(a_run(verdict=stolen), BINDING) == "the verdict file carries another run's nonce"


@pytest.mark.parametrize("outcome", [RunOutcome.NO_VERDICT, RunOutcome.FAILED, RunOutcome.CANCELLED])
def test_missing_never_equals_pass(outcome: RunOutcome) -> None:
    """A run without a verdict, or that did not end well, is refused with its reason."""
    assert refusal(a_run(outcome=outcome, verdict=None, reason="killed"), BINDING) == "killed"
    assert refusal(a_run(verdict=None), BINDING) is not None
    assert refusal(a_run(outcome=outcome), BINDING) is not None, "a verdict of a run that failed"


def test_a_verdict_has_no_unknown_fields() -> None:
    """Whatever the schema does not know is refused, in the verdict and in its findings."""
    good = {"nonce": "n", "outcome": "pass", "summary": "s"}
    Verdict.model_validate(good)
    with pytest.raises(ValidationError):
        Verdict.model_validate({**good, "approved_by": "olga"})
    with pytest.raises(ValidationError):
        Verdict.model_validate({**good, "findings": [{"text": "t", "waived": True}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": "x" * 20_001},
        {"nonce": "x" * 2_001},
        {"findings": [{"text": "t"}] * 201},
        {"findings": [{"text": "x" * 2_001}]},
        {"evidence": ["e"] * 201},
        {"artifacts": ["a"] * 51},
        {"questions": ["q"] * 21},
        {"outcome": "PASS"},
        {"outcome": "approved"},
        {"findings": [{"text": "t", "severity": "fatal"}]},
    ],
)
def test_an_oversized_or_invented_verdict_is_refused(changes: dict[str, Any]) -> None:
    """Every text and list of a verdict has an end, and its words are ours."""
    with pytest.raises(ValidationError):
        Verdict.model_validate({"nonce": "n", "outcome": "pass", "summary": "s", **changes})


# -- state --------------------------------------------------------------------------------------------------


def a_state(**changes: Any) -> TaskState:
    """A task in its first analysis."""
    known: dict[str, Any] = {
        "key": "DEMO-1",
        "generation": 1,
        "start_activity": "activity-1",
        "item": Item(id="i", project_id="p", key="DEMO-1", title="T"),
        "project": ProjectFacts(key="DEMO", repository=Repository(owner="o", name="r")),
        "policy": Policy(test="make test"),
        "started_at": NOW,
    }
    return TaskState(**{**known, **changes})


ASK = Ask(digest="d1", spec_path="spec.md", head_sha=SHA, effect="ask-1")
FOR_A_PERSON = Waiting(on=WaitingOn.PERSON, reason="r", since=NOW, next_check=NOW, needs_human=True)
FOR_CI = Waiting(on=WaitingOn.CI, reason="r", since=NOW, next_check=NOW)


@pytest.mark.parametrize(
    ("state", "act", "digest", "refused"),
    [
        (None, Act.APPROVE, "d1", "not running"),
        (a_state(outcome="done", ask=ASK), Act.APPROVE, "d1", "not running"),
        (a_state(ask=ASK), Act.APPROVE, "d1", None),
        (a_state(ask=ASK), Act.REJECT, "d1", None),
        (a_state(ask=ASK), Act.APPROVE, "d2", "has digest d1, not d2"),
        (a_state(ask=ASK), Act.REJECT, "d2", "has digest d1, not d2"),
        (a_state(ask=ASK), Act.APPROVE, "", "(none given)"),
        (a_state(), Act.APPROVE, "d1", "no decision is asked for now"),
        (a_state(), Act.APPROVE, "", "no decision is asked for now"),
        (a_state(waiting=FOR_A_PERSON), Act.RETRY, "", None),
        (a_state(waiting=FOR_CI), Act.RETRY, "", "nothing to retry"),
        (a_state(), Act.RETRY, "", "nothing to retry"),
        (a_state(waiting=FOR_A_PERSON), Act.ROLLBACK, "", "nothing to rollback"),
        (a_state(waiting=FOR_A_PERSON), Act.ACCEPT, "", "nothing to accept"),
        (a_state(waiting=FOR_A_PERSON, offers=(Act.ROLLBACK,)), Act.ROLLBACK, "", None),
        (a_state(waiting=FOR_A_PERSON, offers=(Act.ROLLBACK,)), Act.ACCEPT, "", "nothing to accept"),
        (a_state(waiting=FOR_CI, offers=(Act.RETRY,)), Act.RETRY, "", None),
        (a_state(act_ids=("act-1",)), Act.APPROVE, "d1", None),
        (a_state(act_ids=("act-1",)), Act.RETRY, "", None),
    ],
)
def test_which_acts_are_refused(state: TaskState | None, act: Act, digest: str, refused: str | None) -> None:
    """An act needs a running task that asks for it, on the current digest; a repeat of a known act is no error."""
    said = act_refusal(state, act, "act-1", digest)
    assert said is None if refused is None else refused in (said or "")


def test_entering_a_stage_counts_its_round_and_forgets_the_wait() -> None:
    """A move raises the round of where it leads, hands over the feedback, and ends question and wait."""
    before = a_state(ask=ASK, waiting=FOR_A_PERSON, rounds={Stage.ANALYSIS: 1})
    after = entered(before, Move(to=Stage.ANALYSIS, reason="no", source=Source.PLANE, feedback=("no",)))
    assert (after.stage, after.round, after.ask, after.waiting) == (Stage.ANALYSIS, 2, None, None)
    assert (after.feedback, after.entered_by) == (("no",), "plane webhook")
    first = entered(after, Move(to=Stage.ARCHITECTURE, reason="yes"))
    assert (first.stage, first.round, first.feedback) == (Stage.ARCHITECTURE, 1, ())
    assert first.rounds == {Stage.ANALYSIS: 2, Stage.ARCHITECTURE: 1}
    assert before.round == 1, "a state is a value"


def test_the_timeline_is_numbered_and_bounded() -> None:
    """Lines are numbered without gaps for the ledger, and only the newest are carried."""
    state = a_state()
    for number in range(TIMELINE_KEPT + 5):
        state = told(state, NOW, f"line {number}", sha=SHA, source="timer")
    assert state.lines_written == TIMELINE_KEPT + 5
    assert [line.n for line in state.timeline] == list(range(6, TIMELINE_KEPT + 6))
    assert (state.timeline[-1].stage, state.timeline[-1].round, state.timeline[-1].sha) == (Stage.ANALYSIS, 1, SHA)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (a_state(), "DEMO-1 is in analysis (round 1) and working."),
        (a_state(outcome="done"), "DEMO-1 has ended: done."),
        (
            a_state(waiting=FOR_A_PERSON),
            (
                "DEMO-1 is in analysis (round 1) and waits for a person, since 2026-03-04 05:06Z: r. "
                "It looks again at 2026-03-04 05:06:07Z."
            ),
        ),
        (
            a_state(waiting=FOR_CI),
            (
                "DEMO-1 is in analysis (round 1) and waits for CI, since 2026-03-04 05:06Z: r. "
                "It looks again at 2026-03-04 05:06:07Z."
            ),
        ),
    ],
)
def test_why_is_one_sentence(state: TaskState, said: str) -> None:
    """`why` says where the task is, for whom it waits, since when, and when it looks again."""
    assert why(state) == said


def test_a_state_of_older_code_can_be_read() -> None:
    """A state without the newer fields, or with fields of a newer worker, is read: workers are rolled back too."""
    required = a_state().model_dump(exclude_defaults=True)
    assert TaskState.model_validate({**required, "invented_later": 1}) == a_state()


# -- hints --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(Topic), st.sampled_from(Source)), max_size=30))
def test_hints_coalesce(heard: list[tuple[Topic, Source]]) -> None:
    """However many hints come, each topic is pending once, with its first source and time, and a count."""
    pending: dict[Topic, Any] = {}
    for minute, (topic, source) in enumerate(heard):
        pending = note_hint(pending, Hint(topic=topic, source=source), NOW + timedelta(minutes=minute))
    assert set(pending) == {topic for topic, _ in heard}
    for topic, noted in pending.items():
        same = [(minute, source) for minute, (known, source) in enumerate(heard) if known is topic]
        assert (noted.since, noted.source, noted.count) == (NOW + timedelta(minutes=same[0][0]), same[0][1], len(same))


# -- names --------------------------------------------------------------------------------------------------

KEYS = st.builds("{}-{}".format, st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,9}", fullmatch=True), st.integers(1, 10**6))


@given(KEYS)
def test_workflow_ids_have_an_inverse(key: str) -> None:
    """A task's key can be had back from its workflow id."""
    assert str(names.parse_task_key(key)) == key
    assert names.task_key_of(names.task_workflow_id(key)) == key


@given(st.text(max_size=20))
def test_other_workflow_ids_are_no_task(text: str) -> None:
    """What is not exactly a task's id has no key; nothing is guessed."""
    key = names.task_key_of(text)
    assert key is None or names.task_workflow_id(key) == text


@pytest.mark.parametrize(
    "text", ["", "DEMO", "DEMO-", "DEMO-0", "DEMO-01", "-1", "DE MO-1", "DEMO-1\n", "1X-1", "A-1-2"]
)
def test_what_is_no_task_key(text: str) -> None:
    """A key is `<PROJECT>-<number>`, and the error says so."""
    with pytest.raises(ValueError, match="expected <PROJECT>-<number>"):
        names.parse_task_key(text)
    assert names.task_key_of(f"task/{text}") is None


@given(KEYS, st.integers(1, 50), KEYS, st.integers(1, 50))
def test_branches_tell_generations_apart(key: str, generation: int, other: str, later: int) -> None:
    """Two generations never share a branch, and every branch is below the prefix that may be pushed."""
    one, two = names.task_branch(key, generation), names.task_branch(other, later)
    assert (one == two) == ((key, generation) == (other, later))
    assert one.startswith(names.TASK_BRANCH_PREFIX)


def test_queues_of_a_host_are_three() -> None:
    """Pings, disk work and agents of one host never share a queue, nor those of two hosts."""
    kinds = (names.host_control_queue, names.host_work_queue, names.host_agent_queue)
    assert len({kind(host) for kind in kinds for host in ("a", "b")}) == 6
    assert names.merge_queue_workflow_id("o", "r", "main") == "merge/o/r/main"
    assert names.environment_workflow_id("o", "r", "staging") == "env/o/r/staging"


def test_search_attributes_fit_every_database() -> None:
    """PostgreSQL visibility allows ten keywords and three of each other type in a namespace."""
    kinds = [key.indexed_value_type for key in names.SEARCH_ATTRIBUTES]
    keyword = names.PROJECT.indexed_value_type
    assert kinds.count(keyword) <= 10
    assert all(kinds.count(kind) <= 3 for kind in set(kinds) - {keyword})


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_a_cap_is_how_many_ways_back_are_gone_without_a_person(cap: int) -> None:
    """A cap of 3 lets a task go back three times by itself; the fourth time a person is asked."""
    state = a_state(stage=Stage.DEVELOPMENT, policy=Policy(test="t", caps={"ci_rounds": cap}))
    back = Move(to=Stage.DEVELOPMENT, reason="red", spends=Counter.CI_ROUNDS)
    gone = 0
    while exhausted(state, back) is None:
        state, gone = entered(state, back), gone + 1
    assert gone == cap
    assert exhausted(state, back) == f"{cap} of {cap} ci rounds are spent"


def test_a_person_who_says_retry_is_not_asked_again() -> None:
    """A deployment never tries again by itself; a person's word is enough for one more round."""
    state = a_state(stage=Stage.DEPLOY)
    again = Move(to=Stage.DEPLOY, reason="r")
    assert exhausted(state, again) == "a deployment never tries again by itself"
    assert exhausted(state, again.model_copy(update={"source": Source.OPERATOR})) is None
