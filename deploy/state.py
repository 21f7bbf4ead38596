"""What `stack.json` remembers. Only the holder of the supervisor's lock writes it."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.home import Home, write_private


class Phase(StrEnum):
    """Where the stack as a whole is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Its supervisor died without stopping it: `up` or `down` cleans up. Never written, only concluded."""


class ServicePhase(StrEnum):
    """Where one service is."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class ProcessRecord(BaseModel):
    """A process for certain: ids are reused, an id with its creation time is not."""

    model_config = ConfigDict(frozen=True)

    pid: int
    create_time: float


class ServiceRecord(BaseModel):
    """One service as the supervisor last saw it."""

    phase: ServicePhase = ServicePhase.WAITING
    process: ProcessRecord | None = None
    since: datetime | None = None
    restarts: int = 0
    last_exit: str | None = None
    log: Path
    stop_signal: int
    stop_timeout: float


class PostgresRecord(BaseModel):
    """Where PostgreSQL's data and programs are, and whose they are."""

    data: Path
    binaries: Path
    account: str | None = None


class StackState(BaseModel):
    """The whole file."""

    version: int = 1
    phase: Phase = Phase.STOPPED
    launch: str = ""
    step: str = ""
    supervisor: ProcessRecord | None = None
    started_at: datetime | None = None
    ports: dict[str, int] = {}
    postgres: PostgresRecord | None = None
    services: dict[str, ServiceRecord] = {}
    notes: list[str] = []
    error: str | None = None

    @classmethod
    def read(cls, home: Home) -> "StackState":
        """What the file says; an unreadable file counts as none, since all in it can be found out again."""
        try:
            return cls.model_validate_json(home.stack_file.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError:
            return cls(notes=[f"{home.stack_file} was not readable and is written anew; ports may have changed"])

    def write(self, home: Home) -> None:
        """Replace the file."""
        write_private(home.stack_file, self.model_dump_json(indent=2) + "\n")
