"""Which task does a delivery concern? Answered from the configuration and own tables, never by a guess."""

from collections.abc import Iterable
from datetime import timedelta

import asyncpg

from api.inbox import ACQUIRE_SECONDS, Delivery
from api.inbox import Source as Sender
from api.webhooks import gitea, plane
from workflows.hints import Hint, Source, Topic
from workflows.model import Frozen, Repository
from workflows.names import TaskKey, resolve_workflow_id
from workflows.projects import OrchConfig, ProjectConfig

EXTERNAL_SOURCE = "orch"
"""Under this name our comments carry their intent keys in Plane."""
ECHO_WINDOW = timedelta(minutes=5)
"""A move to the same state that is reported later than this after ours is not taken for its echo."""


class Wake(Frozen):
    """Look at one task again; `start` it first where the delivery allows that."""

    task: str
    hint: Hint
    start: bool = False


class Ignored(Frozen):
    """No task is concerned, and why a person should agree."""

    reason: str


class Unresolved(Frozen):
    """Own tables name no task, but a look at the repository's pull requests may."""

    repository: Repository
    names: list[str]
    """The repository as own tables may write it."""
    sha: str
    branch: str
    hint: Hint

    @property
    def workflow_id(self) -> str:
        """Who finds out: one workflow for each commit."""
        return resolve_workflow_id(self.repository.owner, self.repository.name, self.sha)


Found = list[Wake] | Unresolved | Ignored


class Naming:
    """Names the tasks that deliveries concern."""

    def __init__(self, pool: asyncpg.Pool, config: OrchConfig) -> None:
        self._pool = pool
        self._config = config

    async def wakes(self, delivery: Delivery) -> Found:
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
            case plane.CommentEvent() if intent := await self._echoed_comment(event):
                return Ignored(reason=f"echo of {intent}")
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
        if intent := await self._echoed_move(event, task, self._config.projects[key]):
            return Ignored(reason=f"echo of {intent}")
        state = f", state {event.state_name}" if event.state_name else ""
        wake = _wake(task, Topic.ITEM, Source.PLANE, f"item {event.change}{state}"[:200])
        started_by = self._config.projects[key].states.in_progress
        start = not event.shelved and event.state_name in (None, started_by)
        return [wake.model_copy(update={"start": start})]

    async def _echoed_comment(self, event: plane.CommentEvent) -> str | None:
        """The intent whose comment this is, unless a person touched it: our external id proves what, not who."""
        if event.external_source != EXTERNAL_SOURCE or not event.external_id:
            return None
        ours = str(event.actor) in self._bots() if event.actor else event.change is plane.Change.CREATED
        if not ours:
            return None
        return await self._value(_COMMENT_INTENT, event.external_id)

    async def _echoed_move(self, event: plane.ItemEvent, task: str, project: ProjectConfig) -> str | None:
        """The intent of ours that moved this item to the state it is in; a bot's other moves wake as anyone's."""
        if event.moved_to is None or str(event.actor) not in project.bots:
            return None
        return await self._value(_MOVE_INTENT, f"{task}/", str(event.moved_to), ECHO_WINDOW)

    def _bots(self) -> frozenset[str]:
        return frozenset[str]().union(*(project.bots for project in self._config.projects.values()))

    async def _of_gitea(self, event: gitea.Event) -> Found:
        if isinstance(event, gitea.OtherEvent):
            return Ignored(reason=f"no task waits for Gitea's {event.what}")
        repos = self._repositories(event.repo)
        if not repos:
            return Ignored(reason=f"the repository {event.repo} is not in orch.toml")
        if isinstance(event, gitea.BranchEvent):
            tasks = await self._values(_TASKS_OF_BRANCH, repos, event.branch)
            topic = Topic.BRANCH if event.subject is gitea.Subject.BRANCH else Topic.PULL_REQUEST
            if not tasks:
                reason = self._not_a_task_branch(event)
                pushed = event.sha.strip("0") and event.branch not in self._bases(event.repo)
                return await self._unresolved(event, repos, topic, reason) if pushed else Ignored(reason=reason)
            return [_wake(task, topic, Source.GITEA, event.what) for task in tasks]
        tasks = await self._values(_TASKS_OF_COMMIT, repos, event.sha, event.branch)
        if not tasks:
            reason = f"no open task is known for commit {event.sha[:10]} of {event.repo}"
            return await self._unresolved(event, repos, Topic.CI, reason)
        return [_wake(task, Topic.CI, Source.GITEA, f"{event.what} on {event.sha[:10]}") for task in tasks]

    async def _unresolved(
        self, event: gitea.BranchEvent | gitea.CommitEvent, repos: list[str], topic: Topic, reason: str
    ) -> Unresolved | Ignored:
        """Worth a look at the pull requests only if any task is open there and the commit is not a past task's."""
        if not await self._value(_WORTH_RESOLVING, repos, event.sha):
            return Ignored(reason=reason)
        owner, _, name = repos[0].partition("/")
        on = f" on {event.sha[:10]}" if isinstance(event, gitea.CommitEvent) else f": {event.branch}"
        return Unresolved(
            repository=Repository(owner=owner, name=name),
            names=repos,
            sha=event.sha,
            branch=event.branch,
            hint=Hint(topic=topic, source=Source.GITEA, note=f"{event.what}{on}"[:200]),
        )

    def _repositories(self, full_name: str) -> list[str]:
        """The repository as `orch.toml` writes it; Gitea does not care about case."""
        names = {str(project.repository) for project in self._config.projects.values()}
        return sorted(name for name in names if name.casefold() == full_name.casefold())

    def _not_a_task_branch(self, event: gitea.BranchEvent) -> str:
        if event.branch in self._bases(event.repo):
            return f"{event.branch} is the branch tasks land on; landings read it themselves"
        return f"no open task works on the branch {event.branch} of {event.repo}"

    def _bases(self, full_name: str) -> set[str]:
        return {
            project.repository.base
            for project in self._config.projects.values()
            if str(project.repository).casefold() == full_name.casefold()
        }

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

_COMMENT_INTENT = "SELECT intent_key FROM effects WHERE intent_key = $1 AND kind = 'plane comment'"

_MOVE_INTENT = """
    SELECT intent_key FROM effects
    WHERE kind = 'plane state' AND status <> 'abandoned' AND starts_with(intent_key, $1)
        AND opened_at > now() - 2 * $3::interval
        AND coalesce(settled_at, opened_at) > now() - $3::interval AND detail ->> 'to' = $2
    ORDER BY opened_at DESC LIMIT 1
"""

_WORTH_RESOLVING = """
    SELECT 'yes' WHERE EXISTS (SELECT FROM tasks WHERE repo = ANY($1) AND ended_at IS NULL)
        AND NOT EXISTS (SELECT FROM pushed_shas WHERE repo = ANY($1) AND sha = $2)
"""

_TASKS_OF_BRANCH = """
    SELECT DISTINCT task FROM tasks WHERE repo = ANY($1) AND branch = $2 AND ended_at IS NULL ORDER BY task
"""

_TASKS_OF_COMMIT = """
    SELECT task FROM tasks WHERE repo = ANY($1) AND ended_at IS NULL AND (head_sha = $2 OR (branch = $3 AND $3 <> ''))
    UNION
    SELECT open.task FROM pushed_shas AS pushed
    JOIN tasks AS open ON open.task = pushed.task AND open.ended_at IS NULL
    WHERE pushed.repo = ANY($1) AND pushed.sha = $2
    ORDER BY task
"""
"""A commit's task: we pushed it, or it is the head we saw last, or (workflow events) its branch is named."""
