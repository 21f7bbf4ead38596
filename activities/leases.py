"""Leases: asking the queues, and the rows that fence landings and deployments."""

from datetime import UTC

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.adapters.store import Store
from workflows.contracts import leases as contract
from workflows.lease_rules import Request
from workflows.merge_queue import QueueInput, Release
from workflows.model import Done, Repository
from workflows.names import (
    SHARED_QUEUE,
    environment_workflow_id,
    merge_queue_workflow_id,
    task_workflow_id,
)


class Leases:
    """Between tasks and lease queues. Leases are named by workflow id and epoch, never by run id."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client = client
        self._store = store

    @activity.defn
    async def request_lease(self, arg: contract.RequestLease) -> Done:
        """Signal-with-start: the queue ends when idle and comes back with the first request."""
        workflow, queue = _queue(arg.kind, arg.repository)
        info = activity.info()
        request = Request(
            holder=task_workflow_id(arg.ref.key),
            generation=arg.ref.generation,
            ticket=arg.ticket,
            task=arg.ref.key,
            at=info.scheduled_time,
        )
        await self._client.start_workflow(
            workflow,
            QueueInput(),
            id=queue,
            task_queue=SHARED_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="request",
            start_signal_args=[request],
            static_summary=f"{arg.kind} lease of {arg.repository}",
        )
        return Done(reference=queue)

    @activity.defn
    async def release_lease(self, arg: contract.ReleaseLease) -> Done:
        """A queue that has ended holds nothing to release."""
        release = Release(holder=task_workflow_id(arg.ref.key), epoch=arg.lease.epoch)
        try:
            await self._client.get_workflow_handle(arg.lease.queue).signal("release", release)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return Done(reference=arg.lease.queue)

    @activity.defn
    async def open_lease(self, arg: contract.OpenLease) -> contract.OpenedLease:
        """Epochs come from a sequence of PostgreSQL: greater than any before, whatever restarts."""
        row = await self._store.landings.open_lease(arg.queue, arg.holder, arg.generation)
        return contract.OpenedLease(epoch=row.epoch, granted_at=row.granted_at)

    @activity.defn
    async def close_lease(self, arg: contract.CloseLease) -> Done:
        """Only the current epoch is closed."""
        await self._store.landings.close_lease(arg.queue, arg.epoch)
        return Done()

    @activity.defn
    async def set_freeze(self, arg: contract.SetFreeze) -> Done:
        """The row is the truth; the queue is only told to look."""
        await self._store.freezes.open(arg.queue, arg.cause, reason=arg.reason, by=arg.by)
        return Done(reference=arg.queue)

    @activity.defn
    async def lift_freeze(self, arg: contract.LiftFreeze) -> Done:
        """Lifting what does not stand changes nothing."""
        await self._store.freezes.lift(arg.queue, arg.cause, reason=arg.reason, by=arg.by)
        return Done(reference=arg.queue)

    @activity.defn
    async def inspect_holder(self, arg: contract.InspectHolder) -> contract.HolderState:
        """A holder that is not running holds nothing, nor does a later run that was started under its id."""
        try:
            described = await self._client.get_workflow_handle(arg.holder).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return contract.HolderState(running=False)
        running = described.status is WorkflowExecutionStatus.RUNNING
        # Continuing as new keeps the first run's start.
        started = described.raw_description.workflow_extended_info.original_start_time.ToDatetime(UTC)
        return contract.HolderState(running=running and (arg.asked_at is None or started <= arg.asked_at))


def _queue(kind: contract.LeaseKind, repository: Repository) -> tuple[str, str]:
    """The workflow type and id of the queue that gives a kind of lease."""
    if kind is contract.LeaseKind.MERGE:
        name = merge_queue_workflow_id(repository.owner, repository.name, repository.base)
        return "MergeQueueWorkflow", name
    return "EnvironmentWorkflow", environment_workflow_id(repository.owner, repository.name, kind)
