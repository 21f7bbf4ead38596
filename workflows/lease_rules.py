"""The lease queue's rules as a pure reducer: who waits, holds, and why nobody is granted. No Temporal import.

Safety comes from the ref a landing compares, never from here; a lease only gives order and liveness.
Every rule takes a state and answers the next one; what does not fit the state changes nothing.
"""

from datetime import datetime, timedelta
from typing import TypeVar

from workflows.lease_state import LIMITS, Holding, Pass, Phase, QueueState, Request
from workflows.model import Freeze, FreezeCause, Frozen, Priority, grace_growth

SETTLED_KEPT = 500
"""How many holders' last tickets are remembered, so that a late repeat of a request queues nobody twice."""
EXTENSIONS = 3
"""How often in a row a holder that runs without progress keeps its lease past a deadline."""
BASE_TEST_FIRST = timedelta(minutes=1)
BASE_TEST_CEILING = timedelta(minutes=30)

Value = TypeVar("Value", bound=Frozen)

# -- wishes ----------------------------------------------------------------------------------------------------


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
    return _with(state, waiting=_in_order(*others, request))


def withdrawn(state: QueueState, holder: str, turn: tuple[int, int]) -> QueueState:
    """End a wish, also one whose grant is still on its way: whoever withdraws does not have the lease."""
    holding = state.holding
    if holding and holding.request.holder == holder and holding.request.turn <= turn:
        state = released(state, holder, holding.epoch)
    kept = tuple(known for known in state.waiting if not (known.holder == holder and known.turn <= turn))
    return _settle(_with(state, waiting=kept), holder, turn)


def bumped(state: QueueState, task: str, priority: Priority) -> QueueState:
    """Give one waiting wish another priority; its place among equals stays."""
    waiting = (_with(known, priority=priority) if known.task == task else known for known in state.waiting)
    return _with(state, waiting=_in_order(*waiting))


def dropped(state: QueueState, task: str) -> QueueState:
    """A person takes a waiting task out; a late repeat of its wish queues nobody."""
    request = waiting_for(state, task)
    if request is None:
        return state
    passes = tuple(known for known in state.passes if known.task != task)
    return _with(withdrawn(state, request.holder, request.turn), passes=passes)


def waiting_for(state: QueueState, task: str) -> Request | None:
    """The wish of a task that waits."""
    return next((request for request in state.waiting if request.task == task), None)


# -- granting and giving back ----------------------------------------------------------------------------------


def next_request(state: QueueState) -> Request | None:
    """Who is to be granted now, if anyone. While frozen: the first who has a pass for every cause."""
    if state.holding is not None:
        return None
    return next((request for request in state.waiting if _may_pass(state, request)), None)


def granted(state: QueueState, request: Request, *, epoch: int, at: datetime, now: datetime) -> QueueState:
    """Make a waiting task the holder, through whatever causes stand.

    Args:
        state: the queue.
        request: the wish, as `next_request` named it.
        epoch: its epoch.
        at: when the epoch began, by the database's clock.
        now: the queue's own clock, by which deadlines are kept.
    """
    waiting = tuple(known for known in state.waiting if known != request)
    holding = Holding(
        request=request,
        epoch=epoch,
        granted_at=at,
        since=now,
        deadline=now + LIMITS[Phase.GRANTED],
        passes=state.causes,
    )
    return _with(state, waiting=waiting, holding=holding)


def not_granted(state: QueueState, epoch: int) -> QueueState:
    """An epoch was opened for a wish that may not be granted any more: it must not stay open."""
    return _with(state, to_close=(*state.to_close, epoch))


def released(state: QueueState, holder: str, epoch: int) -> QueueState:
    """Give back; ignored unless holder and epoch are the current ones, so a zombie clears nobody's lease."""
    holding = state.holding
    if holding is None or holding.epoch != epoch or holding.request.holder != holder:
        return state
    freed = _with(state, holding=None, to_close=(*state.to_close, epoch))
    return _settle(freed, holder, holding.request.turn)


def closed(state: QueueState, epoch: int) -> QueueState:
    """The end of an epoch is on record."""
    return _with(state, to_close=tuple(known for known in state.to_close if known != epoch))


# -- the holder's progress -------------------------------------------------------------------------------------


def entered_phase(state: QueueState, holder: str, epoch: int, phase: Phase, now: datetime) -> QueueState:
    """The holder says what it begins now; nobody else is believed."""
    holding = state.holding
    if holding is None or holding.epoch != epoch or holding.request.holder != holder:
        return state
    entered = _with(holding, phase=phase, since=now, deadline=now + LIMITS[phase], extensions=0)
    return _with(state, holding=entered)


def inspected(state: QueueState, epoch: int, *, running: bool, landed: bool, mark: str, now: datetime) -> QueueState:
    """What a look at the holder found after a deadline: it keeps the lease while it gets on, and no longer.

    Whoever is dead, stuck, or has landed and needs it no more loses the lease. A stuck holder may revive: its epoch
    is over then, and landing compares it.
    """
    holding = state.holding
    if holding is None or holding.epoch != epoch:
        return state
    progress = bool(holding.mark) and mark != holding.mark
    if landed or not running or (not progress and holding.extensions >= EXTENSIONS):
        return released(state, holding.request.holder, epoch)
    extended = _with(
        holding,
        mark=mark,
        extensions=0 if progress else holding.extensions + 1,
        deadline=now + LIMITS[holding.phase],
    )
    return _with(state, holding=extended)


# -- what the rows say -----------------------------------------------------------------------------------------


def refreshed(state: QueueState, freezes: tuple[Freeze, ...], now: datetime) -> QueueState:
    """The rows are the truth about freezes. Passes end with the last cause."""
    red = any(freeze.cause is FreezeCause.BASE_RED for freeze in freezes)
    state = _with(state, freezes=freezes, was_read=True, passes=state.passes if freezes else ())
    if not red:
        return _with(state, base_test_at=None, base_tests=0)
    return state if state.base_test_at else _with(state, base_test_at=now + BASE_TEST_FIRST, base_tests=0)


def took_over(
    state: QueueState, *, task: str, holder: str, generation: int, epoch: int, granted_at: datetime, now: datetime
) -> QueueState:
    """A queue that starts anew finds a lease open: whoever has it keeps it, if a look at once finds it alive.

    A holder that asks has lost its grant: the epoch found is over, and its wish is served like any other.
    """
    if state.holding is not None or epoch in state.to_close:
        return state
    if any(request.holder == holder for request in state.waiting):
        return not_granted(state, epoch)
    # No ticket is known: whatever the holder asks from now on is newer.
    request = Request(holder=holder, generation=generation, ticket=0, task=task, at=granted_at)
    holding = Holding(request=request, epoch=epoch, granted_at=granted_at, since=now, deadline=now)
    return _with(state, holding=holding)


def base_tested(state: QueueState, now: datetime) -> QueueState:
    """The base is still red, or could not be tested: again later, at growing distances."""
    if state.base_test_at is None:
        return state
    tests = state.base_tests + 1
    wait = grace_growth(BASE_TEST_FIRST, tests, BASE_TEST_CEILING)
    return _with(state, base_tests=tests, base_test_at=now + wait)


def base_may_have_moved(state: QueueState, now: datetime) -> QueueState:
    """Somebody may have mended the base: test it at once."""
    return _with(state, base_test_at=now, base_tests=0) if state.base_test_at else state


# -- what people may do ----------------------------------------------------------------------------------------


def passed(state: QueueState, task: str, by: str) -> QueueState:
    """Let a waiting task pass through the causes that stand now; a cause that comes later stops it again."""
    request = waiting_for(state, task)
    if request is None or not state.freezes:
        return state
    others = tuple(known for known in state.passes if known.task != task)
    given = Pass(task=task, generation=request.generation, by=by, causes=state.causes)
    return _with(state, passes=(*others, given))


def refusal(state: QueueState, task: str) -> str:
    """Why a waiting task cannot be bumped or dropped, and how to mend it; empty if it can."""
    if waiting_for(state, task):
        return ""
    if state.holding and state.holding.request.task == task:
        return f"{task} holds the lease ({state.holding.phase}); to stop it, pause or cancel the task"
    waiting = ", ".join(request.task for request in state.waiting) or "nobody"
    return f"{task} does not wait here ({waiting} waits); say it again once the task is queued"


def pass_refusal(state: QueueState, task: str) -> str:
    """Why a task cannot be let through, and how to mend it; empty if it can."""
    if not state.freezes:
        return f"the queue is not frozen: {task} needs no pass; to let it overtake others, bump it"
    return refusal(state, task)


def _may_pass(state: QueueState, request: Request) -> bool:
    if not state.freezes:
        return True
    return any(
        given.task == request.task and given.generation == request.generation and set(state.causes) <= set(given.causes)
        for given in state.passes
    )


def _in_order(*requests: Request) -> tuple[Request, ...]:
    return tuple(sorted(requests, key=lambda request: request.order))


def _settle(state: QueueState, holder: str, turn: tuple[int, int]) -> QueueState:
    settled = {name: last for name, last in state.settled.items() if name != holder}
    settled[holder] = max(turn, state.settled.get(holder, (0, 0)))
    newest = dict(list(settled.items())[-SETTLED_KEPT:])
    return _with(state, settled=newest)


def _with(value: Value, **changes: object) -> Value:
    return value.model_copy(update=changes)
