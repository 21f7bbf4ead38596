"""A worker that can die: the product's own gate activities over real git, in a process that is killed or stopped.

`python -m tests.proof.gate_process` reads one line of JSON for each order and answers one line. It forks for each
order, so that a kill costs no interpreter's start. Where to die is said here; the product knows nothing of it.
"""

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import landing as landing_module
from activities.adapters.git import Mirror, checkout_clean
from activities.adapters.git import mirror as mirror_module
from activities.adapters.gitea import GiteaClient
from activities.adapters.store import Store
from activities.adapters.store import open_pool as open_store
from activities.adapters.store.landings import Landings
from activities.errors import translating
from activities.forge import Forge
from activities.landing import Landing
from activities.mirrors import Mirrors
from activities.settings import WorkerSettings
from workflows.contracts.landing import BuildCandidate, CandidateOutcome, Land, LandOutcome
from workflows.model import Candidate, Lease, PullRequest, Repository, Stage, TaskRef

REPOSITORY = Repository(owner="acme", name="payments")
QUEUE = "merge/acme/payments/main"
TRIES = 200
LOCK_AGE = 0.5
"""Seconds after which a lock file that a killed git left is stale; the product waits a minute."""

candidates_module = landing_module
if importlib.util.find_spec("activities.candidates"):
    candidates_module = importlib.import_module("activities.candidates")


class Fate:
    """Counts boundaries, and ends or stops this process at one of them."""

    def __init__(self, at: int, number: int) -> None:
        self._at = at
        self._signal = number
        self._passed = 0

    def boundary(self) -> None:
        """One more; the last one, perhaps."""
        self._passed += 1
        if self._passed == self._at:
            os.kill(os.getpid(), self._signal)

    def around(self, owner: Any, name: str) -> None:
        """A boundary before and after each call."""
        real = getattr(owner, name)

        async def called(*arguments: Any, **named: Any) -> Any:
            self.boundary()
            result = await real(*arguments, **named)
            self.boundary()
            return result

        setattr(owner, name, called)


class Record:
    """What Temporal would have on record: written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = json.loads(path.read_text()) | {"worker": os.getpid()}
        self._put()

    def write(self, **changes: Any) -> None:
        """Note a result; of a worker that was given up none is taken."""
        if json.loads(self._path.read_text())["worker"] != os.getpid():
            os._exit(0)
        self.facts |= changes
        self._put()

    def _put(self) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self.facts))
        fresh.replace(self._path)


class Worker:
    """One task's way through the gate, from what is on record."""

    def __init__(
        self, store: Store, landing: Landing, builder: Any, mirrors: Mirrors, record: Record, home: Path
    ) -> None:
        self.store, self.landing, self.builder, self.mirrors = store, landing, builder, mirrors
        self.record, self.home = record, home

    def _ref(self) -> TaskRef:
        key, step = self.record.facts["key"], self.record.facts["step"]
        return TaskRef(key=key, generation=1, stage=Stage.DEPLOY, round=1, step=step)

    async def _until_done(self, function: Callable[[Any], Awaitable[Any]], arg: Any) -> Any:
        """As Temporal would: a new attempt after each failure that may be repeated, and after each death."""
        for _ in range(TRIES):
            self.record.write(attempt=self.record.facts["attempt"] + 1)
            environment = ActivityEnvironment()
            environment.info = dataclasses.replace(environment.info, attempt=self.record.facts["attempt"])
            try:
                return await environment.run(_translated(function), arg)
            except ApplicationError as error:
                if error.non_retryable:
                    raise
                await asyncio.sleep(0.05)
        raise AssertionError(f"{function} did not succeed")

    async def run(self) -> None:
        """Until it has landed, is red, or somebody must look."""
        facts = self.record.facts
        while not facts["ended"]:
            if facts["lease"] is None:
                row = await self.store.landings.open_lease(QUEUE, f"task/{facts['key']}", 1)
                lease = Lease(queue=QUEUE, epoch=row.epoch, ticket=1, granted_at=row.granted_at)
                self._next(lease=lease.model_dump(mode="json"), candidate=None, green=None)
            elif facts["candidate"] is None:
                await self._build()
            elif facts["green"] is None:
                await self._test()
            elif not facts["green"]:
                await self._leave("red")
            else:
                await self._land()
            facts = self.record.facts

    def _next(self, **changes: Any) -> None:
        self.record.write(step=self.record.facts["step"] + 1, attempt=0, **changes)

    async def _leave(self, ended: str, **changes: Any) -> None:
        lease = Lease.model_validate(self.record.facts["lease"])
        await self.store.landings.close_lease(QUEUE, lease.epoch)
        self._next(lease=None, candidate=None, green=None, ended=ended, **changes)

    async def _build(self) -> None:
        facts = self.record.facts
        arg = BuildCandidate(
            ref=self._ref(),
            repository=REPOSITORY,
            branch=facts["branch"],
            head_sha=facts["head"],
            lease=Lease.model_validate(facts["lease"]),
        )
        built = await self._until_done(self.builder.build_candidate, arg)
        if built.candidate is not None:
            self._next(candidate=built.candidate.model_dump(mode="json"), head=built.candidate.sha)
        elif built.outcome is CandidateOutcome.ALREADY_LANDED:
            await self._leave("landed")
        elif built.outcome is CandidateOutcome.HEAD_MOVED:
            mirror = await self.mirrors.fetched(REPOSITORY)
            await self._leave("", head=await mirror.remote_head(facts["branch"]))  # reviewed again
        elif built.outcome is CandidateOutcome.LEASE_LOST:
            await self._leave("")
        else:
            await self._leave(f"no candidate: {built.reason}")

    async def _test(self) -> None:
        """The tests of exactly this commit on a clean checkout."""
        sha = self.record.facts["candidate"]["sha"]
        mirror = await self.mirrors.fetched(REPOSITORY)
        path = self.home / f"test-{os.getpid()}-{time.monotonic_ns()}"
        await checkout_clean(mirror, path, sha)
        process = await asyncio.create_subprocess_exec("sh", "check.sh", cwd=path)
        self._next(green=await process.wait() == 0)

    async def _land(self) -> None:
        facts = self.record.facts
        candidate = Candidate.model_validate(facts["candidate"])
        arg = Land(
            ref=self._ref(),
            repository=REPOSITORY,
            pull=PullRequest(number=facts["pull"], head_sha=candidate.sha, url=""),
            branch=facts["branch"],
            candidate=candidate,
            lease=Lease.model_validate(facts["lease"]),
            title=facts["key"],
        )
        landed = await self._until_done(self.landing.land, arg)
        if landed.outcome is LandOutcome.LANDED:
            await self._leave("landed")
        elif landed.outcome in {LandOutcome.MAIN_MOVED, LandOutcome.LEASE_LOST}:
            await self._leave("")
        elif landed.outcome is LandOutcome.HEAD_MOVED:
            mirror = await self.mirrors.fetched(REPOSITORY)
            await self._leave("", head=await mirror.remote_head(facts["branch"]))
        else:
            await self._leave(f"not landed: {landed.reason}")


def _translated(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def run(arg: Any) -> Any:
        with translating():
            return await function(arg)

    return run


async def gate(order: dict[str, Any]) -> None:
    """Take one task through the gate, or die on the way."""
    mirror_module._LOCK_AGE = LOCK_AGE
    fate = Fate(order["at"], order["signal"])
    for owner, name in (
        (Mirror, "fetch"),
        (Mirror, "push"),
        (candidates_module, "rebase_onto"),
        *((Landings, name) for name in vars(Landings) if name.startswith(("open_landing", "settle_land"))),
        (Landings, "close_lease"),
        (GiteaClient, "merge_pull"),
    ):
        fate.around(owner, name)
    home = Path(order["home"])
    settings = WorkerSettings(
        database_url=SecretStr("unused"),
        config=home / "orch.toml",
        home=home,
        plane_url=order["gitea"],
        plane_token=SecretStr("unused"),
        gitea_url=order["gitea"],
        gitea_token=SecretStr(order["token"]),
        gitea_reviewer_token=SecretStr(order["reviewer_token"]),
    )
    pool = await open_store(order["database"])
    async with aiohttp.ClientSession() as session:
        store, mirrors = Store(pool), Mirrors(settings)
        forge = Forge(session, settings, order["gitea"])
        landing = Landing(mirrors, forge, store, settings)
        builder: Any = landing
        if candidates_module is not landing_module:
            builder = candidates_module.Candidates(mirrors, forge, store, settings)
        record = Record(Path(order["record"]))
        await Worker(store, landing, builder, mirrors, record, home).run()
    await pool.close()


def _child(order: dict[str, Any]) -> None:
    status = 1
    with contextlib.suppress(KeyboardInterrupt):
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            asyncio.run(gate(order))
            status = 0
        except Exception:  # noqa: BLE001 - whatever it is, the parent is to know
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
    os._exit(status)


def _ended(child: int, delay: float | None) -> str:
    """How a child ended: `0`, `1`, `killed` or `stopped`."""
    begun = time.monotonic()
    while True:
        found, status = os.waitpid(child, os.WUNTRACED | (os.WNOHANG if delay is not None else 0))
        if found:
            break
        if delay is not None and time.monotonic() - begun > delay:
            os.kill(child, signal.SIGKILL)
            delay = None
        time.sleep(0.002)
    if os.WIFSTOPPED(status):
        return "stopped"
    return "killed" if os.WIFSIGNALED(status) else str(os.WEXITSTATUS(status))


def main() -> None:
    """Fork for each order; revive and wait for a stopped child where an order says so."""
    for line in sys.stdin:
        order = json.loads(line)
        child = order.get("revive")
        if child is not None:
            os.kill(child, signal.SIGCONT)
        else:
            child = os.fork()
            if not child:
                _child(order)
        answer = {"child": child, "how": _ended(child, order.get("delay"))}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
