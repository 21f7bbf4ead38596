"""From a reviewed branch to production: staging, candidate, landing, deployment, done.

Leases never nest: staging is given back before the merge lease is asked for, merge before production.
"""

from workflows import deploying, gating, leasing, merging, steps
from workflows import landing as landings
from workflows.contracts import items, landing, workspaces
from workflows.model import Environment, FreezeCause, GateOutcome, ItemState, Stage
from workflows.names import PLANE_QUEUE, host_work_queue
from workflows.stages import Gate
from workflows.state import Move, TaskState
from workflows.task_run import TaskRun
from workflows.verdicts import VerdictOutcome


async def deploy_staging(run: TaskRun) -> Move:
    """Stage the branch, then build and test the exact commit that will become main's tip."""
    if run.state.policy.staging and run.state.staged_sha != run.state.head_sha:
        elsewhere = await _stage_branch(run)
        if elsewhere is not None:
            return elsewhere
    return await merging.pass_gate(run)


async def deploy(run: TaskRun) -> Move:
    """Land the tested candidate, give the merge lease back, deploy what landed, judge what runs."""
    if not run.state.landed_sha:
        elsewhere = await landings.land(run)
        if elsewhere is not None:
            return elsewhere
    if run.state.work.failed is None:
        passed = await _to_production(run)
        if passed is not None:
            return passed
    return await deploying.ways_out(run)


async def finish(run: TaskRun) -> str:
    """Tell Plane, close the books; answer the outcome in words."""
    state = run.state
    outcome = _outcome(state)
    await run.call(
        items.move_item,
        items.MoveItem(ref=run.next_step().ref, effect="done", item=state.item, to=ItemState.DONE),
        queue=PLANE_QUEUE,
        summary="move the item to Done",
    )
    await run.call(
        items.post_comment,
        items.PostComment(
            ref=run.next_step().ref,
            effect="closing-comment",
            item=state.item,
            repository=state.project.repository,
            title=f"{state.key} is {outcome}",
            body=_note(state),
            footer=f"landed {state.landed_sha[:10]}",
            sha=state.landed_sha,
            waited=state.waited,
            pull=state.pull.number if state.pull else None,
        ),
        queue=PLANE_QUEUE,
        summary="closing comment",
    )
    await run.call(
        workspaces.remove_workspaces,
        workspaces.RemoveWorkspaces(ref=run.next_step().ref),
        queue=host_work_queue(state.host),
        summary="remove the task's folders",
    )
    return outcome


def _outcome(state: TaskState) -> str:
    if state.rolled_back:
        return "landed, rolled back"
    return "done" if state.deployed_sha or state.accepted else "landed"


def _note(state: TaskState) -> str:
    """What a person must know of a task that ends though its deployment failed."""
    if not state.accepted:
        return ""
    serves = (
        f" Production was rolled back to {state.previous_sha[:10]}; the next deployment contains this change again."
        if state.rolled_back
        else ""
    )
    return f"{state.accepted}.{serves}"


async def _stage_branch(run: TaskRun) -> Move | None:
    """Deploy the branch and judge what runs; where the task goes if it may not go on."""
    deployed = await deploying.bring(run, Environment.STAGING, run.state.head_sha)
    if deployed is None:
        return None
    if deployed.outcome is landing.DeployOutcome.UNKNOWN:
        # A lost result is nobody's fault, and no work of a developer finds it again.
        await run.ask_human(f"staging: {deployed.reason}")
        return Move(to=Stage.DEPLOY_STAGING, reason="a person said retry")
    if deployed.outcome is landing.DeployOutcome.FAILED:
        return merging.back(f"staging: {deployed.reason}", deployed.output)
    judged = await steps.judge(run, **{"deployment.txt": deployed.output})
    if isinstance(judged, Move):
        return judged
    passed = judged.outcome is VerdictOutcome.PASS
    run.update(staged_sha=judged.sha if passed else "")
    return None if passed else merging.back(f"staging: {judged.summary}", run.state.work.findings)


async def _to_production(run: TaskRun) -> Move | None:
    """Deploy what landed and judge what runs; None if it did not pass, which is noted."""
    state = run.state
    deployed = await deploying.bring(run, Environment.PRODUCTION, state.landed_sha) if state.policy.production else None
    if run.state.work.failed is not None:
        return None
    output = deployed.output if deployed else "nothing is deployed to production here"
    judged = await steps.judge(run, **{"deployment.txt": output})
    if isinstance(judged, Move):
        return judged
    # The deployer judges what runs; the branch's head is what landed.
    claim = judged.model_copy(update={"sha": state.landed_sha})
    policy = state.policy if deployed else state.policy.model_copy(update={"production": None})
    result = await gating.ask(
        run,
        lambda: gating.question(
            run,
            Gate.DEPLOYED,
            claim=claim,
            policy=policy,
            landed_sha=state.landed_sha,
            deployed_sha=run.state.deployed_sha,
        ),
    )
    if result.outcome is GateOutcome.GREEN:
        with run.shielded():
            await leasing.lift(run, FreezeCause.DEPLOY_FAILED, f"production serves {state.landed_sha[:10]}")
        return Move(to=Stage.DONE, reason=result.reason)
    if deployed is None:
        return Move(to=Stage.DEPLOY, reason=result.reason)
    await deploying.fail(run, result.reason)
    return None
