"""Running a program: it inherits nothing of ours, takes bounded memory, and leaves nothing behind.

A program dies with the worker that started it (`setpriv --pdeathsig`). The kernel binds that to the spawning
*thread*, so programs are started on the event loop's thread, which lives as long as the worker
(contracts/agents/agents.md, 6.6).
"""

import asyncio
import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

import psutil

from activities.adapters.errors import ProcessNotStarted
from activities.adapters.locks import WorkspaceLock
from activities.adapters.process_tree import RUN_ID_VARIABLE, kill_run

_DRAIN = 1.0
"""Seconds to wait for the pipes after the end: a background child may hold them open for ever."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a program ended.

    `exit_code` is negative for a signal, as in subprocess. `stdout` and `stderr` are the last
    `max_output_bytes` of each; `truncated` says that there was more. `duration` is seconds.
    After a timeout the whole tree is gone.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    duration: float
    timed_out: bool

    @property
    def output_tail(self) -> str:
        """What the program wrote, as text; bytes that are not UTF-8 become replacement characters."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass(slots=True)
class _Tail:
    """The last `limit` bytes of an endless stream."""

    limit: int
    data: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def feed(self, chunk: bytes) -> None:
        self.data += chunk
        # Cut only at twice the limit, so that the cost stays linear in what was written.
        if len(self.data) > 2 * self.limit:
            self.cut()

    def cut(self) -> bytes:
        if len(self.data) > self.limit:
            del self.data[: len(self.data) - self.limit]
            self.truncated = True
        return bytes(self.data)


class LineSplitter:
    """Cuts chunks into lines without their ends; of one longer than `max_line_bytes` the rest is dropped."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._line = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for part in complete:
            self._add(part)
            lines.extend(self.flush(even_empty=True))
        self._add(rest)
        return lines

    def flush(self, *, even_empty: bool = False) -> list[bytes]:
        """What is left without a line end, at the end of the stream."""
        line = bytes(self._line)
        self._line.clear()
        return [line] if line or even_empty else []

    def _add(self, part: bytes) -> None:
        self._line += part[: max(0, self._max - len(self._line))]


class _Protocol(asyncio.SubprocessProtocol):
    """Collects output as it comes. Exit and end of output are two events: a background child parts them."""

    def __init__(self, max_output_bytes: int, on_output: Callable[[bytes], None] | None) -> None:
        self.tails = {1: _Tail(max_output_bytes), 2: _Tail(max_output_bytes)}
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()
        self.failure: Exception | None = None
        self._on_output = on_output

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.tails[fd].feed(data)
        if fd != 1 or self._on_output is None or self.failure is not None:
            return
        try:
            self._on_output(data)
        except Exception as error:  # noqa: BLE001 - the caller's own error, given back to it by `run`
            self.failure = error
            self.exited.set()

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.closed.set()


async def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - a timeout is a result here, reached only after the tree is gone
    stdin: bytes | None = None,
    max_output_bytes: int = 1024 * 1024,
    on_output: Callable[[bytes], None] | None = None,
    on_start: Callable[[int], None] | None = None,
    merge_stderr: bool = True,
    run_id: str | None = None,
    lock: WorkspaceLock | None = None,
    grace: float = 5.0,
    sweep: bool = True,
    stop: asyncio.Event | None = None,
) -> ProcessResult:
    """Run a program to its end, or to `timeout` seconds, and leave nothing of it behind.

    `env` is the complete environment; only the marker `ORCH_RUN_ID` is added. `on_output` gets each chunk of
    standard output as it comes, `on_start` the pid; both must be quick. `lock` is inherited, so that it is
    held while anything of the run lives. `grace` is the seconds between TERM and KILL. `sweep` also ends what
    the program left in the background; without it only a timeout or a cancellation does. When `stop` is set, the
    program is ended as after a timeout, which it then is not.

    Raises:
        ProcessNotStarted: no such program or directory.
        asyncio.CancelledError: after the whole tree is gone.
    """
    marker = run_id or uuid.uuid4().hex
    protocol = _Protocol(max_output_bytes, on_output)
    started = time.monotonic()
    transport = await _spawn(
        protocol,
        argv,
        cwd=cwd,
        env={**env, RUN_ID_VARIABLE: marker},
        stdin=stdin,
        merge_stderr=merge_stderr,
        lock=lock,
    )
    root = _process(transport.get_pid())
    clean = False
    timed_out = False
    try:
        if on_start is not None:
            on_start(transport.get_pid())
        try:
            stopped = await _exit_or(stop, protocol.exited, timeout)
            clean = protocol.failure is None and not sweep and not stopped
        except TimeoutError:
            timed_out = True
        if clean:
            await _drained(protocol)
    finally:
        try:
            if not clean:
                await _to_the_end(_end(protocol, marker, root, grace))
        finally:
            exit_code = transport.get_returncode()
            transport.close()
    if protocol.failure is not None:
        raise protocol.failure
    tails = protocol.tails
    return ProcessResult(
        exit_code=exit_code if exit_code is not None else -9,
        stdout=tails[1].cut(),
        stderr=tails[2].cut(),
        truncated=tails[1].truncated or tails[2].truncated,
        duration=time.monotonic() - started,
        timed_out=timed_out,
    )


async def _exit_or(stop: asyncio.Event | None, exited: asyncio.Event, patience: float) -> bool:
    """Wait for either; True if it was told to stop before it exited.

    Raises:
        TimeoutError: neither came.
    """
    waits = [asyncio.ensure_future(event.wait()) for event in (exited, stop) if event is not None]
    try:
        done, _ = await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if not done:
        raise TimeoutError
    return not exited.is_set()


async def _spawn(
    protocol: _Protocol,
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes | None,
    merge_stderr: bool,
    lock: WorkspaceLock | None,
) -> asyncio.SubprocessTransport:
    command = [os.fspath(part) for part in argv]
    # A relative path means relative to `cwd`, as for the program itself, not to where the worker runs.
    wanted = str(cwd / command[0]) if "/" in command[0] else command[0]
    program = shutil.which(wanted, path=env.get("PATH", os.defpath))
    if program is None:
        raise ProcessNotStarted(f"there is no program {command[0]!r} on the PATH given to it")
    wrapper = _death_with_parent()
    try:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: protocol,
            *(*wrapper, program, *command[1:]),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if merge_stderr else asyncio.subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
            pass_fds=(lock.fd,) if lock is not None else (),
        )
    except OSError as error:
        raise ProcessNotStarted(f"cannot start {command[0]!r} in {cwd}: {error.strerror}") from None
    pipe = cast("asyncio.WriteTransport | None", transport.get_pipe_transport(0))
    if pipe is not None and stdin:
        pipe.write(stdin)
        pipe.write_eof()
    return transport


@cache
def _death_with_parent() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


async def _end(protocol: _Protocol, marker: str, root: psutil.Process | None, grace: float) -> None:
    await kill_run(marker, root=root, grace=grace)
    await _drained(protocol)


async def _drained(protocol: _Protocol) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(protocol.closed.wait(), _DRAIN)


async def _to_the_end(work: Coroutine[object, object, None]) -> None:
    """Finish `work` even if we are cancelled meanwhile, and pass the cancellation on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
