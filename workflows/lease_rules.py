"""The lease queue's rules as a pure reducer: who waits, who holds, under which epoch. No Temporal import.

Safety comes from the ref a landing compares, never from here; a lease only gives order and liveness.
"""

from datetime import datetime

from pydantic import Field

from workflows.model import Frozen

SETTLED_KEPT = 500
"""How many holders' last tickets are remembered, so that a late repeat of a request queues nobody twice."""


class Request(Frozen):
    """A wish to hold. `ticket` grows with each new wish of a generation, so a repeat is recognised."""

    holder: str
    generation: int
    ticket: int
    task: str
    at: datetime

    @property
    def turn(self) -> tuple[int, int]:
        """Orders the wishes of one holder."""
        return (self.generation, self.ticket)


class Holding(Frozen):
    """The holder: workflow id, generation and epoch, never a run id."""

    request: Request
    epoch: int
    granted_at: datetime
    inspect_at: datetime
    """When to ask whether the holder still lives."""


class QueueState(Frozen):
    """A lease queue, in first-requested order."""

    waiting: tuple[Request, ...] = ()
    holding: Holding | None = None
    settled: dict[str, tuple[int, int]] = Field(default_factory=dict)
    to_close: tuple[int, ...] = ()
    """Epochs that have ended and are not yet recorded as released."""

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the queue ended now."""
        return not self.waiting and self.holding is None and not self.to_close


def requested(state: QueueState, request: Request) -> QueueState:
    """Queue a wish; a repeat, or one that is already over, changes nothing."""
    if state.settled.get(request.holder, (0, 0)) >= request.turn:
        return state
    if state.holding and state.holding.request.holder == request.holder:
        if state.holding.request.turn >= request.turn:
            return state
        # A newer wish of the holder itself: whatever it held before is over.
        state = released(state, request.holder, state.holding.epoch)
    others = tuple(known for known in state.waiting if known.holder != request.holder)
    same = next((known for known in state.waiting if known.holder == request.holder), None)
    if same and same.turn >= request.turn:
        return state
    return state.model_copy(update={"waiting": (*others, request)})


def withdrawn(state: QueueState, holder: str, turn: tuple[int, int]) -> QueueState:
    """Leave the queue before having been granted."""
    kept = tuple(known for known in state.waiting if not (known.holder == holder and known.turn <= turn))
    return _settle(state.model_copy(update={"waiting": kept}), holder, turn)


def next_request(state: QueueState) -> Request | None:
    """Who is to be granted now, if anyone."""
    return state.waiting[0] if state.waiting and state.holding is None else None


def granted(state: QueueState, request: Request, *, epoch: int, at: datetime, inspect_at: datetime) -> QueueState:
    """Make the first in line the holder."""
    waiting = tuple(known for known in state.waiting if known != request)
    holding = Holding(request=request, epoch=epoch, granted_at=at, inspect_at=inspect_at)
    return state.model_copy(update={"waiting": waiting, "holding": holding})


def released(state: QueueState, holder: str, epoch: int) -> QueueState:
    """Give back; ignored unless holder and epoch are the current ones, so a zombie clears nobody's lease."""
    holding = state.holding
    if holding is None or holding.epoch != epoch or holding.request.holder != holder:
        return state
    freed = state.model_copy(update={"holding": None, "to_close": (*state.to_close, epoch)})
    return _settle(freed, holder, holding.request.turn)


def extended(state: QueueState, inspect_at: datetime) -> QueueState:
    """The holder lives: ask again later."""
    if state.holding is None:
        return state
    return state.model_copy(update={"holding": state.holding.model_copy(update={"inspect_at": inspect_at})})


def closed(state: QueueState, epoch: int) -> QueueState:
    """The end of an epoch is on record."""
    return state.model_copy(update={"to_close": tuple(known for known in state.to_close if known != epoch)})


def _settle(state: QueueState, holder: str, turn: tuple[int, int]) -> QueueState:
    settled = {name: last for name, last in state.settled.items() if name != holder}
    settled[holder] = max(turn, state.settled.get(holder, (0, 0)))
    newest = dict(list(settled.items())[-SETTLED_KEPT:])
    return state.model_copy(update={"settled": newest})
