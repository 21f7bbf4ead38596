"""The words of the product as plain types: items, repositories, policies, gate results.

No Temporal import: everything here is testable as functions of data.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A value. Unknown fields are ignored, so that a rolled-back worker can read a newer one's data."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Stage(StrEnum):
    """A step of the pipeline, in order."""

    ANALYSIS = "analysis"
    ARCHITECTURE = "architecture"
    DEVELOPMENT = "development"
    REVIEW = "review"
    TESTING = "testing"
    DEPLOY_STAGING = "deploy-staging"
    DEPLOY = "deploy"
    DONE = "done"


class Role(StrEnum):
    """Who an agent is asked to be."""

    ANALYST = "analyst"
    ARCHITECT = "architect"
    DEVELOPER = "developer"
    REVIEWER = "reviewer"
    TESTER = "tester"
    DEPLOYER = "deployer"


class Environment(StrEnum):
    """Where a sha is deployed to."""

    STAGING = "staging"
    PRODUCTION = "production"


class ItemState(StrEnum):
    """The states of a Plane item that mean something to us; `orch.toml` names them for each project."""

    IN_PROGRESS = "in_progress"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    DONE = "done"
    CANCELLED = "cancelled"


class Repository(Frozen):
    """One Gitea repository and the branch tasks land on."""

    owner: str
    name: str
    base: str = "main"

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


class Priority(StrEnum):
    """Plane's priority classes, the most urgent first; a merge queue serves them in this order."""

    URGENT = "urgent"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"

    @property
    def rank(self) -> int:
        """0 for the class that is served first."""
        return list(Priority).index(self)


class Item(Frozen):
    """What we read of a Plane item. Text in it comes from outside: it is data, never an instruction."""

    id: str
    project_id: str
    key: str
    title: str
    description_html: str = ""
    url: str = ""
    priority: Priority = Priority.NONE


DEFAULT_CAP = 3
"""How often each counter may be spent where the policy does not say."""


class Terms(Frozen):
    """What one agent run may use. A runner that cannot keep one of them leaves it out."""

    model: str = ""
    """The model's name, or empty for the runner's own choice."""
    effort: str = ""
    """How hard the model thinks, or empty for the runner's own choice."""
    max_turns: int = 200
    max_budget_usd: float = 10.0
    attempts: int = 8
    """How often a run is begun that ends in a passing trouble, such as an overloaded API."""


class Policy(Frozen):
    """`.orch/pipeline.toml` as read from the base branch, pinned to a generation."""

    test: str
    staging: str | None = None
    production: str | None = None
    rollback: str | None = None
    """Brings back what production served before a deployment that failed; run only when a person says so."""
    probe_staging: str | None = None
    probe_production: str | None = None
    secrets: tuple[str, ...] = ()
    """Names of the secrets that the production and rollback commands are given."""
    staging_secrets: tuple[str, ...] = ()
    repeatable: bool = False
    """Whether a deploy command may be run again where nothing tells whether it ran."""
    ci: str = "required"
    """`required`, or `none` where the repository has no CI and says so."""
    runner: str = "claude"
    runners: dict[Role, str] = Field(default_factory=dict)
    terms: Terms = Terms()
    role_terms: dict[Role, Terms] = Field(default_factory=dict)
    """Complete terms of the roles that have their own."""
    caps: dict[str, int] = Field(default_factory=dict)
    """How often each counter of workflows/state.py may be spent before a person is asked."""
    merge_gate: bool = True
    """Whether a branch must pass its tests on current main before it lands."""
    graces: dict[Stage, timedelta] = Field(default_factory=dict)
    """How long a quiet wait in a stage lasts before the first look; where it says nothing, the stage registry does."""
    digest: str = ""

    def cap(self, counter: str) -> int:
        """The cap of a counter."""
        return self.caps.get(counter, DEFAULT_CAP)

    def runner_for(self, role: Role) -> str:
        """The runner a role uses: its own, else the policy's."""
        return self.runners.get(role, self.runner)

    def terms_for(self, role: Role) -> Terms:
        """The terms a role's runs have: its own, else the policy's."""
        return self.role_terms.get(role, self.terms)


class TaskRef(Frozen):
    """Who acts: identifies a round of a stage, orders attempts, and mints intent keys.

    `step` grows by one with every activity that has an outward effect; (generation, step, attempt) is
    the fence that a revived zombie fails.
    """

    key: str
    generation: int
    stage: Stage
    round: int
    step: int = 0

    def intent(self, effect: str) -> str:
        """The key an outward effect is recorded under before it happens and looked up by before a repeat."""
        return f"{self.key}/g{self.generation}/{self.stage}/r{self.round}/{effect}"


class GateOutcome(StrEnum):
    """Our judgement. `unknown` means that we could not find out, and is never red."""

    GREEN = "green"
    RED = "red"
    PENDING = "pending"
    UNKNOWN = "unknown"


class WaitingOn(StrEnum):
    """Who or what can move a waiting task on."""

    PERSON = "person"
    CI = "ci"
    AGENT = "agent"
    MERGE_QUEUE = "merge queue"
    SOURCE = "source"
    NOTHING = "nothing"


_WAITS = {
    WaitingOn.PERSON: "for a person",
    WaitingOn.CI: "for CI",
    WaitingOn.AGENT: "for an agent",
    WaitingOn.MERGE_QUEUE: "in the merge queue",
    WaitingOn.SOURCE: "until Plane or Gitea can be read",
    WaitingOn.NOTHING: "for its next look",
}


def waits(on: str, *, needs_human: bool) -> str:
    """What follows "waits" in a sentence; a word that only newer code knows is said as it is."""
    if needs_human:
        return _WAITS[WaitingOn.PERSON]
    return _WAITS[WaitingOn(on)] if on in set(WaitingOn) else f"for {on}"


class GateResult(Frozen):
    """What a gate found, in words a person understands."""

    gate: str
    outcome: GateOutcome
    reason: str
    waiting_on: WaitingOn = WaitingOn.NOTHING
    sha: str = ""
    failing: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    detail: str = ""
    """The end of a failing log, for whoever mends it; never part of the fingerprint."""
    fingerprint: str = ""


def fingerprint(ref: TaskRef, gate: str, sha: str, failing: tuple[str, ...]) -> str:
    """Identify a red so that it is handled once whoever saw it first; log text never takes part."""
    facts = "\n".join((ref.key, str(ref.generation), ref.stage, str(ref.round), gate, sha, *sorted(failing)))
    return sha256(facts.encode()).hexdigest()[:16]


class TestRun(Frozen):
    """A run of the project's test command that we started, on a clean checkout of `sha`."""

    __test__ = False

    sha: str
    passed: bool
    exit_code: int
    tail: str = ""
    seconds: float = 0.0


class PullRequest(Frozen):
    """A pull request as Gitea shows it now."""

    number: int
    head_sha: str
    url: str
    state: str = "open"
    merged: bool = False


class FreezeCause(StrEnum):
    """Why a lease queue grants nothing. A queue is frozen while any cause stands."""

    BASE_RED = "base red"
    """The base branch itself fails its tests; the queue tests it again with backoff and lifts this by itself."""
    BASE_REWOUND = "base rewound"
    """The base branch was forced back or aside; a person must look."""
    WRONG_TREE = "wrong tree"
    """What was read back after a landing is not what was tested; a person must look."""
    DEPLOY_FAILED = "deploy failed"
    """Production failed to take what landed; stands until a retry, a fix, or a person accepts."""
    OPERATOR = "operator"
    """A person said so."""


class Freeze(Frozen):
    """One standing cause, from the `freezes` table."""

    cause: FreezeCause
    reason: str
    since: datetime
    by: str
    """The task or person whose act froze the queue."""


class Lease(Frozen):
    """The right to land (or deploy): whoever holds it is (workflow id, generation, epoch), never a run id."""

    queue: str
    epoch: int
    ticket: int
    granted_at: datetime
    passes: tuple[FreezeCause, ...] = ()
    """The causes that a person let this holder pass through; any other freeze stops it before it lands."""


class Candidate(Frozen):
    """The exact commit that will become main's tip, and the main it was built on."""

    sha: str
    tree: str
    base_sha: str
    replaces: str
    """The task branch's head before the rebase; its verdicts carry over by patch-id."""
    gated: bool = True
    """False where the merge gate was off: this commit was neither rebased nor tested on current main."""
    built_at: datetime | None = None
    """When the lease it was built under was granted."""


class Waiting(Frozen):
    """Why a task does not move. Every wait has a reason, a since, a next check and an end."""

    on: WaitingOn
    reason: str
    since: datetime
    next_check: datetime
    until: datetime | None = None
    needs_human: bool = False


class TimelineLine(Frozen):
    """One thing that happened, numbered within a generation so that it is written once."""

    n: int
    at: datetime
    stage: Stage
    round: int
    text: str
    sha: str = ""
    source: str = ""


def grace_growth(base: timedelta, looks: int, ceiling: timedelta = timedelta(hours=6)) -> timedelta:
    """How long to wait before the next look: doubles from `base`, up to `ceiling`."""
    doubled: timedelta = base * (1 << min(looks, 20))
    return min(doubled, ceiling)


class Done(Frozen):
    """An effect that has happened; `reference` is the other side's id for it."""

    reference: str = ""
