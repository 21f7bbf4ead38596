"""The merge gate's ways: each outcome of a candidate, its tests and its landing leads where the table says."""

from typing import Any

import pytest

from tests.fake_world import FakeWorld, a_sha, judged
from tests.workflow.driving import Driver
from tests.workflow.test_delivery import merge_epochs, merge_epochs_released, merge_requests, moves
from workflows.contracts.landing import CandidateBuilt, CandidateOutcome, Land, Landed, LandOutcome
from workflows.model import Candidate, FreezeCause, GateOutcome, Role, Stage, TestRun, WaitingOn
from workflows.situation import PullStanding
from workflows.stages import Gate
from workflows.state import Counter

RED = judged(Gate.CANDIDATE_TESTED, GateOutcome.RED, "combined tree fails", failing=("combined tree red",))


def lines(world: FakeWorld) -> list[str]:
    """Every timeline line, in order."""
    return [line.text for row in world.progress for line in row.lines]


def ran(passed: bool, tail: str = "") -> Any:
    """What a run of the tests comes to, on whatever commit."""
    return lambda arg: TestRun(sha=arg.sha, passed=passed, exit_code=0 if passed else 1, tail=tail)


def gate_runs(world: FakeWorld) -> list[str]:
    """The commits whose tests the merge gate ran."""
    return [run.sha for run in world.of("run_tests") if run.ref.stage is Stage.DEPLOY_STAGING]


def runs_end(world: FakeWorld, *passed: bool) -> None:
    """The branch is green; then the merge gate's runs end so."""
    world.script("run_tests", ran(True), *(ran(one, f"run {number}") for number, one in enumerate(passed, 1)))


async def test_red_once_is_flaky_and_lands(driver: Driver, world: FakeWorld) -> None:
    """A candidate that fails once and passes on the same commit again lands, and both are on record."""
    runs_end(world, False, True)
    handle = await driver.start()
    assert (await handle.result()).outcome == "done"
    first, second = gate_runs(world)
    assert first == second
    assert "flaky: failed once, passed on re-run" in lines(world)
    question = world.gate_calls(Gate.CANDIDATE_TESTED)[-1]
    assert (question.failed_runs, question.test_run and question.test_run.passed) == (1, True)


async def test_red_twice_on_a_green_main_goes_to_development(driver: Driver, world: FakeWorld) -> None:
    """When main alone passes, the branch is at fault: the developer gets the facts and a retry is spent."""
    runs_end(world, False, False, True)
    world.script_gate(Gate.CANDIDATE_TESTED, RED)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
    assert gate_runs(world)[2] == a_sha("main")
    feedback = world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]
    assert "main alone passes" in feedback
    assert "run 2" in feedback
    assert not world.of("set_freeze")
    assert merge_epochs_released(world) == merge_epochs(world)


async def test_a_red_main_freezes_and_blames_nobody(driver: Driver, world: FakeWorld) -> None:
    """When main alone is red too, the queue is frozen, the lease is free, and the task queues again unspent."""
    runs_end(world, False, False, False)
    world.script_gate(Gate.CANDIDATE_TESTED, RED)
    handle = await driver.start()
    await world.called("set_freeze")
    while not [lift for lift in world.of("lift_freeze") if lift.cause is FreezeCause.BASE_RED]:
        # News of the base only count once the queue has read its freeze.
        await driver.queue.signal("base_moved")
        await driver.shown()
    assert (await handle.result()).outcome == "done"
    (freeze,) = world.of("set_freeze")
    assert freeze.cause is FreezeCause.BASE_RED
    assert "exit 1" in freeze.reason
    assert "deploy-staging -> deploy-staging" in moves(world)
    assert len(world.agent_calls(Role.DEVELOPER)) == 1
    assert any("nobody's fault" in line for line in lines(world))
    # One more epoch may have been opened for the next wish when the freeze was read: it is never granted.
    opened, released = merge_epochs(world), merge_epochs_released(world)
    assert (released[0], released[-1]) == (opened[0], opened[-1])


async def test_what_was_tested_green_is_not_tested_again(driver: Driver, world: FakeWorld) -> None:
    """A frozen queue costs a green candidate neither its tests nor a counter: unchanged, it lands as it is."""
    built: list[Candidate] = []

    def same(arg: Any) -> CandidateBuilt:
        if not built:
            made = world._rebase(arg).candidate
            assert made is not None
            built.append(made)
        again = built[0].model_copy(update={"replaces": arg.head_sha})
        return CandidateBuilt(outcome=CandidateOutcome.READY, candidate=again)

    world.script("build_candidate", same, same)
    world.script("land", Landed(outcome=LandOutcome.FROZEN, reason="operator: release day"))
    handle = await driver.start()
    assert (await handle.result()).outcome == "done"
    assert gate_runs(world) == [built[0].sha]
    assert len(merge_requests(world)) == 2
    assert any("was tested green before" in line for line in lines(world))
    assert len([arg for arg in world.of("deploy") if arg.environment == "staging"]) == 1
    assert "deploy -> deploy-staging" in moves(world)


@pytest.mark.parametrize("outcome", [CandidateOutcome.FROZEN, LandOutcome.FROZEN, LandOutcome.GATE_ON])
async def test_a_freeze_spends_nothing(driver: Driver, world: FakeWorld, outcome: Any) -> None:
    """However often a task is stopped by a freeze or a switch, no person is asked for it."""
    world.policy = world.policy.model_copy(update={"caps": dict.fromkeys(Counter, 0)})
    if isinstance(outcome, LandOutcome):
        world.script("land", *[Landed(outcome=outcome, reason="because")] * 2)
    else:
        world.script("build_candidate", *[CandidateBuilt(outcome=outcome, reason="because")] * 2)
    handle = await driver.start()
    assert (await handle.result()).outcome == "done"
    assert len(merge_requests(world)) == 3
    assert merge_epochs_released(world) == merge_epochs(world)


async def test_main_that_never_stands_still_asks_a_person(driver: Driver, world: FakeWorld) -> None:
    """A main that moves under every candidate spends merge rounds, and at their cap a person is asked."""
    world.policy = world.policy.model_copy(update={"caps": {Counter.MERGE_ROUNDS: 1}})
    moved = Landed(outcome=LandOutcome.MAIN_MOVED, reason="main moved")
    world.script("land", moved, moved)
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="1 of 1 merge rounds are spent")
    assert merge_epochs_released(world) == merge_epochs(world)
    await driver.retry()
    assert (await handle.result()).outcome == "done"


@pytest.mark.parametrize("at", ["build", "landing"])
async def test_a_main_that_was_forced_back_freezes_and_asks(driver: Driver, world: FakeWorld, at: str) -> None:
    """Commits that main had and has no more freeze its queue for everybody, and a person is asked."""
    if at == "build":
        world.script("build_candidate", CandidateBuilt(outcome=CandidateOutcome.BASE_REWOUND, reason="main lost x"))
    else:
        world.script("land", Landed(outcome=LandOutcome.BASE_REWOUND, reason="main lost x"))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="main lost x")
    assert [freeze.cause for freeze in world.of("set_freeze")] == [FreezeCause.BASE_REWOUND]
    assert merge_epochs_released(world) == merge_epochs(world)
    await driver.retry()
    await driver.unfreeze(FreezeCause.BASE_REWOUND)
    assert (await handle.result()).outcome == "done"
    assert world.of("build_candidate")[-1].before is None


async def test_the_next_candidate_is_measured_by_the_last(driver: Driver, world: FakeWorld) -> None:
    """Who builds again says on which main the last candidate stood, so that a rewound main is seen."""
    world.script("land", Landed(outcome=LandOutcome.MAIN_MOVED, reason="main moved"))
    handle = await driver.start()
    assert (await handle.result()).outcome == "done"
    first, second = world.of("build_candidate")
    assert first.before is None
    assert second.before.base_sha == a_sha("main")


async def test_what_landed_unseen_is_deployed(driver: Driver, world: FakeWorld) -> None:
    """A branch that our own lost landing brought to main goes on to deploy, and nothing is landed twice."""
    world.script(
        "build_candidate", CandidateBuilt(outcome=CandidateOutcome.ALREADY_LANDED, reason="landed", sha="a" * 40)
    )
    handle = await driver.start()
    result = await handle.result()
    assert (result.outcome, result.landed_sha) == ("done", "a" * 40)
    assert not world.of("land")
    assert merge_epochs_released(world) == merge_epochs(world)


@pytest.mark.parametrize("at", ["build", "landing"])
async def test_what_another_hand_merged_ends_as_done_by_hand(driver: Driver, world: FakeWorld, at: str) -> None:
    """A branch that is on main without us ends the task as done by hand, as soon as its pull request says so."""

    def merged(_: object) -> Any:
        world.find(pull=PullStanding.MERGED_BY_HAND, merged_sha="b" * 40)
        if at == "build":
            return CandidateBuilt(outcome=CandidateOutcome.ON_MAIN_BY_HAND, reason="on main")
        return Landed(outcome=LandOutcome.MERGED_BY_HAND, reason="on main")

    world.script("build_candidate" if at == "build" else "land", merged)
    handle = await driver.start()
    assert (await handle.result()).outcome == "done by hand"
    assert merge_epochs_released(world) == merge_epochs(world)


@pytest.mark.parametrize("outcome", [CandidateOutcome.NOTHING_TO_LAND, CandidateOutcome.REFUSED])
async def test_a_candidate_a_person_must_look_at(driver: Driver, world: FakeWorld, outcome: CandidateOutcome) -> None:
    """Nothing to land, and a push that is refused, are said to a person, and no developer is blamed."""
    world.script("build_candidate", CandidateBuilt(outcome=outcome, reason="main already has it"))
    handle = await driver.start()
    await world.waiting(WaitingOn.PERSON, reason="main already has it")
    assert merge_epochs_released(world) == merge_epochs(world)
    await driver.retry()
    assert (await handle.result()).outcome == "done"
    assert len(world.agent_calls(Role.DEVELOPER)) == 1


async def test_a_broken_policy_on_the_candidate_goes_to_development(driver: Driver, world: FakeWorld) -> None:
    """A candidate whose own policy is invalid is never tested: the developer gets the file's problems."""
    broken = CandidateBuilt(outcome=CandidateOutcome.BROKEN_POLICY, reason="commands.test: is missing")
    world.script("build_candidate", broken)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.DEVELOPER)) == 2, "a second development round")
    assert "commands.test: is missing" in world.agent_calls(Role.DEVELOPER)[1].data["feedback.md"]
    assert not gate_runs(world)


async def test_somebody_elses_head_is_the_one_reviewed(driver: Driver, world: FakeWorld) -> None:
    """A head that moved before the merge goes to review as it is now, and the lease is free meanwhile."""

    def pushed(arg: Land) -> Landed:
        return Landed(outcome=LandOutcome.HEAD_MOVED, sha=world.foreign_push(arg.branch), reason="somebody pushed")

    world.script("land", pushed)
    await driver.start()
    await world.until(lambda: len(world.agent_calls(Role.REVIEWER)) == 2, "a second review")
    head = world.heads[world.of("land")[0].branch]
    assert world.agent_calls(Role.REVIEWER)[1].workspace.head_sha == head
    assert merge_epochs_released(world)[0] == merge_epochs(world)[0]
    assert (await driver.status()).lease is None


@pytest.mark.parametrize(
    ("outcome", "move"),
    [
        (LandOutcome.CHANGES_REQUESTED, "deploy -> development"),
        (LandOutcome.REVIEW_WAITS, "deploy -> review"),
        (LandOutcome.CONFLICT, "deploy -> development"),
    ],
)
async def test_people_and_conflicts_stop_a_landing(
    driver: Driver, world: FakeWorld, outcome: LandOutcome, move: str
) -> None:
    """A change request that came after the review stops the landing and leads to who must act on it."""
    world.script("land", Landed(outcome=outcome, reason="olga requests changes: no"))
    await driver.start()
    await world.until(lambda: move in moves(world), move)
    assert merge_epochs_released(world)[0] == merge_epochs(world)[0]


async def test_a_green_landing_on_a_red_main_lifts_the_freeze(driver: Driver, world: FakeWorld) -> None:
    """A task that was let through a red main, and lands green, has mended it."""
    handle = await driver.start_at(Stage.DEPLOY)
    assert (await handle.result()).outcome == "done"
    assert FreezeCause.BASE_RED not in [lift.cause for lift in world.of("lift_freeze")]
    handle = await driver.start_at(Stage.DEPLOY, 2, passes=(FreezeCause.BASE_RED,))
    assert (await handle.result()).outcome == "done"
    (lift,) = [lift for lift in world.of("lift_freeze") if lift.cause is FreezeCause.BASE_RED]
    assert lift.by == world.key(2)


async def test_a_gate_that_is_off_lands_untested_and_says_so(driver: Driver, world: FakeWorld) -> None:
    """Where the gate is off nothing is tested before landing; status, why and timeline say that it is off."""
    off = "merge gate off for acme/shop (ORCH_MERGE_GATE_ENABLED)"

    def ungated(arg: Any) -> CandidateBuilt:
        made = Candidate(sha=arg.head_sha, tree="t", base_sha=a_sha("main"), replaces=arg.head_sha, gated=False)
        return CandidateBuilt(outcome=CandidateOutcome.READY, candidate=made, gate_off=off)

    world.script("build_candidate", ungated)
    with world.holding("land"):
        handle = await driver.start()
        await world.called("land")
        status = await driver.status()
        assert status.merge_gate == off
        assert off in status.why
    assert (await handle.result()).outcome == "done"
    assert not gate_runs(world)
    assert not world.gate_calls(Gate.CANDIDATE_TESTED)
    assert any(line.startswith(off) for line in lines(world))
    assert world.progress[-1].merge_gate == off
