"""Histories of every stage, recorded as files, replay on today's code; an incompatible change does not.

Record them anew with `ORCH_RECORD_HISTORIES=1 pytest tests/workflow`, when nothing runs that they stand for.
"""

import socket
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.changed_task import ChangedTask
from tests.workflow.driving import HISTORIES
from workflows.environment import EnvironmentWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.model import Stage
from workflows.plugin import orch_plugin
from workflows.task import TaskWorkflow

FILES = sorted(HISTORIES.glob("*.json"))
TASKS = [path for path in FILES if path.stem.startswith("task-")]
OTHERS = {
    "task-analysis-rejected",
    "task-analysis-round-2-waiting",
    "task-development-red-ci",
    "task-deploy-staging-main-moved",
    "task-review-paused",
    "task-deploy-cancelled",
    "task-testing-merged-by-hand",
    "task-next-generation",
    "merge-queue",
}


def history(path: Path) -> WorkflowHistory:
    """A recorded run."""
    return WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))


def test_every_stage_is_recorded() -> None:
    """There is a history of each stage, a rejection, each way back, each interruption, and a merge queue."""
    assert {path.stem for path in FILES} == OTHERS | {f"task-{stage}" for stage in Stage}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_recorded_run_replays(path: Path) -> None:
    """Today's workflows give exactly the commands that a recorded run has."""
    replayer = Replayer(
        workflows=[TaskWorkflow, MergeQueueWorkflow, EnvironmentWorkflow],
        plugins=[orch_plugin()],
    )
    await replayer.replay_workflow(history(path))


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
async def test_an_incompatible_change_is_caught(path: Path) -> None:
    """A workflow that gives one command more fails on every recorded task: the check is no formality."""
    replayer = Replayer(workflows=[ChangedTask], plugins=[orch_plugin()])
    with pytest.raises(NondeterminismError):
        await replayer.replay_workflow(history(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_history_names_no_machine(path: Path) -> None:
    """A recorded file holds no host name, process or path of whoever recorded it."""
    text = path.read_text(encoding="utf-8")
    assert f"@{socket.gethostname()}" not in text
    assert "/tmp/" not in text
    assert "/home/" not in text
