"""Supervising one agent process: it is watched, logged as it comes, and nothing of it outlives its end."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from activities.adapters.locks import WorkspaceLock
from activities.adapters.process import ProcessResult, run
from activities.interceptor import note_progress
from activities.runners.base import Job, Reading, Runner, Watch
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings

WALL_CLOCK = 3 * 3600
"""Seconds one agent process may live."""
CORRECTION = 15 * 60
"""Seconds for a turn that only has to give the verdict."""
LOG_LIMIT = 256 * 1024 * 1024
"""Bytes of one run's output that are kept on the disk."""
_TAIL = 4 * 1024 * 1024
_LOOK = 0.25
"""Seconds between two looks at a running process."""


class Supervisor:
    """Runs agent processes on this host."""

    def __init__(self, isolation: Isolation, settings: WorkerSettings) -> None:
        self._isolation = isolation
        self._grace = settings.agent_stop_grace

    async def confines(self) -> bool:
        """Whether processes are confined here by bubblewrap."""
        return await self._isolation.confines()

    async def run(
        self, runner: Runner, job: Job, run_id: str, lock: WorkspaceLock, log: Path
    ) -> tuple[Reading, float, bool]:
        """Run a job to its end: what came of it, its seconds, and whether we were cancelled meanwhile.

        The caller passes a cancellation on when it has written down what the run had cost until then.
        """
        command = runner.command(job)
        cage = await self._isolation.cage(
            job.workspace,
            (job.data, *command.writable),
            {**_identity(), **command.env},
            readable=command.readable,
            network=command.network,
        )
        watch, stop, started = runner.watch(job), asyncio.Event(), time.monotonic()
        looker = asyncio.create_task(_look(watch, stop))
        result: ProcessResult | None = None
        try:
            with _log(log) as write:

                def take(chunk: bytes) -> None:
                    write.add(chunk)
                    watch.feed(chunk)

                result = await run(
                    [*cage.argv, *command.argv],
                    cwd=job.workspace,
                    env=cage.env,
                    timeout=CORRECTION if job.turn == "correct" else WALL_CLOCK,
                    stdin=command.stdin,
                    max_output_bytes=_TAIL,
                    on_output=take,
                    merge_stderr=False,
                    run_id=run_id,
                    lock=lock,
                    grace=self._grace,
                    stop=stop,
                )
        except asyncio.CancelledError:
            return watch.read(None), time.monotonic() - started, True
        finally:
            looker.cancel()
        return watch.read(result), result.duration, False


class _Log:
    """Output on the disk: what a killed worker's run had used is read from it."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._left = LOG_LIMIT - file.tell()

    def add(self, chunk: bytes) -> None:
        if self._left > 0:
            self._file.write(chunk[: self._left])
            self._left -= len(chunk)


@contextlib.contextmanager
def _log(path: Path) -> Iterator[_Log]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        yield _Log(file)


async def _look(watch: Watch, stop: asyncio.Event) -> None:
    while True:
        note_progress(watch.progress())
        if watch.overdue():
            stop.set()
            return
        await asyncio.sleep(_LOOK)


def _identity() -> dict[str, str]:
    """Who an agent commits as; the clone's own configuration is not trusted to say."""
    name, email = "Orch Agent", "agent@orch.invalid"
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        # A collection in the background would outlive the command that started it.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "gc.auto",
        "GIT_CONFIG_VALUE_0": "0",
    }
