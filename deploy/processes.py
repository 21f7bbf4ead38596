"""Finding and ending processes without ever touching one that is not ours."""

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from deploy.state import ProcessRecord

MARKER = "ORCH_STACK_HOME"
"""In the environment of every process of a stack: whose it is, even where no record of it was kept."""
_SAME_MOMENT = 1.5
_KILL_PATIENCE = 5.0


def record(pid: int) -> ProcessRecord | None:
    """Remember a running process."""
    try:
        return ProcessRecord(pid=pid, create_time=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that ended and was not collected by its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find(remembered: ProcessRecord | None) -> psutil.Process | None:
    """The remembered process if it still runs; never another one that was given its number."""
    if remembered is None:
        return None
    try:
        process = psutil.Process(remembered.pid)
        same = abs(process.create_time() - remembered.create_time) < _SAME_MOMENT
    except psutil.NoSuchProcess:
        return None
    return process if same and is_alive(process) else None


def postgres_in(data: Path) -> list[psutil.Process]:
    """All PostgreSQL processes that work in this data folder: they change into it when they start."""
    return [p for p in psutil.process_iter() if is_alive(p) and _is_postgres_in(p, str(data))]


def marked(home: Path) -> list[psutil.Process]:
    """All processes that were started for this home, except the one that asks and those above it."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in spared and _mark(p) == str(home) and is_alive(p)]


def _parent_of(process: psutil.Process) -> int | None:
    """The id of the process that started it, or None if it is gone."""
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _is_postgres_in(process: psutil.Process, data: str) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == data
    except (psutil.Error, OSError):
        return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except (psutil.Error, OSError):
        return None


async def stop_tree(process: psutil.Process, stop_signal: int, patience: float) -> bool:
    """Ask a process to stop, then end whatever is left of it and of what it started.

    Returns:
        Whether it stopped by itself in time.
    """
    tree = _descendants(process)
    _send(process, stop_signal)
    obeyed = await gone([process], patience)
    left = {p.pid: p for p in (process, *tree, *_descendants(process), *session(process.pid))}
    await kill(left.values())
    return obeyed


async def stop_postgres(data: Path) -> bool:
    """End every server process that works in this data folder, gently where its leader still lives.

    Returns:
        Whether there was one.
    """
    left = await asyncio.to_thread(postgres_in, data)
    parents = {_parent_of(process) for process in left}
    for leader in [process for process in left if process.pid in parents]:
        await stop_tree(leader, signal.SIGINT, 20)
    await kill(left)
    return bool(left)


async def kill(processes: Iterable[psutil.Process]) -> None:
    """End these processes at once and wait until they are gone."""
    left = [p for p in processes if is_alive(p)]
    for process in left:
        _send(process, signal.SIGKILL)
    await gone(left, _KILL_PATIENCE)


async def gone(processes: list[psutil.Process], patience: float) -> bool:
    """Wait until none of them runs; say whether that came in time."""
    deadline = time.monotonic() + patience
    while any(is_alive(p) for p in processes):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def session(leader: int) -> list[psutil.Process]:
    """What is left of the session a service was started in, even after its leader ended."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                members.append(process)
        except OSError:
            continue
    return members


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
