"""Landing: what follows each answer to the merge, with the lease given back in every case."""

from datetime import timedelta

from workflows import leasing, merging
from workflows.contracts import landing
from workflows.contracts.landing import LandOutcome
from workflows.lease_state import Phase
from workflows.model import FreezeCause, Stage
from workflows.names import host_work_queue
from workflows.state import Counter, Move
from workflows.task_run import TaskRun


async def land(run: TaskRun) -> Move | None:
    """Land, or say where the task goes instead; the lease is given back either way."""
    state = run.next_step()
    assert state.candidate is not None
    assert state.pull is not None
    if state.lease is None:
        # Given back while the task stood still: the candidate may be old by now.
        return merging.stopped("the merge lease was given back meanwhile")
    lease = state.lease
    await leasing.phase(run, lease, Phase.LANDING)
    landed = await run.call(
        landing.land,
        landing.Land(
            ref=state.ref,
            repository=state.project.repository,
            pull=state.pull,
            branch=state.branch,
            candidate=state.candidate,
            lease=lease,
            title=f"{state.key}: {state.item.title}",
            policy_gate=state.policy.merge_gate,
        ),
        queue=host_work_queue(state.host),
        summary=f"land {state.candidate.sha[:10]}",
        shield=True,
        limit=timedelta(minutes=10),
    )
    if landed.outcome is LandOutcome.LANDED:
        # Before anything else is awaited: whoever interrupts now must find that it has landed.
        run.update(
            landed_sha=landed.sha,
            landed_at=leasing.landing_order(),
            despite_failure=FreezeCause.DEPLOY_FAILED in lease.passes,
        )
        run.say(f"landed on {state.project.repository.base}", sha=landed.sha)
        if FreezeCause.BASE_RED in lease.passes and state.candidate.gated:
            await leasing.lift(run, FreezeCause.BASE_RED, f"{state.key} landed {landed.sha[:10]}, which is green")
    await leasing.release(run, lease)
    if landed.outcome is LandOutcome.LANDED:
        await run.record(announce=f"{state.key} landed {landed.sha[:10]}")
        return None
    return await _not_landed(run, landed)


async def _not_landed(run: TaskRun, landed: landing.Landed) -> Move:
    reason = f"not landed: {landed.reason}"
    match landed.outcome:
        case LandOutcome.BASE_REWOUND:
            return await merging.rewound(run, landed.reason)
        case LandOutcome.MERGED_BY_HAND:
            return await merging.by_hand(run, landed.reason)
        case LandOutcome.WRONG_TREE:
            await leasing.freeze(run, FreezeCause.WRONG_TREE, reason)
            await run.ask_human(reason)
        case LandOutcome.NOT_ALLOWED:
            await run.ask_human(reason)
        case _:
            return _way(run, landed, reason)
    return merging.stopped(merging.AGAIN)


def _way(run: TaskRun, landed: landing.Landed, reason: str) -> Move:
    """Where a landing that did not happen leads, where no person has to look at it."""
    match landed.outcome:
        case LandOutcome.HEAD_MOVED:
            return merging.to_review(run, landed.sha, reason)
        case LandOutcome.MAIN_MOVED | LandOutcome.LEASE_LOST:
            return merging.main_moved(reason)
        case LandOutcome.CHANGES_REQUESTED:
            return Move(to=Stage.DEVELOPMENT, reason=reason, feedback=(reason,), spends=Counter.REVIEW_ROUNDS)
        case LandOutcome.REVIEW_WAITS:
            return Move(to=Stage.REVIEW, reason=reason)
        case LandOutcome.CONFLICT:
            return merging.back(reason, reason)
    return merging.stopped(reason)
