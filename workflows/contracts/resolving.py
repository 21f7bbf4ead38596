"""Finding out whom deliveries concern that own tables cannot name."""

from datetime import timedelta
from enum import StrEnum

from temporalio import activity

from workflows.hints import Hint
from workflows.model import Done, Frozen, Repository

RESOLVE_PATIENCE = timedelta(hours=1)
"""How long Gitea may be asked for one hint; after that the reconcile pass is the better answer."""


class UnknownRow(Frozen):
    """A row of the inbox, and the branch that it names beside the commit."""

    row: int
    times_received: int
    """Which receipt of the row this is: a row that came again is somebody else's to settle."""
    branch: str
    hint: Hint


class UnknownCommit(Frozen):
    """A commit of a repository that no open task is known by, and the rows that speak of it."""

    repository: Repository
    names: tuple[str, ...]
    """The repository as own tables may write it."""
    sha: str
    rows: tuple[UnknownRow, ...] = ()


class RowEnd(StrEnum):
    """How a row ends; the values are the inbox's."""

    FORWARDED = "forwarded"
    IGNORED = "ignored"
    DEAD = "dead"


class Resolution(Frozen):
    """Who was woken, and how we know; nobody is an answer too."""

    row: int
    times_received: int
    end: RowEnd
    tasks: tuple[str, ...] = ()
    reason: str


class Resolutions(Frozen):
    """What became of each row of one look."""

    rows: tuple[Resolution, ...]


@activity.defn
async def resolve_rows(arg: UnknownCommit) -> Resolutions:
    """Compare with the heads of the open pull requests, listed once; else take the only task in development.

    Each task that is found is woken once for each topic.
    """
    raise NotImplementedError


@activity.defn
async def settle_rows(arg: Resolutions) -> Done:
    """Settle every row that did not come again meanwhile."""
    raise NotImplementedError
