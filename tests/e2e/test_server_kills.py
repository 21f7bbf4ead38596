"""Servers are killed in every stage, and the worker is told to stop; the task ends as done all the same."""

import signal

import pytest

from tests.e2e.auditor import Auditor
from tests.e2e.harness import Orch
from workflows.names import task_workflow_id

pytestmark = pytest.mark.embedded

ROLES = {
    "analysis": "analyst",
    "architecture": "architect",
    "development": "developer",
    "review": "reviewer",
    "testing": "tester",
    "deploy-staging": "deployer",
    "deploy": "deployer",
}
"""Who works in each stage, in order."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", ["api", "temporal", "postgres"])
async def test_server_killed_in_every_stage_of_a_task(orch: Orch, service: str) -> None:
    """Though a server is killed in each stage, the task goes on by itself and every effect is there once."""
    orch.play(**dict.fromkeys(ROLES.values(), 3))
    key = await orch.start(f"Kill {service} in every stage")
    for stage in ROLES:
        if stage == "architecture":
            await orch.approve_when_asked(key)
        await orch.running(f"{key}/g1/{stage}/r1/agent", key)
        dead = orch.signal(service)
        await orch.back(service, dead, key)
    await orch.done(key)
    await Auditor(orch).check(key)


async def test_sources_killed_in_the_middle_of_a_task(orch: Orch) -> None:
    """After kill -9 of Plane and Gitea the task goes on by itself and every effect is there once."""
    orch.play(reviewer=1.5)
    key = await orch.start("Kill the sources during the review")
    await orch.approve_when_asked(key)
    await orch.running(f"{key}/g1/review/r1/agent", key)
    dead = orch.signal("sandbox")
    await orch.back("sandbox", dead, key)
    await orch.done(key)
    await Auditor(orch).check(key)


async def test_told_to_stop_a_worker_finishes_what_it_runs(orch: Orch) -> None:
    """After SIGTERM the agent's run is finished, not repeated; the worker leaves with 0 and the next one goes on."""
    orch.play(developer=1.5)
    key = await orch.start("Stop the worker during the development")
    await orch.approve_when_asked(key)
    await orch.running(f"{key}/g1/development/r1/agent", key)
    old = orch.signal("worker", signal.SIGTERM)
    await orch.done(key)
    await orch.back("worker", old, key)
    assert "exit code 0" in str(orch.stack.status().service("worker").last_exit)
    assert await orch.attempts(key, "development") == ["ok"]
    await Auditor(orch).check(key)


async def test_a_frozen_worker_wakes_up_too_late(orch: Orch) -> None:
    """A worker that stood still until its work was given away does not do it twice when it wakes up."""
    orch.play(developer=1.5)
    key = await orch.start("Freeze the worker during the development")
    await orch.approve_when_asked(key)
    agents = await orch.running(f"{key}/g1/development/r1/agent", key)
    orch.signal("worker", signal.SIGSTOP)
    try:
        await orch.gone(agents, key)
        client = await orch.temporal()

        async def given_away() -> bool:
            described = await client.get_workflow_handle(task_workflow_id(key)).describe()
            pending = described.raw_description.pending_activities
            return any(one.attempt > 1 for one in pending)

        await orch.until(f"{key} is given to another attempt", given_away, key)
    finally:
        orch.signal("worker", signal.SIGCONT)
    await orch.done(key)
    assert (await orch.attempts(key, "development")).count("ok") == 1
    await Auditor(orch).check(key)
