"""What runs on one host's disk: workspaces, agents, tests."""

from enum import StrEnum

from pydantic import Field
from temporalio import activity

from workflows.model import (
    Done,
    Frozen,
    Repository,
    Role,
    TaskRef,
    Terms,
    TestRun,
)
from workflows.verdicts import AgentRun


class ClaimHost(Frozen):
    """Ask any worker for its host."""

    ref: TaskRef | None = None
    """The task that wants it; a lease queue has none."""


class HostClaim(Frozen):
    """The stable name of a host that answers now."""

    host: str


class PrepareWorkspace(Frozen):
    """Make a fresh clone of the task branch for one round, starting the branch at base if it is new."""

    ref: TaskRef
    repository: Repository
    branch: str


class Workspace(Frozen):
    """A full clone on the task's host that an agent may write."""

    path: str
    base_sha: str
    head_sha: str


class RunAgent(Frozen):
    """Run one agent in a workspace. Everything in `data` is untrusted text it is given as files."""

    ref: TaskRef
    role: Role
    runner: str
    workspace: Workspace
    branch: str
    nonce: str
    session_id: str
    artifact_path: str = ""
    headings: tuple[str, ...] = ()
    terms: Terms = Terms()
    data: dict[str, str] = Field(default_factory=dict)


class PublishWork(Frozen):
    """Take an agent's commits into the trusted mirror and push them to the task branch."""

    ref: TaskRef
    repository: Repository
    workspace: Workspace
    branch: str
    artifact_path: str = ""
    headings: tuple[str, ...] = ()


class Artifact(Frozen):
    """A file a role must leave; `digest` binds a person's decision to it (`stages.decision_digest`)."""

    path: str
    digest: str = ""
    missing: tuple[str, ...] = ()
    """Required headings it lacks; the file itself is missing where `digest` is empty."""


class Publish(StrEnum):
    """What became of a push."""

    PUSHED = "pushed"
    NOTHING_NEW = "nothing new"
    STALE = "stale"
    """Someone else moved the branch; nothing was overwritten."""
    REFUSED = "refused"


class Published(Frozen):
    """The branch after an agent's work."""

    outcome: Publish
    head_sha: str
    commits: int = 0
    changed: tuple[str, ...] = ()
    reason: str = ""
    artifact: Artifact | None = None


class RunTests(Frozen):
    """Run the project's test command on a clean checkout of one commit."""

    ref: TaskRef
    repository: Repository
    sha: str
    command: str


class RemoveWorkspaces(Frozen):
    """Remove a generation's folders from its host."""

    ref: TaskRef


@activity.defn
async def claim_host(arg: ClaimHost) -> HostClaim:
    """The host that answers is alive and has room on its disk."""
    raise NotImplementedError


@activity.defn
async def prepare_workspace(arg: PrepareWorkspace) -> Workspace:
    """A clean clone at the branch's pushed head."""
    raise NotImplementedError


@activity.defn
async def run_agent(arg: RunAgent) -> AgentRun:
    """Run the agent to its end and read its verdict."""
    raise NotImplementedError


@activity.defn
async def publish_work(arg: PublishWork) -> Published:
    """Push, expecting the head the workspace was made from."""
    raise NotImplementedError


@activity.defn
async def run_tests(arg: RunTests) -> TestRun:
    """Run and report; a red test is a value."""
    raise NotImplementedError


@activity.defn
async def remove_workspaces(arg: RemoveWorkspaces) -> Done:
    """Nothing of the generation is left on the disk."""
    raise NotImplementedError
