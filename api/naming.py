"""Which task does a delivery concern? Answered from the configuration and own tables, never by a guess."""

from collections.abc import Iterable

import asyncpg

from api.inbox import ACQUIRE_SECONDS, Delivery
from api.inbox import Source as Sender
from api.webhooks import gitea, plane
from workflows.hints import Hint, Source, Topic
from workflows.model import Frozen
from workflows.names import TaskKey
from workflows.projects import OrchConfig


class Wake(Frozen):
    """Look at one task again; `start` it first where the delivery allows that."""

    task: str
    hint: Hint
    start: bool = False


class Ignored(Frozen):
    """No task is concerned, and why a person should agree."""

    reason: str


class Naming:
    """Names the tasks that deliveries concern."""

    def __init__(self, pool: asyncpg.Pool, config: OrchConfig) -> None:
        self._pool = pool
        self._config = config

    async def wakes(self, delivery: Delivery) -> list[Wake] | Ignored:
        """The tasks to wake; a commit that sits on two tasks' branches wakes both.

        Raises:
            PayloadError: the delivery can not be read.
        """
        if delivery.source is Sender.PLANE:
            return await self._of_plane(plane.parse(delivery.body, delivery.headers))
        return await self._of_gitea(gitea.parse(delivery.body, delivery.headers))

    async def _of_plane(self, event: plane.Event) -> list[Wake] | Ignored:
        match event:
            case plane.OtherEvent():
                return Ignored(reason=f"no task waits for Plane's {event.what!r} events")
            case plane.CommentEvent(item_id=None):
                return Ignored(reason="the comment does not say which item it belongs to")
            case plane.ItemEvent(project_id=project_id, sequence_id=int(sequence_id)) if project_id:
                return await self._of_item(event, str(project_id), sequence_id)
        what = "comment" if isinstance(event, plane.CommentEvent) else "item"
        task = await self._value("SELECT task FROM items WHERE item_id = $1", event.item_id)
        if task is None:
            return Ignored(reason=f"no task is known for Plane's item {event.item_id}")
        return [_wake(task, Topic.ITEM, Source.PLANE, f"{what} {event.change}")]

    async def _of_item(self, event: plane.ItemEvent, project_id: str, sequence_id: int) -> list[Wake] | Ignored:
        key = self._config.project_of_plane_id(project_id)
        if key is None:
            return Ignored(reason=f"Plane's project {project_id} is not in orch.toml")
        task = str(TaskKey(key, sequence_id))
        await self._value(_REMEMBER_ITEM, event.item_id, event.project_id, task)
        state = f", state {event.state_name}" if event.state_name else ""
        wake = _wake(task, Topic.ITEM, Source.PLANE, f"item {event.change}{state}"[:200])
        started_by = self._config.projects[key].states.in_progress
        start = not event.shelved and event.state_name in (None, started_by)
        return [wake.model_copy(update={"start": start})]

    async def _of_gitea(self, event: gitea.Event) -> list[Wake] | Ignored:
        if isinstance(event, gitea.OtherEvent):
            return Ignored(reason=f"no task waits for Gitea's {event.what}")
        repos = self._repositories(event.repo)
        if not repos:
            return Ignored(reason=f"the repository {event.repo} is not in orch.toml")
        if isinstance(event, gitea.BranchEvent):
            tasks = await self._values(_TASKS_OF_BRANCH, repos, event.branch)
            if not tasks:
                return Ignored(reason=self._not_a_task_branch(event))
            topic = Topic.BRANCH if event.subject is gitea.Subject.BRANCH else Topic.PULL_REQUEST
            return [_wake(task, topic, Source.GITEA, event.what) for task in tasks]
        tasks = await self._values(_TASKS_OF_COMMIT, repos, event.sha, event.branch)
        if not tasks:
            return Ignored(reason=f"no open task is known for commit {event.sha[:10]} of {event.repo}")
        return [_wake(task, Topic.CI, Source.GITEA, f"{event.what} on {event.sha[:10]}") for task in tasks]

    def _repositories(self, full_name: str) -> list[str]:
        """The repository as `orch.toml` writes it; Gitea does not care about case."""
        names = {str(project.repository) for project in self._config.projects.values()}
        return sorted(name for name in names if name.casefold() == full_name.casefold())

    def _not_a_task_branch(self, event: gitea.BranchEvent) -> str:
        bases = {
            project.repository.base
            for project in self._config.projects.values()
            if str(project.repository).casefold() == event.repo.casefold()
        }
        if event.branch in bases:
            return f"{event.branch} is the branch tasks land on; landings read it themselves"
        return f"no open task works on the branch {event.branch} of {event.repo}"

    async def _value(self, query: str, *values: object) -> str | None:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found: str | None = await connection.fetchval(query, *values)
        return found

    async def _values(self, query: str, *values: object) -> Iterable[str]:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return [row[0] for row in await connection.fetch(query, *values)]


def _wake(task: str, topic: Topic, source: Source, note: str) -> Wake:
    return Wake(task=task, hint=Hint(topic=topic, source=source, note=note))


_REMEMBER_ITEM = """
    INSERT INTO items (item_id, project_id, task) VALUES ($1, $2, $3)
    ON CONFLICT (item_id) DO UPDATE SET
        project_id = excluded.project_id, task = excluded.task, seen_at = now()
    RETURNING task
"""

_TASKS_OF_BRANCH = """
    SELECT DISTINCT task FROM tasks WHERE repo = ANY($1) AND branch = $2 AND ended_at IS NULL ORDER BY task
"""

_TASKS_OF_COMMIT = """
    SELECT task FROM tasks WHERE repo = ANY($1) AND ended_at IS NULL AND (head_sha = $2 OR branch = $3)
    UNION
    SELECT open.task FROM pushed_shas AS pushed
    JOIN tasks AS open ON open.task = pushed.task AND open.ended_at IS NULL
    WHERE pushed.repo = ANY($1) AND pushed.sha = $2
    ORDER BY task
"""
"""A commit's task: we pushed it, or it is the head we saw last, or (workflow events) its branch is named."""
