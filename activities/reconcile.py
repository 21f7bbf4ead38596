"""Finding what webhooks lost: a changed-since pass over Plane, and the Schedules that run it."""

from datetime import UTC, datetime, timedelta

import structlog
from temporalio import activity
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import ItemRow
from activities.adapters.store import Store
from activities.plane_states import PlaneStates
from activities.projects import Projects
from activities.settings import WorkerSettings
from workflows.contracts import reconcile as contract
from workflows.hints import Hint, Source, Topic
from workflows.model import ItemState
from workflows.names import SHARED_QUEUE, TaskKey, reconcile_workflow_id, task_workflow_id
from workflows.projects import OrchConfig
from workflows.reconcile import ReconcileWorkflow
from workflows.state import TaskInput
from workflows.task import TaskWorkflow

log = structlog.get_logger(__name__)

OVERLAP = timedelta(minutes=5)
"""Plane stamps `updated_at` before it commits, and moves it again some seconds later (contracts/plane.md, 2)."""
HINT = Hint(topic=Topic.ITEM, source=Source.RECONCILE)


class Reconcile:
    """One pass for one project. Calls grow with what changed, not with what is open."""

    def __init__(
        self, plane: PlaneClient, client: Client, store: Store, projects: Projects, settings: WorkerSettings
    ) -> None:
        self._plane = plane
        self._client = client
        self._store = store
        self._projects = projects
        self._enabled = settings.reconcile_enabled and settings.reconcile_plane_enabled

    @activity.defn
    async def reconcile_project(self, arg: contract.ReconcileProject) -> contract.Pass:
        """A row that cannot be acted on never stops the others."""
        project = self._projects.config.projects.get(arg.project)
        if project is None or not self._enabled:
            return contract.Pass(skipped="switched off" if project else "not configured in orch.toml")
        states = await PlaneStates.read(self._plane, project)
        in_progress = states.id_of(ItemState.IN_PROGRESS)
        watermark = await self._store.tasks.watermark(arg.project)
        newest, seen, woken, started, calls = watermark.until, 0, 0, 0, 1
        gaps = await self._store.gaps.uncovered(arg.project)
        begin = min([gap.since for gap in gaps] + ([newest] if newest else []), default=None)
        since = begin - OVERLAP if newest and begin else None
        looks: dict[str, str] = {}
        open_tasks = await self._store.tasks.open_tasks(arg.project)
        if any(gap.source == "gitea" for gap in gaps):
            # Which branches and commits were spoken of is lost, so every open task looks once.
            woken += sum([await self._wake(key) for key in sorted(open_tasks)])
        async for page in self._plane.list_items_changed(project.plane_project_id, since):
            calls += 1
            for row in page:
                newest = max(newest or row.updated_at, row.updated_at)
                looks[row.id] = f"{row.updated_at.isoformat()} {row.state}"
                if watermark.seen.get(row.id) == looks[row.id]:
                    continue
                seen += 1
                key = str(TaskKey(arg.project, row.sequence_id))
                if key in open_tasks:
                    woken += await self._wake(key)
                elif row.state == in_progress:
                    started += await self._start(key, row)
        until = newest or datetime.now(UTC)
        overlap = {item: look for item, look in looks.items() if look >= (until - OVERLAP).isoformat()}
        await self._store.tasks.move_watermark(arg.project, until, overlap)
        await self._store.gaps.cover(arg.project, gaps)
        result = contract.Pass(seen=seen, woken=woken, started=started, calls=calls, gaps=len(gaps))
        log.info("reconcile_pass", project=arg.project, **result.model_dump(exclude={"skipped"}))
        return result

    async def _wake(self, key: str) -> int:
        try:
            await self._client.get_workflow_handle(task_workflow_id(key)).signal("hint", HINT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return 0
        return 1

    async def _start(self, key: str, row: ItemRow) -> int:
        """Signal-with-start by the same id as a webhook: two sources make one task."""
        await self._client.start_workflow(
            TaskWorkflow.run,
            TaskInput(key=key),
            id=task_workflow_id(key),
            task_queue=SHARED_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="hint",
            start_signal_args=[HINT],
            static_summary=f"Plane item {key}",
        )
        log.info("reconcile_start", task=key, updated_at=row.updated_at.isoformat())
        return 1


async def ensure_schedules(client: Client, config: OrchConfig, every: timedelta) -> None:
    """Make or bring up to date one Schedule for each project; a pass that is late is skipped, not doubled."""
    for project in config.projects:
        name = reconcile_workflow_id(project)
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(
                ReconcileWorkflow.run,
                contract.ReconcileProject(project=project),
                id=name,
                task_queue=SHARED_QUEUE,
                static_summary=f"what changed in {project}?",
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
        )
        try:
            await client.create_schedule(name, schedule)
        except ScheduleAlreadyRunningError:

            def newest(_: ScheduleUpdateInput, schedule: Schedule = schedule) -> ScheduleUpdate:
                return ScheduleUpdate(schedule=schedule)

            await client.get_schedule_handle(name).update(newest)
