"""The whole way of a task, from In Progress to done."""

from itertools import pairwise

from tests.fake_world import FakeWorld, agent_run
from tests.workflow.driving import Driver, Journey, closing, record
from workflows.model import Policy, Role, Stage, Terms
from workflows.names import SEARCH_ATTRIBUTES
from workflows.stages import Gate
from workflows.usage import Usage
from workflows.verdicts import Earlier

BEGINNING = ["begin_generation", "read_policy", "claim_host"]
STAGES = {
    Stage.ANALYSIS: [
        "prepare_workspace",
        "agent: analyst",
        "publish_work",
        "post_comment",
        "ask_decision",
        "show_status",
        "gate: spec decided",
        "settle_decision",
        "show_status",
    ],
    Stage.ARCHITECTURE: [
        "prepare_workspace",
        "agent: architect",
        "publish_work",
        "post_comment",
        "gate: design present",
        "show_status",
    ],
    Stage.DEVELOPMENT: [
        "prepare_workspace",
        "agent: developer",
        "publish_work",
        "post_comment",
        "ensure_pull_request",
        "gate: ci green",
        "show_status",
    ],
    Stage.REVIEW: [
        "prepare_workspace",
        "agent: reviewer",
        "post_comment",
        "post_review",
        "gate: review passed",
        "show_status",
    ],
    Stage.TESTING: [
        "run_tests",
        "prepare_workspace",
        "agent: tester",
        "post_comment",
        "gate: tests passed",
        "show_status",
    ],
    Stage.DEPLOY_STAGING: [
        "request staging lease",
        "deploy to staging",
        "release_lease",
        "prepare_workspace",
        "agent: deployer",
        "post_comment",
        "request merge lease",
        "build_candidate",
        "run_tests",
        "gate: candidate tested",
        "show_status",
    ],
    Stage.DEPLOY: [
        "land",
        "release_lease",
        "request production lease",
        "deploy to production",
        "release_lease",
        "prepare_workspace",
        "agent: deployer",
        "post_comment",
        "gate: deployed",
        "lift_freeze",
        "show_status",
    ],
    Stage.DONE: ["move item to done", "post_comment", "remove_workspaces"],
}
"""What a task does in each stage where everything is green: one row for each run of the workflow."""


async def test_a_task_goes_through_all_stages_to_done(happy: Journey) -> None:
    """Where everything is green a task does each step once, in the design's order, and ends as done."""
    world, outcome = happy.world, happy.outcome
    done = [*BEGINNING, *(step for steps in STAGES.values() for step in steps)]
    assert world.names() == done
    landed = world.of("land")[0].candidate.sha
    assert (outcome.outcome, outcome.landed_sha, outcome.deployed_sha) == ("done", landed, landed)
    assert world.progress[-1].outcome == "done"

    runs = happy.runs
    assert [closing(run) for run in runs[:-1]] == ["WORKFLOW_EXECUTION_CONTINUED_AS_NEW"] * 7
    assert closing(runs[-1]) == "WORKFLOW_EXECUTION_COMPLETED"
    assert len({run.run_id for run in runs}) == len(STAGES)
    for stage, run in zip(STAGES, runs, strict=True):
        record(f"task-{stage}", run)


async def test_each_run_is_one_stage(happy: Journey) -> None:
    """A task goes on as a new run at each stage boundary, so that no run holds the work of two stages."""
    works = []
    for run in happy.runs:
        recorded = [
            event.activity_task_scheduled_event_attributes.activity_type.name
            for event in run.events
            if event.HasField("activity_task_scheduled_event_attributes")
        ]
        works.append([name for name in recorded if name not in {"record_progress", "record_act"}])
    expected = [[_activity(step) for step in steps] for steps in STAGES.values()]
    expected[0] = BEGINNING + expected[0]
    assert works == expected


async def test_every_stage_works_under_a_later_fence(happy: Journey) -> None:
    """Each outward effect has a step of its own, greater than any before, so that an older attempt is always stale."""
    world = happy.world
    fenced = ("prepare_workspace", "run_agent", "publish_work", "run_tests", "build_candidate", "land", "deploy")
    steps = [arg.ref.step for name, arg in world.calls if name in fenced]
    assert steps == sorted(set(steps))


async def test_leases_are_never_held_together(happy: Journey) -> None:
    """Staging is given back before the merge lease is asked for, and merge before production."""
    world = happy.world
    asked = [name for name in world.names() if "lease" in name]
    assert asked == [
        "request staging lease",
        "release_lease",
        "request merge lease",
        "release_lease",
        "request production lease",
        "release_lease",
    ]
    assert [queue.split("/")[0] for queue, _, _ in world.epochs.granted] == ["env", "merge", "env"]


async def test_the_timeline_is_written_once_and_whole(happy: Journey) -> None:
    """The ledger gets every timeline line once, in order, across all runs."""
    world = happy.world
    numbers = [line.n for row in world.progress for line in row.lines]
    assert numbers == list(range(1, len(numbers) + 1))
    moves = [line.text.partition(":")[0] for row in world.progress for line in row.lines if " -> " in line.text]
    stages = list(Stage)
    assert moves == [f"{here} -> {there}" for here, there in pairwise(stages)]


async def test_the_closing_comment_has_the_table_of_totals(happy: Journey) -> None:
    """The closing comment, and no other, asks for the table, with the time that was waited in stages that waited."""
    *stages, closing = happy.world.of("post_comment")
    assert closing.effect == "closing-comment"
    assert closing.waited is not None
    assert set(closing.waited) == {Stage.DEPLOY_STAGING, Stage.DEPLOY}, "only leases were waited for"
    assert all(comment.waited is None for comment in stages)
    assert happy.status.cost_usd == 0.07


async def test_one_unknown_cost_makes_the_sum_a_lower_bound(driver: Driver, world: FakeWorld) -> None:
    """A cost that is not known is never shown as 0: the status says nothing."""
    world.script("run_agent", lambda arg: agent_run(arg, cost_usd=None, cost_source="unknown"))
    handle = await driver.start()
    await handle.result()
    assert (await driver.status()).cost_usd is None


async def test_attempts_that_were_cut_off_are_counted(driver: Driver, world: FakeWorld) -> None:
    """What a run's earlier attempts used is part of the task's total."""
    spent = Earlier(usage=Usage(input=1000, cache_read=50, output=3), cost_usd=0.5)
    world.script("run_agent", lambda arg: agent_run(arg, earlier=spent))
    handle = await driver.start()
    await handle.result()
    assert (await driver.status()).cost_usd == 0.57


async def test_an_earlier_attempt_of_unknown_cost_makes_the_sum_a_lower_bound(driver: Driver, world: FakeWorld) -> None:
    """A killed attempt whose cost nobody knows is not counted as free."""
    world.script("run_agent", lambda arg: agent_run(arg, earlier=Earlier(complete=False)))
    handle = await driver.start()
    await handle.result()
    assert (await driver.status()).cost_usd is None


async def test_a_role_works_under_its_own_terms(driver: Driver, world: FakeWorld) -> None:
    """Model, effort and limits of the policy go along with each run."""
    own = Terms(model="m-2", effort="high", max_turns=5, max_budget_usd=0.5)
    world.policy = world.policy.model_copy(update={"terms": Terms(model="m-1"), "role_terms": {Role.REVIEWER: own}})
    handle = await driver.start()
    await handle.result()
    assert [job.terms for job in world.agent_calls(Role.REVIEWER)] == [own]
    assert [job.terms for job in world.agent_calls(Role.DEVELOPER)] == [Terms(model="m-1")]


async def test_without_commands_nothing_is_deployed(driver: Driver, world: FakeWorld) -> None:
    """A project that says it has no staging and no production ends as landed, under the merge lease only."""
    world.policy = Policy(test="make test", runner="scripted")
    handle = await driver.start()
    outcome = await handle.result()
    assert (outcome.outcome, outcome.deployed_sha) == ("landed", "")
    assert outcome.landed_sha
    assert not world.of("deploy")
    assert [name for name in world.names() if name.startswith("request")] == ["request merge lease"]


async def test_the_gates_judge_the_commit_that_was_pushed(happy: Journey) -> None:
    """CI is asked about the developer's head, the combined tree about the candidate, production about what landed."""
    world = happy.world
    developed = world.of("publish_work")[-1]
    ci, review = world.gate_calls(Gate.CI_GREEN)[0], world.gate_calls(Gate.REVIEW_PASSED)[0]
    assert developed.workspace.head_sha == ci.baseline_sha != ci.head_sha
    assert review.claim is not None
    assert review.claim.sha == ci.head_sha
    combined = world.gate_calls(Gate.CANDIDATE_TESTED)[0]
    assert combined.candidate is not None
    assert combined.test_run is not None
    assert combined.candidate.replaces == ci.head_sha
    assert combined.test_run.sha == combined.candidate.sha == world.of("land")[0].candidate.sha
    assert world.gate_calls(Gate.DEPLOYED)[0].landed_sha == combined.candidate.sha


async def test_search_attributes_show_the_task(happy: Journey) -> None:
    """The Web UI can find a task by project, repository, item, stage, cost and who it waits for."""
    world = happy.world
    shown = (await happy.handle.describe()).typed_search_attributes
    values = {key.name: shown.get(key) for key in SEARCH_ATTRIBUTES}
    assert values == {
        "OrchProject": f"T{world.number}",
        "OrchRepo": str(world.repository),
        "OrchItem": world.key(),
        "OrchStage": "done",
        "OrchWaitingOn": "nothing",
        "OrchNeedsHuman": False,
        "OrchCostUsd": 0.07,
    }


def _activity(step: str) -> str:
    """The activity's name behind the words a step is shown with."""
    words = {
        "agent:": "run_agent",
        "gate:": "evaluate_gate",
        "request": "request_lease",
        "deploy": "deploy",
        "move": "move_item",
    }
    return words.get(step.split(maxsplit=1)[0], step)
