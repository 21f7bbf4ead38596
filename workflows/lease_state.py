"""What a lease queue knows: who waits, who holds and how far it is, what is frozen. No Temporal import."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from workflows.model import Freeze, FreezeCause, Frozen, Priority


class Phase(StrEnum):
    """What a holder does with its lease; it says so when it begins."""

    GRANTED = "granted"
    REBASING = "rebasing"
    TESTING = "testing"
    CI = "ci"
    LANDING = "landing"
    DEPLOYING = "deploying"


LIMITS = {
    Phase.GRANTED: timedelta(minutes=10),
    Phase.REBASING: timedelta(minutes=10),
    Phase.TESTING: timedelta(minutes=50),
    Phase.CI: timedelta(minutes=45),
    Phase.LANDING: timedelta(minutes=10),
    Phase.DEPLOYING: timedelta(minutes=70),
}
"""How long a phase is left alone before we ask whether its holder lives and gets on."""


class Request(Frozen):
    """A wish to hold. `ticket` grows with each new wish of a generation, so a repeat is recognised."""

    holder: str
    generation: int
    ticket: int
    task: str
    at: datetime
    priority: Priority = Priority.NONE
    place: datetime | None = None
    """When this generation first asked; kept over re-queues. Without one its place is when it asked."""

    @property
    def turn(self) -> tuple[int, int]:
        """Orders the wishes of one holder."""
        return (self.generation, self.ticket)

    @property
    def order(self) -> tuple[int, datetime, str, int, str]:
        """Who is served first: the priority class, then the place, then the task's key."""
        project, _, number = self.task.rpartition("-")
        return (
            self.priority.rank,
            self.place or self.at,
            project,
            int(number) if number.isdecimal() else 0,
            self.holder,
        )


class Holding(Frozen):
    """The holder: workflow id, generation and epoch, never a run id."""

    request: Request
    epoch: int
    granted_at: datetime
    phase: Phase = Phase.GRANTED
    since: datetime
    """When the phase began."""
    deadline: datetime
    """When to ask whether the holder lives and gets on."""
    mark: str = ""
    """How far it had come at the last look; empty before the first."""
    extensions: int = 0
    """Deadlines in a row that passed without progress."""
    passes: tuple[FreezeCause, ...] = ()
    """The causes that a person let it pass through."""


class Release(Frozen):
    """Give a lease back."""

    holder: str
    epoch: int


class Withdrawal(Frozen):
    """End a wish and those before it."""

    holder: str
    generation: int
    ticket: int


class PhaseReport(Frozen):
    """The holder says what it begins."""

    holder: str
    epoch: int
    phase: Phase


class Pass(Frozen):
    """A person's word that one generation of a task may go through the causes that stood when it was given."""

    task: str
    generation: int
    by: str
    causes: tuple[FreezeCause, ...]


class QueueState(Frozen):
    """A lease queue. `waiting` is in the order in which it will be served."""

    waiting: tuple[Request, ...] = ()
    holding: Holding | None = None
    settled: dict[str, tuple[int, int]] = Field(default_factory=dict)
    to_close: tuple[int, ...] = ()
    """Epochs that have ended and are not yet recorded as released."""
    freezes: tuple[Freeze, ...] = ()
    """The causes that stand, as last read from their rows."""
    passes: tuple[Pass, ...] = ()
    base_test_at: datetime | None = None
    """When the base branch is tested again; None unless it is red."""
    base_tests: int = 0
    was_read: bool = False
    """Whether this queue has looked at what an earlier run of it left in the rows."""

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the queue ended now."""
        return not (self.waiting or self.holding or self.to_close or self.freezes or self.passes)

    @property
    def causes(self) -> tuple[FreezeCause, ...]:
        """Why the queue is frozen; empty if it is not."""
        return tuple(freeze.cause for freeze in self.freezes)
