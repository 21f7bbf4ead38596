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
    """Run an environment's deploy command for a sha, once."""

    ref: TaskRef
    repository: Repository
    environment: Environment
    sha: str
    command: str
    probe: str | None
    lease: Lease


class DeployOutcome(StrEnum):
    """How a deployment ended."""

    SUCCEEDED = "succeeded"
    ALREADY_DEPLOYED = "already deployed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The command's result was lost and the probe cannot tell: a person must look."""


class Deployed(Frozen):
    """The outcome of `deploy`; `sha` is what the probe says is served."""

    outcome: DeployOutcome
    sha: str = ""
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
