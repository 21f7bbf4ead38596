"""The lease queue's rules, held under every order of wishes, grants and releases that hypothesis can think of."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from workflows import lease_rules
from workflows.lease_state import LIMITS, QueueState, Request
from workflows.lease_state import Phase as HolderPhase
from workflows.model import Freeze, FreezeCause, Priority

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOLDERS = st.sampled_from([f"task/T-{number}" for number in range(1, 5)])


def wish(
    holder: str, ticket: int, generation: int = 1, *, priority: Priority = Priority.NONE, minute: int = 0
) -> Request:
    """A request whose generation first asked at a minute."""
    return Request(
        holder=holder,
        generation=generation,
        ticket=ticket,
        task=holder.removeprefix("task/"),
        at=NOW,
        priority=priority,
        place=NOW + minute * MINUTE,
    )


def queue_of(*requests: Request) -> QueueState:
    """A queue that was asked in this order."""
    state = QueueState()
    for request in requests:
        state = lease_rules.requested(state, request)
    return state


def tasks(state: QueueState) -> list[str]:
    """Who waits, in the order of service."""
    return [request.task for request in state.waiting]


def frozen(state: QueueState, *causes: FreezeCause) -> QueueState:
    """The queue after its rows were read with these causes standing."""
    freezes = tuple(Freeze(cause=cause, reason="because", since=NOW, by="olga") for cause in causes)
    return lease_rules.refreshed(state, freezes, NOW)


def holding(state: QueueState, epoch: int = 1) -> QueueState:
    """The queue after granting whoever is next."""
    request = lease_rules.next_request(state)
    assert request is not None
    return lease_rules.granted(state, request, epoch=epoch, at=NOW, now=NOW)


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
        self.over: set[Request] = set()
        """Wishes that were withdrawn or dropped."""
        self.may_pass: dict[str, set[FreezeCause]] = {}

    def ask(self, request: Request) -> None:
        """Send a request."""
        holding = self.state.holding
        if holding and holding.request.holder == request.holder and holding.request.turn < request.turn:
            self.open.pop(holding.epoch)  # a newer wish of the holder ends what it held
        self.state = lease_rules.requested(self.state, request)

    @rule(holder=HOLDERS, priority=st.sampled_from(Priority), minute=st.integers(0, 3))
    def request(self, holder: str, priority: Priority, minute: int) -> None:
        """A new wish."""
        self.ticket += 1
        request = wish(holder, self.ticket, priority=priority, minute=minute)
        self.asked.append(request)
        self.ask(request)

    @precondition(lambda self: bool(self.asked))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A wish ends, at whatever time: waiting, granted a moment ago, or long over."""
        request = data.draw(st.sampled_from(self.asked))
        self.state = lease_rules.withdrawn(self.state, request.holder, request.turn)
        self.over |= {known for known in self.asked if known.holder == request.holder and known.turn <= request.turn}
        self.open = {epoch: held for epoch, held in self.open.items() if held not in self.over}

    @precondition(lambda self: bool(self.state.waiting))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A person drops somebody who waits."""
        request = data.draw(st.sampled_from(self.state.waiting))
        self.state = lease_rules.dropped(self.state, request.task)
        self.over.add(request)

    @rule(causes=st.sets(st.sampled_from(FreezeCause), max_size=2))
    def freeze(self, causes: set[FreezeCause]) -> None:
        """The rows say which causes stand."""
        self.state = frozen(self.state, *causes)

    @precondition(lambda self: bool(self.state.waiting))
    @rule(data=st.data())
    def let_pass(self, data: st.DataObject) -> None:
        """A person lets somebody through what stands now."""
        request = data.draw(st.sampled_from(self.state.waiting))
        self.state = lease_rules.passed(self.state, request.task, "olga")
        if self.state.causes:
            self.may_pass[request.task] = set(self.state.causes)

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
        causes = set(self.state.causes)
        assert causes <= self.may_pass.get(request.task, set()), "a frozen queue grants nobody without a pass"
        self.state = lease_rules.granted(self.state, request, epoch=self.epoch, at=NOW, now=NOW)
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
    def the_line_is_in_order(self) -> None:
        """Urgent ones wait before others, and among equals who first asked first."""
        ranks = [(request.priority.rank, request.place) for request in self.state.waiting]
        assert ranks == sorted(ranks)

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
            assert request in self.state.waiting or request in self.grants or request in self.over

    def teardown(self) -> None:
        """If every cause is lifted and every holder releases, everyone in line is granted, in order; all is idle."""
        self.state = frozen(self.state)
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
                max_examples=5000,
                stateful_step_count=30,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
            ),
        )


def test_first_asked_first_served() -> None:
    """The line keeps the order in which tasks first asked; repeating oneself gains nothing."""
    state = queue_of(
        wish("task/T-3", 1, minute=1), wish("task/T-1", 2, minute=2), wish("task/T-2", 3, minute=3),
        wish("task/T-1", 2, minute=0),
    )  # fmt: skip
    assert tasks(state) == ["T-3", "T-1", "T-2"]


def test_a_newer_generation_outranks_its_predecessor() -> None:
    """A restarted task's wish replaces that of the generation before, however high its ticket was."""
    state = lease_rules.requested(QueueState(), wish("task/T-1", 90, generation=1))
    state = lease_rules.requested(state, wish("task/T-1", 3, generation=2))
    assert state.waiting == (wish("task/T-1", 3, generation=2),)
    assert lease_rules.requested(state, wish("task/T-1", 91, generation=1)) == state


def test_a_newer_wish_of_the_holder_ends_what_it_held() -> None:
    """A task that asks again while it holds has lost track of its lease: the old epoch ends, the wish queues."""
    state = lease_rules.requested(holding(queue_of(wish("task/T-1", 1))), wish("task/T-1", 2))
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


def test_an_open_record_keeps_the_queue() -> None:
    """A queue with an epoch not yet recorded as ended is not idle: ending then would leave it open for ever."""
    assert QueueState().idle
    assert not QueueState(to_close=(1,)).idle


# -- order -----------------------------------------------------------------------------------------------------


def test_a_more_urgent_task_overtakes_those_who_wait_but_not_the_holder() -> None:
    """An urgent item goes before everybody in line and leaves the holder alone."""
    state = holding(queue_of(wish("task/T-1", 1)))
    for request in (
        wish("task/T-2", 2, minute=1),
        wish("task/T-3", 3, minute=2, priority=Priority.LOW),
        wish("task/T-4", 4, minute=3, priority=Priority.MEDIUM),
        wish("task/T-5", 5, minute=4, priority=Priority.HIGH),
        wish("task/T-6", 6, minute=5, priority=Priority.URGENT),
    ):
        state = lease_rules.requested(state, request)
    assert tasks(state) == ["T-6", "T-5", "T-4", "T-3", "T-2"]
    assert state.holding is not None
    assert state.holding.request.task == "T-1"
    assert lease_rules.next_request(state) is None


def test_a_place_is_kept_over_re_queues() -> None:
    """A task that comes back with its old place stands before those who first asked after it."""
    state = holding(queue_of(wish("task/T-1", 1, minute=1), wish("task/T-2", 2, minute=2)))
    state = lease_rules.released(state, "task/T-1", 1)
    assert tasks(lease_rules.requested(state, wish("task/T-1", 5, minute=1))) == ["T-1", "T-2"]


def test_equal_places_are_told_apart_by_key_as_a_number() -> None:
    """With the same place T-9 comes before T-10, whoever asked first."""
    assert tasks(queue_of(wish("task/T-10", 1), wish("task/T-9", 2))) == ["T-9", "T-10"]


def test_without_a_place_the_time_of_asking_counts() -> None:
    """A wish of older code, without a place, stands where it asked."""
    early = wish("task/T-9", 1).model_copy(update={"place": None, "at": NOW - MINUTE})
    assert tasks(queue_of(wish("task/T-1", 1), early)) == ["T-9", "T-1"]


def test_bumping_moves_one_entry_and_no_other() -> None:
    """A bumped task takes its place in the other class; bumping one that does not wait changes nothing."""
    state = queue_of(wish("task/T-1", 1, minute=1), wish("task/T-2", 2, minute=2), wish("task/T-3", 3, minute=3))
    assert tasks(lease_rules.bumped(state, "T-3", Priority.URGENT)) == ["T-3", "T-1", "T-2"]
    assert lease_rules.bumped(state, "T-8", Priority.URGENT) == state


# -- leaving ---------------------------------------------------------------------------------------------------


def test_withdrawing_takes_back_a_grant_that_is_on_its_way() -> None:
    """Whoever withdraws a wish does not have its lease: the epoch ends, the next one is served."""
    state = holding(queue_of(wish("task/T-1", 1, minute=1), wish("task/T-2", 2, minute=2)))
    state = lease_rules.withdrawn(state, "task/T-1", (1, 1))
    assert (state.holding, state.to_close) == (None, (1,))
    assert lease_rules.next_request(state) == wish("task/T-2", 2, minute=2)


def test_withdrawing_an_older_wish_leaves_the_lease_of_a_newer_one() -> None:
    """A late withdrawal of a wish before the granted one takes nothing."""
    state = holding(queue_of(wish("task/T-1", 5)))
    assert lease_rules.withdrawn(state, "task/T-1", (1, 4)).holding == state.holding


def test_dropping_removes_the_entry_and_its_pass_for_good() -> None:
    """A dropped task waits no more, a late repeat of its wish queues nobody, a new wish does, without the old pass."""
    state = lease_rules.passed(frozen(queue_of(wish("task/T-1", 1)), FreezeCause.OPERATOR), "T-1", "olga")
    state = lease_rules.dropped(state, "T-1")
    assert (state.waiting, state.passes) == ((), ())
    assert lease_rules.requested(state, wish("task/T-1", 1)) == state
    assert tasks(lease_rules.requested(state, wish("task/T-1", 2))) == ["T-1"]
    assert lease_rules.dropped(state, "T-1") == state


def test_an_epoch_that_nobody_got_is_closed() -> None:
    """An epoch opened for a wish that ended meanwhile does not stay open."""
    assert lease_rules.not_granted(QueueState(), 4).to_close == (4,)


# -- freezes and passes ----------------------------------------------------------------------------------------


def test_a_frozen_queue_grants_only_who_may_pass() -> None:
    """While any cause stands only a task with a pass is granted, before others that wait longer."""
    state = frozen(queue_of(wish("task/T-1", 1, minute=1), wish("task/T-2", 2, minute=2)), FreezeCause.BASE_RED)
    assert lease_rules.next_request(state) is None
    state = holding(lease_rules.passed(state, "T-2", "olga"))
    assert state.holding is not None
    assert (state.holding.request.task, state.holding.passes) == ("T-2", (FreezeCause.BASE_RED,))


def test_a_pass_covers_only_the_causes_that_stood() -> None:
    """A cause that comes after the pass stops the task again; fewer causes do not."""
    waiting = queue_of(wish("task/T-1", 1))
    given = lease_rules.passed(frozen(waiting, FreezeCause.BASE_RED, FreezeCause.DEPLOY_FAILED), "T-1", "olga")
    assert lease_rules.next_request(frozen(given, FreezeCause.BASE_RED)) is not None
    assert lease_rules.next_request(frozen(given, FreezeCause.BASE_RED, FreezeCause.OPERATOR)) is None


def test_a_pass_is_for_one_generation_and_outlives_a_re_queue() -> None:
    """The same generation passes again after it was thrown back; the next generation needs a pass of its own."""
    state = lease_rules.passed(frozen(queue_of(wish("task/T-1", 1)), FreezeCause.BASE_RED), "T-1", "olga")
    back = lease_rules.released(holding(state), "task/T-1", 1)
    assert lease_rules.next_request(lease_rules.requested(back, wish("task/T-1", 2))) is not None
    assert lease_rules.next_request(lease_rules.requested(back, wish("task/T-1", 2, generation=2))) is None


def test_passes_end_with_the_last_cause() -> None:
    """A later freeze is not passed on an old word."""
    state = lease_rules.passed(frozen(queue_of(wish("task/T-1", 1)), FreezeCause.BASE_RED), "T-1", "olga")
    assert frozen(frozen(state), FreezeCause.BASE_RED).passes == ()


def test_a_grant_without_a_freeze_passes_nothing() -> None:
    """A holder that was granted in the open is stopped by any later cause."""
    held = holding(queue_of(wish("task/T-1", 1))).holding
    assert held is not None
    assert held.passes == ()


def test_a_frozen_queue_and_a_pass_keep_the_queue() -> None:
    """A queue that knows a cause does not end: it would forget what it tests and whom it lets pass."""
    assert not frozen(QueueState(), FreezeCause.OPERATOR).idle


def test_what_cannot_be_done_is_refused_with_a_way_to_mend_it() -> None:
    """A holder is not dropped or bumped, an absent task neither; a pass is for a waiting task of a frozen queue."""
    state = holding(queue_of(wish("task/T-1", 1, minute=1), wish("task/T-2", 2, minute=2)))
    assert "pause or cancel" in lease_rules.refusal(state, "T-1")
    assert "once the task is queued" in lease_rules.refusal(state, "T-9")
    assert lease_rules.refusal(state, "T-2") == ""
    assert "not frozen" in lease_rules.pass_refusal(state, "T-2")
    assert lease_rules.pass_refusal(frozen(state, FreezeCause.OPERATOR), "T-2") == ""
    assert "T-9 does not wait" in lease_rules.pass_refusal(frozen(state, FreezeCause.OPERATOR), "T-9")
    assert lease_rules.passed(state, "T-2", "olga") == state


# -- phases and reclaim ----------------------------------------------------------------------------------------


def looked(state: QueueState, *, running: bool = True, landed: bool = False, mark: str = "s1") -> QueueState:
    """The queue after a look at its holder."""
    held = state.holding
    assert held is not None
    return lease_rules.inspected(state, held.epoch, running=running, landed=landed, mark=mark, now=held.deadline)


def test_a_phase_moves_the_deadline_and_only_the_holder_says_it() -> None:
    """Each phase has its own deadline; a report under another epoch or by another task changes nothing."""
    state = holding(queue_of(wish("task/T-1", 1)))
    later = NOW + MINUTE
    tested = lease_rules.entered_phase(state, "task/T-1", 1, HolderPhase.TESTING, later).holding
    assert tested is not None
    assert (tested.phase, tested.since) == (HolderPhase.TESTING, later)
    assert tested.deadline == later + LIMITS[HolderPhase.TESTING]
    assert lease_rules.entered_phase(state, "task/T-1", 2, HolderPhase.TESTING, later) == state
    assert lease_rules.entered_phase(state, "task/T-2", 1, HolderPhase.TESTING, later) == state
    assert lease_rules.entered_phase(QueueState(), "task/T-1", 1, HolderPhase.TESTING, later) == QueueState()


def test_a_holder_that_is_dead_or_has_landed_is_reclaimed_at_once() -> None:
    """Who does not run holds nothing, and who has landed needs the lease no more."""
    state = holding(queue_of(wish("task/T-1", 1)))
    for ended in (looked(state, running=False), looked(state, landed=True)):
        assert (ended.holding, ended.to_close) == (None, (1,))


def test_a_holder_without_progress_is_extended_so_often_and_no_more() -> None:
    """A holder that runs and stands still keeps the lease for the extensions, then loses it."""
    state = holding(queue_of(wish("task/T-1", 1)))
    for _ in range(lease_rules.EXTENSIONS):
        state = looked(state)
        assert state.holding is not None
    assert looked(state).holding is None


def test_progress_and_a_phase_start_the_count_anew() -> None:
    """A holder that gets on is never reclaimed, however long it takes."""
    state = holding(queue_of(wish("task/T-1", 1)))
    for step in range(10):
        state = looked(looked(state, mark=f"s{step}"), mark=f"s{step}")
    assert state.holding is not None
    entered = lease_rules.entered_phase(state, "task/T-1", 1, HolderPhase.CI, NOW).holding
    assert entered is not None
    assert entered.extensions == 0


def test_a_look_at_an_epoch_that_ended_meanwhile_changes_nothing() -> None:
    """The answer of a slow look never reclaims the lease of the next holder."""
    state = holding(queue_of(wish("task/T-1", 1)), epoch=2)
    assert lease_rules.inspected(state, 1, running=False, landed=False, mark="", now=NOW) == state


# -- a fresh start ---------------------------------------------------------------------------------------------


def took_over(state: QueueState) -> QueueState:
    """The queue after it found epoch 5 of T-1 open."""
    return lease_rules.took_over(state, task="T-1", holder="task/T-1", generation=1, epoch=5, granted_at=NOW, now=NOW)


def test_an_open_lease_found_at_a_fresh_start_is_taken_over_and_looked_at() -> None:
    """Whoever has the lease keeps it, may release it, and is inspected at once; nobody else is granted."""
    state = took_over(queue_of(wish("task/T-2", 1)))
    assert state.holding is not None
    assert (state.holding.epoch, state.holding.deadline) == (5, NOW)
    assert lease_rules.next_request(state) is None
    assert lease_rules.released(state, "task/T-1", 5).holding is None


def test_a_holder_that_asks_has_lost_its_grant() -> None:
    """A lease found open of a task that waits is over, whether it asked before the look or after."""
    before = took_over(queue_of(wish("task/T-1", 3)))
    after = lease_rules.requested(took_over(QueueState()), wish("task/T-1", 3))
    for state in (before, after):
        assert (state.holding, state.to_close, tasks(state)) == (None, (5,), ["T-1"])


def test_a_known_holder_or_an_ended_epoch_is_not_taken_over() -> None:
    """What the queue knows is newer than the row."""
    held = holding(queue_of(wish("task/T-2", 1)), epoch=6)
    assert took_over(held) == held
    assert took_over(QueueState(to_close=(5,))).holding is None


# -- a red base ------------------------------------------------------------------------------------------------


def test_a_red_base_is_tested_again_at_growing_distances() -> None:
    """First after a minute, then doubling up to half an hour; a repeated look at the rows does not start it anew."""
    state = frozen(QueueState(), FreezeCause.BASE_RED)
    assert state.base_test_at == NOW + MINUTE
    waits = []
    for _ in range(7):
        state = frozen(lease_rules.base_tested(state, NOW), FreezeCause.BASE_RED)
        assert state.base_test_at is not None
        waits.append((state.base_test_at - NOW) // MINUTE)
    assert waits == [2, 4, 8, 16, 30, 30, 30]


def test_a_base_that_may_have_moved_is_tested_at_once() -> None:
    """News of the base bring the test forward and start the distances anew; without a red base there is none."""
    state = lease_rules.base_tested(frozen(QueueState(), FreezeCause.BASE_RED), NOW)
    moved = lease_rules.base_may_have_moved(state, NOW)
    assert (moved.base_test_at, moved.base_tests) == (NOW, 0)
    assert lease_rules.base_may_have_moved(QueueState(), NOW) == QueueState()
    assert frozen(moved, FreezeCause.OPERATOR).base_test_at is None
    assert lease_rules.base_tested(QueueState(), NOW) == QueueState()
