"""The embedded stack: everything Orch needs on one machine, without containers and without asking anybody.

`EmbeddedStack` is what the command line and the tests use; the work is done by the supervisor it starts.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import filelock

from deploy import environment, leftovers, processes
from deploy.catalogue import SERVICES, in_order
from deploy.errors import StackError
from deploy.home import Home
from deploy.locks import operation_lock, supervisor_lock
from deploy.logs import open_log, tail
from deploy.postgres_files import data_places
from deploy.state import Phase, ServicePhase, StackState
from deploy.status import StackStatus, Stopped, read_status

_POLL = 0.05
_LAUNCHED: list[subprocess.Popen[bytes]] = []
"""Supervisors outlive the command that starts them; kept so that nothing tries to end or collect them."""


class EmbeddedStack:
    """One stack in one home folder. Safe to use from several processes at once."""

    def __init__(
        self,
        home: Path | None = None,
        services: tuple[str, ...] = SERVICES,
        *,
        prefer_ports: Mapping[str, int] | None = None,
        owner_pid: int | None = None,
    ) -> None:
        """Describe a stack; nothing is touched yet.

        Args:
            home: its folder; by default `ORCH_HOME` or the user's data folder.
            services: which services, of `SERVICES`.
            prefer_ports: ports to take if they are free and none were chosen before.
            owner_pid: the stack stops by itself when this process is gone.
        """
        self.home = Home.at(home)
        self.services = in_order(services)
        self._prefer_ports = dict(prefer_ports or {})
        self._owner_pid = owner_pid

    async def up(self, *, timeout: float = 180, progress: Callable[[str], None] | None = None) -> StackStatus:  # noqa: ASYNC109
        """Start the stack unless it runs, and wait until all of it is ready.

        Args:
            timeout: seconds to wait; the stack goes on starting after that.
            progress: called with each step.

        Raises:
            StackError: it did not start; says what, where and how to mend it.
        """
        deadline = time.monotonic() + timeout
        self.home.create()
        async with self._operating(deadline):
            state = StackState.read(self.home)
            supervisor = processes.find(state.supervisor)
            if supervisor is not None and state.phase is Phase.STOPPING:
                await processes.gone([supervisor], deadline - time.monotonic())
                supervisor = processes.find(state.supervisor)
            if supervisor is None:
                await self._launch(deadline)
            elif missing := [name for name in self.services if name not in state.services and state.services]:
                raise StackError(
                    f"the stack in {self.home.root} runs without {', '.join(missing)}; run `orch down` first"
                )
        return await self._until_up(deadline, progress or (lambda _step: None))

    async def down(self, *, timeout: float = 120) -> Stopped:  # noqa: ASYNC109
        """Stop everything, whatever state it is in. Data, ports and secrets stay.

        Raises:
            StackError: another `orch up` or `orch down` does not finish.
        """
        if not self.home.run.exists():
            return Stopped(was_running=False, leftovers=())
        deadline = time.monotonic() + timeout
        async with self._operating(deadline):
            state = StackState.read(self.home)
            supervisor = processes.find(state.supervisor)
            left = []
            if supervisor is not None:
                supervisor.send_signal(signal.SIGTERM)
                if not await processes.gone([supervisor], deadline - time.monotonic()):
                    left.append("supervisor")
                    await processes.kill([supervisor])
            left += await self._clean()
        return Stopped(was_running=supervisor is not None, leftovers=tuple(left))

    def status(self) -> StackStatus:
        """What is known of the stack now, without asking its services."""
        return read_status(self.home)

    async def destroy(self) -> None:
        """Stop everything and delete the home folder with all data, wherever they are."""
        await self.down()
        state = StackState.read(self.home)
        if self.home.secrets_file.exists():
            for data in data_places(self.home, state.postgres):
                shutil.rmtree(data, ignore_errors=True)
                if data.parent.name != "postgres":
                    shutil.rmtree(data.parent, ignore_errors=True)
            shutil.rmtree(self.home.root, ignore_errors=True)

    async def _launch(self, deadline: float) -> None:
        """Start a supervisor and wait until it holds the lock and has said so."""
        launch = secrets.token_hex(8)
        argv = [sys.executable, "-P", "-m", "deploy.supervisor", "--home", str(self.home.root)]
        argv += ["--services", ",".join(self.services), "--launch", launch]
        argv += [part for name, port in self._prefer_ports.items() for part in ("--port", f"{name}={port}")]
        argv += ["--owner", str(self._owner_pid)] if self._owner_pid is not None else []
        process = self._spawn(argv)
        while StackState.read(self.home).launch != launch:
            if process.poll() is not None and StackState.read(self.home).launch != launch:
                raise StackError(
                    f"the supervisor ended with exit code {process.returncode}. The end of"
                    f" {self.home.log('supervisor')}:\n{tail(self.home.log('supervisor'))}"
                )
            if time.monotonic() > deadline:
                raise StackError(f"the supervisor did not begin; see {self.home.log('supervisor')}")
            await asyncio.sleep(_POLL)

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        outer = {key: value for key, value in os.environ.items() if key != processes.MARKER}
        log = open_log(self.home.log("supervisor"))
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home.root,
                env=outer | environment.source_path(outer),
                start_new_session=True,
            )
        finally:
            os.close(log)
        _LAUNCHED.append(process)
        return process

    async def _until_up(self, deadline: float, progress: Callable[[str], None]) -> StackStatus:
        step = ""
        while True:
            status = self.status()
            if status.step and status.step != step:
                step = status.step
                progress(step)
            if status.phase is Phase.RUNNING:
                return status
            if status.phase in {Phase.FAILED, Phase.STOPPED, Phase.ABANDONED}:
                why = status.error or f"it was stopped meanwhile; see {self.home.log('supervisor')}"
                raise StackError(f"the stack in {self.home.root} did not start: {why}")
            if time.monotonic() > deadline:
                raise StackError(f"the stack in {self.home.root} is still {status.step}; logs are in {self.home.logs}")
            await asyncio.sleep(_POLL)

    async def _clean(self) -> list[str]:
        """Take the lock that the supervisor has let go of, and end what is left."""
        try:
            with supervisor_lock(self.home).acquire(timeout=10):
                state = StackState.read(self.home)
                left = await leftovers.clean(self.home, state)
                phase = Phase.FAILED if state.phase is Phase.FAILED else Phase.STOPPED
                stopped = {
                    name: record.model_copy(update={"phase": ServicePhase.STOPPED, "process": None})
                    for name, record in state.services.items()
                }
                state.model_copy(update={"phase": phase, "supervisor": None, "services": stopped, "step": ""}).write(
                    self.home
                )
                return left
        except filelock.Timeout as error:
            raise StackError(
                f"a supervisor that {self.home.stack_file} does not know holds {self.home.run}/supervisor.lock"
            ) from error

    @contextlib.asynccontextmanager
    async def _operating(self, deadline: float) -> AsyncIterator[None]:
        """Only one `up` or `down` at a time decides."""
        held = operation_lock(self.home)
        while True:
            try:
                held.acquire(blocking=False)
                break
            except filelock.Timeout as error:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another `orch up` or `orch down` is at work in {self.home.root} and does not finish"
                    ) from error
                await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            held.release()


@contextlib.asynccontextmanager
async def servers(
    home: Path | None = None, services: tuple[str, ...] = ("postgres", "temporal")
) -> AsyncIterator[StackStatus]:
    """PostgreSQL and Temporal for tests: up on entry, gone on exit and also when this process is killed.

    Args:
        home: a folder to keep; by default a temporary one that is deleted.
        services: which services.
    """
    kept = home is not None
    if home is None:
        home = Path(tempfile.mkdtemp(prefix="orch-"))
        # Only for root: PostgreSQL's own account has to pass through this new folder of ours.
        home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    stack = EmbeddedStack(home, services, owner_pid=os.getpid())
    try:
        yield await stack.up()
    finally:
        await (stack.down() if kept else stack.destroy())
