"""Workers are killed in every stage, while agents and deploy commands run; nothing is lost or happens twice."""

import pytest

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


@pytest.mark.parametrize("stage", WORKERS_OF)
async def test_worker_killed_while_an_agent_works(orch: Orch, stage: str) -> None:
    """After kill -9 of the worker its agent is dead, a new attempt does the work, and nothing happens twice."""
    orch.play(**{WORKERS_OF[stage]: 1.5})
    key = await orch.start(f"Kill the worker in {stage}")
    if stage != "analysis":
        await orch.approve_when_asked(key)
    agents = await orch.running(f"{key}/g1/{stage}/r1/agent", key)
    dead = orch.signal("worker")
    await orch.gone(agents, key)
    orch.play()
    if stage == "analysis":
        await orch.approve_when_asked(key)
    await orch.done(key)
    await orch.back("worker", dead, key)
    assert await orch.attempts(key, stage) == ["lost", "ok"]
    await Auditor(orch).check(key)


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_worker_killed_while_the_deploy_command_runs(orch: Orch, effect: str) -> None:
    """A deployment whose result was lost is resolved by the probe, whether or not it had come to anything."""
    slow = {"method": "POST", "path": "/production/deploy", "effect": effect, "delay_seconds": 20, "status": 503}
    await orch.faults("production", slow)
    before = await serves(orch)
    key = await orch.start(f"Kill the worker {effect} the deployment")
    await orch.approve_when_asked(key)

    async def begun() -> bool:
        query = "SELECT 1 FROM deployments WHERE task = $1 AND environment = 'production'"
        return bool(await orch.rows(query, key)) and (effect == "before" or await serves(orch) != before)

    await orch.until(f"{key} deploys", begun, key)
    # The intent is on record, so this is the command and not the probe before it.
    commands = await orch.running(f"{key}/g1/deploy/r1/deploy-production", key)
    dead = orch.signal("worker")
    await orch.gone(commands, key)
    await orch.faults("production")
    row = await orch.done(key)
    await orch.back("worker", dead, key)
    assert await serves(orch) == row["landed_sha"]
    await Auditor(orch).check(key)


async def serves(orch: Orch) -> str:
    """The commit that production serves."""
    return str((await orch.request("GET", "production", "/production/healthz"))["sha"])
