"""Waking a task: the one place where the API talks to Temporal about tasks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from api.inbox import Delivery
from api.naming import Unresolved, Wake
from workflows.contracts.resolving import UnknownCommit, UnknownRow
from workflows.names import SHARED_QUEUE, reconcile_workflow_id, task_workflow_id
from workflows.state import TaskInput

RPC_TIMEOUT = timedelta(seconds=5)

_OUR_FAULT = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.UNIMPLEMENTED,
}


class TemporalDownError(Exception):
    """Temporal can not be asked now. Nothing is wrong with what we wanted to say."""


class Tasks:
    """The tasks of one Temporal namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def wake(self, task: str, wakes: Iterable[Wake]) -> bool:
        """Signal a task once for each topic, the starting one first; False if no such task is running.

        Raises:
            TemporalDownError: Temporal can not be asked now.
        """
        # Of several wakes for one topic the one that may start wins, else the latest.
        by_topic = {wake.hint.topic: wake for wake in sorted(wakes, key=lambda wake: wake.start)}
        running = False
        for wake in sorted(by_topic.values(), key=lambda wake: not wake.start):
            try:
                with _outages():
                    await self._send(task, wake)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
            else:
                running = True
        return running

    async def resolve(self, rows: Sequence[tuple[Delivery, Unresolved]]) -> None:
        """Hand deliveries about one unknown commit to the workflow that finds out whom it concerns.

        However many come, and whenever, one workflow at a time looks for all of them. Repeating it does no harm.

        Raises:
            TemporalDownError: Temporal can not be asked now.
        """
        unknown = tuple(
            UnknownRow(row=delivery.id, times_received=delivery.times_received, branch=found.branch, hint=found.hint)
            for delivery, found in rows
        )
        found = rows[0][1]
        with _outages():
            await self._client.start_workflow(
                "ResolveWorkflow",
                UnknownCommit(repository=found.repository, names=tuple(found.names), sha=found.sha),
                id=found.workflow_id,
                task_queue=SHARED_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                start_signal="rows",
                start_signal_args=[unknown],
                static_summary=f"Whose is {found.sha[:10]} of {found.repository}?"[:200],
                rpc_timeout=RPC_TIMEOUT,
            )

    async def reconcile_now(self, project: str) -> None:
        """Run a reconcile pass of a project at once, after the one that runs, if one does.

        Raises:
            TemporalDownError: Temporal can not be asked now.
            RPCError: the project has no Schedule yet.
        """
        with _outages():
            schedule = self._client.get_schedule_handle(reconcile_workflow_id(project))
            await schedule.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE, rpc_timeout=RPC_TIMEOUT)

    async def _send(self, task: str, wake: Wake) -> None:
        workflow_id = task_workflow_id(task)
        if not wake.start:
            handle = self._client.get_workflow_handle(workflow_id)
            await handle.signal("hint", wake.hint, rpc_timeout=RPC_TIMEOUT)
            return
        # A task that was started for nothing ends itself as not started.
        await self._client.start_workflow(
            "TaskWorkflow",
            TaskInput(key=task),
            id=workflow_id,
            task_queue=SHARED_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal="hint",
            start_signal_args=[wake.hint],
            static_summary=f"Plane item {task}",
            rpc_timeout=RPC_TIMEOUT,
        )


@contextmanager
def _outages() -> Iterator[None]:
    """Tell Temporal's absence from everything else. A workflow that is not found is no outage."""
    try:
        yield
    except RPCError as error:
        missing = error.status is RPCStatusCode.NOT_FOUND and not _namespace_is_missing(error)
        if missing or error.status in _OUR_FAULT:
            raise
        raise TemporalDownError(one_line(error)) from error
    except OSError as error:
        raise TemporalDownError(one_line(error)) from error
    except RuntimeError as error:
        if "Failed client connect" not in str(error):
            raise
        raise TemporalDownError(one_line(error)) from error


def _namespace_is_missing(error: RPCError) -> bool:
    """A missing namespace is NOT_FOUND too, but says nothing about the task."""
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def one_line(error: BaseException) -> str:
    """An error's text, safe to store and to log."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)[:300]
