"""Workflow ids, task queues and search attributes, with their inverses.

These are an external contract: people type them into the `temporal` CLI and the Web UI.
"""

import re
from typing import NamedTuple

from temporalio.common import SearchAttributeKey

NAMESPACE = "orch"

SHARED_QUEUE = "orch"
"""Workflows and activities that any worker may run."""
PLANE_QUEUE = "orch-plane"
"""Plane's REST API behind one server-side rate: 60 calls a minute a key (contracts/plane.md, 2)."""

_TASK_KEY = re.compile(r"(?P<project>[A-Za-z][A-Za-z0-9_]*)-(?P<seq>[1-9][0-9]*)")
_TASK_ID = re.compile(r"task/" + _TASK_KEY.pattern)


class TaskKey(NamedTuple):
    """The name people call a task by, for instance `DEMO-1`."""

    project: str
    seq: int

    def __str__(self) -> str:
        return f"{self.project}-{self.seq}"


def parse_task_key(text: str) -> TaskKey:
    """Read `DEMO-1`.

    Raises:
        ValueError: the text is not `<PROJECT>-<number>`.
    """
    match = _TASK_KEY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a task key; expected <PROJECT>-<number>, for instance DEMO-1")
    return TaskKey(match["project"], int(match["seq"]))


def task_workflow_id(key: str) -> str:
    """`task/DEMO-1` for `DEMO-1`."""
    return f"task/{parse_task_key(key)}"


def task_key_of(workflow_id: str) -> str | None:
    """The task key of a task's workflow id, or None for any other workflow."""
    match = _TASK_ID.fullmatch(workflow_id)
    return f"{match['project']}-{match['seq']}" if match else None


TASK_BRANCH_PREFIX = "task/"
"""The only branches Orch ever pushes are below this prefix."""


def task_branch(key: str, generation: int) -> str:
    """`task/DEMO-1`, and `task/DEMO-1-g2` for a second generation."""
    suffix = "" if generation == 1 else f"-g{generation}"
    return f"{TASK_BRANCH_PREFIX}{parse_task_key(key)}{suffix}"


def merge_queue_workflow_id(owner: str, repo: str, base: str) -> str:
    """One merge queue for each repository and base branch."""
    return f"merge/{owner}/{repo}/{base}"


def base_of_queue(workflow_id: str) -> tuple[str, str, str] | None:
    """Owner, repository and base branch of a merge queue's workflow id, or None for any other workflow."""
    kind, _, rest = workflow_id.partition("/")
    parts = rest.split("/", 2)
    return (parts[0], parts[1], parts[2]) if kind == "merge" and len(parts) == 3 else None


def environment_workflow_id(owner: str, repo: str, environment: str) -> str:
    """One deploy lease for each repository and environment."""
    return f"env/{owner}/{repo}/{environment}"


def resolve_workflow_id(owner: str, repo: str, sha: str) -> str:
    """Finds out whom a commit concerns that no task is known by, for all deliveries that speak of it."""
    return f"resolve/{owner}/{repo}/{sha}"


def reconcile_workflow_id(project: str) -> str:
    """The Schedule of a project's reconcile passes, and the prefix of each pass."""
    return f"reconcile/{project}"


def host_control_queue(host: str) -> str:
    """A host's slot-rich queue: pings only, so that a busy host is not taken for a dead one."""
    return f"orch-host-{host}-control"


def host_work_queue(host: str) -> str:
    """Git, tests and deployments on one host's disk."""
    return f"orch-host-{host}-work"


def host_agent_queue(host: str) -> str:
    """Agent runs on one host; as many slots as `ORCH_AGENT_SLOTS`."""
    return f"orch-host-{host}-agents"


PROJECT = SearchAttributeKey.for_keyword("OrchProject")
REPO = SearchAttributeKey.for_keyword("OrchRepo")
ITEM = SearchAttributeKey.for_keyword("OrchItem")
STAGE = SearchAttributeKey.for_keyword("OrchStage")
WAITING_ON = SearchAttributeKey.for_keyword("OrchWaitingOn")
NEEDS_HUMAN = SearchAttributeKey.for_bool("OrchNeedsHuman")
COST_USD = SearchAttributeKey.for_float("OrchCostUsd")

SEARCH_ATTRIBUTES = (PROJECT, REPO, ITEM, STAGE, WAITING_ON, NEEDS_HUMAN, COST_USD)
"""Everything to register; SQL visibility allows 10 Keyword and 3 of each other type in a namespace."""
