"""From the reviewed branch to production: every way a candidate, a landing or a deployment can end."""

import pytest

from tests.fake_world import FakeWorld, judged, verdict
from tests.workflow.driving import Driver, record
from workflows.contracts.landing import (
    CandidateBuilt,
    CandidateOutcome,
    Deployed,
    DeployOutcome,
    Landed,
    LandOutcome,
)
from workflows.model import FreezeCause, GateOutcome, Role, Stage, WaitingOn
from workflows.stages import Gate
from workflows.verdicts import VerdictOutcome


def moves(world: FakeWorld) -> list[str]:
    """The transitions the ledger was told of, without the reasons."""
    lines = [line.text for row in world.progress for line in row.lines]
    return [text.partition(":")[0] for text in lines if " -> " in text]


def merge_requests(world: FakeWorld) -> list[int]:
    """The tickets of the wishes for the merge lease."""
    return [request.ticket for request in world.of("request_lease") if request.kind == "merge"]


def merge_epochs_released(world: FakeWorld) -> list[int]:
    """The epochs of the merge lease that were given back."""
    return [release.lease.epoch for release in world.of("release_lease") if release.lease.queue.startswith("merge/")]


def merge_epochs(world: FakeWorld) -> list[int]:
    """The epochs under which the merge lease was granted."""
    return [epoch for queue, _, epoch in world.epochs.granted if queue.startswith("merge/")]


async def test_main_moved_under_the_test_queues_again(driver: Driver, world: FakeWorld) -> None:
    """When main moved, the lease is given back and asked for anew; nobody develops or reviews again."""
    moved = judged(Gate.CANDIDATE_TESTED, GateOutcome.RED, "main moved", failing=("main moved",))
    world.script_gate(Gate.CANDIDATE_TESTED, moved)
    handle = await driver.start()
    assert (await handle.result()).outcome == "done"
    first, second = merge_requests(world)
    assert second > first
    assert merge_epochs_released(world) == merge_epochs(world)
    assert len(world.agent_calls(Role.DEVELOPER)) == len(world.agent_calls(Role.REVIEWER)) == 1
    assert moves(world)[5:7] == ["deploy-staging -> deploy-staging", "deploy-staging -> deploy"]
    record("task-deploy-staging-main-moved", (await driver.runs(handle))[5])


async def test_head_moved_under_the_test_goes_to_review(driver: Driver, world: FakeWorld) -> None:
    """When somebody pushed during the combined test, the new head is reviewed and the lease is free meanwhile."""
    moved = judged(Gate.CANDIDATE_TESTED, GateOutcome.RED, "head moved", "f" * 40, failing=("head moved",))
    world.script_gate(Gate.CANDIDATE_TESTED, moved)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.REVIEWER)) == 2, "a second review")
    assert "deploy-staging -> review" in moves(world)
    assert merge_epochs_released(world) == merge_epochs(world)


async def test_a_red_combined_tree_goes_to_development(driver: Driver, world: FakeWorld) -> None:
    """When the combined tree is red, the developer gets the tail of the tests, and the lease is free."""
    red = judged(Gate.CANDIDATE_TESTED, GateOutcome.RED, "tests fail on the candidate")
    world.script_gate(Gate.CANDIDATE_TESTED, red)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
    feedback = world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]
    assert "tests fail on the candidate" in feedback
    assert "3 passed" in feedback
    assert merge_epochs_released(world) == merge_epochs(world)


@pytest.mark.parametrize(
    ("outcome", "move"),
    [
        (CandidateOutcome.CONFLICT, "deploy-staging -> development"),
        (CandidateOutcome.HEAD_MOVED, "deploy-staging -> review"),
        (CandidateOutcome.LEASE_LOST, "deploy-staging -> deploy-staging"),
    ],
)
async def test_no_candidate(driver: Driver, world: FakeWorld, outcome: CandidateOutcome, move: str) -> None:
    """Without a candidate the lease is given back and the task goes where the reason leads."""
    world.script("build_candidate", CandidateBuilt(outcome=outcome, reason="because", conflicts=("a.py",)))
    await driver.start()
    await world.until(lambda: move in moves(world), move)
    assert merge_epochs_released(world) == merge_epochs(world)
    if outcome is CandidateOutcome.CONFLICT:
        await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
        assert "a.py" in world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]


@pytest.mark.parametrize(
    ("outcome", "move"),
    [
        (LandOutcome.MAIN_MOVED, "deploy -> deploy-staging"),
        (LandOutcome.LEASE_LOST, "deploy -> deploy-staging"),
        (LandOutcome.HEAD_MOVED, "deploy -> review"),
    ],
)
async def test_not_landed(driver: Driver, world: FakeWorld, outcome: LandOutcome, move: str) -> None:
    """A landing that was refused because something moved gives the lease back and gates again."""
    world.script("land", Landed(outcome=outcome, reason="because"))
    await driver.start()
    await world.until(lambda: move in moves(world), move)
    assert merge_epochs_released(world)[0] == merge_epochs(world)[0]
    assert not [name for name in world.names() if name == "request production lease"]


@pytest.mark.parametrize("outcome", [LandOutcome.NOT_ALLOWED, LandOutcome.WRONG_TREE])
async def test_a_landing_a_person_must_look_at(driver: Driver, world: FakeWorld, outcome: LandOutcome) -> None:
    """A merge that Gitea does not allow, or that left another tree, holds no lease while a person looks."""
    world.script("land", Landed(outcome=outcome, reason="protected"))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="not landed: protected")
    assert merge_epochs_released(world) == merge_epochs(world)
    assert (await driver.status()).lease is None
    await driver.retry()
    if outcome is LandOutcome.WRONG_TREE:
        await world.waiting(WaitingOn.MERGE_QUEUE, reason="the merge queue is frozen: wrong tree")
        await driver.unfreeze(FreezeCause.WRONG_TREE)
    assert (await handle.result()).outcome == "done"
    assert "deploy -> deploy-staging" in moves(world)


async def test_failed_staging_goes_to_development(driver: Driver, world: FakeWorld) -> None:
    """A failed staging deployment never reaches the merge queue; the developer gets its output."""
    world.script("deploy", Deployed(outcome=DeployOutcome.FAILED, reason="exit 1", output="no such module"))
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
    assert "no such module" in world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]
    assert not merge_requests(world)


@pytest.mark.parametrize("outcome", [DeployOutcome.FAILED, DeployOutcome.UNKNOWN])
async def test_production_never_loops_by_itself(driver: Driver, world: FakeWorld, outcome: DeployOutcome) -> None:
    """A production deployment that failed or was lost waits for a person; retry deploys, and lands nothing twice."""

    def only_staging_works(arg: object) -> Deployed:
        return Deployed(outcome=DeployOutcome.SUCCEEDED, sha="s" * 40, output="")

    world.script("deploy", only_staging_works, Deployed(outcome=outcome, reason="exit 1"))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="production: exit 1")
    assert (await driver.status()).stage == Stage.DEPLOY
    await driver.retry()
    result = await handle.result()
    assert result.outcome == "done"
    assert len(world.of("land")) == 1
    assert [arg.ref.round for arg in world.of("deploy")][1:] == [1, 2]


async def test_a_deployer_who_does_not_pass_production_asks_a_person(driver: Driver, world: FakeWorld) -> None:
    """What runs in production but does not work is never called done."""
    failed = judged(Gate.DEPLOYED, GateOutcome.RED, "failed: the shop answers 500")
    world.script_role(Role.DEPLOYER, verdict(VerdictOutcome.PASS), verdict(VerdictOutcome.FAILED, "500"))
    world.script_gate(Gate.DEPLOYED, failed)
    await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="the shop answers 500")
    assert not [row for row in world.progress if row.outcome]
