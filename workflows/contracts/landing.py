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
    before: Candidate | None = None
    """The task's last candidate: the main it was built on must still be part of main."""
    policy_gate: bool = True


class CandidateOutcome(StrEnum):
    """How a rebase onto current main ended."""

    READY = "ready"
    CONFLICT = "conflict"
    HEAD_MOVED = "head moved"
    ALREADY_LANDED = "already landed"
    """By an intent of ours whose result was lost; `sha` is what landed."""
    ON_MAIN_BY_HAND = "on main by hand"
    """The branch's head is on main, and nothing of ours brought it there."""
    NOTHING_TO_LAND = "nothing to land"
    """Main has every change of the branch, as other commits."""
    BROKEN_POLICY = "broken policy"
    BASE_REWOUND = "base rewound"
    FROZEN = "frozen"
    REFUSED = "refused"
    """The push was refused by us or by Gitea's protection; a person must look."""
    LEASE_LOST = "lease lost"


class CandidateBuilt(Frozen):
    """A candidate, or the facts of why there is none."""

    outcome: CandidateOutcome
    candidate: Candidate | None = None
    reason: str = ""
    conflicts: tuple[str, ...] = ()
    sha: str = ""
    """Where the branch is now if its head moved, what landed if it has landed already."""
    gate_off: str = ""
    """Why the candidate need not be tested; empty where the merge gate is on."""


class Land(Frozen):
    """Merge a tested candidate, holding the lease it was built under."""

    ref: TaskRef
    repository: Repository
    pull: PullRequest
    branch: str
    candidate: Candidate
    lease: Lease
    title: str
    policy_gate: bool = True


class LandOutcome(StrEnum):
    """What a merge came to, read back from main."""

    LANDED = "landed"
    MAIN_MOVED = "main moved"
    BASE_REWOUND = "base rewound"
    """Main no longer contains the commit the candidate was built on."""
    HEAD_MOVED = "head moved"
    CONFLICT = "conflict"
    """Only with the merge gate off: Gitea cannot merge the branch."""
    CHANGES_REQUESTED = "changes requested"
    """By a person, of exactly what would land."""
    REVIEW_WAITS = "review waits"
    """A person requested changes of an older commit and has not looked again."""
    FROZEN = "frozen"
    GATE_ON = "gate on"
    """The merge gate was switched on after the candidate had been let through without it."""
    LEASE_LOST = "lease lost"
    MERGED_BY_HAND = "merged by hand"
    NOT_ALLOWED = "not allowed"
    WRONG_TREE = "wrong tree"


class Landed(Frozen):
    """The outcome of `land`; `sha` is what landed, or the branch's head if that moved."""

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
