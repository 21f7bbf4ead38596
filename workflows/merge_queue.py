"""Lease queues: who may land on a branch, and who may deploy to an environment. Pure schedulers.

The rules are in lease_rules.py; this file only gives them signals, timers, epochs and what the rows say.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows import base_test
from workflows import lease_rules as rules
from workflows.calls import call
from workflows.contracts import leases
from workflows.interface import QueueCommand
from workflows.lease_state import PhaseReport, QueueState, Release, Request, Withdrawal
from workflows.model import FreezeCause, Frozen, GateOutcome, Lease

IDLE_END = timedelta(minutes=30)
"""How long a queue without anything to do stays; a frozen one looks at its rows again this often."""


class QueueInput(Frozen):
    """The single argument of a lease queue."""

    state: QueueState = QueueState()


class LeaseQueue:
    """What both kinds of lease queue do: one holder, order, freezes; waiting takes no slot."""

    def __init__(self, arg: QueueInput) -> None:
        self._state = arg.state
        self._look = not arg.state.was_read
        """Whether the rows are to be read: a queue that starts anew must not forget a freeze or a holder."""
        self._reading = False
        self._testing: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Serve until idle, then end; the next request starts the queue again."""
        while True:
            if not await self._something_to_do() and await self._quiet() and self._state.idle:
                return
            await self._read_rows()
            await self._close_ended()
            await self._inspect_holder()
            await self._grant_next()
            self._test_base()
            suggested = workflow.info().is_continue_as_new_suggested()
            if suggested and self._testing is None and await self._quiet():
                workflow.continue_as_new(QueueInput(state=self._state))

    async def _quiet(self) -> bool:
        """Let the handlers finish; False if the rows are to be read first, which a handler may wait for."""
        await workflow.wait_condition(lambda: self._look or workflow.all_handlers_finished())
        return not self._look

    async def _something_to_do(self) -> bool:
        """Wait for it; False once the queue may end."""
        idle = workflow.now() + IDLE_END
        due = min(self._alarm() or idle, idle)
        try:
            await workflow.wait_condition(
                lambda: bool(
                    self._look
                    or self._state.to_close
                    or rules.next_request(self._state)
                    or (self._alarm() or due) < due
                ),
                timeout=max(due - workflow.now(), timedelta(0)),
                timeout_summary="look at holder and base" if due < idle else "look at the freezes, or end when idle",
            )
        except TimeoutError:
            # What froze a queue may have been lifted without our hearing of it.
            self._look = self._look or (bool(self._state.freezes) and due == idle)
            return not self._state.idle
        return True

    def _alarm(self) -> datetime | None:
        """When to look at the holder or to test the base, whichever comes first."""
        times = [self._state.holding.deadline] if self._state.holding else []
        if self._state.base_test_at and self._testing is None:
            times.append(self._state.base_test_at)
        return min(times, default=None)

    async def _read_rows(self) -> None:
        if not self._look:
            return
        self._look, self._reading, fresh = False, True, not self._state.was_read
        rows = await call(
            leases.read_queue, leases.ReadQueue(queue=workflow.info().workflow_id), summary="which causes stand?"
        )
        if fresh and rows.lease is not None:
            self._state = rules.took_over(self._state, now=workflow.now(), **rows.lease.model_dump())
        self._state = rules.refreshed(self._state, rows.freezes, workflow.now())
        self._reading = False

    async def _close_ended(self) -> None:
        for epoch in self._state.to_close:
            await call(
                leases.close_lease,
                leases.CloseLease(queue=workflow.info().workflow_id, epoch=epoch),
                summary=f"epoch {epoch} has ended",
            )
            self._state = rules.closed(self._state, epoch)

    async def _inspect_holder(self) -> None:
        holding = self._state.holding
        if holding is None or holding.deadline > workflow.now():
            return
        found = await call(
            leases.inspect_holder,
            leases.InspectHolder(
                holder=holding.request.holder,
                generation=holding.request.generation,
                epoch=holding.epoch,
                asked_at=holding.request.at,
            ),
            summary=f"does {holding.request.holder} live?",
        )
        self._state = rules.inspected(
            self._state,
            holding.epoch,
            running=found.running,
            landed=found.landed,
            mark=found.mark,
            now=workflow.now(),
        )

    async def _grant_next(self) -> None:
        request = rules.next_request(self._state)
        if request is None or self._state.to_close:
            return
        queue = workflow.info().workflow_id
        opened = await call(
            leases.open_lease,
            leases.OpenLease(queue=queue, holder=request.holder, generation=request.generation),
            summary=f"open an epoch for {request.task}",
        )
        if self._look or rules.next_request(self._state) != request:
            # It left or asked anew, or somebody froze the queue meanwhile.
            self._state = rules.not_granted(self._state, opened.epoch)
            return
        self._state = rules.granted(self._state, request, epoch=opened.epoch, at=opened.granted_at, now=workflow.now())
        assert self._state.holding is not None
        lease = Lease(
            queue=queue,
            epoch=opened.epoch,
            ticket=request.ticket,
            granted_at=opened.granted_at,
            passes=self._state.holding.passes,
        )
        try:
            await workflow.get_external_workflow_handle(request.holder).signal("lease_granted", lease)
        except ApplicationError:
            # The holder has ended since it asked.
            self._state = rules.released(self._state, request.holder, opened.epoch)

    # -- a red base ------------------------------------------------------------------------------------------

    def _test_base(self) -> None:
        due = self._state.base_test_at
        if due is not None and due <= workflow.now() and self._testing is None:
            self._testing = asyncio.create_task(self._tested())

    async def _tested(self) -> None:
        """Beside the queue's other work: a test may take an hour, and who has a pass need not wait for it."""
        try:
            tested = await base_test.run(workflow.info().workflow_id)
            if tested.outcome is GateOutcome.GREEN:
                await call(
                    leases.lift_freeze,
                    leases.LiftFreeze(
                        queue=workflow.info().workflow_id,
                        cause=FreezeCause.BASE_RED,
                        reason=f"{tested.sha[:10]} passes its tests",
                        by="the merge queue",
                    ),
                    summary="the base is green again",
                )
                self._look = True
        finally:
            self._testing = None
            self._state = rules.base_tested(self._state, workflow.now())

    # -- what others say -------------------------------------------------------------------------------------

    @workflow.signal(description="A task wishes to hold the lease.")
    def request(self, request: Request) -> None:
        """Queue a wish."""
        self._state = rules.requested(self._state, request)

    @workflow.signal(description="A task does not wish to hold the lease any more.")
    def withdraw(self, withdrawal: Withdrawal) -> None:
        """End a wish."""
        turn = (withdrawal.generation, withdrawal.ticket)
        self._state = rules.withdrawn(self._state, withdrawal.holder, turn)

    @workflow.signal(description="The holder gives the lease back.")
    def release(self, release: Release) -> None:
        """Free the lease; what it was used for may have mended a red base."""
        self._state = rules.released(self._state, release.holder, release.epoch)
        self._state = rules.base_may_have_moved(self._state, workflow.now())

    @workflow.signal(description="The holder says what it begins.")
    def phase(self, report: PhaseReport) -> None:
        """Move the deadline."""
        self._state = rules.entered_phase(self._state, report.holder, report.epoch, report.phase, workflow.now())

    @workflow.signal(description="The rows of this queue have changed: look again.")
    def refresh(self) -> None:
        """Read the freezes again."""
        self._look = True

    @workflow.signal(description="The base branch has moved.")
    def base_moved(self) -> None:
        """Test a red base at once."""
        self._state = rules.base_may_have_moved(self._state, workflow.now())

    @workflow.query(description="Who holds the lease, who waits, what is frozen.")
    def show(self) -> QueueState:
        """The whole queue, in the order of service."""
        return self._state

    # -- what people do --------------------------------------------------------------------------------------

    @workflow.update(description="Give a waiting task another priority.")
    async def bump(self, command: QueueCommand) -> str:
        """Let it overtake, or fall back behind, those who wait."""
        assert command.priority is not None
        self._state = rules.bumped(self._state, command.task, command.priority)
        await self._record("bump", command)
        return f"{command.task} waits with priority {command.priority}"

    @bump.validator
    def _validate_bump(self, command: QueueCommand) -> None:
        _refuse("say which priority, for instance urgent" if command.priority is None else "")
        _refuse(rules.refusal(self._state, command.task))

    @workflow.update(description="Take a waiting task out of the queue; it asks a person.")
    async def drop(self, command: QueueCommand) -> str:
        """Remove it and tell it."""
        request = rules.waiting_for(self._state, command.task)
        assert request is not None
        self._state = rules.dropped(self._state, command.task)
        await self._record("drop", command)
        told = leases.LeaseDropped(ticket=request.ticket, by=command.by, reason=command.reason)
        try:
            await workflow.get_external_workflow_handle(request.holder).signal("lease_dropped", told)
        except ApplicationError:
            return f"{command.task} is out of the queue; it has ended"
        return f"{command.task} is out of the queue and asks a person"

    @drop.validator
    def _validate_drop(self, command: QueueCommand) -> None:
        _refuse(rules.refusal(self._state, command.task))

    @workflow.update(description="Let one waiting task pass through the causes that stand now.")
    async def grant_pass(self, command: QueueCommand) -> str:
        """The full gate applies to it all the same. A freeze that the queue was just told of is read first."""
        await workflow.wait_condition(lambda: self._rows_known)
        _refuse(rules.pass_refusal(self._state, command.task))
        self._state = rules.passed(self._state, command.task, command.by)
        causes = ", ".join(self._state.causes)
        await self._record("pass", command)
        return f"{command.task} may pass through: {causes}"

    @grant_pass.validator
    def _validate_grant_pass(self, command: QueueCommand) -> None:
        if self._rows_known:
            _refuse(rules.pass_refusal(self._state, command.task))

    @property
    def _rows_known(self) -> bool:
        return not (self._look or self._reading)

    async def _record(self, act: str, command: QueueCommand) -> None:
        await call(
            leases.record_queue_act,
            leases.RecordQueueAct(
                act_id=command.act_id or str(workflow.uuid4()),
                task=command.task,
                act=act,
                by=command.by,
                reason=command.reason,
                at=workflow.now(),
            ),
            summary=f"record {act} of {command.task} by {command.by}",
        )


def _refuse(why: str) -> None:
    if why:
        raise ApplicationError(why, type="ActRefused", non_retryable=True)


@workflow.defn
class MergeQueueWorkflow(LeaseQueue):
    """The right to land on one branch: `merge/<owner>/<repo>/<base>`."""

    @workflow.init
    def __init__(self, arg: QueueInput) -> None:
        super().__init__(arg)

    @workflow.run
    async def run(self, arg: QueueInput) -> None:  # noqa: ARG002 - Temporal wants the same parameters
        """Serve the queue."""
        await self.serve()
