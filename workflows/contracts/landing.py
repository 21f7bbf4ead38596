"""Landing a candidate on main, and deploying a sha."""

from enum import StrEnum

from temporalio import activity

from workflows.model import (
    Candidate,
    Environment,
    Frozen,
    Lease,
    PullRequest,
    Repository,
    TaskRef,
)


class BuildCandidate(Frozen):
    """Rebase the task branch onto current main and push it, holding the lease."""

    ref: TaskRef
    repository: Repository
    branch: str
    head_sha: str
    lease: Lease


class CandidateOutcome(StrEnum):
    """How a rebase onto current main ended."""

    READY = "ready"
    CONFLICT = "conflict"
    HEAD_MOVED = "head moved"
    ALREADY_LANDED = "already landed"
    LEASE_LOST = "lease lost"


class CandidateBuilt(Frozen):
    """A candidate, or the facts of why there is none."""

    outcome: CandidateOutcome
    candidate: Candidate | None = None
    reason: str = ""
    conflicts: tuple[str, ...] = ()


class Land(Frozen):
    """Merge a tested candidate, holding the lease it was built under."""

    ref: TaskRef
    repository: Repository
    pull: PullRequest
    branch: str
    candidate: Candidate
    lease: Lease
    title: str


class LandOutcome(StrEnum):
    """What a merge came to, read back from main."""

    LANDED = "landed"
    MAIN_MOVED = "main moved"
    HEAD_MOVED = "head moved"
    LEASE_LOST = "lease lost"
    NOT_ALLOWED = "not allowed"
    WRONG_TREE = "wrong tree"


class Landed(Frozen):
    """The outcome of `land`; `sha` is main's tip if it landed."""

    outcome: LandOutcome
    sha: str = ""
    reason: str = ""


class Deploy(Frozen):
    """Run an environment's deploy command for a sha, once. The command is read from the base branch's policy."""

    ref: TaskRef
    repository: Repository
    environment: Environment
    sha: str
    lease: Lease
    despite_failure: bool = False
    """A person lets this task deploy though another task's deployment has failed."""


class RollBack(Frozen):
    """Run the rollback command once, so that production serves what it served before a failed deployment."""

    ref: TaskRef
    repository: Repository
    sha: str
    """What is to be served again."""
    failed_sha: str
    """What failed; the command is read from the policy at this commit."""
    attempt: int
    """The how manyeth rollback of this round, from 1: each is run once."""
    lease: Lease


class DeployOutcome(StrEnum):
    """How a deployment ended."""

    SUCCEEDED = "succeeded"
    ALREADY_DEPLOYED = "already deployed"
    """What is served contains the sha; nothing was run."""
    NOT_WANTED = "not wanted"
    """The base branch's policy deploys nothing there."""
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The command's result was lost and nothing tells what became of it: a person must look."""
    REFUSED = "refused"
    """Nothing was run: a person must mend something first."""
    FROZEN = "frozen"
    """Nothing was run: another task's deployment to production has failed."""
    LEASE_LOST = "lease lost"
    """Nothing was run: somebody else holds the lease."""


class Deployed(Frozen):
    """The outcome of `deploy` and `roll_back`; `sha` is the commit asked for, once that is served."""

    outcome: DeployOutcome
    sha: str = ""
    previous_sha: str = ""
    """What was served before; empty if nobody could tell."""
    output: str = ""
    reason: str = ""


@activity.defn
async def build_candidate(arg: BuildCandidate) -> CandidateBuilt:
    """A retry gives the same commit."""
    raise NotImplementedError


@activity.defn
async def land(arg: Land) -> Landed:
    """Only a fast-forward of exactly the tested commit lands; the result is read back."""
    raise NotImplementedError


@activity.defn
async def deploy(arg: Deploy) -> Deployed:
    """Run once; a lost result is resolved by the probe."""
    raise NotImplementedError


@activity.defn
async def roll_back(arg: RollBack) -> Deployed:
    """Run once; a lost result is resolved by the probe."""
    raise NotImplementedError
