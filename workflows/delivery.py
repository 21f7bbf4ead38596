"""From a reviewed branch to production: staging, candidate, landing, deployment, done.

Leases never nest: staging is given back before the merge lease is asked for, merge before production.
"""

from datetime import timedelta

from workflows import gating, leasing, merging, steps
from workflows import landing as landings
from workflows.contracts import items, landing, leases, workspaces
from workflows.model import Environment, FreezeCause, GateOutcome, ItemState, Stage
from workflows.names import PLANE_QUEUE, host_work_queue
from workflows.stages import Gate
from workflows.state import Move
from workflows.task_run import TaskRun
from workflows.verdicts import VerdictOutcome

DEPLOY_LIMIT = timedelta(hours=1)


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
    state = run.state
    deployed = await _deploy(run, Environment.PRODUCTION, state.landed_sha)
    if deployed is not None and deployed.outcome in _NOT_DEPLOYED:
        return Move(to=Stage.DEPLOY, reason=f"production: {deployed.reason}")
    run.update(deployed_sha=deployed.sha if deployed else "")
    output = deployed.output if deployed else "this project has no production command"
    judged = await steps.judge(run, **{"deployment.txt": output})
    if isinstance(judged, Move):
        return judged
    # The deployer judges what runs; the branch's head is what landed.
    claim = judged.model_copy(update={"sha": state.landed_sha})
    result = await gating.ask(
        run,
        lambda: gating.question(
            run, Gate.DEPLOYED, claim=claim, landed_sha=state.landed_sha, deployed_sha=run.state.deployed_sha
        ),
    )
    green = result.outcome is GateOutcome.GREEN
    if green:
        await leasing.lift(run, FreezeCause.DEPLOY_FAILED, f"production serves {state.landed_sha[:10]}")
    return Move(to=Stage.DONE if green else Stage.DEPLOY, reason=result.reason)


async def finish(run: TaskRun) -> str:
    """Tell Plane, close the books; answer the outcome in words."""
    state = run.state
    outcome = "done" if state.deployed_sha else "landed"
    cost = f"${state.cost_usd:.4f}" if state.cost_complete else f"at least ${state.cost_usd:.4f}"
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
            footer=(
                f"landed {state.landed_sha[:10]}; {state.tokens_in} tokens in "
                f"({state.tokens_cached} from cache), {state.tokens_out} out, {cost}"
            ),
            sha=state.landed_sha,
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


_NOT_DEPLOYED = {landing.DeployOutcome.FAILED, landing.DeployOutcome.UNKNOWN}


async def _stage_branch(run: TaskRun) -> Move | None:
    """Deploy the branch and judge what runs; where the task goes if it may not go on."""
    deployed = await _deploy(run, Environment.STAGING, run.state.head_sha)
    assert deployed is not None
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


async def _deploy(run: TaskRun, environment: Environment, sha: str) -> landing.Deployed | None:
    policy = run.state.policy
    staging = environment is Environment.STAGING
    command = policy.staging if staging else policy.production
    if not command:
        return None
    work = run.state.work
    if work.deployed == sha:
        return landing.Deployed(outcome=landing.DeployOutcome.ALREADY_DEPLOYED, sha=sha, output=work.output)
    kind = leases.LeaseKind.STAGING if staging else leases.LeaseKind.PRODUCTION
    lease = await leasing.acquire(run, kind)
    state = run.next_step()
    deployed = await run.call(
        landing.deploy,
        landing.Deploy(
            ref=state.ref,
            repository=state.project.repository,
            environment=environment,
            sha=sha,
            command=command,
            probe=policy.probe_staging if staging else policy.probe_production,
            lease=lease,
        ),
        queue=host_work_queue(state.host),
        summary=f"deploy {sha[:10]} to {environment}",
        shield=True,
        limit=DEPLOY_LIMIT,
    )
    if deployed.outcome not in _NOT_DEPLOYED:
        # Before anything else is awaited: what has been seen through is not done again after a pause.
        run.update(work=run.state.work.model_copy(update={"deployed": sha, "output": deployed.output}))
    await leasing.release(run, lease)
    run.say(f"{environment}: {deployed.outcome}", sha=deployed.sha or sha)
    return deployed
