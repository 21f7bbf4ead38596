"""Finding the task of a commit or a branch that own tables cannot name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.adapters.gitea_models import Pull
from activities.adapters.store import Store
from activities.forge import Forge
from workflows.contracts.resolving import Resolution, Resolutions, RowEnd, UnknownCommit, UnknownRow
from workflows.hints import Hint, Topic
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
    async def resolve_rows(self, arg: UnknownCommit) -> Resolutions:
        """The open pull request with that head first, then the repository's only task in development."""
        pulls = await self._forge.client(arg.repository).list_pulls()
        found = {branch: await self._find(arg, branch, pulls) for branch in {row.branch for row in arg.rows}}
        topics = {(task, row.hint.topic): row.hint for row in arg.rows for task in found[row.branch].tasks}
        reached = {key: await self._wake(key[0], hint) for key, hint in topics.items()}
        return Resolutions(rows=tuple(_ended(row, found[row.branch], reached) for row in arg.rows))

    @activity.defn
    async def settle_rows(self, arg: Resolutions) -> Done:
        """The rows say what happened in the end, whoever handed them over."""
        for row in arg.rows:
            log.info("delivery resolved", row=row.row, end=row.end.value, tasks=row.tasks, reason=row.reason)
            tasks = ", ".join(row.tasks)
            await self._store.deliveries.settle(row.row, row.times_received, row.end, row.reason, tasks)
        return Done()

    async def _find(self, arg: UnknownCommit, branch: str, pulls: Sequence[Pull]) -> "_Found":
        for pull in pulls:
            if pull.head.sha != arg.sha and not (branch and pull.head.ref == branch):
                continue
            tasks = await self._store.deliveries.tasks_of_pull(arg.names, pull.number, pull.head.ref, pull.head.sha)
            if tasks:
                return _Found(tasks, f"resolved: the head of pull request {pull.number}")
        working = await self._store.deliveries.tasks_in_development(arg.names)
        if len(working) == 1:
            return _Found(working, "resolved: the repository's only task in development")
        why = (
            f"{len(working)} tasks are in development ({', '.join(working[:5])})"
            if working
            else "none is in development"
        )
        what = f"commit {arg.sha[:10]} of {arg.repository}"
        return _Found((), f"no open pull request of a task has the {what}, and {why}: not guessed")

    async def _wake(self, task: str, hint: Hint) -> bool:
        try:
            await self._client.get_workflow_handle(task_workflow_id(task)).signal("hint", hint)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True


class _Found(NamedTuple):
    """Whom a commit and a branch name, and how we know."""

    tasks: tuple[str, ...]
    reason: str


def _ended(row: UnknownRow, found: _Found, reached: Mapping[tuple[str, Topic], bool]) -> Resolution:
    running = tuple(task for task in found.tasks if reached[task, row.hint.topic])
    missing = ": not running" if found.tasks and not running else ""
    return Resolution(
        row=row.row,
        times_received=row.times_received,
        end=RowEnd.FORWARDED if running else RowEnd.IGNORED,
        tasks=running or found.tasks,
        reason=found.reason + missing,
    )
