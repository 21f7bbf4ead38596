"""One service as data, and the keeper that starts it, heals it and stops it."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM, Signals

import psutil

from deploy import processes
from deploy.accounts import Account
from deploy.errors import StackError
from deploy.logs import open_log, tail
from deploy.state import ServicePhase, ServiceRecord

_FIRST_TRIES = 3
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 15.0
_HEALTHY_AFTER = 10.0


@dataclass(frozen=True)
class Service:
    """A program to keep running. `ready`, given the moment of the start, says whether it serves by now."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[datetime], Awaitable[bool]]
    log: Path
    stop_signal: Signals = SIGTERM
    stop_timeout: float = 10.0
    ready_timeout: float = 60.0
    cwd: Path = Path("/")
    account: Account | None = None
    before_each_start: Callable[[], Awaitable[None]] | None = None
    """Heals what an earlier life left behind."""
    once_ready: Callable[[], Awaitable[None]] | None = None
    """What the services after this one need, done once when the stack starts."""


@dataclass
class Keeper:
    """Keeps one service running. `changed` is called whenever the record changes."""

    service: Service
    changed: Callable[[], None]
    record: ServiceRecord = field(init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _watch: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.record = ServiceRecord(
            log=self.service.log, stop_signal=self.service.stop_signal, stop_timeout=self.service.stop_timeout
        )

    async def start(self) -> None:
        """Start the service, wait until it is ready, and keep it running from then on.

        Raises:
            StackError: it did not become ready.
        """
        for attempt in range(1, _FIRST_TRIES + 1):
            try:
                await self._start_once()
                break
            except _EndedEarlyError as ended:
                if attempt == _FIRST_TRIES:
                    raise StackError(f"{ended}\n{self._log_hint()}") from ended
                await asyncio.sleep(attempt * 0.5)
        if self.service.once_ready is not None:
            await self.service.once_ready()
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self.service.name}")

    async def stop(self) -> None:
        """Stop the service and everything it started."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        await self._end()
        self._note(ServicePhase.STOPPED, process=None)

    def check(self) -> None:
        """Raise what ended the keeping, which should never be."""
        if self._watch is not None and self._watch.done() and not self._watch.cancelled():
            self._watch.result()

    async def _start_once(self) -> None:
        started = await self._spawn()
        await self._until_ready(started)
        self._note(ServicePhase.RUNNING)

    async def _spawn(self) -> datetime:
        service = self.service
        if service.before_each_start is not None:
            await service.before_each_start()
        started = datetime.now(UTC)
        log = open_log(service.log)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *service.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=service.cwd,
                env=dict(service.env),
                start_new_session=True,
                **(service.account.run_as if service.account else {}),
            )
        except OSError as error:
            raise StackError(f"{service.name} cannot be started: {service.argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        self.record.since = started
        phase = ServicePhase.RESTARTING if self.record.restarts else ServicePhase.STARTING
        self._note(phase, process=processes.record(self._process.pid))
        return started

    async def _until_ready(self, started: datetime) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.service.ready_timeout
        while True:
            if self._process.returncode is not None:
                raise _EndedEarlyError(f"{self.service.name} ended with {self._exit()} before it was ready")
            if await self.service.ready(started):
                return
            if time.monotonic() > deadline:
                await self._end()
                raise _EndedEarlyError(f"{self.service.name} was not ready in {self.service.ready_timeout:g} s")
            await asyncio.sleep(0.05)

    async def _keep(self) -> None:
        """Start the service again whenever it ends, after a pause that grows while it does not stay up."""
        pause = _FIRST_PAUSE
        while True:
            assert self._process is not None
            await self._process.wait()
            await self._sweep()
            up = (datetime.now(UTC) - self.record.since).total_seconds() if self.record.since else 0.0
            pause = _FIRST_PAUSE if up > _HEALTHY_AFTER else pause
            self.record.last_exit = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {self._exit()}"
            self.record.restarts += 1
            self._note(ServicePhase.RESTARTING, process=None)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self._start_once()
            except (_EndedEarlyError, StackError, OSError) as error:
                self.record.last_exit = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {error}"

    async def _sweep(self) -> None:
        """End what a dead service left running in its session."""
        if self._process is not None:
            await processes.kill(processes.session(self._process.pid))

    async def _end(self) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(self._process.pid)
                await processes.stop_tree(process, self.service.stop_signal, self.service.stop_timeout)
            await self._process.wait()
        else:
            await self._sweep()

    def _note(self, phase: ServicePhase, **fields: object) -> None:
        self.record = self.record.model_copy(update={"phase": phase, **fields})
        self.changed()

    def _exit(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if code is not None and code < 0:
            return f"signal {Signals(-code).name}"
        return f"exit code {code}"

    def _log_hint(self) -> str:
        return f"The end of {self.service.log}:\n{tail(self.service.log)}"


class _EndedEarlyError(Exception):
    """A start that did not lead to a service that is ready."""
