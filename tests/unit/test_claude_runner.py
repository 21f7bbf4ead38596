"""Claude's command line, and when a run is cut off."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from activities.adapters.process import ProcessResult
from activities.runners.claude import ClaudeOptions, ClaudeRunner, ClaudeWatch, Patience, verdict_schema
from activities.runners.command import CommandRunner
from activities.runners.prompt import Prompts
from tests.unit.test_prompts import HOSTILE, a_job
from workflows.model import Role, Terms
from workflows.verdicts import RunOutcome

LINE = 128 * 1024
"""What Linux allows one argument."""


def runner(tmp_path: Path, **options: object) -> ClaudeRunner:
    """A runner whose claude is a file."""
    program = tmp_path / "bin-claude"
    program.touch()
    fields: dict[str, object] = {"program": program, "api_key": "sk-1", "base_url": "http://model"}
    return ClaudeRunner(ClaudeOptions(**(fields | options)), Prompts())  # type: ignore[arg-type]


def words(command: tuple[str, ...]) -> dict[str, str]:
    """Each option with the word behind it."""
    return {word: after for word, after in zip(command, [*command[1:], ""], strict=True) if word.startswith("--")}


def test_the_command_is_the_contracts(tmp_path: Path) -> None:
    """Every option that keeps a headless run deterministic is there."""
    job = a_job(tmp_path, home=tmp_path, terms=Terms(model="m", effort="low", max_turns=7, max_budget_usd=0.5))
    command = runner(tmp_path).command(job)
    options = words(command.argv)
    assert command.argv[1] == "-p"
    expected = {
        "--output-format": "stream-json",
        "--session-id": "s",
        "--model": "m",
        "--effort": "low",
        "--max-turns": "7",
        "--max-budget-usd": "0.500000",
        "--setting-sources": "user",
        "--permission-mode": "dontAsk",
    }
    assert {name: options[name] for name in expected} == expected
    assert {"--verbose", "--include-partial-messages", "--strict-mcp-config"} <= set(options)
    assert json.loads(options["--settings"])["attribution"] == {"commit": "", "pr": ""}
    assert options["--allowedTools"] == options["--tools"]
    assert json.loads(options["--json-schema"])["properties"]["nonce"]["const"] == "n-1"


def test_in_a_cage_nothing_is_asked(tmp_path: Path) -> None:
    """Bubblewrap is the limit there, so permissions are bypassed."""
    command = runner(tmp_path).command(a_job(tmp_path, home=tmp_path, caged=True))
    assert words(command.argv)["--permission-mode"] == "bypassPermissions"
    assert "--allowedTools" not in command.argv
    assert command.env["IS_SANDBOX"] == "1"


@pytest.mark.parametrize(
    ("turn", "option"), [("start", "--session-id"), ("resume", "--resume"), ("correct", "--resume")]
)
def test_a_session_is_begun_or_taken_up(tmp_path: Path, turn: str, option: str) -> None:
    """Only a beginning gives a new id."""
    found = words(runner(tmp_path).command(a_job(tmp_path, home=tmp_path, turn=turn)).argv)
    assert {"--session-id", "--resume"} & set(found) == {option}


def test_nothing_from_outside_is_in_the_command(tmp_path: Path) -> None:
    """A hostile title or item is neither an argument nor a variable nor part of the prompt."""
    command = runner(tmp_path).command(a_job(tmp_path, home=tmp_path, title=HOSTILE * 10_000))
    assert command.stdin is not None
    everything = [*command.argv, *command.env.values(), command.stdin.decode()]
    assert not any("Ignore all rules" in word for word in everything)
    assert all(len(word.encode()) < LINE for word in everything)


def test_the_key_is_given_by_the_environment_only(tmp_path: Path) -> None:
    """The key is no argument, which every user of the machine could read."""
    command = runner(tmp_path).command(a_job(tmp_path, home=tmp_path))
    assert command.env["ANTHROPIC_API_KEY"] == "sk-1"
    assert command.env["ANTHROPIC_BASE_URL"] == "http://model"
    assert not any("sk-1" in word for word in command.argv)
    assert Path(command.env["CLAUDE_CONFIG_DIR"]) in command.writable


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, no key: the reason names the setting."""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "ORCH_CLAUDE_PATH" in runner(tmp_path, program=None).problem()
    assert "ORCH_CLAUDE_PATH" in runner(tmp_path, program=tmp_path / "gone").problem()
    assert "ORCH_ANTHROPIC_API_KEY" in runner(tmp_path, api_key="").problem()
    assert runner(tmp_path).problem() == ""


def test_a_session_exists_while_its_transcript_does(tmp_path: Path) -> None:
    """The transcript is found in whichever folder the run worked."""
    job = a_job(tmp_path, home=tmp_path)
    assert not runner(tmp_path).has_session(job)
    folder = tmp_path / "claude/s/projects/-any-folder"
    folder.mkdir(parents=True)
    (folder / "s.jsonl").touch()
    assert runner(tmp_path).has_session(job)
    assert not runner(tmp_path).has_session(replace(job, session_id="other"))


def test_no_two_sessions_share_a_folder(tmp_path: Path) -> None:
    """What an author's agent leaves in its own configuration does not steer its reviewer."""
    author, reviewer = (a_job(tmp_path, home=tmp_path, session_id=session) for session in ("one", "two"))
    folders = [runner(tmp_path).command(job).env["CLAUDE_CONFIG_DIR"] for job in (author, reviewer)]
    assert folders[0] != folders[1]
    assert not Path(folders[1]).is_relative_to(folders[0])


def test_the_schema_wants_all_and_allows_no_more() -> None:
    """Every field has to be said; unknown ones are refused."""
    schema = verdict_schema("n")
    assert schema["additionalProperties"] is False
    assert schema["required"] == sorted(schema["properties"])  # type: ignore[call-overload]


# -- when a run is cut off -------------------------------------------------------------------------------------


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def line(kind: str, **fields: object) -> bytes:
    """A line of the stream."""
    return json.dumps({"type": kind, "session_id": "s", **fields}).encode() + b"\n"


TOOL = line(
    "assistant", message={"id": "m", "model": "c", "content": [{"type": "tool_use", "id": "t", "name": "Bash"}]}
)
DONE = line("user", message={"content": [{"type": "tool_result", "tool_use_id": "t"}]})
RESULT = line("result", subtype="success", is_error=False, structured_output={"nonce": "n-1"}, usage={})
REFUSED = line("system", subtype="api_retry", error="authentication_failed", error_status=401)


def watch(tmp_path: Path, clock: Clock, *lines: bytes) -> ClaudeWatch:
    """An onlooker that has seen these lines."""
    found = ClaudeWatch(a_job(tmp_path), Patience(tool=120, request=360, after_result=30), clock)
    for each in lines:
        found.feed(each)
    return found


def ended(exit_code: int, *, timed_out: bool = False) -> ProcessResult:
    """An ended process."""
    return ProcessResult(exit_code=exit_code, stdout=b"", stderr=b"", truncated=False, duration=1, timed_out=timed_out)


@pytest.mark.parametrize(
    ("lines", "limit", "outcome", "said"),
    [
        ((), 360, RunOutcome.RETRYABLE, "while the model was asked"),
        ((TOOL,), 120, RunOutcome.RETRYABLE, "while Bash ran"),
        ((TOOL, DONE), 360, RunOutcome.RETRYABLE, "while the model was asked"),
        ((TOOL, DONE, RESULT), 30, RunOutcome.OK, ""),
    ],
)
def test_silence_has_its_limit(
    tmp_path: Path, lines: tuple[bytes, ...], limit: float, outcome: RunOutcome, said: str
) -> None:
    """How long a run may be silent depends on what it does; after its result it is only ended."""
    clock = Clock()
    looker = watch(tmp_path, clock, *lines)
    clock.now += limit
    assert not looker.overdue()
    clock.now += 0.1
    assert looker.overdue()
    reading = looker.read(ended(143))
    assert reading.outcome is outcome
    assert said in reading.problem


def test_every_line_is_a_sign_of_life(tmp_path: Path) -> None:
    """The heartbeat of a running tool keeps the run alive."""
    clock = Clock()
    looker = watch(tmp_path, clock, TOOL)
    for _ in range(10):
        clock.now += 100
        assert not looker.overdue()
        looker.feed(line("tool_progress", heartbeat=True))


def test_a_refused_key_is_not_waited_for(tmp_path: Path) -> None:
    """The first refusal ends the run for good."""
    looker = watch(tmp_path, Clock(), REFUSED)
    assert looker.overdue()
    reading = looker.read(ended(143))
    assert (reading.outcome, reading.cause) == (RunOutcome.FATAL, "api-401")


def test_a_run_beyond_the_wall_clock_was_killed(tmp_path: Path) -> None:
    """It is taken up again."""
    reading = watch(tmp_path, Clock(), TOOL).read(ended(143, timed_out=True))
    assert (reading.outcome, reading.cause) == (RunOutcome.KILLED, "deadline")


def test_a_cancelled_run_was_cancelled(tmp_path: Path) -> None:
    """Whatever it had come to."""
    assert watch(tmp_path, Clock(), TOOL).read(None).outcome is RunOutcome.CANCELLED


# -- any other command -----------------------------------------------------------------------------------------


def test_a_command_gets_prompt_and_verdict_file(tmp_path: Path) -> None:
    """The words of the setting are run as they are; the rest is on standard input and in the environment."""
    command = CommandRunner(("my-agent", "--fast"), Prompts()).command(a_job(tmp_path, Role.TESTER, home=tmp_path))
    assert command.argv == ("my-agent", "--fast")
    assert command.env["AGENT_VERDICT_FILE"] == str(tmp_path / "verdict.json")
    assert (command.env["AGENT_ROLE"], command.env["AGENT_NONCE"]) == ("tester", "n-1")
    assert command.stdin is not None
    assert "You are the tester" in command.stdin.decode()


def test_a_command_has_to_be_named() -> None:
    """Without a program there is a reason instead."""
    assert "ORCH_AGENT_COMMAND" in CommandRunner((), Prompts()).problem()


@pytest.mark.parametrize(
    ("exit_code", "outcome"),
    [(0, RunOutcome.OK), (1, RunOutcome.FAILED), (-9, RunOutcome.KILLED), (143, RunOutcome.CANCELLED)],
)
def test_a_command_is_judged_by_its_end(tmp_path: Path, exit_code: int, outcome: RunOutcome) -> None:
    """An exit code of 0 only says that the verdict may be read; tokens and cost stay unknown."""
    reading = CommandRunner(("x",), Prompts()).watch(a_job(tmp_path)).read(ended(exit_code))
    assert (reading.outcome, reading.spent.cost_usd) == (outcome, None)
