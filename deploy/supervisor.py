"""The process that keeps a stack running: `python -m deploy.supervisor --home <folder>`.

`orch up` starts it. There is one for each home, held to that by a lock that the system releases however the
process ends.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from deploy import environment, leftovers, ports, postgres_files, processes
from deploy.catalogue import PORTS, SERVICES, in_order
from deploy.errors import StackError
from deploy.home import Home
from deploy.locks import supervisor_lock
from deploy.logs import trim
from deploy.service import Keeper
from deploy.state import Phase, PostgresRecord, ProcessRecord, StackState

if TYPE_CHECKING:
    from deploy.services import Plan

_LOCK_PATIENCE = 5.0
_TRIM_EVERY = 60


@dataclass
class Supervisor:
    """Starts the services in order, keeps them running, and stops them in reverse order."""

    home: Home
    names: tuple[str, ...]
    launch: str = ""
    preferred_ports: Mapping[str, int] = field(default_factory=dict)
    owner: ProcessRecord | None = None
    state: StackState = field(init=False)
    _keepers: list[Keeper] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.state = StackState.read(self.home)

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until told to stop. The caller holds the lock.

        Returns:
            The exit code.
        """
        before = self.state.model_copy(deep=True)
        self._say(
            phase=Phase.STARTING,
            launch=self.launch,
            supervisor=processes.record(os.getpid()),
            started_at=datetime.now(UTC),
            error=None,
            step="cleaning up",
            # A file that could not be read has a note about that and no launch.
            notes=[] if before.launch else before.notes,
        )
        serving = asyncio.create_task(self._serve(before))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        error = None
        if serving.done() and (failure := serving.exception()) is not None:
            error = str(failure) if isinstance(failure, StackError) else "".join(traceback.format_exception(failure))
        serving.cancel()
        stopping.cancel()
        await asyncio.gather(serving, stopping, return_exceptions=True)
        await self._stop_all(error)
        return 1 if error else 0

    async def _serve(self, before: StackState) -> None:
        stopped = await leftovers.clean(self.home, before)
        if stopped:
            self.state.notes.append(f"stopped what an earlier supervisor had left: {', '.join(stopped)}")
        self._say(step="loading")
        plan = await asyncio.to_thread(self._plan)
        services = plan.services()
        self._keepers = [Keeper(service, self._record) for service in services]
        for keeper in self._keepers:
            self._say(step=f"starting {keeper.service.name}")
            await keeper.start()
        self._say(phase=Phase.RUNNING, step="")
        await self._housekeeping()

    def _plan(self) -> "Plan":
        """Choose ports, find or make PostgreSQL's data, and leave `orch.env`."""
        # Temporal's client and Alembic take seconds to load: after the lock is held, and here only, for their
        # packages do not bear being loaded by two threads at once.
        from deploy.postgres import Cluster
        from deploy.services import Plan

        wanted = [port for name in self.names for port in PORTS[name]]
        chosen, notes = ports.choose(wanted, self.state.ports, self.preferred_ports)
        self.state.ports = chosen
        self.state.notes += notes
        secrets = self.home.secrets()
        cluster = None
        if "postgres" in self.names:
            self._say(step="preparing postgres")
            data, binaries, account = postgres_files.locate(self.home, self.state.postgres)
            cluster = Cluster(data, binaries, account, chosen["postgres"], secrets["postgres_password"])
            self._say(postgres=PostgresRecord(data=data, binaries=binaries, account=account.name))
            cluster.initialise(environment.marker(self.home))
        values = environment.describe(
            self.home,
            chosen,
            secrets,
            services=self.names,
            database_url=cluster.url() if cluster is not None else "",
        )
        environment.write(self.home, values)
        return Plan(self.home, self.names, chosen, cluster, values, secrets)

    async def _housekeeping(self) -> None:
        """Until the owner, if there is one, is gone: keep logs short."""
        beat = 0
        while self.owner is None or processes.find(self.owner) is not None:
            await asyncio.sleep(1)
            beat += 1
            for keeper in self._keepers:
                keeper.check()
            if beat % _TRIM_EVERY == 0:
                for name in (*self.names, "supervisor"):
                    trim(self.home.log(name))

    async def _stop_all(self, error: str | None) -> None:
        self._say(phase=Phase.STOPPING, step="")
        for keeper in reversed(self._keepers):
            self._say(step=f"stopping {keeper.service.name}")
            await keeper.stop()
        # A start that was broken off may have left a process that no keeper knew yet.
        await leftovers.clean(self.home, StackState(postgres=self.state.postgres))
        self._say(phase=Phase.FAILED if error else Phase.STOPPED, step="", supervisor=None, error=error)

    def _record(self) -> None:
        self._say(services={keeper.service.name: keeper.record for keeper in self._keepers})

    def _say(self, **fields: object) -> None:
        self.state = self.state.model_copy(update=fields)
        try:
            self.state.write(self.home)
        except OSError as error:
            # A full disk must not end what keeps the services running.
            sys.stderr.write(f"{self.home.stack_file} cannot be written: {error}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold the lock and run the supervisor; where another one holds it, that one runs the stack."""
    options = _options(arguments)
    home = Home.at(options.home)
    home.create()
    owner = processes.record(options.owner) if options.owner else None
    if options.owner and owner is None:
        return 0
    preferred = {name: int(port) for name, _, port in (pair.partition("=") for pair in options.port)}
    held = supervisor_lock(home)
    try:
        held.acquire(timeout=_LOCK_PATIENCE)
    except filelock.Timeout:
        sys.stderr.write(f"another supervisor runs the stack in {home.root}\n")
        return 3
    supervisor = Supervisor(home, in_order(tuple(options.services.split(","))), options.launch, preferred, owner)
    return asyncio.run(_run(supervisor))


async def _run(supervisor: Supervisor) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await supervisor.run(stop)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the home folder")
    parser.add_argument("--services", default=",".join(SERVICES), help="which services, separated by commas")
    parser.add_argument("--launch", default="", help="a word that tells the starter that this is its supervisor")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=PORT", help="a port to prefer")
    parser.add_argument("--owner", type=int, help="stop when this process is gone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = 1
    with contextlib.suppress(KeyboardInterrupt):
        code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Temporal's client has threads that can abort the interpreter's own way out.
    os._exit(code)
