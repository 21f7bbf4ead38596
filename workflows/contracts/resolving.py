"""Finding out whom a delivery concerns that own tables cannot name."""

from datetime import timedelta
from enum import StrEnum

from temporalio import activity

from workflows.hints import Hint
from workflows.model import Done, Frozen, Repository

RESOLVE_PATIENCE = timedelta(hours=1)
"""How long Gitea may be asked for one hint; after that the reconcile pass is the better answer."""


class ResolveDelivery(Frozen):
    """A row of the inbox, and the commit or branch it is about."""

    source: str
    row: int
    times_received: int
    """Which receipt of the row this is: a row that came again is somebody else's to settle."""
    repository: Repository
    names: tuple[str, ...]
    """The repository as own tables may write it."""
    sha: str
    branch: str
    hint: Hint


class RowEnd(StrEnum):
    """How a row ends; the values are the inbox's."""

    FORWARDED = "forwarded"
    IGNORED = "ignored"
    DEAD = "dead"


class Resolution(Frozen):
    """Who was woken, and how we know; nobody is an answer too."""

    end: RowEnd
    tasks: tuple[str, ...] = ()
    reason: str


class SettleRow(Frozen):
    """Write into the inbox what became of a row."""

    row: int
    times_received: int
    resolution: Resolution


@activity.defn
async def resolve_delivery(arg: ResolveDelivery) -> Resolution:
    """Compare with the heads of the open pull requests, else take the only task in development; wake it."""
    raise NotImplementedError


@activity.defn
async def settle_row(arg: SettleRow) -> Done:
    """Settle the row unless it came again meanwhile."""
    raise NotImplementedError
