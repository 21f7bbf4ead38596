"""A workspace lock that an orphaned child keeps holding after its orchestrator was killed."""

import asyncio
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from activities.adapters.errors import LockHeld

_POLL = 0.1
_MAX_BYTES = 4096
# One second: psutil derives the creation time from clock ticks since boot, which wobbles by milliseconds.
_SAME_TIME = 1.0


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who took the lock. A pid is reused, so only pid and creation time (Unix seconds) name a process."""

    pid: int
    create_time: float
    run_id: str = ""

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.create_time) < _SAME_TIME
        except psutil.Error:
            return False


class WorkspaceLock:
    """An exclusive `flock` on `path`, handed down to child processes.

    The lock belongs to the open file, not to the process: a child that inherited `fd` keeps it when the
    orchestrator dies, so the next attempt waits until the last user of the workspace is gone. `run_id` is
    stored for it: `process_tree.kill_run` can end what it names.
    """

    def __init__(self, path: Path, run_id: str = "") -> None:
        self._path = path
        self._run_id = run_id
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor to hand to children; only while the lock is held."""
        if self._fd is None:
            raise RuntimeError(f"{self._path} is not locked")
        return self._fd

    async def acquire(self, timeout: float) -> None:  # noqa: ASYNC109 - the error names the owner
        """Take the lock, waiting up to `timeout` seconds.

        Raises:
            LockHeld: it is still taken.
        """
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= deadline:
                owner = self.owner()
                raise LockHeld(f"{self._path.name} is in use", owner=asdict(owner) if owner else None)
            await asyncio.sleep(_POLL)

    def release(self) -> None:
        """Let go. Only our descriptor is closed: a child that still has it keeps the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def owner(self) -> LockOwner | None:
        """Who took the lock last, held or not, as far as the file tells."""
        try:
            data = json.loads(self._path.read_bytes()[:_MAX_BYTES])
            return LockOwner(int(data["pid"]), float(data["create_time"]), str(data.get("run_id", "")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    async def __aenter__(self) -> Self:
        await self.acquire(timeout=60.0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try(self) -> bool:
        if self._fd is not None:
            raise RuntimeError(f"{self._path} is locked already")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            me = LockOwner(os.getpid(), psutil.Process().create_time(), self._run_id)
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(me)).encode(), 0)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True
