"""The rows and the queue's workflow in the model: the rules are the product's own, merge_queue.py's loop is retold."""

from collections.abc import Callable
from typing import Any

from tests.proof.gate_parts import ENDED, QUEUE, Message, Row, Steps, Switch, Violation
from tests.proof.gate_task import Task
from tests.proof.model_git import Sha
from workflows import lease_rules as rules
from workflows.lease_state import Phase, QueueState, Request
from workflows.model import FreezeCause, Lease


class Queue:
    """Rows that outlive everything, and one workflow that may be ended, renewed, or crash after any effect."""

    # -- rows ------------------------------------------------------------------------------------------------

    def open_lease(self, request: Request) -> Row:
        """A new epoch; what the row said before is over."""
        if self.row is not None:
            self.closed_at.setdefault(self.row.epoch, self.tick)
        self.epochs += 1
        self.row = Row(self.epochs, request.holder, request.generation, self.now)
        return self.row

    def close_lease(self, epoch: int) -> None:
        """Only the current epoch is closed."""
        if self.row is not None and self.row.epoch == epoch:
            self.row.open = False
            self.closed_at.setdefault(epoch, self.tick)

    def holds(self, epoch: int) -> bool:
        """Whether an epoch is the current one and not released."""
        return self.row is not None and self.row.open and self.row.epoch == epoch

    def stopped_by(self, lease: Lease) -> bool:
        """Whether a cause stands that this holder was not let through."""
        return any(cause not in lease.passes for cause in self.rows)

    def ours(self, sha: Sha) -> bool:
        """Whether an intent stands for what is on main."""
        epochs = [epoch for (known, epoch), status in self.intents.items() if known == sha and status != "abandoned"]
        for epoch in epochs:
            self.intents[sha, epoch] = "landed"
        return bool(epochs)

    def settle(self, sha: Sha, epoch: int, status: str) -> None:
        """What became of an intent."""
        self.intents[sha, epoch] = status

    # -- the queue's workflow --------------------------------------------------------------------------------

    def _done(self, effect: Callable[[], Any]) -> Steps:
        """An activity of the queue: a crash after its effect repeats it."""
        while True:
            result = effect()
            self.queue_crashed = False
            yield
            if not self.queue_crashed:
                return result

    queue_crashed = False

    def _serve(self) -> Steps:
        while True:
            yield from self._read_rows()
            for epoch in self.queue.to_close:
                yield from self._done(lambda epoch=epoch: self.close_lease(epoch))
                self.queue = rules.closed(self.queue, epoch)
            yield from self._inspect()
            yield from self._grant()
            self._test_base()
            if self.renew:
                self.renew = False
                self.seen["continued as new"] += 1
                self.queue = QueueState.model_validate_json(self.queue.model_dump_json())
            if not self._has_work:
                yield

    @property
    def _has_work(self) -> bool:
        state = self.queue
        return bool(
            self.look
            or state.to_close
            or rules.next_request(state)
            or (state.holding and state.holding.deadline <= self.now)
            or (state.base_test_at and state.base_test_at <= self.now)
            or self.renew
        )

    def _read_rows(self) -> Steps:
        if not self.look:
            return
        self.look, fresh = False, not self.queue.was_read
        row = self.row
        rows = yield from self._done(lambda: tuple(self.rows.values()))
        if fresh and row is not None and row.open:
            self.queue = rules.took_over(
                self.queue,
                task=row.holder.removeprefix("task/"),
                holder=row.holder,
                generation=row.generation,
                epoch=row.epoch,
                granted_at=row.granted_at,
                now=self.now,
            )
        self.queue = rules.refreshed(self.queue, rows, self.now)

    def _inspect(self) -> Steps:
        holding = self.queue.holding
        if holding is None or holding.deadline > self.now:
            return
        task = self._named(holding.request.task)
        lie, self.lie = self.lie, False

        def look() -> tuple[bool, bool, str]:
            landed = any(epoch == holding.epoch and status == "landed" for (_, epoch), status in self.intents.items())
            return task.stage not in ENDED and not lie, landed, str(self.fences.get(task.key))

        running, landed, mark = yield from self._done(look)
        before = self.queue.holding
        self.queue = rules.inspected(self.queue, holding.epoch, running=running, landed=landed, mark=mark, now=self.now)
        if before is not None and self.queue.holding is None:
            self.seen["reclaimed"] += 1

    def _grant(self) -> Steps:
        request = rules.next_request(self.queue)
        if request is None or self.queue.to_close:
            return
        row = yield from self._done(lambda: self.open_lease(request))
        if self.look or rules.next_request(self.queue) != request:
            self.queue = rules.not_granted(self.queue, row.epoch)
            return
        if request.ticket <= self.over.get(request.holder, 0):
            raise Violation("I9", f"a wish of {request.task} that is over is granted again")
        self._check_order(request)
        if self.queue.holding is not None:
            raise Violation("I3", f"{request.task} is granted while {self.queue.holding.request.task} holds")
        waiting = self.queue
        self.queue = rules.granted(waiting, request, epoch=row.epoch, at=row.granted_at, now=self.now)
        assert self.queue.holding is not None
        passes = self.queue.holding.passes
        lease = Lease(queue=QUEUE, epoch=row.epoch, ticket=request.ticket, granted_at=row.granted_at, passes=passes)
        if self._named(request.task).gone:
            self.queue = rules.released(self.queue, request.holder, row.epoch)
            return
        self.seen["granted"] += 1
        self.signals.send(request.task, "grant", lease)

    def _test_base(self) -> None:
        due = self.queue.base_test_at
        if due is None or due > self.now:
            return
        if self.git.passes(self.git.tree(self.git.main)):
            self.lift(FreezeCause.BASE_RED)
        self.queue = rules.base_tested(self.queue, self.now)

    def step_queue(self) -> bool:
        """One boundary of the queue; False if it waits."""
        if not self.running or (self._idle_queue and not self._has_work):
            return False
        self._idle_queue = False
        next(self._serving)
        self._idle_queue = self._serving.gi_yieldfrom is None
        return True

    _idle_queue = False

    def _named(self, key: str) -> Task:
        return next(task for task in self.tasks if task.key == key)

    def hear(self, message: Message) -> None:
        """A signal arrives."""
        if message.to != "queue":
            task = self._named(message.to)
            if message.kind == "grant" and not task.gone:
                task.take_grant(message.body)
            return
        if not self.running:
            if message.kind not in {"request", "refresh"}:
                return
            self._begin_queue()
        getattr(self, f"_hear_{message.kind}")(message.body)

    def _begin_queue(self) -> None:
        self.queue, self.running, self.look, self.over = QueueState(), True, True, {}
        self._serving, self._idle_queue = self._serve(), False

    def _hear_request(self, request: Request) -> None:
        before = self.queue.holding
        self.queue = rules.requested(self.queue, request)
        repeat = before is not None and before.request.holder == request.holder and before.request.turn >= request.turn
        if repeat and self.queue.holding != before:
            raise Violation("I4", f"a repeat of {request.task}'s wish ended its lease")

    def _hear_withdraw(self, body: tuple[str, tuple[int, int]]) -> None:
        self.queue = rules.withdrawn(self.queue, *body)
        self._is_over(body[0], body[1][1])

    def _is_over(self, holder: str, ticket: int) -> None:
        self.over[holder] = max(ticket, self.over.get(holder, 0))

    def _hear_phase(self, body: tuple[str, int, Phase]) -> None:
        self.queue = rules.entered_phase(self.queue, *body, self.now)

    def _hear_refresh(self, _body: None) -> None:
        self.look = True

    def _hear_release(self, body: tuple[str, int]) -> None:
        before = self.queue.holding
        if Switch.UNFENCED_RELEASE in self.switches and before is not None:
            self.queue = rules.released(self.queue, before.request.holder, before.epoch)
        else:
            self.queue = rules.released(self.queue, *body)
        self.queue = rules.base_may_have_moved(self.queue, self.now)
        gone = before is not None and self.queue.holding is None
        if before is not None and gone and (before.request.holder, before.epoch) != body:
            raise Violation("I4", f"the release of epoch {body[1]} cleared epoch {before.epoch}")
        if before is not None and gone:
            self._is_over(body[0], before.request.ticket)
