"""What people and programs send a task and read from it; an external contract, typed into the `temporal` CLI."""

from workflows.model import Frozen, Lease, Priority, Stage, Waiting
from workflows.state import TaskState, why


class OperatorCommand(Frozen):
    """What a person sends with an update, for instance `{"by": "olga", "digest": "3f2a…"}`."""

    by: str
    digest: str = ""
    reason: str = ""
    act_id: str = ""


class QueueCommand(Frozen):
    """What a person sends a lease queue with an update, for instance `{"task": "DEMO-1", "by": "olga"}`."""

    task: str
    by: str
    reason: str = ""
    priority: Priority | None = None
    """For `bump` alone."""
    act_id: str = ""


class Status(Frozen):
    """What the `status` query answers."""

    key: str
    generation: int = 0
    stage: Stage | None = None
    round: int = 0
    why: str
    waiting: Waiting | None = None
    digest: str = ""
    head_sha: str = ""
    pull_request: str = ""
    lease: Lease | None = None
    merge_gate: str = "on"
    """`on`, or why it is off for the task's repository."""
    landed_sha: str = ""
    deployed_sha: str = ""
    cost_usd: float | None = None
    outcome: str = ""


class TaskOutcome(Frozen):
    """How a generation ended."""

    key: str
    outcome: str
    landed_sha: str = ""
    deployed_sha: str = ""


def status_of(key: str, state: TaskState | None) -> Status:
    """The task as it stands; None before it is known whether a person started it."""
    if state is None:
        return Status(key=key, why=f"{key} is looking whether a person started it.")
    return Status(
        key=state.key,
        generation=state.generation,
        stage=state.stage,
        round=state.round,
        why=why(state),
        waiting=state.waiting,
        digest=state.ask.digest if state.ask else "",
        head_sha=state.head_sha,
        pull_request=state.pull.url if state.pull else "",
        lease=state.lease,
        merge_gate=state.gate_off or "on",
        landed_sha=state.landed_sha,
        deployed_sha=state.deployed_sha,
        cost_usd=state.cost_usd if state.cost_complete else None,
        outcome=state.outcome,
    )
