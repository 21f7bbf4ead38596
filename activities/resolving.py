"""Finding the task of a commit or a branch that own tables cannot name."""

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.adapters.store import Store
from activities.forge import Forge
from workflows.contracts.resolving import Resolution, ResolveDelivery, RowEnd, SettleRow
from workflows.hints import Hint
from workflows.model import Done
from workflows.names import task_workflow_id

log = structlog.get_logger(__name__)


class Resolving:
    """Asks Gitea what is open, and wakes whom that names. It never guesses."""

    def __init__(self, client: Client, forge: Forge, store: Store) -> None:
        self._client = client
        self._forge = forge
        self._store = store

    @activity.defn
    async def resolve_delivery(self, arg: ResolveDelivery) -> Resolution:
        """The open pull request with that head first, then the repository's only task in development."""
        found = await self._find(arg)
        running = tuple([task for task in found.tasks if await self._wake(task, arg.hint)])
        if found.tasks and not running:
            found = Resolution(end=RowEnd.IGNORED, tasks=found.tasks, reason=f"{found.reason}: not running")
        elif running:
            found = found.model_copy(update={"tasks": running})
        log.info("delivery resolved", row=arg.row, end=found.end.value, tasks=found.tasks, reason=found.reason)
        return found

    @activity.defn
    async def settle_row(self, arg: SettleRow) -> Done:
        """The row says what happened in the end, whoever handed it over."""
        found = arg.resolution
        await self._store.deliveries.settle(
            arg.row, arg.times_received, found.end, found.reason, ", ".join(found.tasks)
        )
        return Done()

    async def _find(self, arg: ResolveDelivery) -> Resolution:
        for pull in await self._forge.client(arg.repository).list_pulls():
            if not (arg.sha and pull.head.sha == arg.sha) and not (arg.branch and pull.head.ref == arg.branch):
                continue
            tasks = await self._store.deliveries.tasks_of_pull(arg.names, pull.number, pull.head.ref, pull.head.sha)
            if tasks:
                return _found(tasks, f"the head of pull request {pull.number}")
        working = await self._store.deliveries.tasks_in_development(arg.names)
        if len(working) == 1:
            return _found(working, "the repository's only task in development")
        what = f"commit {arg.sha[:10]}" if arg.sha else f"branch {arg.branch}"
        why = (
            f"{len(working)} tasks are in development ({', '.join(working[:5])})"
            if working
            else "none is in development"
        )
        return Resolution(
            end=RowEnd.IGNORED,
            reason=f"no open pull request of a task has the {what} of {arg.repository}, and {why}: not guessed",
        )

    async def _wake(self, task: str, hint: Hint) -> bool:
        try:
            await self._client.get_workflow_handle(task_workflow_id(task)).signal("hint", hint)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True


def _found(tasks: tuple[str, ...], how: str) -> Resolution:
    return Resolution(end=RowEnd.FORWARDED, tasks=tasks, reason=f"resolved: {how}")
