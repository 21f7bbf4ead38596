"""How a task begins: a hint starts the workflow, but only a person starts the task."""

from datetime import timedelta

from temporalio import workflow

from workflows import names
from workflows.calls import call
from workflows.contracts import gates, items, workspaces
from workflows.hints import Source
from workflows.model import Policy, Repository
from workflows.names import PLANE_QUEUE
from workflows.state import TaskState
from workflows.task_run import TaskRun

START_PATIENCE = timedelta(minutes=10)
"""How long Plane may take to write the activity that says who moved an item (contracts/plane.md, 2)."""


async def begin(run: TaskRun, key: str) -> str | None:
    """Verify that a person started this task; answer why not, if it does not start."""
    found = await _settled(key)
    if isinstance(found, str):
        return found
    assert found.item is not None
    assert found.project is not None
    repository = found.project.repository
    workflow.upsert_search_attributes(
        [
            names.PROJECT.value_set(found.project.key),
            names.REPO.value_set(str(repository)),
            names.ITEM.value_set(key),
        ]
    )
    run.state = TaskState(
        key=key,
        generation=found.generation,
        step=found.step,
        start_activity=found.start_activity,
        seen_activity=found.start_activity,
        item=found.item,
        project=found.project,
        policy=Policy(test=""),
        started_at=workflow.now(),
    )
    run.say(found.reason, source=Source.PLANE)
    return None


async def pin(run: TaskRun) -> None:
    """Pin what governs this generation: the base branch's policy, and the host it works on."""
    policy = await _policy(run, run.state.project.repository)
    host = await run.call(
        workspaces.claim_host, workspaces.ClaimHost(ref=run.state.ref), summary="which host takes it?"
    )
    run.update(policy=policy, host=host.host)


async def look(key: str) -> items.Beginning:
    """Ask once whether a person has started a generation that is not consumed yet."""
    return await call(
        items.begin_generation,
        items.BeginGeneration(key=key),
        queue=PLANE_QUEUE,
        summary="did a person start this?",
    )


async def _settled(key: str) -> items.Beginning | str:
    deadline = workflow.now() + START_PATIENCE
    pause = timedelta(seconds=2)
    while True:
        found = await look(key)
        if found.start is items.Start.STARTED:
            return found
        if found.start is items.Start.NOT_STARTED:
            return found.reason
        if workflow.now() >= deadline:
            return f"{found.reason}; nobody's move was recorded within {START_PATIENCE}"
        await workflow.sleep(pause, summary="the activity is not written yet")
        pause = min(pause * 2, timedelta(minutes=1))


async def _policy(run: TaskRun, repository: Repository) -> Policy:
    """Pin the policy of the base branch; a missing or broken one waits for a person."""
    while True:
        reading = await run.call(
            gates.read_policy, gates.ReadPolicy(repository=repository), summary="read .orch/pipeline.toml"
        )
        if reading.policy is not None:
            run.update(gate_off=reading.gate_off)
            if reading.gate_off:
                run.say(reading.gate_off)
            return reading.policy
        await run.ask_human(reading.problem)
