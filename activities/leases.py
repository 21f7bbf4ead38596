"""Leases: asking the queues, and the rows that fence landings and deployments."""

from datetime import UTC, timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.adapters.store import Store
from workflows.contracts import leases as contract
from workflows.lease_standing import Standing, standing_of
from workflows.lease_state import QueueState, Release, Request, Withdrawal
from workflows.merge_queue import QueueInput
from workflows.model import Done, Freeze, FreezeCause, Repository
from workflows.names import (
    SHARED_QUEUE,
    base_of_queue,
    environment_workflow_id,
    merge_queue_workflow_id,
    task_key_of,
    task_workflow_id,
)

QUERY_TIMEOUT = timedelta(seconds=5)
"""A task that cannot be told its place soon enough waits without knowing it."""


class Leases:
    """Between tasks and lease queues. Leases are named by workflow id and epoch, never by run id."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client = client
        self._store = store

    @activity.defn
    async def request_lease(self, arg: contract.RequestLease) -> Standing:
        """Signal-with-start: the queue ends when idle and comes back with the first request."""
        queue = _queue(arg.kind, arg.repository)
        request = Request(
            holder=task_workflow_id(arg.ref.key),
            generation=arg.ref.generation,
            ticket=arg.ticket,
            task=arg.ref.key,
            at=activity.info().scheduled_time,
            priority=arg.priority,
            place=arg.place,
        )
        await self._signal_with_start(queue, "request", request)
        return await self._standing(queue, arg.ref.key)

    async def _standing(self, queue: str, task: str) -> Standing:
        """Words for people only: whoever does not know its place waits as well."""
        handle = self._client.get_workflow_handle(queue)
        try:
            state = await handle.query("show", result_type=QueueState, rpc_timeout=QUERY_TIMEOUT)
        except (RPCError, WorkflowQueryFailedError):
            return Standing()
        return standing_of(state, task)

    async def _signal_with_start(self, queue: str, signal: str, *arguments: object) -> None:
        await self._client.start_workflow(
            "MergeQueueWorkflow" if base_of_queue(queue) else "EnvironmentWorkflow",
            QueueInput(),
            id=queue,
            task_queue=SHARED_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=signal,
            start_signal_args=list(arguments),
            static_summary=f"lease queue {queue}",
        )

    @activity.defn
    async def withdraw_lease(self, arg: contract.WithdrawLease) -> Done:
        """A queue that has ended knows no wish."""
        holder = task_workflow_id(arg.ref.key)
        withdrawal = Withdrawal(holder=holder, generation=arg.ref.generation, ticket=arg.ticket)
        await self._signal(arg.queue, "withdraw", withdrawal)
        return Done(reference=arg.queue)

    async def _signal(self, queue: str, signal: str, argument: object) -> None:
        try:
            await self._client.get_workflow_handle(queue).signal(signal, argument)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    @activity.defn
    async def release_lease(self, arg: contract.ReleaseLease) -> Done:
        """A queue that has ended holds nothing to release."""
        release = Release(holder=task_workflow_id(arg.ref.key), epoch=arg.lease.epoch)
        await self._signal(arg.lease.queue, "release", release)
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
        """The row is the truth; the queue is only told to look, and started if it has ended."""
        await self._store.freezes.open(arg.queue, arg.cause, reason=arg.reason, by=arg.by)
        await self._signal_with_start(arg.queue, "refresh")
        return Done(reference=arg.queue)

    @activity.defn
    async def lift_freeze(self, arg: contract.LiftFreeze) -> Done:
        """Lifting what does not stand changes nothing."""
        if await self._store.freezes.lift(arg.queue, arg.cause, reason=arg.reason, by=arg.by):
            await self._signal_with_start(arg.queue, "refresh")
        return Done(reference=arg.queue)

    @activity.defn
    async def inspect_holder(self, arg: contract.InspectHolder) -> contract.HolderState:
        """A holder that is not running holds nothing, nor does a later run or generation under its id."""
        progress = await self._store.fences.progress(task_key_of(arg.holder) or "")
        generation, mark = progress or (arg.generation, "")
        return contract.HolderState(
            running=generation <= arg.generation and await self._runs(arg),
            landed=await self._store.landings.has_landed(arg.epoch),
            mark=mark,
        )

    async def _runs(self, arg: contract.InspectHolder) -> bool:
        try:
            described = await self._client.get_workflow_handle(arg.holder).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        # Continuing as new keeps the first run's start.
        started = described.raw_description.workflow_extended_info.original_start_time.ToDatetime(UTC)
        running = described.status is WorkflowExecutionStatus.RUNNING
        return running and (arg.asked_at is None or started <= arg.asked_at)

    @activity.defn
    async def read_queue(self, arg: contract.ReadQueue) -> contract.QueueRows:
        """A lease of something that is no task of ours is nobody's."""
        row = await self._store.landings.open_lease_of(arg.queue)
        task = task_key_of(row.holder) if row else None
        standing = await self._store.freezes.standing(arg.queue)
        return contract.QueueRows(
            lease=contract.OpenRow(
                epoch=row.epoch, holder=row.holder, task=task, generation=row.generation, granted_at=row.granted_at
            )
            if row and task
            else None,
            freezes=tuple(
                Freeze(cause=FreezeCause(found.cause), reason=found.reason, since=found.since, by=found.by)
                for found in standing
            ),
        )

    @activity.defn
    async def record_queue_act(self, arg: contract.RecordQueueAct) -> Done:
        """An act on a queue is an operator's act on the task it concerns."""
        await self._store.acts.settle(
            {
                "act_id": arg.act_id,
                "task": arg.task,
                "generation": None,
                "act": arg.act,
                "actor": arg.by,
                "digest": "",
                "reason": arg.reason,
                "via": "temporal",
                "at": arg.at,
                "outcome": "taken",
            }
        )
        return Done(reference=arg.act_id)


def _queue(kind: contract.LeaseKind, repository: Repository) -> str:
    """The workflow id of the queue that gives a kind of lease."""
    if kind is contract.LeaseKind.MERGE:
        return merge_queue_workflow_id(repository.owner, repository.name, repository.base)
    return environment_workflow_id(repository.owner, repository.name, kind)
