"""Lease queues: who may land on a branch, and who may deploy to an environment. Pure schedulers.

The rules are in lease_rules.py; this file only gives them signals, timers and epochs.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.calls import call
from workflows.contracts import leases
from workflows.lease_rules import (
    QueueState,
    Request,
    closed,
    extended,
    granted,
    next_request,
    released,
    requested,
)
from workflows.model import Frozen, Lease

INSPECT_AFTER = timedelta(minutes=10)
"""How long a holder is left alone before we ask whether it lives."""
IDLE_END = timedelta(minutes=30)


class QueueInput(Frozen):
    """The single argument of a lease queue."""

    state: QueueState = QueueState()


class Release(Frozen):
    """Give a lease back."""

    holder: str
    epoch: int


class LeaseQueue:
    """What both kinds of lease queue do: one holder; first asked, first served; waiting takes no slot."""

    def __init__(self, arg: QueueInput) -> None:
        self._state = arg.state

    async def serve(self) -> None:
        """Serve until idle, then end; the next request starts the queue again."""
        while True:
            if not await self._something_to_do():
                return
            await self._close_ended()
            await self._inspect_holder()
            await self._grant_next()
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(QueueInput(state=self._state))

    async def _something_to_do(self) -> bool:
        state = self._state
        holding = state.holding
        timeout = holding.inspect_at - workflow.now() if holding else IDLE_END
        try:
            await workflow.wait_condition(
                lambda: bool(self._state.to_close or next_request(self._state)),
                timeout=max(timeout, timedelta(0)),
                timeout_summary="ask whether the holder lives" if holding else "end when idle",
            )
        except TimeoutError:
            return not self._state.idle
        return True

    async def _close_ended(self) -> None:
        for epoch in self._state.to_close:
            await call(
                leases.close_lease,
                leases.CloseLease(queue=workflow.info().workflow_id, epoch=epoch),
                summary=f"epoch {epoch} has ended",
            )
            self._state = closed(self._state, epoch)

    async def _inspect_holder(self) -> None:
        holding = self._state.holding
        if holding is None or holding.inspect_at > workflow.now():
            return
        holder = await call(
            leases.inspect_holder,
            leases.InspectHolder(holder=holding.request.holder, asked_at=holding.request.at),
            summary=f"does {holding.request.holder} live?",
        )
        if holder.running:
            self._state = extended(self._state, workflow.now() + INSPECT_AFTER)
        else:
            self._state = released(self._state, holding.request.holder, holding.epoch)

    async def _grant_next(self) -> None:
        request = next_request(self._state)
        if request is None or self._state.to_close:
            return
        queue = workflow.info().workflow_id
        opened = await call(
            leases.open_lease,
            leases.OpenLease(queue=queue, holder=request.holder, generation=request.generation),
            summary=f"open an epoch for {request.task}",
        )
        if next_request(self._state) != request:
            return  # it asked anew meanwhile; the epoch just opened is never granted
        self._state = granted(
            self._state,
            request,
            epoch=opened.epoch,
            at=opened.granted_at,
            inspect_at=workflow.now() + INSPECT_AFTER,
        )
        lease = Lease(queue=queue, epoch=opened.epoch, ticket=request.ticket, granted_at=opened.granted_at)
        try:
            await workflow.get_external_workflow_handle(request.holder).signal("lease_granted", lease)
        except ApplicationError:
            # The holder has ended since it asked.
            self._state = released(self._state, request.holder, opened.epoch)

    @workflow.signal(description="A task wishes to hold the lease.")
    def request(self, request: Request) -> None:
        """Queue a wish."""
        self._state = requested(self._state, request)

    @workflow.signal(description="The holder gives the lease back.")
    def release(self, release: Release) -> None:
        """Free the lease."""
        self._state = released(self._state, release.holder, release.epoch)

    @workflow.query(description="Who holds the lease and who waits.")
    def show(self) -> QueueState:
        """Who holds and who waits, in order."""
        return self._state


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
