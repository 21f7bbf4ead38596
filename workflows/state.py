"""What a task carries from run to run, and the plain rules that change it. No Temporal import."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from workflows.hints import Pending, Source, Topic
from workflows.model import (
    Candidate,
    Frozen,
    Item,
    Lease,
    Policy,
    PullRequest,
    Stage,
    TaskRef,
    TestRun,
    TimelineLine,
    Waiting,
    waits,
)
from workflows.names import task_branch
from workflows.projects import ProjectFacts
from workflows.situation import PauseCause
from workflows.verdicts import Claim

TIMELINE_KEPT = 40
"""Lines a running workflow carries for its `timeline` query; the ledger keeps all of them."""


class Act(StrEnum):
    """What a person can tell a task to do."""

    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLLBACK = "rollback"
    ACCEPT = "accept"


DECISIONS = frozenset({Act.APPROVE, Act.REJECT})
"""Acts that a gate reads from the record by their digest; the task takes all others itself."""


class OperatorAct(Frozen):
    """One act of a person, recorded before it takes effect."""

    act_id: str
    act: Act
    by: str
    at: datetime
    digest: str = ""
    reason: str = ""
    via: str = "temporal"


class Ask(Frozen):
    """The person's decision that is asked for: exactly this spec, identified by its digest."""

    digest: str
    spec_path: str
    head_sha: str
    effect: str
    """The effect name of the move to awaiting approval; answers count after its intent."""


class Counter(StrEnum):
    """What a task spends when it goes back; each has its own cap in the policy."""

    FAILURES = "failures"
    """Agent runs without a usable verdict."""
    NO_EVIDENCE = "no_evidence"
    """Runs that claim work and leave none."""
    CI_ROUNDS = "ci_rounds"
    REVIEW_ROUNDS = "review_rounds"
    DEVELOPER_RETRIES = "developer_retries"
    """Conflicts, red combined trees, failed staging."""
    MERGE_ROUNDS = "merge_rounds"
    """Main moved under the candidate: nobody's fault, but not for ever."""


class Paused(Frozen):
    """Why a task stands still, and since when."""

    cause: PauseCause
    reason: str
    since: datetime


class FailedDeployment(Frozen):
    """A deployment to production that did not pass, until a person says what becomes of it."""

    reason: str
    rollbacks: int = 0
    """How often a person has said rollback."""


class RoundWork(Frozen):
    """What the current round has finished, so that a pause in it costs nothing twice."""

    baseline: str = ""
    """The head before the round's work; empty where there was no branch yet."""
    published: str = ""
    """The head that was pushed as this round's work."""
    digest: str = ""
    """The decision digest of the round's artifact."""
    asked: int = 0
    tests: TestRun | None = None
    claim: Claim | None = None
    findings: str = ""
    deployed: str = ""
    """The sha that this round has deployed."""
    output: str = ""
    """What its deployment said."""
    failed: FailedDeployment | None = None
    """What a person is asked about after a failed deployment to production."""


class Wish(Frozen):
    """A lease that is asked for: in which queue, under which ticket."""

    queue: str
    ticket: int


class TaskState(Frozen):
    """Everything a task knows. One value, replaced whole, carried by continue-as-new at each stage boundary.

    Every new field needs a default: a running task's state was written by older code.
    """

    key: str
    generation: int
    start_activity: str
    """The Plane activity that started this generation: the boundary to the one before."""
    seen_activity: str = ""
    """The last Plane activity that was acted on; what a person did before it is history."""
    item: Item
    project: ProjectFacts
    policy: Policy
    started_at: datetime

    stage: Stage = Stage.ANALYSIS
    rounds: dict[Stage, int] = Field(default_factory=lambda: {Stage.ANALYSIS: 1})
    step: int = 0
    host: str = ""
    head_sha: str = ""
    """The task branch's head as we last pushed or accepted it; empty before the first push."""
    pull: PullRequest | None = None
    work: RoundWork = RoundWork()
    ask: Ask | None = None
    feedback: tuple[str, ...] = ()
    """Facts for the next agent: why it is asked again."""
    spent: dict[Counter, int] = Field(default_factory=dict)
    paused: Paused | None = None
    lease: Lease | None = None
    wish: Wish | None = None
    """The lease that is asked for and not granted yet."""
    place: datetime | None = None
    """When this generation first asked for the merge lease: its place among equals, kept however often it asks."""
    candidate: Candidate | None = None
    tested: TestRun | None = None
    """The green run of a candidate's tests, as long as that very commit may still land."""
    base_tests: TestRun | None = None
    """The run of main's own tests, when a candidate was red."""
    staged_sha: str = ""
    """The head that staging has passed; a clean rebase of ours carries it over."""
    gate_off: str = ""
    """Why the merge gate is off for this task's repository, as last read; empty where it is on."""
    landed_sha: str = ""
    landed_at: datetime | None = None
    deployed_sha: str = ""
    previous_sha: str = ""
    """What production served before this task's first deployment: what a rollback brings back."""
    rolled_back: bool = False
    """Whether production was brought back to `previous_sha`, and nothing was deployed since."""
    accepted: str = ""
    """Who accepted a failed deployment, and what they said."""
    despite_failure: bool = False
    """A person lets this task deploy though another's deployment has failed."""
    cost_usd: float = 0.0
    cost_complete: bool = True
    """False once a run's cost could not be known: the sum is then a lower bound."""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    waited: dict[Stage, float] = Field(default_factory=dict)
    """Seconds this generation has waited or stood still in each stage."""

    pending: Pending = Field(default_factory=dict)
    unsurveyed: tuple[Topic, ...] = ()
    """What people may have touched since we last looked."""
    acts: tuple[OperatorAct, ...] = ()
    """Acts taken but not yet recorded."""
    act_ids: tuple[str, ...] = ()
    waiting: Waiting | None = None
    offers: tuple[Act, ...] = ()
    """What a person may say to the wait besides what any task can be told."""
    timeline: tuple[TimelineLine, ...] = ()
    lines_written: int = 0
    """How many timeline lines this generation has had."""
    entered_by: str = ""
    outcome: str = ""

    @property
    def round(self) -> int:
        """The current round of the current stage, from 1."""
        return self.rounds.get(self.stage, 1)

    @property
    def branch(self) -> str:
        """The task branch of this generation."""
        return task_branch(self.key, self.generation)

    @property
    def ref(self) -> TaskRef:
        """Who acts now."""
        return TaskRef(key=self.key, generation=self.generation, stage=self.stage, round=self.round, step=self.step)


class TaskInput(Frozen):
    """The single argument of a task's workflow: the key alone starts one, the state carries it on."""

    key: str
    state: TaskState | None = None


class Move(Frozen):
    """Where a stage round leads, why, and what woke us to see it."""

    to: Stage
    reason: str
    source: Source = Source.WORKFLOW
    feedback: tuple[str, ...] = ()
    spends: Counter | None = None
    """What going this way costs; None for ways forward and for what is nobody's doing."""


def entered(state: TaskState, move: Move) -> TaskState:
    """The state at the start of the stage a move leads to."""
    rounds = {**state.rounds, move.to: state.rounds.get(move.to, 0) + 1}
    spent = {**state.spent, move.spends: state.spent.get(move.spends, 0) + 1} if move.spends else state.spent
    return state.model_copy(
        update={
            "stage": move.to,
            "rounds": rounds,
            "spent": spent,
            "feedback": move.feedback,
            "waiting": None,
            "ask": None,
            "work": RoundWork(),
            "entered_by": move.source,
        }
    )


def told(state: TaskState, at: datetime, text: str, *, sha: str = "", source: str = "") -> TaskState:
    """Add a line to the timeline."""
    line = TimelineLine(
        n=state.lines_written + 1,
        at=at,
        stage=state.stage,
        round=state.round,
        text=text,
        sha=sha,
        source=source,
    )
    kept = (*state.timeline, line)[-TIMELINE_KEPT:]
    return state.model_copy(update={"timeline": kept, "lines_written": line.n})


def exhausted(state: TaskState, move: Move) -> str | None:
    """Why a way back may not be gone once more without a person, or None if it may."""
    if move.source is Source.OPERATOR:
        return None
    if move.to is Stage.DEPLOY and state.stage is Stage.DEPLOY:
        return "a deployment never tries again by itself"
    if move.spends is None:
        return None
    cap = state.policy.cap(move.spends)
    spent = state.spent.get(move.spends, 0)
    return f"{spent} of {cap} {move.spends.replace('_', ' ')} are spent" if spent >= cap else None


def act_refusal(state: TaskState | None, act: Act, act_id: str, digest: str) -> str | None:
    """Why an act cannot be taken now, in words that say how to mend it, or None if it can."""
    if state is None or state.outcome:
        return "this task is not running; ask for a new generation by moving its item to In Progress"
    if act_id in state.act_ids:
        return None
    if act in DECISIONS:
        return _answer_refusal(state, digest)
    offered = act in state.offers and state.paused is None
    asks = state.waiting is not None and state.waiting.needs_human and state.paused is None
    possible = {
        Act.RETRY: asks or offered,
        Act.ROLLBACK: offered,
        Act.ACCEPT: offered,
        Act.RESUME: state.paused is not None,
        Act.PAUSE: state.paused is None,
        Act.CANCEL: True,
    }
    return None if possible[act] else f"nothing to {act}: {why(state)}"


def _answer_refusal(state: TaskState, digest: str) -> str | None:
    if state.ask is None:
        return f"no decision is asked for now: {why(state)}"
    if digest == state.ask.digest:
        return None
    return (
        f"the spec asked about has digest {state.ask.digest}, not {digest or '(none given)'}; "
        "read the spec again and repeat with the current digest"
    )


def why(state: TaskState) -> str:
    """One sentence: what the task does or waits for."""
    head = f"{state.key} is in {state.stage} (round {state.round}{f'; {state.gate_off}' if state.gate_off else ''})"
    if state.outcome:
        return f"{state.key} has ended: {state.outcome}."
    if state.paused is not None:
        return f"{head} and paused since {state.paused.since:%Y-%m-%d %H:%M}Z: {state.paused.reason}."
    if state.waiting is None:
        return f"{head} and working."
    wait = state.waiting
    return (
        f"{head} and waits {waits(wait.on, needs_human=wait.needs_human)}, "
        f"since {wait.since:%Y-%m-%d %H:%M}Z: {wait.reason}. "
        f"It looks again at {wait.next_check:%Y-%m-%d %H:%M:%S}Z."
    )
