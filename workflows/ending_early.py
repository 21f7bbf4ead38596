"""Endings that people choose: cancelled, landed but not deployed, deployed but not judged, merged by hand."""

from workflows.contracts import items, workspaces
from workflows.model import ItemState
from workflows.names import PLANE_QUEUE, host_work_queue
from workflows.situation import Effect, Judgement, PauseCause
from workflows.state import FailedDeployment, TaskState
from workflows.task_run import TaskRun
from workflows.verdicts import VerdictOutcome


async def close(run: TaskRun, ending: Judgement) -> str:
    """Say it on the item, clean up, and answer the outcome in words."""
    state = run.state
    by_hand = ending.effect is Effect.DONE_BY_HAND
    outcome = "done by hand" if by_hand else _outcome(state)
    run.say(f"{outcome}: {ending.reason}")
    missing = state.paused is not None and state.paused.cause is PauseCause.MISSING
    if not missing:
        to = ItemState.DONE if by_hand else ItemState.CANCELLED
        await run.call(
            items.move_item,
            items.MoveItem(ref=run.next_step().ref, effect="end", item=state.item, to=to),
            queue=PLANE_QUEUE,
            summary=f"move the item to {to}",
        )
        await run.call(
            items.post_comment,
            items.PostComment(
                ref=run.next_step().ref,
                effect="closing-comment",
                item=state.item,
                repository=state.project.repository,
                title=f"{state.key}: {outcome}",
                body=f"{ending.reason}.\n\n{_warning(run, outcome)}",
                sha=state.landed_sha or state.head_sha,
                waited=state.waited,
                pull=state.pull.number if state.pull else None,
            ),
            queue=PLANE_QUEUE,
            summary="closing comment",
        )
    if state.host:
        await run.call(
            workspaces.remove_workspaces,
            workspaces.RemoveWorkspaces(ref=run.next_step().ref),
            queue=host_work_queue(state.host),
            summary="remove the task's folders",
        )
    return outcome


def _outcome(state: TaskState) -> str:
    """How far it had come when a person ended it, in words."""
    if not state.landed_sha:
        return "cancelled"
    if not state.deployed_sha:
        return "landed, not deployed"
    passed = state.work.claim is not None and state.work.claim.outcome is VerdictOutcome.PASS
    if state.work.failed is not None:
        return "deployed, not passed"
    return "deployed" if passed else "deployed, not judged"


def _warning(run: TaskRun, outcome: str) -> str:
    state = run.state
    if outcome == "cancelled":
        return f"The branch `{state.branch}` and its pull request are left as they are."
    if outcome == "done by hand":
        return "What was merged was not tested or deployed by Orch."
    revert = f"To take it back, land `git revert {state.landed_sha[:10]}`."
    failed = f" {_failure(state, state.work.failed)}" if state.work.failed else ""
    if state.deployed_sha:
        unjudged = "" if state.work.claim else ", and nobody has judged it"
        return f"**Production serves {state.deployed_sha[:10]}**{unjudged}.{failed} {revert}"
    on = f"**{state.landed_sha[:10]} is on {state.project.repository.base}**: the next deployment contains it."
    return f"{on}{failed} {revert}"


def _failure(state: TaskState, failed: FailedDeployment) -> str:
    back = f" It was rolled back to {state.previous_sha[:10]}." if state.rolled_back else ""
    return (
        f"Its deployment did not pass: {failed.reason}.{back} "
        "Landing and deploying stay frozen until a deployment passes or a person lifts the freeze."
    )
