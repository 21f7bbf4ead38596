"""What the workflows write down for people to read."""

from datetime import datetime

from temporalio import activity

from workflows.model import (
    Done,
    Frozen,
    Item,
    PullRequest,
    TaskRef,
    TimelineLine,
    Waiting,
)
from workflows.projects import ProjectFacts
from workflows.state import OperatorAct, Paused


class RecordProgress(Frozen):
    """The read model's new row, the timeline lines it has not seen, and what to announce."""

    ref: TaskRef
    project: ProjectFacts
    item: Item
    branch: str
    start_activity: str
    seen_activity: str
    started_at: datetime
    at: datetime
    waiting: Waiting | None
    spec_digest: str
    head_sha: str
    pull: PullRequest | None
    landed_sha: str
    deployed_sha: str
    cost_usd: float | None
    lines: tuple[TimelineLine, ...]
    merge_gate: str = ""
    announce: str = ""
    outcome: str = ""
    paused: Paused | None = None


class RecordAct(Frozen):
    """Put on record what became of a person's act, and the act itself if it reached the workflow directly.

    `outcome` is `taken`, `refused: <why>` or `too late: <why>`; empty for a decision, which its gate settles.
    """

    ref: TaskRef
    act: OperatorAct
    outcome: str = ""


class ReadActs(Frozen):
    """Look for acts on record that this generation has neither taken nor refused."""

    ref: TaskRef


class OpenActs(Frozen):
    """They, the earliest first; decisions are not among them."""

    acts: tuple[OperatorAct, ...] = ()


@activity.defn
async def record_progress(arg: RecordProgress) -> Done:
    """Upsert the row, insert the lines, queue the announcement: once each, in one transaction."""
    raise NotImplementedError


@activity.defn
async def record_act(arg: RecordAct) -> Done:
    """Insert the act unless its id is known; note what became of it unless that is known."""
    raise NotImplementedError


@activity.defn
async def read_acts(arg: ReadActs) -> OpenActs:
    """Read the open acts."""
    raise NotImplementedError
