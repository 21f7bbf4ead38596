"""The `claude` runner: one headless run of Claude Code (contracts/agents/agents.md, 6)."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activities.adapters.process import ProcessResult
from activities.runners.base import Command, Job, Reading
from activities.runners.ending import Ending, classify, spending
from activities.runners.prompt import Prompts
from activities.runners.stream import StreamReader
from workflows.model import Role
from workflows.verdicts import RunOutcome, Verdict

READING = ("Bash", "Read", "Glob", "Grep")
WRITING = (*READING, "Edit", "Write")
_AUTHORS = frozenset({Role.ANALYST, Role.ARCHITECT, Role.DEVELOPER})
_SETTINGS = json.dumps({"attribution": {"commit": "", "pr": ""}, "cleanupPeriodDays": 30})
_SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence may last, in seconds."""

    tool: float = 120.0
    """While a tool runs: a living command line says so every 30 seconds."""
    request: float = 360.0
    """While the model is asked: the command line's own limit is five minutes."""
    after_result: float = 30.0
    """Between its last result and its exit."""


@dataclass(frozen=True, slots=True)
class ClaudeOptions:
    """What a worker's settings say about claude."""

    program: Path | None = None
    """Where it is; found on the PATH if None."""
    api_key: str = ""
    base_url: str = ""
    """The model API's address, or empty for the command line's own."""
    retries: int = 3
    """How often the command line itself asks the API again."""
    patience: Patience = Patience()


class ClaudeRunner:
    """Runs Claude Code with a session of its own, so that a run that was cut off can be taken up again."""

    name = "claude"
    resumes = True

    def __init__(self, options: ClaudeOptions, prompts: Prompts) -> None:
        self._options = options
        self._prompts = prompts

    def problem(self) -> str:
        """Without a program or a key nothing can be started."""
        if self._program() is None:
            return "the runner claude needs Claude Code; install it on the worker's PATH or set ORCH_CLAUDE_PATH"
        if not self._options.api_key:
            return "the runner claude needs an API key; set ORCH_ANTHROPIC_API_KEY or ORCH_ANTHROPIC_API_KEY_FILE"
        return ""

    def has_session(self, job: Job) -> bool:
        """Whether its transcript is there; which folder it is in depends on where the run worked."""
        return any(_config(job).glob(f"projects/*/{job.session_id}.jsonl"))

    def command(self, job: Job) -> Command:
        """The prompt goes in by standard input: an argument is limited to 128 KiB and shows in process lists."""
        program, config = self._program(), _config(job)
        assert program is not None
        config.mkdir(parents=True, exist_ok=True)
        session = "--session-id" if job.turn == "start" else "--resume"
        tools = ",".join(WRITING if job.role in _AUTHORS else READING)
        terms = job.terms
        # A link may lead to where a cage shows nothing.
        program = program.resolve()
        words = [str(program), "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        words += [session, job.session_id, "--max-turns", str(terms.max_turns)]
        words += ["--max-budget-usd", f"{terms.max_budget_usd:f}"]
        words += ["--model", terms.model] if terms.model else []
        words += ["--effort", terms.effort] if terms.effort else []
        words += ["--tools", tools, "--setting-sources", "user", "--strict-mcp-config", "--settings", _SETTINGS]
        words += ["--add-dir", str(job.inputs)]
        # The cage is the limit; without one, exactly these tools and no questions.
        words += ["--permission-mode", *(["bypassPermissions"] if job.caged else ["dontAsk", "--allowedTools", tools])]
        words += ["--json-schema", json.dumps(verdict_schema(job.nonce), separators=(",", ":"))]
        return Command(
            argv=tuple(words),
            env=self._environment(job, config),
            stdin=self._prompts.render(job, by_file=False).encode(),
            readable=(program,),
            writable=(config,),
            network=True,
        )

    def watch(self, job: Job) -> "ClaudeWatch":
        """Reads the stream as it comes."""
        return ClaudeWatch(job, self._options.patience)

    def _program(self) -> Path | None:
        if self._options.program is not None:
            return self._options.program if self._options.program.is_file() else None
        found = shutil.which("claude")
        return Path(found) if found else None

    def _environment(self, job: Job, config: Path) -> dict[str, str]:
        address = {"ANTHROPIC_BASE_URL": self._options.base_url} if self._options.base_url else {}
        # In a cage it may look like root to itself, which it otherwise refuses to serve without asking.
        cage = {"IS_SANDBOX": "1"} if job.caged else {}
        return {
            **_SWITCHES,
            **address,
            **cage,
            "ANTHROPIC_API_KEY": self._options.api_key,
            "CLAUDE_CONFIG_DIR": str(config),
            "CLAUDE_CODE_MAX_RETRIES": str(self._options.retries),
        }


class ClaudeWatch:
    """Looks on while claude runs: notices that it hangs, and reads its end."""

    def __init__(self, job: Job, patience: Patience, now: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._patience = patience
        self._now = now
        self._reader = StreamReader()
        self._heard = now()
        self._stopped: Ending | None = None

    def feed(self, chunk: bytes) -> None:
        """Standard output, as it comes."""
        self._heard = self._now()
        self._reader.feed(chunk)

    def overdue(self) -> bool:
        """Whether it must be stopped now."""
        picture, silent = self._reader.picture, self._now() - self._heard
        if picture.result is not None:
            # What it came to is known, however it is ended.
            return silent > self._patience.after_result
        if picture.refused_key:
            self._stopped = Ending(RunOutcome.FATAL, "api-401", "the model API refuses the key; renew it")
        elif silent > (self._patience.tool if picture.tools else self._patience.request):
            doing = f"while {', '.join(picture.tools.values())} ran" if picture.tools else "while the model was asked"
            self._stopped = Ending(RunOutcome.RETRYABLE, "stall", f"it said nothing for {silent:.0f} s {doing}", 0)
        return self._stopped is not None

    def progress(self) -> dict[str, object]:
        """What a heartbeat may tell."""
        picture = self._reader.picture
        seen = picture.seen
        return {
            "session": picture.session_id,
            "lines": picture.lines,
            "last": picture.last,
            "tool_uses": picture.tool_uses,
            "tokens_in": seen.full_input,
            "tokens_out": seen.output,
        }

    def read(self, result: ProcessResult | None) -> Reading:
        """Judge the run; None means that it was cancelled."""
        picture = self._reader.close()
        if result is None:
            ending = Ending(RunOutcome.CANCELLED, "", "it was told to stop")
        elif result.timed_out and picture.result is None:
            ending = Ending(RunOutcome.KILLED, "deadline", "it ran for longer than any run may")
        else:
            stderr = result.stderr.decode(errors="replace")
            ending = self._stopped or classify(picture, result.exit_code, wants_verdict=True, stderr=stderr)
        found = picture.result.verdict if picture.result else None
        return Reading(
            outcome=ending.outcome,
            cause=ending.cause,
            problem=ending.reason,
            delay=ending.delay,
            verdict=json.dumps(found),
            spent=spending(picture, self._job.before),
        )


def verdict_schema(nonce: str) -> dict[str, object]:
    """The schema of a verdict of exactly this run, as JSON Schema."""
    schema = Verdict.model_json_schema()
    schema["properties"]["nonce"] = {"type": "string", "const": nonce}
    schema["required"] = sorted(schema["properties"])
    return schema


def _config(job: Job) -> Path:
    """One for each session: what an agent leaves in its own must not steer another one, such as its reviewer."""
    return job.home / "claude" / job.session_id
