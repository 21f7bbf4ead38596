"""What a runner is: it builds a command and reads what came of it. Supervision is activities/agents.py."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from activities.adapters.process import ProcessResult
from workflows.model import Role, Usage


@dataclass(frozen=True, slots=True)
class Job:
    """One agent run. Untrusted text is in files below `data`, never in the command."""

    role: Role
    key: str
    title: str
    round: int
    workspace: Path
    data: Path
    verdict_file: Path
    nonce: str
    session_id: str
    artifact_path: str = ""
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a runner makes of an ended process."""

    problem: str = ""
    """Why the run failed, or empty if it ran to its end."""
    verdict: str | None = None
    """The verdict's JSON where the runner returns one itself; else it is read from the verdict file."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    cost_source: Literal["reported", "computed", "unknown"] = "unknown"


class Runner(Protocol):
    """One agent CLI."""

    name: str

    def command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        """The argv to run inside the workspace, and what its environment needs beyond a clean one."""
        ...

    def read(self, job: Job, result: ProcessResult) -> Reading:
        """Judge the process's end and output."""
        ...
