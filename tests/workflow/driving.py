"""How workflow tests start tasks, talk to them, read their runs and record their histories."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from tests.fake_world import HOST, FakeWorld, a_sha
from workflows import names
from workflows.hints import Hint, Source, Topic
from workflows.lease_rules import QueueState
from workflows.merge_queue import MergeQueueWorkflow
from workflows.model import Candidate, FreezeCause, Lease, PullRequest, Stage
from workflows.state import TaskInput, TaskState
from workflows.task import OperatorCommand, Status, TaskOutcome, TaskWorkflow

HISTORIES = Path(__file__).parents[1] / "histories"
RECORDING = os.environ.get("ORCH_RECORD_HISTORIES") == "1"

Handle = WorkflowHandle[TaskWorkflow, TaskOutcome]


@dataclass(frozen=True)
class Journey:
    """A task that has ended."""

    world: FakeWorld
    handle: Handle
    outcome: TaskOutcome
    status: Status
    runs: list[WorkflowHistory]


class Driver:
    """Everything a test does from outside."""

    def __init__(self, environment: WorkflowEnvironment, world: FakeWorld) -> None:
        self.environment = environment
        self.client = environment.client
        self.world = world
        self._started: set[str] = set()

    async def start(self, which: int = 1, hint: Hint | None = None) -> Handle:
        """Start a task as the forwarder does; the handle follows it through all its runs."""
        key = self.world.key(which)
        signal: dict[str, Any] = {"start_signal": "hint", "start_signal_args": [hint]} if hint else {}
        await self.client.start_workflow(
            TaskWorkflow.run,
            TaskInput(key=key),
            id=names.task_workflow_id(key),
            task_queue=names.SHARED_QUEUE,
            **signal,
        )
        self._started.add(names.task_workflow_id(key))
        return self.handle(which)

    async def start_at(self, stage: Stage, which: int = 1, passes: tuple[FreezeCause, ...] = ()) -> Handle:
        """Start a task that stands at a stage, as the runs before it would have left it."""
        world, key = self.world, self.world.key(which)
        found = world.beginning(key)
        assert found.item is not None
        assert found.project is not None
        written = stage is not Stage.ANALYSIS
        head = world.foreign_push(names.task_branch(key, 1)) if written else ""
        opened = list(Stage).index(stage) > list(Stage).index(Stage.DEVELOPMENT)
        state = TaskState(
            key=key,
            generation=1,
            start_activity=found.start_activity,
            seen_activity=found.start_activity,
            item=found.item,
            project=found.project,
            policy=world.policy,
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            stage=stage,
            rounds={stage: 1},
            host=HOST,
            head_sha=head,
            pull=PullRequest(number=7, head_sha=head, url="http://g/7") if opened else None,
        )
        if stage is Stage.DEPLOY:
            sha = world.heads[state.branch]
            candidate = Candidate(sha=sha, tree=a_sha("tree"), base_sha=a_sha("main"), replaces=a_sha("before"))
            queue = names.merge_queue_workflow_id(world.repository.owner, world.repository.name, "main")
            at = datetime(2026, 1, 1, tzinfo=UTC)
            lease = Lease(queue=queue, epoch=world.held_epoch, ticket=1, granted_at=at, passes=passes)
            state = state.model_copy(update={"candidate": candidate, "lease": lease})
        await self.client.start_workflow(
            TaskWorkflow.run,
            TaskInput(key=key, state=state),
            id=names.task_workflow_id(key),
            task_queue=names.SHARED_QUEUE,
        )
        self._started.add(names.task_workflow_id(key))
        return self.handle(which)

    async def left(self, stage: Stage, which: int = 1) -> None:
        """Wait until the task has gone on from a stage."""
        await self.world.until(
            lambda: any(
                f"{stage} -> " in line.text
                for row in self.world.progress
                if row.ref.key == self.world.key(which)
                for line in row.lines
            ),
            f"{stage} is left",
        )

    async def tell(self, act: Any, which: int = 1, **more: str) -> None:
        """A person sends an update."""
        await self.handle(which).execute_update(act, OperatorCommand(by="olga", **more))

    def handle(self, which: int = 1) -> Handle:
        """The newest run of a task."""
        return self.client.get_workflow_handle_for(TaskWorkflow.run, names.task_workflow_id(self.world.key(which)))

    @property
    def queue(self) -> WorkflowHandle[MergeQueueWorkflow, None]:
        """The world's merge queue."""
        repository = self.world.repository
        queue_id = names.merge_queue_workflow_id(repository.owner, repository.name, repository.base)
        self._started.add(queue_id)
        return self.client.get_workflow_handle_for(MergeQueueWorkflow.run, queue_id)

    async def shown(self) -> QueueState:
        """What the merge queue says of itself."""
        return await self.queue.query(MergeQueueWorkflow.show)

    async def hint(self, topic: Topic, source: Source = Source.GITEA, which: int = 1) -> None:
        """Say that something may have changed."""
        await self.handle(which).signal(TaskWorkflow.hint, Hint(topic=topic, source=source))

    async def status(self, which: int = 1) -> Status:
        """The `status` query."""
        return await self.handle(which).query(TaskWorkflow.status)

    async def retry(self, which: int = 1, act_id: str = "") -> str:
        """A person says `retry`."""
        command = OperatorCommand(by="olga", act_id=act_id)
        return await self.handle(which).execute_update(TaskWorkflow.retry, command)

    async def forward(self, duration: timedelta, handle: WorkflowHandle[Any, Any] | None = None) -> bool:
        """Move a workflow's clock."""
        return await self.environment.fast_forward(handle or self.handle(), duration)

    async def runs(self, handle: WorkflowHandle[Any, Any]) -> list[WorkflowHistory]:
        """The histories of a chain of runs, oldest first."""
        newest = await handle.fetch_history()
        run_id = newest.events[0].workflow_execution_started_event_attributes.first_execution_run_id
        histories = []
        while run_id:
            history = await self.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
            histories.append(history)
            run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        return histories

    async def end(self) -> None:
        """Terminate what is still running."""
        repository = self.world.repository
        owner, repo = repository.owner, repository.name
        queues = [names.merge_queue_workflow_id(owner, repo, repository.base)]
        queues += [names.environment_workflow_id(owner, repo, where) for where in ("staging", "production")]
        for workflow_id in [*self._started, *queues]:
            try:
                await self.client.get_workflow_handle(workflow_id).terminate("the test is over")
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise


def event_types(history: WorkflowHistory) -> list[str]:
    """The names of a history's events."""
    return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]


def closing(history: WorkflowHistory) -> str:
    """How a run ended."""
    return event_types(history)[-1]


def record(name: str, history: WorkflowHistory) -> None:
    """Keep a history as a file, under `ORCH_RECORD_HISTORIES=1` only."""
    if RECORDING:
        HISTORIES.mkdir(exist_ok=True)
        content = json.dumps(json.loads(history.to_json()), indent=1, sort_keys=True) + "\n"
        (HISTORIES / f"{name}.json").write_text(content, encoding="utf-8")


def updates_accepted(history: WorkflowHistory) -> int:
    """How many updates left an event."""
    return event_types(history).count("WORKFLOW_EXECUTION_UPDATE_ACCEPTED")


async def status_of(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus | None:
    """Whether a workflow runs, and how it ended if it does not."""
    return (await handle.describe()).status
