"""Servers and workers are killed in the middle of things; every task ends as done with every effect once."""

import signal

import psutil
import pytest

from deploy import processes
from tests.e2e.auditor import Auditor
from tests.e2e.harness import Orch

pytestmark = pytest.mark.embedded

WORKERS_OF = {
    "analysis": "analyst",
    "architecture": "architect",
    "development": "developer",
    "review": "reviewer",
    "testing": "tester",
    "deploy-staging": "deployer",
    "deploy": "deployer",
}
"""Who works in each stage."""


async def all_gone(orch: Orch, found: list[psutil.Process], key: str) -> None:
    """Wait until none of these processes lives."""

    async def gone() -> bool:
        return not any(processes.is_alive(process) for process in found)

    await orch.until(f"{found} are gone", gone, key)


async def attempts(orch: Orch, key: str, stage: str) -> list[str]:
    """How the attempts at a stage ended, in order."""
    query = "SELECT outcome FROM agent_runs WHERE task = $1 AND stage = $2 ORDER BY started_at"
    return [row["outcome"] for row in await orch.rows(query, key, stage)]


@pytest.mark.parametrize("stage", WORKERS_OF)
async def test_worker_killed_while_an_agent_works(orch: Orch, stage: str) -> None:
    """After kill -9 of the worker its agent is dead, a new attempt does the work, and nothing happens twice."""
    orch.play(**{WORKERS_OF[stage]: 1.5})
    key = await orch.start(f"Kill the worker in {stage}")
    if stage != "analysis":
        await orch.approve_when_asked(key)
    agents = await orch.running(f"{key}/g1/{stage}/r1/agent", key)
    dead = orch.signal("worker")
    await all_gone(orch, agents, key)
    orch.play()
    if stage == "analysis":
        await orch.approve_when_asked(key)
    await orch.done(key)
    await orch.back("worker", dead, key)
    assert await attempts(orch, key, stage) == ["lost", "ok"]
    await Auditor(orch).check(key)


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_worker_killed_while_the_deploy_command_runs(orch: Orch, effect: str) -> None:
    """A deployment whose result was lost is resolved by the probe, whether or not it had come to anything."""
    slow = {"method": "POST", "path": "/production/deploy", "effect": effect, "delay_seconds": 20, "status": 503}
    await orch.faults("production", slow)
    key = await orch.start(f"Kill the worker {effect} the deployment")
    await orch.approve_when_asked(key)
    commands = await orch.running(f"{key}/g1/deploy/r1/deploy-production", key)

    async def begun() -> bool:
        # The command, not the probe before it: its intent is on record, and the sandbox has taken the fault.
        return bool(await orch.rows("SELECT 1 FROM deployments WHERE task = $1 AND environment = 'production'", key))

    await orch.until(f"{key} deploys", begun, key)
    commands = await orch.running(f"{key}/g1/deploy/r1/deploy-production", key)
    dead = orch.signal("worker")
    await all_gone(orch, commands, key)
    await orch.done(key)
    await orch.back("worker", dead, key)
    await Auditor(orch).check(key)


@pytest.mark.parametrize("service", ["api", "temporal", "postgres", "sandbox"])
async def test_server_killed_in_the_middle_of_a_task(orch: Orch, service: str) -> None:
    """After kill -9 of a server the task goes on by itself and every effect is there once."""
    orch.play(reviewer=1.5)
    key = await orch.start(f"Kill {service} during the review")
    await orch.approve_when_asked(key)
    await orch.running(f"{key}/g1/review/r1/agent", key)
    dead = orch.signal(service)
    await orch.back(service, dead, key)
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
    assert await attempts(orch, key, "development") == ["ok"]
    await Auditor(orch).check(key)
