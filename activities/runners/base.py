"""What a runner is: it builds a command and reads what came of it. Supervision is activities/supervising.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from activities.adapters.process import ProcessResult
from workflows.model import Role, Terms
from workflows.usage import Usage
from workflows.verdicts import RunOutcome


@dataclass(frozen=True, slots=True)
class Before:
    """What a resumed session had come to before this run."""

    cost: float = 0.0
    """The cumulative cost in US dollars that its last result told."""
    exact: bool = True
    """False if a later run of the session was cut off: whether that one's cost was kept is then not known."""


@dataclass(frozen=True, slots=True)
class Job:
    """One agent run. Untrusted text is in files below `inputs`, never in the command or the prompt."""

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
    inputs: Path = Path()
    """The folder of what comes from outside: item, feedback, logs."""
    files: tuple[str, ...] = ()
    """The names of the files in `inputs` that say anything."""
    branch: str = ""
    base_sha: str = ""
    home: Path = Path()
    """The task's own folder outside the workspace; it outlives attempts."""
    terms: Terms = field(default_factory=Terms)
    attempt: int = 0
    """Its number within the round; part of its log's name."""
    turn: Literal["start", "resume", "correct"] = "start"
    """Whether a session begins, goes on after it was cut off, or only has to give its verdict."""
    before: Before = field(default_factory=Before)
    caged: bool = False
    """Whether the process is confined by bubblewrap."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to run inside the workspace."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """What its environment needs beyond a clean one."""
    stdin: bytes | None = None
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    """What it needs of the disk beside the workspace and its data."""
    network: bool = False


@dataclass(frozen=True, slots=True)
class Spending:
    """Tokens and cost of one run. A cost of None is unknown, which is never written as 0."""

    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    cost_source: Literal["reported", "computed", "unknown"] = "unknown"
    session_cost: float | None = None
    """The cumulative cost of the session, where the runner tells it; the next run of the session needs it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a runner makes of an ended process."""

    outcome: RunOutcome = RunOutcome.OK
    """OK means that it ran to its end; the verdict is still to be validated."""
    cause: str = ""
    """Finer than the outcome, such as `api-529`."""
    problem: str = ""
    """Why there can be no verdict, or empty if it ran to its end."""
    delay: float | None = None
    """Seconds to wait before another attempt, where the outcome is `retryable`."""
    verdict: str | None = None
    """The verdict's JSON where the runner returns one itself; else it is read from the verdict file."""
    spent: Spending = field(default_factory=Spending)


class Watch(Protocol):
    """Looks on while a process runs."""

    def feed(self, chunk: bytes) -> None:
        """Standard output, as it comes; must be quick."""
        ...

    def overdue(self) -> bool:
        """Whether the run must be stopped now."""
        ...

    def progress(self) -> dict[str, object]:
        """What a heartbeat may tell."""
        ...

    def read(self, result: ProcessResult | None) -> Reading:
        """Judge the process's end and output; None if it was cancelled."""
        ...


class EndWatch:
    """Looks at the end alone: what is printed meanwhile says nothing, and only the wall clock limits the run."""

    def feed(self, chunk: bytes) -> None:
        """Not read."""

    def overdue(self) -> bool:
        """Never."""
        return False

    def progress(self) -> dict[str, object]:
        """Nothing."""
        return {}


class Runner(Protocol):
    """One agent command line."""

    name: str
    resumes: bool
    """Whether it has sessions that a later process can take up again."""

    def problem(self) -> str:
        """Why it cannot be started on this worker and how to mend that, or empty."""
        ...

    def has_session(self, job: Job) -> bool:
        """Whether the job's session can be taken up again: its transcript is there."""
        ...

    def command(self, job: Job) -> Command:
        """The process for this job."""
        ...

    def watch(self, job: Job) -> Watch:
        """A new onlooker for one process."""
        ...
