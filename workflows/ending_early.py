"""Endings that people choose: cancelled, landed but not deployed, merged by hand."""

from workflows.contracts import items, workspaces
from workflows.model import ItemState
from workflows.names import PLANE_QUEUE, host_work_queue
from workflows.situation import Effect, Judgement, PauseCause
from workflows.task_run import TaskRun


async def close(run: TaskRun, ending: Judgement) -> str:
    """Say it on the item, clean up, and answer the outcome in words."""
    state = run.state
    by_hand = ending.effect is Effect.DONE_BY_HAND
    outcome = "done by hand" if by_hand else "landed, not deployed" if state.landed_sha else "cancelled"
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


def _warning(run: TaskRun, outcome: str) -> str:
    state = run.state
    if outcome == "cancelled":
        return f"The branch `{state.branch}` and its pull request are left as they are."
    if outcome == "done by hand":
        return "What was merged was not tested or deployed by Orch."
    return (
        f"**{state.landed_sha[:10]} is on {state.project.repository.base}**: the next deployment contains it. "
        f"To take it back, land `git revert {state.landed_sha[:10]}`."
    )
