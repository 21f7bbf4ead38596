"""A keeper with small programs in place of servers: starting, healing, stopping."""

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from deploy import processes
from deploy.errors import StackError
from deploy.service import Keeper, Service
from deploy.state import ServicePhase

SERVE = "import pathlib, os, time; pathlib.Path('ready').write_text(str(os.getpid())); time.sleep(60)"


async def until(condition: object, seconds: float = 20) -> None:
    """Wait until the condition, a function, answers True."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def service(folder: Path, code: str) -> Service:
    """A service that is ready when it has written its process id to the file `ready`."""

    async def ready(started: datetime) -> bool:
        path = folder / "ready"
        return path.exists() and path.stat().st_mtime >= started.timestamp() - 1

    return Service(
        name="small",
        argv=(sys.executable, "-c", code),
        env={"PATH": os.defpath},
        ready=ready,
        log=folder / "small.log",
        cwd=folder,
        stop_timeout=5,
        ready_timeout=20,
    )


@pytest.fixture
async def keepers() -> AsyncIterator[list[Keeper]]:
    """Keepers put here are stopped at the end."""
    made: list[Keeper] = []
    yield made
    for keeper in made:
        await keeper.stop()


async def test_killed_service_is_started_again(tmp_path: Path, keepers: list[Keeper]) -> None:
    """A service that is killed runs again within seconds, and how it ended is kept."""
    keeper = Keeper(service(tmp_path, SERVE), lambda: None)
    keepers.append(keeper)
    await keeper.start()
    assert keeper.record.process is not None
    first = keeper.record.process.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: keeper.record.restarts == 1 and keeper.record.phase is ServicePhase.RUNNING)
    assert keeper.record.process.pid != first
    assert keeper.record.last_exit is not None
    assert "signal SIGKILL" in keeper.record.last_exit


async def test_what_is_prepared_is_prepared_once(tmp_path: Path, keepers: list[Keeper]) -> None:
    """What follows the first start is not repeated when the service is healed; what precedes a start is."""
    calls: list[str] = []

    async def before() -> None:
        calls.append("before")

    async def after() -> None:
        calls.append("after")

    small = dataclasses.replace(service(tmp_path, SERVE), before_each_start=before, once_ready=after)
    keeper = Keeper(small, lambda: None)
    keepers.append(keeper)
    await keeper.start()
    assert keeper.record.process is not None
    os.kill(keeper.record.process.pid, signal.SIGKILL)
    await until(lambda: keeper.record.restarts == 1 and keeper.record.phase is ServicePhase.RUNNING)
    assert calls == ["before", "after", "before"]


async def test_stop_ends_what_the_service_started(tmp_path: Path) -> None:
    """Stopping a service ends its children too, even those that left its process group."""
    code = (
        "import subprocess, pathlib, time\n"
        "same = subprocess.Popen(['sleep', '61'])\n"
        "own = subprocess.Popen(['sleep', '62'], start_new_session=True)\n"
        "pathlib.Path('children').write_text(f'{same.pid} {own.pid}')\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    keeper = Keeper(service(tmp_path, code), lambda: None)
    await keeper.start()
    children = [psutil.Process(int(pid)) for pid in (tmp_path / "children").read_text().split()]
    assert all(processes.is_alive(child) for child in children)
    await keeper.stop()
    assert not any(processes.is_alive(child) for child in children)
    assert keeper.record.phase is ServicePhase.STOPPED


async def test_service_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """A service that does not obey is ended after its time."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE
    small = dataclasses.replace(service(tmp_path, stubborn), stop_timeout=0.3)
    keeper = Keeper(small, lambda: None)
    await keeper.start()
    assert keeper.record.process is not None
    process = psutil.Process(keeper.record.process.pid)
    await keeper.stop()
    assert not processes.is_alive(process)


async def test_service_that_ends_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    """A program that cannot start says so with exit code and the end of its log."""
    keeper = Keeper(service(tmp_path, "import sys; sys.exit('no such table')"), lambda: None)
    with pytest.raises(StackError, match=r"small ended with exit code 1 before it was ready(.|\n)+no such table"):
        await keeper.start()
    await keeper.stop()


async def test_service_that_never_becomes_ready_is_stopped(tmp_path: Path) -> None:
    """A program that runs but does not serve is an error, and does not stay."""
    small = dataclasses.replace(service(tmp_path, "import time; time.sleep(60)"), ready_timeout=0.3)
    keeper = Keeper(small, lambda: None)
    with pytest.raises(StackError, match=r"small was not ready in 0.3 s"):
        await keeper.start()
    assert keeper.record.process is not None
    assert processes.find(keeper.record.process) is None


async def test_missing_program_is_named(tmp_path: Path) -> None:
    """A program that is not there is named."""
    small = dataclasses.replace(service(tmp_path, ""), argv=("/nowhere/server",))
    with pytest.raises(StackError, match="small cannot be started: /nowhere/server: No such file or directory"):
        await Keeper(small, lambda: None).start()
