"""What the merge gate costs over a script that does the same by hand, and how many landings an hour are left.

`python -m tests.bench.gate` starts PostgreSQL and a Gitea sandbox with one repository, and lands one-commit branches
of an older main, in blocks ABBA:

- `gate`: the product's activities in a row (lease, candidate, tests on a clean checkout, landing read back, release);
- `script`: bash in a clone that stays: fetch, rebase, push with a lease, tests, fast-forward push to main.

The tests are `sleep`, as long as said. Temporal's own time between activities is not in it.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.adapters.store import Store, open_pool
from activities.errors import translating
from activities.forge import Forge
from activities.landing import Landing
from activities.mirrors import Mirrors
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from activities.workspaces import Workspaces
from deploy.embedded import servers
from tests.bench.webhook_ack import abba, ratio
from tests.contract.sandbox_harness import GITEA_TOKENS, Harness, harness
from workflows.contracts.landing import BuildCandidate, Land
from workflows.contracts.workspaces import RunTests
from workflows.model import Lease, PullRequest, Repository, Stage, TaskRef

REPOSITORY = Repository(owner="acme", name="payments")
QUEUE = "merge/acme/payments/main"
GOALS = {"wall": 1.05, "throughput": 0.95}
TRIES = 100
SCRIPT = """set -eu
git fetch -q origin
git checkout -q -B "$1" "origin/$1"
old=$(git rev-parse HEAD)
git rebase -q origin/main
git push -q --force-with-lease="refs/heads/$1:$old" origin "HEAD:refs/heads/$1"
sh -c "$2"
git push -q origin HEAD:main
"""


@dataclasses.dataclass
class Branch:
    """A task branch with its pull request."""

    key: str
    name: str
    head: str
    number: int


class Bench:
    """One repository, the product's activities, and a script in a clone."""

    def __init__(
        self, sandbox: Harness, store: Store, session: aiohttp.ClientSession, folder: Path, tests: str
    ) -> None:
        self.sandbox, self.store, self.folder, self.tests = sandbox, store, folder, tests
        settings = WorkerSettings(
            database_url=SecretStr("unused"),
            config=folder / "orch.toml",
            home=folder / "home",
            plane_url=sandbox.sandbox.gitea_url,
            plane_token=SecretStr("unused"),
            gitea_url=sandbox.sandbox.gitea_url,
            gitea_token=SecretStr(GITEA_TOKENS["author-bot"]),
            gitea_reviewer_token=SecretStr(GITEA_TOKENS["review-bot"]),
        )
        mirrors = Mirrors(settings)
        forge = Forge(session, settings, sandbox.sandbox.gitea_url)
        self.landing = Landing(mirrors, forge, store, settings)
        self.builder: Any = self.landing
        if importlib.util.find_spec("activities.candidates"):
            candidates = importlib.import_module("activities.candidates")
            self.builder = candidates.Candidates(mirrors, forge, store, settings)
        self.workspaces = Workspaces(mirrors, Isolation(required=False), store, settings)
        self.person, self.script = folder / "person", folder / "script"
        self.made = 0
        self.parts: dict[str, list[float]] = {}
        """The seconds of each activity of the gate."""

    async def begin(self, files: int) -> None:
        """Main with so many files, and the clone that the script keeps."""
        await self.sandbox.clone(self.person)
        for number in range(files):
            path = self.person / f"src/{number % 100:02}/file{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"value = {number}\n" * 20)
        await self.sandbox.push(self.person, "main", {"README.md": "# Payments, larger\n"})
        await self.sandbox.clone(self.script)
        for name, value in (("user.name", "Anna"), ("user.email", "anna@example.com")):
            await self.sandbox.git("config", name, value, cwd=self.script)

    async def branches(self, count: int) -> list[Branch]:
        """Branches of one commit each, all off the main of now."""
        made = []
        await self.sandbox.git("fetch", "-q", "origin", cwd=self.person)
        for _ in range(count):
            self.made += 1
            key = f"PAY-{self.made}"
            await self.sandbox.git("checkout", "-q", "--detach", "origin/main", cwd=self.person)
            head = await self.sandbox.push(self.person, f"task/{key}", {f"change{self.made}.py": "x = 1\n"})
            number = (await self.sandbox.open_pull(f"task/{key}"))["number"]
            made.append(Branch(key, f"task/{key}", head, number))
        return made

    async def gate(self, branch: Branch) -> None:
        """One landing by the product."""
        row = await self.store.landings.open_lease(QUEUE, branch.name, 1)
        lease = Lease(queue=QUEUE, epoch=row.epoch, ticket=1, granted_at=row.granted_at)
        about = {"repository": REPOSITORY, "branch": branch.name, "lease": lease}
        built = await self._done(
            self.builder.build_candidate, BuildCandidate(ref=_ref(branch, 1), head_sha=branch.head, **about)
        )
        assert built.candidate is not None, built.reason
        sha = built.candidate.sha
        run = RunTests(ref=_ref(branch, 2), repository=REPOSITORY, sha=sha, command=self.tests)
        tests = await self._done(self.workspaces.run_tests, run)
        assert tests.passed, tests.tail
        pull = PullRequest(number=branch.number, head_sha=sha, url="")
        arg = Land(ref=_ref(branch, 3), pull=pull, candidate=built.candidate, title=branch.key, **about)
        landed = await self._done(self.landing.land, arg)
        assert landed.sha == sha, landed.reason
        await self.store.landings.close_lease(QUEUE, lease.epoch)

    async def by_script(self, branch: Branch) -> None:
        """One landing by hand."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", SCRIPT, "gate", branch.name, self.tests, cwd=self.script
        )
        assert await process.wait() == 0

    async def _done(self, function: Callable[[Any], Awaitable[Any]], arg: Any) -> Any:
        begun = time.perf_counter()
        done = await self._until_done(function, arg)
        self.parts.setdefault(type(arg).__name__, []).append(time.perf_counter() - begun)
        return done

    async def _until_done(self, function: Callable[[Any], Awaitable[Any]], arg: Any) -> Any:
        for attempt in range(1, TRIES):
            environment = ActivityEnvironment()
            environment.info = dataclasses.replace(environment.info, attempt=attempt)
            try:
                return await environment.run(_translated(function), arg)
            except ApplicationError as error:
                if error.non_retryable:
                    raise
                await asyncio.sleep(0.02)
        raise SystemExit(f"{function} did not succeed")


def _ref(branch: Branch, step: int) -> TaskRef:
    return TaskRef(key=branch.key, generation=1, stage=Stage.DEPLOY, round=1, step=step)


def _translated(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def run(arg: Any) -> Any:
        with translating():
            return await function(arg)

    return run


@contextlib.asynccontextmanager
async def bench(files: int, suite: float) -> AsyncIterator[Bench]:
    """Everything up, main pushed."""
    async with contextlib.AsyncExitStack() as stack:
        status = await stack.enter_async_context(servers(services=("postgres",)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-")))
        sandbox = await stack.enter_async_context(harness(folder / "sandbox"))
        await sandbox.seed(allow_fast_forward_only_merge=True)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        pool = await open_pool(status.environment["ORCH_DATABASE_URL"])
        made = Bench(sandbox, Store(pool), session, folder, f"sleep {suite}")
        await made.begin(files)
        yield made
        await pool.close()


async def measure(rounds: int, files: int, suite: float) -> str:
    """Run everything; the report."""
    lines = [f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"]
    lines.append("load average before: " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    seconds: dict[str, list[float]] = {"gate": [], "script": []}
    async with bench(files, suite) as made:
        ways = {"gate": made.gate, "script": made.by_script}
        order = abba("gate", "script", rounds)
        branches = await made.branches(len(order) + 2)
        tests, made.tests = made.tests, "true"
        for way in ways.values():  # the mirror is cloned, the workspaces are made
            await way(branches.pop())
        made.tests = tests
        made.parts.clear()
        for name in order:
            begun = time.perf_counter()
            await ways[name](branches.pop())
            seconds[name].append(time.perf_counter() - begun)
        parts = {name: statistics.median(sample) for name, sample in made.parts.items()}
    lines.append(f"{files} files, a suite of {suite:g} s, {rounds} ABBA rounds")
    for name, sample in seconds.items():
        lines.append(
            f"{name:7} median {statistics.median(sample):7.3f} s, of it {_over(sample, suite):.3f} s not tests"
        )
    lines.append("of the gate: " + ", ".join(f"{name} {value:.3f} s" for name, value in parts.items()))
    value, low, high = ratio(seconds["gate"], seconds["script"], statistics.median)
    lines.append(f"wall gate / script, goal at most {GOALS['wall']}: {value:.3f} (95 %: {low:.3f} to {high:.3f})")
    hourly = 3600 / statistics.mean(seconds["gate"])
    share = hourly * suite / 3600
    lines.append(
        f"serial landings an hour: {hourly:.1f}; of 3600/suite, goal at least {GOALS['throughput']}: {share:.3f}"
    )
    lines.append("load average after:  " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    return "\n".join(lines)


def _over(sample: list[float], suite: float) -> float:
    return statistics.median(sample) - suite


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="ABBA rounds, two landings of each in one (default: 3)")
    parser.add_argument("--files", type=int, default=5000, help="files in the repository (default: 5000)")
    parser.add_argument("--suite-seconds", type=float, default=30, help="how long the tests take (default: 30)")
    arguments = parser.parse_args()
    sys.stdout.write(asyncio.run(measure(arguments.rounds, arguments.files, arguments.suite_seconds)) + "\n")


if __name__ == "__main__":
    main()
