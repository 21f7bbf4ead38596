"""Leases: the right to land or to deploy."""

from datetime import datetime
from enum import StrEnum

from temporalio import activity

from workflows.model import (
    Done,
    FreezeCause,
    Frozen,
    Lease,
    Repository,
    TaskRef,
)


class LeaseKind(StrEnum):
    """What a lease gives the right to."""

    MERGE = "merge"
    STAGING = "staging"
    PRODUCTION = "production"


class RequestLease(Frozen):
    """Queue for a lease; repeating it with the same ticket changes nothing."""

    ref: TaskRef
    kind: LeaseKind
    repository: Repository
    ticket: int


class ReleaseLease(Frozen):
    """Give a lease back; ignored unless holder and epoch are the current ones."""

    ref: TaskRef
    lease: Lease


class OpenLease(Frozen):
    """Record a new holder under a new epoch."""

    queue: str
    holder: str
    generation: int


class OpenedLease(Frozen):
    """The epoch, greater than any before it, and the database's time."""

    epoch: int
    granted_at: datetime


class CloseLease(Frozen):
    """Record that an epoch has ended."""

    queue: str
    epoch: int


class InspectHolder(Frozen):
    """Ask whether a lease's holder still lives."""

    holder: str
    asked_at: datetime | None = None
    """When it asked for the lease, by Temporal's clock: who was started later is somebody else of the same name."""


class HolderState(Frozen):
    """Whether the holder's workflow is running, and is the one that asked."""

    running: bool


class SetFreeze(Frozen):
    """Freeze a queue for a cause; a cause that stands already only gets the newer reason."""

    queue: str
    cause: FreezeCause
    reason: str
    by: str


class LiftFreeze(Frozen):
    """Lift one cause; lifting what does not stand changes nothing."""

    queue: str
    cause: FreezeCause
    reason: str
    by: str


@activity.defn
async def set_freeze(arg: SetFreeze) -> Done:
    """Write the row, then wake the queue, starting it if needed."""
    raise NotImplementedError


@activity.defn
async def lift_freeze(arg: LiftFreeze) -> Done:
    """Settle the row, then wake the queue."""
    raise NotImplementedError


@activity.defn
async def request_lease(arg: RequestLease) -> Done:
    """Signal the queue, starting it if needed."""
    raise NotImplementedError


@activity.defn
async def release_lease(arg: ReleaseLease) -> Done:
    """Signal the queue."""
    raise NotImplementedError


@activity.defn
async def open_lease(arg: OpenLease) -> OpenedLease:
    """Take the next epoch."""
    raise NotImplementedError


@activity.defn
async def close_lease(arg: CloseLease) -> Done:
    """Mark the epoch released."""
    raise NotImplementedError


@activity.defn
async def inspect_holder(arg: InspectHolder) -> HolderState:
    """Describe the holder's workflow."""
    raise NotImplementedError
