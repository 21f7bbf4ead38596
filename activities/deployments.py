"""Deployments: commands of the base branch's policy, run once; a lost result is resolved by the probe."""

from temporalio import activity

from activities.adapters.git import Mirror
from activities.adapters.process_tree import kill_run
from activities.adapters.store import DeploymentRow, Store
from activities.deploy_commands import DeployCommands, Job, Target
from activities.fencing import Fence
from activities.mirrors import Mirrors
from activities.settings import WorkerSettings
from workflows.contracts import landing as contract
from workflows.model import Environment, FreezeCause, Lease, Policy
from workflows.names import merge_queue_workflow_id

Outcome = contract.DeployOutcome


class Deployments:
    """Deploys a sha to an environment, or brings back what was served before, holding the environment's lease."""

    def __init__(self, mirrors: Mirrors, commands: DeployCommands, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._commands = commands
        self._store = store
        self._root = settings.home / "deployments"

    @activity.defn
    async def deploy(self, arg: contract.Deploy) -> contract.Deployed:
        """Run the command unless what is served already contains the sha."""
        fence = await Fence.take(self._store, arg.ref)
        target = Target(arg.ref.intent(f"deploy-{arg.environment}"), arg.repository, arg.environment, arg.sha)
        known = await self._store.deployments.known(target.intent)
        # What was begun before another task failed is seen through.
        refused = await self._not_held(arg.lease) or (None if known else await self._frozen(arg))
        if refused:
            return refused
        await kill_run(self._run_id(target))
        mirror = await self._mirrors.fetched(arg.repository)
        production = arg.environment is Environment.PRODUCTION
        # What has landed is on the base branch; a branch that has not must not say how it is deployed.
        base = arg.sha if production else await mirror.resolve(f"refs/heads/{arg.repository.base}")
        policy = await self._commands.policy(mirror, base, str(arg.repository)) if base else "the base branch is gone"
        if isinstance(policy, str):
            return _refused(policy)
        command = policy.production if production else policy.staging
        if command is None:
            reason = f"the policy of {arg.repository.base} deploys nothing to {arg.environment}"
            return contract.Deployed(outcome=Outcome.NOT_WANTED, reason=reason)
        job = self._job(target, policy, command, fence)
        if job.taken.problems and not known:
            return _refused(*job.taken.problems)
        async with self._commands.checked_out(mirror, job):
            return await self._deploy(fence, mirror, job)

    @activity.defn
    async def roll_back(self, arg: contract.RollBack) -> contract.Deployed:
        """Run the rollback command, unless somebody has deployed over what failed."""
        fence = await Fence.take(self._store, arg.ref)
        intent = arg.ref.intent(f"rollback-{arg.attempt}")
        target = Target(intent, arg.repository, Environment.PRODUCTION, arg.sha, arg.failed_sha)
        refused = await self._not_held(arg.lease)
        if refused:
            return refused
        await kill_run(self._run_id(target))
        mirror = await self._mirrors.fetched(arg.repository)
        policy = await self._commands.policy(mirror, arg.failed_sha, str(arg.repository))
        if isinstance(policy, str):
            return _refused(policy)
        if policy.rollback is None:
            return _refused(f"the policy at {arg.failed_sha[:10]} has no commands.rollback; roll back by hand")
        job = self._job(target, policy, policy.rollback, fence)
        if job.taken.problems and not await self._store.deployments.known(intent):
            return _refused(*job.taken.problems)
        async with self._commands.checked_out(mirror, job):
            return await self._roll_back(fence, mirror, job)

    async def _deploy(self, fence: Fence, mirror: Mirror, job: Job) -> contract.Deployed:
        target = job.target
        served, says = await self._served(job)
        begun = await self._begin(fence, job, served)
        if ended := _ended(target, begun):
            return ended
        if served and await _contains(mirror, served, target.sha):
            known = Outcome.ALREADY_DEPLOYED if begun.is_new else Outcome.SUCCEEDED
            newer = f", which contains {target.sha}" if served != target.sha else ""
            await self._store.deployments.settle(target.intent, "succeeded", f"{says}{newer}")
            return _succeeded(known, target, begun, f"{says}{newer}")
        if not begun.is_new and not _may_run_again(job, served, begun):
            return await self._lost(job, begun, says)
        return await self._run_once(fence, job, begun)

    async def _roll_back(self, fence: Fence, mirror: Mirror, job: Job) -> contract.Deployed:
        target = job.target
        served, says = await self._served(job)
        if served not in {"", target.failed_sha} and await _contains(mirror, served, target.failed_sha):
            failed = target.failed_sha[:10]
            return _refused(f"{says}: somebody has deployed over {failed}, and would be rolled back too")
        begun = await self._begin(fence, job, served)
        if ended := _ended(target, begun):
            return ended
        if begun.is_new:
            return await self._run_once(fence, job, begun)
        # Where it was served all along, nothing tells whether the command ran.
        changed = begun.previous_sha != target.sha
        if job.probe and changed and served == target.sha:
            await self._store.deployments.settle(target.intent, "succeeded", says)
            return _succeeded(Outcome.SUCCEEDED, target, begun, says)
        again = changed and _may_run_again(job, served, begun)
        return await (self._run_once(fence, job, begun) if again else self._lost(job, begun, says))

    async def _run_once(self, fence: Fence, job: Job, begun: DeploymentRow) -> contract.Deployed:
        if job.taken.problems:
            return _refused(*job.taken.problems)
        await fence.check()
        target, ran = job.target, await self._commands.run(job)
        problem = ran.problem
        if not problem and job.probe and (served := await self._commands.probe(job)) != target.sha:
            problem = f"the command succeeded, but the probe says {served[:10] or 'nothing'}"
        await self._store.deployments.settle(target.intent, "failed" if problem else "succeeded", ran.output)
        if problem:
            return _failed(problem, begun, ran.output)
        return _succeeded(Outcome.SUCCEEDED, target, begun, ran.output)

    async def _lost(self, job: Job, begun: DeploymentRow, says: str) -> contract.Deployed:
        await self._store.deployments.settle(job.target.intent, "lost", says)
        reason = (
            f"the result of the command for {job.target.sha[:10]} was lost, and {says}; "
            "look at the environment before you say what to do"
        )
        return contract.Deployed(outcome=Outcome.UNKNOWN, reason=reason, previous_sha=begun.previous_sha)

    async def _not_held(self, lease: Lease) -> contract.Deployed | None:
        if await self._store.landings.holds(lease.queue, lease.epoch):
            return None
        return contract.Deployed(outcome=Outcome.LEASE_LOST, reason="the deploy lease was taken back")

    async def _frozen(self, arg: contract.Deploy) -> contract.Deployed | None:
        """Whether another task's failure in production stands in the way."""
        if arg.environment is not Environment.PRODUCTION or arg.despite_failure:
            return None
        repository = arg.repository
        queue = merge_queue_workflow_id(repository.owner, repository.name, repository.base)
        for freeze in await self._store.freezes.standing(queue):
            if freeze.cause == FreezeCause.DEPLOY_FAILED and freeze.by != arg.ref.key:
                reason = f"{freeze.by} has failed to deploy since {freeze.since:%Y-%m-%d %H:%M}Z: {freeze.reason}"
                return contract.Deployed(outcome=Outcome.FROZEN, reason=reason)
        return None

    async def _begin(self, fence: Fence, job: Job, served: str) -> DeploymentRow:
        target = job.target
        return await self._store.deployments.begin(
            target.intent,
            task=fence.ref.key,
            generation=fence.ref.generation,
            repo=str(target.repository),
            environment=target.environment,
            sha=target.sha,
            previous_sha=served,
            kind="rollback" if target.failed_sha else "deploy",
        )

    async def _served(self, job: Job) -> tuple[str, str]:
        """What is served, and who says so: the probe, or, where there is none, our own last success."""
        if job.probe:
            served = await self._commands.probe(job)
            return served, f"the probe says that {served or 'nothing'} is served"
        served = await self._store.deployments.last(str(job.target.repository), job.target.environment)
        return served, f"the last command that succeeded was for {served or 'nothing'}, and there is no probe"

    def _job(self, target: Target, policy: Policy, command: str, fence: Fence) -> Job:
        staging = target.environment is Environment.STAGING
        return Job(
            target=target,
            command=command,
            probe=policy.probe_staging if staging else policy.probe_production,
            taken=self._commands.secrets(policy, target.environment),
            repeatable=policy.repeatable,
            folder=self._root / fence.ref.key / f"s{fence.ref.step}",
            run_id=self._run_id(target),
        )

    def _run_id(self, target: Target) -> str:
        """Begins with our home: another stack on this machine may have a task of the same name."""
        return f"{self._root.parent}/{target.intent}"


def _ended(target: Target, begun: DeploymentRow) -> contract.Deployed | None:
    """What a command came to that had ended before; None if it has not, or nobody knows."""
    if begun.status == "failed":
        return _failed("the command had failed", begun, begun.output_tail)
    if begun.status == "succeeded":
        return _succeeded(Outcome.SUCCEEDED, target, begun, begun.output_tail)
    return None


def _may_run_again(job: Job, served: str, begun: DeploymentRow) -> bool:
    """Whether a command that was begun, and whose result was lost, may be run again without a person."""
    if not job.probe or served != begun.previous_sha:
        return False
    # Still what was served before: it came to nothing. Nothing before and nothing now does not say so.
    return bool(served) or job.repeatable


async def _contains(mirror: Mirror, served: str, sha: str) -> bool:
    return served == sha or (await mirror.resolve(served) is not None and await mirror.is_ancestor(sha, served))


def _failed(reason: str, begun: DeploymentRow, output: str) -> contract.Deployed:
    return contract.Deployed(outcome=Outcome.FAILED, reason=reason, previous_sha=begun.previous_sha, output=output)


def _refused(*reasons: str) -> contract.Deployed:
    return contract.Deployed(outcome=Outcome.REFUSED, reason=f"nothing was run: {' | '.join(reasons)}")


def _succeeded(outcome: contract.DeployOutcome, target: Target, begun: DeploymentRow, output: str) -> contract.Deployed:
    return contract.Deployed(outcome=outcome, sha=target.sha, previous_sha=begun.previous_sha, output=output)
