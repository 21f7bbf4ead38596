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
from workflows.state import OperatorAct


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


class RecordAct(Frozen):
    """Record a person's act that reached the workflow directly."""

    ref: TaskRef
    act: OperatorAct


@activity.defn
async def record_progress(arg: RecordProgress) -> Done:
    """Upsert the row, insert the lines, queue the announcement: once each, in one transaction."""
    raise NotImplementedError


@activity.defn
async def record_act(arg: RecordAct) -> Done:
    """Insert the act unless its id is known."""
    raise NotImplementedError
