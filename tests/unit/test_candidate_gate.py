"""The gate `candidate tested`: who moved something outweighs a red test, and a flaky green says so."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.adapters.gitea_models import Branch, CombinedStatus
from activities.gates import Gates
from workflows.contracts.gates import GateQuestion
from workflows.model import Candidate, GateOutcome, Item, Policy, Repository, Stage, TaskRef, TestRun
from workflows.projects import ProjectFacts
from workflows.stages import Gate

SHA, BASE, OTHER = "c" * 40, "b" * 40, "d" * 40


class Client:
    """Gitea with two branches and no CI."""

    def __init__(self, head: str, main: str) -> None:
        self._tips = {"task/DEMO-1": head, "main": main}

    async def get_branch(self, name: str) -> Branch:
        """A branch at its tip."""
        return Branch.model_validate({"name": name, "commit": {"id": self._tips[name]}})

    async def combined_status(self, sha: str) -> CombinedStatus:
        """Never asked where there is no CI."""
        raise AssertionError(sha)


async def asked(*, passed: bool, failed_runs: int = 0, head: str = SHA, main: str = BASE) -> Any:
    """What the gate says of a candidate."""
    forge = SimpleNamespace(client=lambda _: Client(head, main))

    async def record(_: object) -> None:
        """Keep nothing."""

    store = SimpleNamespace(tasks=SimpleNamespace(record_gate=record))
    gates = Gates(cast("Any", None), cast("Any", forge), cast("Any", store), cast("Any", None), cast("Any", None))
    question = GateQuestion(
        ref=TaskRef(key="DEMO-1", generation=1, stage=Stage.DEPLOY_STAGING, round=1),
        gate=Gate.CANDIDATE_TESTED,
        project=ProjectFacts(key="DEMO", repository=Repository(owner="acme", name="shop")),
        item=Item(id="i", project_id="p", key="DEMO-1", title="T"),
        policy=Policy(test="t", ci="none"),
        branch="task/DEMO-1",
        head_sha=SHA,
        candidate=Candidate(sha=SHA, tree="t", base_sha=BASE, replaces=SHA),
        test_run=TestRun(sha=SHA, passed=passed, exit_code=0 if passed else 1),
        failed_runs=failed_runs,
    )
    return await gates.evaluate_gate(question)


@pytest.mark.parametrize("passed", [True, False])
async def test_a_moved_head_outweighs_the_test(passed: bool) -> None:
    """Whatever the tests said, a head that somebody moved is told, with where it is now."""
    result = await asked(passed=passed, head=OTHER, main=OTHER)
    assert (result.outcome, result.failing, result.sha) == (GateOutcome.RED, ("head moved",), OTHER)


@pytest.mark.parametrize("passed", [True, False])
async def test_a_moved_main_outweighs_the_test(passed: bool) -> None:
    """A red test on a main that is no longer main blames nobody."""
    result = await asked(passed=passed, main=OTHER)
    assert (result.outcome, result.failing) == (GateOutcome.RED, ("main moved",))


async def test_red_is_red_where_nothing_moved() -> None:
    """A candidate that fails on current main is red, with how often."""
    result = await asked(passed=False, failed_runs=1)
    assert (result.outcome, result.failing) == (GateOutcome.RED, ("combined tree red",))
    assert "2 times" in result.reason


async def test_a_flaky_green_is_green_and_says_so() -> None:
    """A pass after a failure is green, and the evidence keeps that it failed."""
    assert (await asked(passed=True)).reason == "this repository has no CI, as its policy says"
    result = await asked(passed=True, failed_runs=1)
    assert result.outcome is GateOutcome.GREEN
    assert result.reason.startswith("flaky: failed once, passed on re-run")
