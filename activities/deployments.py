"""Deployments: a command of the base branch's policy, run once; a lost result is resolved by the probe."""

import asyncio
import re
import shutil
from pathlib import Path

from temporalio import activity

from activities.adapters.git import Mirror, checkout_clean
from activities.adapters.process import ProcessResult, run
from activities.adapters.process_tree import kill_run
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.mirrors import Mirrors
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from workflows.contracts import landing as contract

COMMAND_LIMIT = 45 * 60
PROBE_LIMIT = 60
TAIL = 8_000
_SHA = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")


class Deployments:
    """Deploys a sha to an environment, holding its lease."""

    def __init__(self, mirrors: Mirrors, isolation: Isolation, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._isolation = isolation
        self._store = store
        self._root = settings.home / "deployments"

    @activity.defn
    async def deploy(self, arg: contract.Deploy) -> contract.Deployed:
        """Run the command unless what is served already contains the sha."""
        fence = await Fence.take(self._store, arg.ref)
        if not await self._store.landings.holds(arg.lease.queue, arg.lease.epoch):
            return _failed("the deploy lease was taken back before the command was run")
        # A command whose worker was killed must not go on beside ours, nor change what the probe says.
        await kill_run(self._run_id(arg))
        mirror = await self._mirrors.fetched(arg.repository)
        folder = self._root / arg.ref.key / f"s{arg.ref.step}"
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
        checkout = folder / "checkout"
        await checkout_clean(mirror, checkout, arg.sha)
        try:
            return await self._deploy(arg, fence, mirror, checkout)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _deploy(self, arg: contract.Deploy, fence: Fence, mirror: Mirror, checkout: Path) -> contract.Deployed:
        intent = arg.ref.intent(f"deploy-{arg.environment}")
        served = await self._served(arg, checkout)
        begun = await self._store.landings.open_deployment(
            intent,
            task=arg.ref.key,
            generation=arg.ref.generation,
            repo=str(arg.repository),
            environment=arg.environment,
            sha=arg.sha,
            previous_sha=served,
        )
        if begun.status == "failed":
            return _failed("the deploy command failed", begun.output_tail)
        if begun.status == "succeeded":
            return _succeeded(contract.DeployOutcome.SUCCEEDED, served or arg.sha, begun.output_tail)
        if served and await self._contains(mirror, served, arg.sha):
            await self._store.landings.settle_deployment(intent, "succeeded", begun.output_tail)
            known = contract.DeployOutcome.ALREADY_DEPLOYED if begun.is_new else contract.DeployOutcome.SUCCEEDED
            return _succeeded(known, served, f"the probe says that {served} is served")
        if not begun.is_new and not (served and served == begun.previous_sha):
            # It was begun before, and nothing tells whether it came to anything.
            return contract.Deployed(
                outcome=contract.DeployOutcome.UNKNOWN,
                sha=served,
                reason=f"the result of deploying {arg.sha[:10]} was lost and the probe says "
                f"{served[:10] or 'nothing'}; look at the environment, then retry",
            )
        await fence.check()
        return await self._run_once(arg, intent, checkout)

    async def _run_once(self, arg: contract.Deploy, intent: str, checkout: Path) -> contract.Deployed:
        result = await self._command(arg, arg.command, checkout, COMMAND_LIMIT)
        output = result.output_tail[-TAIL:]
        problem = f"the deploy command ended with exit {result.exit_code}" if result.exit_code else ""
        served = await self._served(arg, checkout) if not problem else ""
        if not problem and arg.probe and served != arg.sha:
            problem = f"the deploy command succeeded, but the probe says {served[:10] or 'nothing'}"
        await self._store.landings.settle_deployment(intent, "failed" if problem else "succeeded", output)
        if problem:
            return _failed(problem, output)
        return _succeeded(contract.DeployOutcome.SUCCEEDED, served or arg.sha, output)

    async def _served(self, arg: contract.Deploy, checkout: Path) -> str:
        """The sha the probe reports, or nothing if it reports none."""
        if not arg.probe:
            return ""
        result = await self._command(arg, arg.probe, checkout, PROBE_LIMIT)
        found = _SHA.search(result.output_tail) if result.exit_code == 0 else None
        return found.group() if found else ""

    async def _contains(self, mirror: Mirror, served: str, sha: str) -> bool:
        return served == sha or (await mirror.resolve(served) is not None and await mirror.is_ancestor(sha, served))

    async def _command(self, arg: contract.Deploy, command: str, checkout: Path, limit: float) -> ProcessResult:
        home = checkout.with_name("home")
        home.mkdir(exist_ok=True)
        env = {
            "ORCH_SHA": arg.sha,
            "ORCH_ENVIRONMENT": arg.environment,
            "ORCH_REPOSITORY": str(arg.repository),
        }
        cage = await self._isolation.cage(checkout, (home,), env, network=True)
        return await run(
            [*cage.argv, "sh", "-c", command],
            cwd=checkout,
            env=cage.env,
            timeout=limit,
            run_id=self._run_id(arg),
        )

    def _run_id(self, arg: contract.Deploy) -> str:
        """Begins with our home: another stack on this machine may have a task of the same name."""
        return f"{self._root.parent}/{arg.ref.intent(f'deploy-{arg.environment}')}"


def _failed(reason: str, output: str = "") -> contract.Deployed:
    return contract.Deployed(outcome=contract.DeployOutcome.FAILED, reason=reason, output=output)


def _succeeded(outcome: contract.DeployOutcome, sha: str, output: str) -> contract.Deployed:
    return contract.Deployed(outcome=outcome, sha=sha, output=output)
