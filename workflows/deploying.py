"""Bringing a commit to an environment, and what becomes of a deployment to production that failed.

Whatever fails in production stops everybody's landing and deploying, and is undone or accepted only by a person.
"""

from datetime import datetime, timedelta

from temporalio import workflow

from workflows import leasing
from workflows.contracts import landing, leases
from workflows.hints import Source
from workflows.model import Environment, FreezeCause, Lease, Stage, Waiting, WaitingOn, grace_growth
from workflows.names import host_work_queue
from workflows.state import Act, FailedDeployment, Move, OperatorAct
from workflows.task_run import UNKNOWN_GRACE, TaskRun

DEPLOY_LIMIT = timedelta(hours=1)
LONGEST_FREEZE_GRACE = timedelta(minutes=30)
"""How long at most a task waits before it looks again whether production is still frozen."""

_SERVED = {landing.DeployOutcome.SUCCEEDED, landing.DeployOutcome.ALREADY_DEPLOYED}
_FAILED = {landing.DeployOutcome.FAILED, landing.DeployOutcome.UNKNOWN}


async def bring(run: TaskRun, environment: Environment, sha: str) -> landing.Deployed | None:
    """Deploy under the environment's lease, once a round; None where the base branch's policy deploys nothing.

    A failure in production is noted, and frozen before anybody else may deploy.
    """
    work = run.state.work
    if work.deployed == sha:
        return landing.Deployed(outcome=landing.DeployOutcome.ALREADY_DEPLOYED, sha=sha, output=work.output)
    looks, since = 0, workflow.now()
    while True:
        lease = await leasing.acquire(run, _kind(environment))
        deployed = await _deploy(run, environment, sha, lease)
        # Before anything else is awaited: what has been seen through is not done again after a pause.
        _note(run, environment, deployed)
        if run.state.work.failed is not None:
            await _freeze(run, run.state.work.failed.reason)
        await leasing.release(run, lease)
        match deployed.outcome:
            case landing.DeployOutcome.LEASE_LOST:
                run.say(f"{environment}: {deployed.reason}")
            case landing.DeployOutcome.FROZEN:
                await _await_thaw(run, deployed.reason, since, looks)
                looks += 1
            case landing.DeployOutcome.REFUSED:
                await run.ask_human(f"{environment}: {deployed.reason}")
            case landing.DeployOutcome.NOT_WANTED:
                run.say(f"{environment}: {deployed.reason}")
                return None
            case _:
                run.say(f"{environment}: {deployed.outcome}", sha=sha)
                return deployed


async def fail(run: TaskRun, reason: str) -> None:
    """Note that what was deployed to production does not pass, and stop everybody else."""
    run.update(work=run.state.work.model_copy(update={"failed": FailedDeployment(reason=reason)}))
    await _freeze(run, reason)


async def ways_out(run: TaskRun) -> Move:
    """Wait until a person says retry, rollback or accept; nothing is tried by itself."""
    while not run.state.accepted:
        failed = run.state.work.failed
        assert failed is not None
        act = await run.ask_human(_question(run, failed), offers=_offers(run))
        if act.act is Act.RETRY:
            run.update(despite_failure=True)
            return Move(to=Stage.DEPLOY, reason=f"{act.by} said retry", source=Source.OPERATOR)
        if act.act is Act.ROLLBACK:
            await _roll_back(run, failed)
        else:
            await _accept(run, act, failed)
    return Move(to=Stage.DONE, reason=run.state.accepted, source=Source.OPERATOR)


def _kind(environment: Environment) -> leases.LeaseKind:
    return leases.LeaseKind.STAGING if environment is Environment.STAGING else leases.LeaseKind.PRODUCTION


async def _deploy(run: TaskRun, environment: Environment, sha: str, lease: Lease) -> landing.Deployed:
    state = run.next_step()
    return await run.call(
        landing.deploy,
        landing.Deploy(
            ref=state.ref,
            repository=state.project.repository,
            environment=environment,
            sha=sha,
            lease=lease,
            despite_failure=state.despite_failure,
        ),
        queue=host_work_queue(state.host),
        summary=f"deploy {sha[:10]} to {environment}",
        shield=True,
        limit=DEPLOY_LIMIT,
    )


def _note(run: TaskRun, environment: Environment, deployed: landing.Deployed) -> None:
    """Keep what a deployment came to."""
    production = environment is Environment.PRODUCTION
    changes: dict[str, object] = {}
    if deployed.outcome in _SERVED:
        changes = {"deployed": deployed.sha, "output": deployed.output}
    elif deployed.outcome in _FAILED and production:
        changes = {"failed": FailedDeployment(reason=deployed.reason), "output": deployed.output}
    run.update(work=run.state.work.model_copy(update=changes))
    if not production:
        return
    if deployed.outcome in _SERVED:
        run.update(deployed_sha=deployed.sha, rolled_back=False)
    if deployed.outcome is not landing.DeployOutcome.ALREADY_DEPLOYED and not run.state.previous_sha:
        run.update(previous_sha=deployed.previous_sha)


async def _freeze(run: TaskRun, reason: str) -> None:
    with run.shielded():
        await leasing.freeze(run, FreezeCause.DEPLOY_FAILED, f"{run.state.landed_sha[:10]}: {reason}")


async def _await_thaw(run: TaskRun, reason: str, since: datetime, looks: int) -> None:
    """Wait without the lease until production may be free again, or a person lets this task through."""
    await run.take_answers()
    run.pending.clear()
    said = f"production is frozen: {reason}; `retry` deploys all the same"
    if looks == 0:
        run.say(f"waits: {said}")
    run.update(offers=(Act.RETRY,))
    try:
        await run.wait(
            Waiting(
                on=WaitingOn.MERGE_QUEUE,
                reason=said,
                since=since,
                next_check=workflow.now() + grace_growth(UNKNOWN_GRACE, looks, LONGEST_FREEZE_GRACE),
            ),
            announce=f"{run.state.key} waits: {said}" if looks == 0 else "",
        )
        for act in await run.take_answers():
            if act.act is Act.RETRY:
                run.say(f"{act.by} said retry", source=Source.OPERATOR)
                run.update(despite_failure=True)
    finally:
        run.update(waiting=None, offers=())


def _offers(run: TaskRun) -> tuple[Act, ...]:
    rollback = bool(run.state.previous_sha) and not run.state.rolled_back
    return (Act.RETRY, Act.ROLLBACK, Act.ACCEPT) if rollback else (Act.RETRY, Act.ACCEPT)


def _question(run: TaskRun, failed: FailedDeployment) -> str:
    state = run.state
    if state.rolled_back:
        return f"production: {failed.reason}; it was rolled back to {state.previous_sha[:10]}: say retry or accept"
    if not state.previous_sha:
        return f"production: {failed.reason}; nothing is known of what it served before: say retry or accept"
    return f"production: {failed.reason}; say retry, rollback (to {state.previous_sha[:10]}) or accept"


async def _accept(run: TaskRun, act: OperatorAct, failed: FailedDeployment) -> None:
    said = f", who says: {act.reason}" if act.reason else ""
    run.update(accepted=f"production did not pass ({failed.reason}) and was accepted as it is by {act.by}{said}")
    with run.shielded():
        await leasing.lift(run, FreezeCause.DEPLOY_FAILED, f"accepted by {act.by}{said}")


async def _roll_back(run: TaskRun, failed: FailedDeployment) -> None:
    """Run the rollback command once; the freeze stands until a deployment passes or a person accepts."""
    lease = await leasing.acquire(run, leases.LeaseKind.PRODUCTION)
    failed = failed.model_copy(update={"rollbacks": failed.rollbacks + 1})
    run.update(work=run.state.work.model_copy(update={"failed": failed}))
    state = run.next_step()
    done = await run.call(
        landing.roll_back,
        landing.RollBack(
            ref=state.ref,
            repository=state.project.repository,
            sha=state.previous_sha,
            failed_sha=state.landed_sha,
            attempt=failed.rollbacks,
            lease=lease,
        ),
        queue=host_work_queue(state.host),
        summary=f"roll production back to {state.previous_sha[:10]}",
        shield=True,
        limit=DEPLOY_LIMIT,
    )
    # Before anything else is awaited: a pause must not forget what production serves.
    if done.outcome in _SERVED:
        run.update(rolled_back=True, deployed_sha="")
    else:
        problem = failed.model_copy(update={"reason": f"{failed.reason}; rollback: {done.reason}"})
        run.update(work=run.state.work.model_copy(update={"failed": problem}))
    run.say(f"rollback to {state.previous_sha[:10]}: {done.outcome}", sha=state.previous_sha)
    await leasing.release(run, lease)
