"""Real git, a real forge's merge call, real kills: at rest main is green and every change is on it once."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.contract.sandbox_harness import GITEA_TOKENS, Harness, harness
from tests.integration.conftest import Postgres, pool, postgres, schema

__all__ = ["pool", "postgres", "schema"]

EXAMPLES = 4
"""In one repository, one after the other."""
REPOSITORIES = 3
TASKS = 2
BOUNDARIES = 16
"""About as many as an undisturbed task passes."""
RUNS = 12
"""Deaths after which a task is left alone."""
CHECK = 'for f in left-*; do [ -e "right-${f#left-}" ] && exit 1; done; exit 0\n'
"""A left and a right of the same number are green alone and red together."""

PATIENCE = 200
"""Seconds after which an order is taken for one that never ends; none takes long on a machine that has time."""


class Workers:
    """Sends orders to the process that forks."""

    def __init__(self, process: asyncio.subprocess.Process, common: dict[str, Any]) -> None:
        self._process = process
        self._common = common

    async def order(self, **order: Any) -> dict[str, Any]:
        """One order, and how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps({**self._common, **order})}\n".encode())
        answer = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        return json.loads(answer)


class Gated:
    """A repository behind the gate, and people who push."""

    def __init__(self, sandbox: Harness, workers: Workers, folder: Path) -> None:
        self.sandbox, self.workers, self.folder = sandbox, workers, folder
        self.clone = folder / "clone"
        self.records: dict[str, Path] = {}
        self.sides: dict[str, str] = {}
        self.by_hand: list[str] = []
        self.killed = self.stopped = 0

    async def git(self, *args: str, check: bool = True) -> str:
        """A person's git."""
        return await self.sandbox.git(*args, cwd=self.clone, check=check)

    async def begin(self) -> None:
        """Main with a suite that passes."""
        await self.sandbox.clone(self.clone)
        await self.sandbox.push(self.clone, "main", {"check.sh": CHECK})

    async def task(self, key: str, file: str, *, commits: int) -> None:
        """A reviewed branch of one or two commits with a pull request."""
        await self.git("fetch", "-q", "origin")
        await self.git("checkout", "-q", "--detach", "origin/main")
        branch = f"task/{key}"
        if commits == 2:
            await self.sandbox.push(self.clone, branch, {f"{key}.txt": key})
        head = await self.sandbox.push(self.clone, branch, {file: key})
        number = (await self.sandbox.open_pull(branch))["number"]
        path = self.folder / f"{key}.json"
        facts = {"key": key, "branch": branch, "head": head, "pull": number, "step": 1, "attempt": 0}
        path.write_text(json.dumps({**facts, "lease": None, "candidate": None, "green": None, "ended": ""}))
        self.records[key], self.sides[key] = path, file

    async def push_main(self, name: str) -> None:
        """A person pushes past the gate."""
        await self.git("fetch", "-q", "origin")
        await self.git("checkout", "-q", "-B", "main", "origin/main")
        await self.sandbox.push(self.clone, "main", {name: "by hand"})
        self.by_hand.append(name)

    async def run(self, key: str, **fate: Any) -> dict[str, Any]:
        """A worker takes a task on from what is on record."""
        order = {"at": 0, "signal": int(signal.SIGKILL), **fate}
        log = str(self.folder / "log")
        answer = await self.workers.order(record=str(self.records[key]), log=log, **order)
        self.killed += answer["how"] == "killed"
        self.stopped += answer["how"] == "stopped"
        assert answer["how"] != "1", (self.folder / "log").read_text()
        return answer

    async def revive(self, child: int) -> None:
        """A worker that was given up goes on."""
        await self.workers.order(revive=child)

    def ended(self, key: str) -> str:
        """What is on record of a task's end."""
        return str(json.loads(self.records[key].read_text())["ended"])

    async def files(self, sha: str) -> set[str]:
        """The files of a commit."""
        return set((await self.git("ls-tree", "-r", "--name-only", sha)).split())


def is_green(files: set[str]) -> bool:
    """What check.sh says, said without it."""
    lefts = {name.removeprefix("left-") for name in files if name.startswith("left-")}
    return not any(f"right-{number}" in files for number in lefts)


@pytest.fixture
async def gated(tmp_path: Path, postgres: Postgres, pool: asyncpg.Pool) -> AsyncIterator[Gated]:
    """A sandbox, empty tables, and the process that forks."""
    await pool.execute("TRUNCATE fences, leases, merge_landings, freezes")
    (tmp_path / "home").mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.proof.gate_process",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with harness(tmp_path / "sandbox", gitea_conflict_check_delay=0.0) as sandbox:
            await sandbox.seed(allow_fast_forward_only_merge=True)
            common = {
                "home": str(tmp_path / "home"),
                "gitea": sandbox.sandbox.gitea_url,
                "token": GITEA_TOKENS["author-bot"],
                "reviewer_token": GITEA_TOKENS["review-bot"],
                "database": postgres.url,
            }
            gated = Gated(sandbox, Workers(process, common), tmp_path)
            await gated.begin()
            yield gated
    finally:
        process.kill()
        await process.wait()


async def disturb(gated: Gated, keys: list[str], dice: random.Random) -> list[int]:
    """Kill, stop and overtake workers until every task has ended; the workers that are still stopped."""
    # Every task passes at least eight boundaries: one worker is stopped and one is killed in each example.
    stopped = await gated.run(keys[0], at=dice.randrange(1, 9), signal=int(signal.SIGSTOP))
    zombies = [stopped["child"]]
    await gated.run(keys[1], at=dice.randrange(1, 9), signal=int(signal.SIGKILL))
    for _ in range(RUNS):
        open_keys = [key for key in keys if not gated.ended(key)]
        if not open_keys:
            break
        key = dice.choice(open_keys)
        if dice.random() < 0.3:
            await gated.run(key, delay=dice.uniform(0.02, 0.6))
        else:
            fate = signal.SIGSTOP if dice.random() < 0.35 else signal.SIGKILL
            answer = await gated.run(key, at=dice.randrange(1, BOUNDARIES), signal=int(fate))
            if answer["how"] == "stopped":
                zombies.append(answer["child"])
        if zombies and dice.random() < 0.5:
            await gated.revive(zombies.pop(dice.randrange(len(zombies))))
        if dice.random() < 0.15:
            await gated.push_main(f"hand-{dice.randrange(10**6)}")
    for key in keys:
        if not gated.ended(key):
            await gated.run(key)
    return zombies


@pytest.mark.timeout(500)
@pytest.mark.parametrize("first", range(0, REPOSITORIES * EXAMPLES, EXAMPLES))
async def test_kills_and_zombies_leave_main_green_and_every_change_on_it_once(
    gated: Gated, pool: asyncpg.Pool, first: int
) -> None:
    """Whatever boundary a worker dies or revives at, tips of main are green, and no change is lost or doubled."""
    for example in range(first, first + EXAMPLES):
        dice = random.Random(example)
        keys = [f"PAY-{10 * example + number}" for number in range(1, TASKS + 1)]
        clash = dice.random() < 0.5
        for number, key in enumerate(keys):
            side = ("left", "right")[number % 2] if clash else "left"
            await gated.task(key, f"{side}-{example if clash else key}", commits=dice.choice((1, 2)))
        for child in await disturb(gated, keys, dice):
            await gated.revive(child)
        ends = sorted(gated.ended(key) for key in keys)
        assert ends == (["landed", "red"] if clash else ["landed", "landed"]), f"example {example}"
        await _check(gated, pool)
    assert gated.killed >= EXAMPLES
    assert gated.stopped >= EXAMPLES


async def _check(gated: Gated, pool: asyncpg.Pool) -> None:
    await gated.git("fetch", "-q", "origin")
    main = await gated.git("rev-parse", "origin/main")
    files = await gated.files(main)
    log = (await gated.git("log", "--format=%s", main)).splitlines()
    for key, file in gated.sides.items():
        landed = gated.ended(key) == "landed"
        assert log.count(f"Change {file}") == landed, key
        assert (file in files) == landed, key
    for name in gated.by_hand:
        assert log.count(f"Change {name}") == 1
        assert name in files
    rows = await pool.fetch("SELECT task, candidate, status FROM merge_landings")
    landed_rows = [row for row in rows if row["status"] == "landed"]
    done = [key for key in gated.records if gated.ended(key) == "landed"]
    assert {row["task"] for row in landed_rows} == set(done)
    assert len({row["candidate"] for row in landed_rows}) == len(done)
    for row in landed_rows:
        assert is_green(await gated.files(row["candidate"])), row["task"]
        assert await gated.git("merge-base", main, row["candidate"]) == row["candidate"], row["task"]
