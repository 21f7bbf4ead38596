"""Leases: the right to land or to deploy."""

from datetime import datetime
from enum import StrEnum

from temporalio import activity

from workflows.lease_standing import Standing
from workflows.model import (
    Done,
    Freeze,
    FreezeCause,
    Frozen,
    GateOutcome,
    Lease,
    Priority,
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
    priority: Priority = Priority.NONE
    place: datetime | None = None
    """Where it stands among equals: for a merge when the generation first asked, for production when it landed."""


class WithdrawLease(Frozen):
    """End a wish: the task leaves the queue at once, granted or not."""

    ref: TaskRef
    queue: str
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
    """Ask whether a lease's holder still lives and gets on."""

    holder: str
    generation: int = 0
    epoch: int = 0
    asked_at: datetime | None = None
    """When it asked for the lease, by Temporal's clock: who was started later is somebody else of the same name."""


class HolderState(Frozen):
    """Whether the holder's workflow is running, and is the one that asked; how far it has come."""

    running: bool
    landed: bool = False
    """Whether what it was to land under this epoch is landed and read back."""
    mark: str = ""
    """Names its newest step and attempt: another mark than at the last look is progress."""


class ReadQueue(Frozen):
    """Read what stands in the rows of a queue."""

    queue: str


class OpenRow(Frozen):
    """A lease that the rows say is open."""

    epoch: int
    holder: str
    task: str
    generation: int
    granted_at: datetime


class QueueRows(Frozen):
    """The rows of a queue: freezes are the truth, an open lease is somebody's until a look says otherwise."""

    lease: OpenRow | None = None
    freezes: tuple[Freeze, ...] = ()


class TestBase(Frozen):
    """Test the tip of a base branch with the policy that stands there."""

    __test__ = False

    repository: Repository


class BaseTested(Frozen):
    """Green, red, or `unknown` where the base could not be tested."""

    outcome: GateOutcome
    sha: str = ""
    reason: str = ""


class RecordQueueAct(Frozen):
    """Record a person's act on a queue."""

    act_id: str
    task: str
    act: str
    by: str
    reason: str
    at: datetime


class LeaseDropped(Frozen):
    """What a task is told whose wish a person dropped."""

    ticket: int
    by: str
    reason: str = ""


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
async def request_lease(arg: RequestLease) -> Standing:
    """Signal the queue, starting it if needed; where the task stands, if the queue says so soon enough."""
    raise NotImplementedError


@activity.defn
async def withdraw_lease(arg: WithdrawLease) -> Done:
    """Signal the queue; one that has ended has nothing to withdraw."""
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
    """Describe the holder's workflow, and read its fence and its landing."""
    raise NotImplementedError


@activity.defn
async def read_queue(arg: ReadQueue) -> QueueRows:
    """Read the open lease and the standing freezes."""
    raise NotImplementedError


@activity.defn
async def test_base(arg: TestBase) -> BaseTested:
    """Run the base's own test command on a clean checkout of its tip."""
    raise NotImplementedError


test_base.__test__ = False  # type: ignore[attr-defined]


@activity.defn
async def record_queue_act(arg: RecordQueueAct) -> Done:
    """Insert the act unless its id is known."""
    raise NotImplementedError
