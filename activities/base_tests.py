"""Testing the base branch itself: a red candidate is nobody's fault while its base is red."""

import asyncio
import shutil

from temporalio import activity

from activities.adapters.git import checkout_clean
from activities.adapters.process import run
from activities.adapters.process_tree import kill_run
from activities.mirrors import Mirrors
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from activities.workspaces import TAIL, TEST_LIMIT
from workflows.contracts import leases as contract
from workflows.model import GateOutcome
from workflows.policy import PATH, read_policy

POLICY_LIMIT = 64 * 1024


class BaseTests:
    """Base branches on this host, below `<home>/base-tests/`."""

    def __init__(self, mirrors: Mirrors, isolation: Isolation, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._isolation = isolation
        self._root = settings.home / "base-tests"
        self._locks: dict[str, asyncio.Lock] = {}

    @activity.defn
    async def test_base(self, arg: contract.TestBase) -> contract.BaseTested:
        """The policy and its test command are those of the tip that is tested."""
        repository = arg.repository
        mirror = await self._mirrors.fetched(repository)
        sha = await mirror.resolve(f"refs/heads/{repository.base}")
        if sha is None:
            return _unknown(f"{repository} has no branch {repository.base}; make it, or name another base in orch.toml")
        found = read_policy(await mirror.read_file(sha, PATH, POLICY_LIMIT), f"{PATH} on {repository.base}")
        if found.policy is None:
            return _unknown(found.problem, sha)
        path = self._root / repository.owner / repository.name / sha
        home = path.with_name(f"{sha}.home")
        async with self._locks.setdefault(str(path), asyncio.Lock()):
            # An earlier attempt on this host may still be running: its worker was killed.
            await kill_run(str(path))
            await _remove(path, home)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                await checkout_clean(mirror, path, sha)
                home.mkdir()
                cage = await self._isolation.cage(path, (home,), {"CI": "true"})
                result = await run(
                    [*cage.argv, "sh", "-c", found.policy.test],
                    cwd=path,
                    env=cage.env,
                    timeout=TEST_LIMIT,
                    run_id=str(path),
                )
            finally:
                await _remove(path, home)
        green = result.exit_code == 0 and not result.timed_out
        return contract.BaseTested(
            outcome=GateOutcome.GREEN if green else GateOutcome.RED,
            sha=sha,
            reason="" if green else result.output_tail[-TAIL:],
        )


def _unknown(reason: str, sha: str = "") -> contract.BaseTested:
    return contract.BaseTested(outcome=GateOutcome.UNKNOWN, sha=sha, reason=reason)


async def _remove(*paths: object) -> None:
    for path in paths:
        await asyncio.to_thread(shutil.rmtree, str(path), ignore_errors=True)
