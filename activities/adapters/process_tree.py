"""Ending everything a run has started, also what has left its process group and its parent.

A process group is not enough: a command that did `setsid` or a double fork has left it
(contracts/agents/agents.md, 6.5). So each run's environment carries a unique marker, which children inherit.
What clears its environment, leaves the session and outlives its parent is found only by a cage with a process
namespace of its own; that is what the isolation of agents is for.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable

import psutil

CAGE = "bwrap"
"""A program that does not pass TERM on but ends its whole cage at once: it is left alone until the grace is over."""
RUN_ID_VARIABLE = "ORCH_RUN_ID"
"""The environment variable that marks every process of a run."""
_POLL = 0.05
_KILL_ROUNDS = 40


async def kill_run(run_id: str, *, root: psutil.Process | None = None, grace: float = 5.0) -> int:
    """End every process of a run: TERM, up to `grace` seconds, then KILL until none is left.

    `root` is the process the run started with, where it is known; without it the marker alone is used, which
    is how the leftovers of a killed worker are swept. Returns how many processes were alive when it began.
    """
    found = await asyncio.to_thread(_processes, run_id, root)
    first = len(found)
    _signal(found, hard=False)
    deadline = time.monotonic() + grace
    while found and time.monotonic() < deadline:
        await asyncio.sleep(_POLL)
        found = _alive(found)
    # Rounds, because a process can fork between our look and our signal; a stopped child makes no more.
    for _ in range(_KILL_ROUNDS):
        found = _alive({*found, *await asyncio.to_thread(_processes, run_id, root)})
        if not found:
            break
        _signal(found, hard=True)
        await asyncio.sleep(_POLL)
    return first


def _processes(run_id: str, root: psutil.Process | None) -> set[psutil.Process]:
    """Every living process of the run: by marker, by session or group of the root, by descent from it."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    marker = f"{RUN_ID_VARIABLE}={run_id}".encode()
    found = {
        process
        for process in psutil.process_iter()
        if process.pid not in spared and (_in_session(process.pid, root) or _marked(process.pid, marker))
    }
    if root is not None:
        # Raises once the root is gone, also when its pid has been given to another process.
        with contextlib.suppress(psutil.Error):
            found |= {root, *root.children(recursive=True)}
    return set(_alive(process for process in found if process.pid not in spared))


def _in_session(pid: int, root: psutil.Process | None) -> bool:
    try:
        # The root itself is found by identity, because its pid may be another process by now.
        return root is not None and pid != root.pid and root.pid in (os.getsid(pid), os.getpgid(pid))
    except OSError:
        return False


def _marked(pid: int, marker: bytes) -> bool:
    try:
        # Read directly: psutil would parse and decode every variable of every process on the machine.
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - hot loop over all processes
            return marker in file.read().split(b"\0")
    except OSError:
        return False


def _alive(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    return {process for process in processes if _is_alive(process)}


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(processes: Iterable[psutil.Process], *, hard: bool) -> None:
    for process in processes:
        try:
            # psutil compares the creation time first, so a reused pid is never hit.
            if hard:
                process.kill()
            elif process.name() != CAGE:
                process.terminate()
        except psutil.Error:
            continue
