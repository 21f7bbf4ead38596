"""The lease queue's rules, held under every order of wishes, grants and releases that hypothesis can think of."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from workflows import lease_rules
from workflows.lease_rules import QueueState, Request

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLDERS = st.sampled_from([f"task/T-{number}" for number in range(1, 5)])


def wish(holder: str, ticket: int, generation: int = 1) -> Request:
    """A request."""
    return Request(holder=holder, generation=generation, ticket=ticket, task=holder.removeprefix("task/"), at=NOW)


class Queue(RuleBasedStateMachine):
    """Tasks that ask, repeat themselves, die and release, against a queue that grants; some of them lie."""

    release: Callable[[QueueState, str, int], QueueState] = staticmethod(lease_rules.released)

    def __init__(self) -> None:
        super().__init__()
        self.state = QueueState()
        self.epoch = 0
        self.ticket = 0
        self.open: dict[int, Request] = {}
        """Epochs granted whose holder has not released them: the truth, kept beside the queue."""
        self.grants: list[Request] = []
        self.asked: list[Request] = []

    def ask(self, request: Request) -> None:
        """Send a request."""
        holding = self.state.holding
        if holding and holding.request.holder == request.holder and holding.request.turn < request.turn:
            self.open.pop(holding.epoch)  # a newer wish of the holder ends what it held
        self.state = lease_rules.requested(self.state, request)

    @rule(holder=HOLDERS)
    def request(self, holder: str) -> None:
        """A new wish."""
        self.ticket += 1
        request = wish(holder, self.ticket)
        self.asked.append(request)
        self.ask(request)

    @precondition(lambda self: bool(self.asked))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An old wish arrives again, however late."""
        request = data.draw(st.sampled_from(self.asked))
        before = self.state
        over = any(later.holder == request.holder and later.turn > request.turn for later in self.asked)
        self.ask(request)
        if over or request in self.grants or request in before.waiting:
            assert self.state == before, "a repeated or settled request queues nobody"

    @precondition(lambda self: lease_rules.next_request(self.state) is not None)
    @rule()
    def grant(self) -> None:
        """The queue grants the first in line, under the next epoch."""
        request = lease_rules.next_request(self.state)
        assert request is not None
        self.epoch += 1
        self.state = lease_rules.granted(self.state, request, epoch=self.epoch, at=NOW, inspect_at=NOW)
        self.open[self.epoch] = request
        self.grants.append(request)

    @precondition(lambda self: bool(self.open))
    @rule()
    def give_back(self) -> None:
        """The holder releases."""
        epoch, request = next(iter(self.open.items()))
        self.state = self.release(self.state, request.holder, epoch)
        del self.open[epoch]

    @rule(holder=HOLDERS, epoch=st.integers(0, 20))
    def release_what_is_not_held(self, holder: str, epoch: int) -> None:
        """A zombie releases an epoch that is not its own."""
        if epoch in self.open and self.open[epoch].holder == holder:
            return
        before = self.state
        self.state = self.release(self.state, holder, epoch)
        assert self.state == before, "a release with a wrong holder or epoch changes nothing"

    @precondition(lambda self: bool(self.state.to_close))
    @rule()
    def close(self) -> None:
        """The end of an epoch goes on record."""
        self.state = lease_rules.closed(self.state, self.state.to_close[0])

    @invariant()
    def one_holder(self) -> None:
        """The queue's holder is the only one whose lease is open."""
        held = {self.state.holding.epoch: self.state.holding.request} if self.state.holding else {}
        assert held == self.open

    @invariant()
    def nobody_waits_twice(self) -> None:
        """Each holder is in line at most once, and never for a wish it already has or had."""
        waiting = [request.holder for request in self.state.waiting]
        assert len(waiting) == len(set(waiting))
        assert not set(self.state.waiting) & set(self.grants)

    @invariant()
    def every_wish_is_granted_once(self) -> None:
        """No wish is granted twice."""
        assert len(self.grants) == len(set(self.grants))

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """The newest wish of each task waits or has been granted."""
        newest = {request.holder: request for request in self.asked}
        for request in newest.values():
            assert request in self.state.waiting or request in self.grants

    def teardown(self) -> None:
        """If every holder releases, everyone in line is granted, in order, and the queue is idle."""
        line = list(self.state.waiting)
        granted_before = len(self.grants)
        while self.open or lease_rules.next_request(self.state):
            if self.open:
                self.give_back()
            else:
                self.grant()
        assert self.grants[granted_before:] == line
        for epoch in self.state.to_close:
            self.state = lease_rules.closed(self.state, epoch)
        assert self.state.idle


def test_the_rules_hold() -> None:
    """One holder, no epoch twice, nobody queued twice, everyone granted once and in order, zombies ignored."""
    run_state_machine_as_test(Queue, settings=settings(max_examples=150, stateful_step_count=30, deadline=None))


def unfenced(state: QueueState, holder: str, epoch: int) -> QueueState:
    """A release that believes whoever calls it."""
    holding = state.holding
    return lease_rules.released(state, holding.request.holder, holding.epoch) if holding else state


def by_holder_only(state: QueueState, holder: str, epoch: int) -> QueueState:
    """A release that forgets the epoch."""
    return lease_rules.released(state, holder, state.holding.epoch) if state.holding else state


@pytest.mark.parametrize("mutant", [unfenced, by_holder_only])
def test_a_weaker_release_is_found_out(mutant: Callable[[QueueState, str, int], QueueState]) -> None:
    """The properties are no formality: a release without holder or epoch breaks one of them."""

    class Mutated(Queue):
        release = staticmethod(mutant)

    with pytest.raises(AssertionError, match="changes nothing"):
        run_state_machine_as_test(
            Mutated,
            settings=settings(
                max_examples=200, stateful_step_count=30, deadline=None, database=None, phases=[Phase.generate]
            ),
        )


def test_first_asked_first_served() -> None:
    """The line keeps the order in which tasks first asked; repeating oneself gains nothing."""
    state = QueueState()
    for request in (wish("task/T-1", 1), wish("task/T-2", 2), wish("task/T-3", 3), wish("task/T-2", 2)):
        state = lease_rules.requested(state, request)
    assert [request.task for request in state.waiting] == ["T-1", "T-2", "T-3"]


def test_a_newer_generation_outranks_its_predecessor() -> None:
    """A restarted task's wish replaces that of the generation before, however high its ticket was."""
    state = lease_rules.requested(QueueState(), wish("task/T-1", 90, generation=1))
    state = lease_rules.requested(state, wish("task/T-1", 3, generation=2))
    assert state.waiting == (wish("task/T-1", 3, generation=2),)
    assert lease_rules.requested(state, wish("task/T-1", 91, generation=1)) == state


def test_a_newer_wish_of_the_holder_ends_what_it_held() -> None:
    """A task that asks again while it holds has lost track of its lease: the old epoch ends, the wish queues."""
    state = lease_rules.requested(QueueState(), wish("task/T-1", 1))
    state = lease_rules.granted(state, wish("task/T-1", 1), epoch=1, at=NOW, inspect_at=NOW)
    state = lease_rules.requested(state, wish("task/T-1", 2))
    assert (state.holding, state.to_close) == (None, (1,))
    assert state.waiting == (wish("task/T-1", 2),)


def test_withdrawing_leaves_later_wishes() -> None:
    """Leaving the line takes back the wish named and older ones, and a late repeat of it queues nobody."""
    state = lease_rules.requested(QueueState(), wish("task/T-1", 1))
    state = lease_rules.withdrawn(state, "task/T-1", (1, 1))
    assert state.waiting == ()
    assert lease_rules.requested(state, wish("task/T-1", 1)) == state
    newer = lease_rules.requested(state, wish("task/T-1", 2))
    assert lease_rules.withdrawn(newer, "task/T-1", (1, 1)).waiting == newer.waiting


def test_settled_memory_is_bounded_and_forgets_the_oldest() -> None:
    """The queue's memory of past holders does not grow without end; the newest are kept."""
    state = QueueState()
    for number in range(1, lease_rules.SETTLED_KEPT + 11):
        state = lease_rules.withdrawn(state, f"task/T-{number}", (1, 1))
    assert len(state.settled) == lease_rules.SETTLED_KEPT
    assert f"task/T-{lease_rules.SETTLED_KEPT + 10}" in state.settled
    assert "task/T-1" not in state.settled


def test_inspection_is_put_off_only_for_a_holder() -> None:
    """`extended` moves the next inspection of a holder and changes nothing where there is none."""
    assert lease_rules.extended(QueueState(), NOW) == QueueState()
    state = lease_rules.requested(QueueState(), wish("task/T-1", 1))
    state = lease_rules.granted(state, wish("task/T-1", 1), epoch=1, at=NOW, inspect_at=NOW)
    later = NOW.replace(hour=1)
    holding = lease_rules.extended(state, later).holding
    assert holding is not None
    assert holding.inspect_at == later


def test_an_open_record_keeps_the_queue() -> None:
    """A queue with an epoch not yet recorded as ended is not idle: ending then would leave it open for ever."""
    assert QueueState().idle
    assert not QueueState(to_close=(1,)).idle
