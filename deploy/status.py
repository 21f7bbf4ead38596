"""What `up`, `down` and `status` answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from deploy import processes
from deploy.home import Home
from deploy.ports import LOOPBACK
from deploy.state import Phase, ServicePhase, StackState


@dataclass(frozen=True)
class ServiceStatus:
    """One service as a person wants to know it."""

    name: str
    phase: ServicePhase
    pid: int | None
    since: datetime | None
    restarts: int
    last_exit: str | None
    log: Path


@dataclass(frozen=True)
class StackStatus:
    """The stack as a person wants to know it. `environment` holds secrets; it is not shown."""

    phase: Phase
    step: str
    home: Path
    supervisor_pid: int | None
    started_at: datetime | None
    services: tuple[ServiceStatus, ...]
    ports: Mapping[str, int]
    notes: tuple[str, ...]
    error: str | None
    environment: Mapping[str, str] = field(repr=False)

    @property
    def running(self) -> bool:
        """Whether all services were started and are kept running."""
        return self.phase is Phase.RUNNING

    @property
    def database_url(self) -> str:
        """PostgreSQL, with the password."""
        return self.environment["ORCH_DATABASE_URL"]

    @property
    def temporal_address(self) -> str:
        """Temporal's frontend."""
        return self.environment["TEMPORAL_ADDRESS"]

    @property
    def urls(self) -> dict[str, str]:
        """What a person can open in a browser."""
        names = {"api": "api", "temporal_ui": "temporal", "plane": "sandbox", "gitea": "sandbox"}
        present = {service.name for service in self.services}
        names |= {"telegram": "sandbox", "production": "sandbox"}
        return {
            name: f"http://{'localhost' if service == 'sandbox' else LOOPBACK}:{self.ports[name]}"
            for name, service in names.items()
            if service in present and name in self.ports
        }

    def service(self, name: str) -> ServiceStatus:
        """One of the services."""
        return next(service for service in self.services if service.name == name)


@dataclass(frozen=True)
class Stopped:
    """What `down` found."""

    was_running: bool
    leftovers: tuple[str, ...]
    """What had outlived its supervisor, or did not stop when told."""


def read_status(home: Home) -> StackStatus:
    """What `stack.json` and the process table say now."""
    state = StackState.read(home)
    alive = processes.find(state.supervisor) is not None
    ended = state.phase in {Phase.STOPPED, Phase.FAILED}
    services = tuple(
        ServiceStatus(
            name=name,
            phase=record.phase,
            pid=process.pid if (process := processes.find(record.process)) else None,
            since=record.since,
            restarts=record.restarts,
            last_exit=record.last_exit,
            log=record.log,
        )
        for name, record in state.services.items()
    )
    return StackStatus(
        phase=state.phase if alive or ended else Phase.ABANDONED,
        step=state.step,
        home=home.root,
        supervisor_pid=state.supervisor.pid if alive and state.supervisor else None,
        started_at=state.started_at,
        services=services,
        ports=state.ports,
        notes=tuple(state.notes),
        error=state.error,
        environment=home.environment(),
    )
