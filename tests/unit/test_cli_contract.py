"""The contract of the command line with scripts: exit codes, JSON, and what is written where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.cli.__main__ import app, run
from api.cli.connect import stack_environment
from api.cli.outcome import CliError, Exit
from api.cli.output import colours, to_json

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No stack is known."""
    for name in list(os.environ):
        if name.startswith(("ORCH_", "TEMPORAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def orch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    argv = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_exit_codes_are_the_documented_ones() -> None:
    """docs/reference/cli.md lists exactly the exit codes there are."""
    table = [line.split("|")[1:3] for line in (ROOT / "docs/reference/cli.md").read_text().splitlines()
             if line.startswith("| ") and line.split("|")[1].strip().isdigit()]  # fmt: skip
    assert {int(code): word.strip().strip("`") for code, word in table} == {exit_.value: exit_.word for exit_ in Exit}


def test_without_a_stack_every_command_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no stack is known the exit code is 78 and the hint names `orch up`."""
    for arguments in (
        "task list",
        "task show A-1",
        "task why A-1",
        "task approve A-1",
        "task reject A-1",
        "task retry A-1",
        "task pause A-1",
        "task resume A-1",
        "task cancel A-1 --yes",
        "merge-queue show",
        "merge-queue freeze --reason r",
        "merge-queue unfreeze",
        "merge-queue pass A-1",
        "merge-queue bump A-1",
        "merge-queue drop A-1",
        "webhooks list",
        "webhooks show 1",
        "webhooks replay 1",
    ):
        assert run(arguments.split()) == Exit.CONFIG
        out, err = capsys.readouterr()
        assert out == ""
        assert "orch up" in err


def test_an_error_is_one_json_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is the one document on stdout, with exactly code, message and hint."""
    assert run(["task", "show", "A-1", "--json"]) == Exit.CONFIG
    out, _ = capsys.readouterr()
    error = json.loads(out)
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == "config"


def test_json_holds_whatever_a_sender_wrote() -> None:
    """Half a surrogate pair, which a webhook's body may hold, can be written out and is read back as it was."""
    assert to_json({"a": "\ud83d ё"}) == '{"a": "\\ud83d ё"}'


@pytest.mark.parametrize("arguments", [["bogus"], ["task", "list", "--bogus"], ["task", "show"], ["demo", "--repo"]])
def test_what_is_not_understood_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command, option or missing argument exits with 2, as JSON too."""
    assert run(arguments) == Exit.USAGE
    assert capsys.readouterr().out == ""
    assert run([*arguments[:2], "--json", *arguments[2:]]) == Exit.USAGE
    assert json.loads(capsys.readouterr().out)["code"] == "usage"


def test_cancelling_unasked_has_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal to ask on, and without --yes, cancelling is a usage error that says so; nothing is read."""
    assert run(["task", "cancel", "A-1"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "--yes" in err
    assert run(["task", "cancel", "A-1", "--json"]) == Exit.USAGE
    assert "--yes" in json.loads(capsys.readouterr().out)["hint"]


def test_every_command_is_in_the_reference() -> None:
    """docs/reference/cli.md names each command there is."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    named = [f"orch {command.callback.__name__}" for command in app.registered_commands if command.callback]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        commands = [command for command in group.typer_instance.registered_commands if command.callback]
        named += [f"orch {group.name} {command.name or command.callback.__name__}" for command in commands]
    assert {"orch demo", "orch task cancel", "orch webhooks list"} <= set(named)
    assert [name for name in named if f"`{name}" not in text] == []


def test_options_of_the_demo_that_need_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """--repo without a title, or a title without --repo, starts nothing."""
    assert run(["demo", "--repo", "."]) == Exit.USAGE
    assert run(["demo", "--title", "x"]) == Exit.USAGE
    assert "Everything is in" not in capsys.readouterr().out


def test_an_unreachable_database_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database that does not answer exits with 7, and neither output shows its password."""
    monkeypatch.setenv("ORCH_DATABASE_URL", "postgresql://orch:hunter2@127.0.0.1:1/orch")
    assert run(["task", "list"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert "127.0.0.1:1" in err
    assert "hunter2" not in out + err


def test_an_address_that_cannot_be_read_is_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken ORCH_DATABASE_URL exits with 78 and is not quoted."""
    monkeypatch.setenv("ORCH_DATABASE_URL", "mysql://orch:hunter2@127.0.0.1/orch")
    assert run(["task", "list"]) == Exit.CONFIG
    assert "hunter2" not in "".join(capsys.readouterr())


def test_the_environment_and_the_home_are_never_mixed(empty_environment: Path) -> None:
    """ORCH_DATABASE_URL in the environment makes orch.env irrelevant, and without it orch.env alone counts."""
    empty_environment.mkdir()
    (empty_environment / "orch.env").write_text("ORCH_DATABASE_URL=postgresql://home\nTEMPORAL_ADDRESS=home:1\n")
    outer = {"ORCH_HOME": str(empty_environment), "TEMPORAL_ADDRESS": "elsewhere:1"}
    assert stack_environment(outer)["TEMPORAL_ADDRESS"] == "home:1"
    both = outer | {"ORCH_DATABASE_URL": "postgresql://elsewhere"}
    assert stack_environment(both)["TEMPORAL_ADDRESS"] == "elsewhere:1"


def test_a_secret_file_that_cannot_be_read_is_configuration() -> None:
    """ORCH_DATABASE_URL_FILE names a file that has to exist."""
    with pytest.raises(CliError) as caught:
        stack_environment({"ORCH_DATABASE_URL_FILE": "/nowhere"})
    assert caught.value.exit_code is Exit.CONFIG


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(terminal: bool, environment: dict[str, str], coloured: bool) -> None:
    """No colours in a pipe, with NO_COLOR, or on a dumb terminal."""
    assert colours(terminal, environment) is coloured


def test_the_help_starts_without_the_heavy_parts() -> None:
    """`orch --help` loads neither Temporal's client nor PostgreSQL's nor the stack."""
    probe = (
        "import sys; from api.cli.__main__ import run; run(['--help']);"
        "print([m for m in ('temporalio', 'asyncpg', 'aiohttp', 'deploy', 'workflows') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_process_exits_with_the_code_and_without_escape_sequences() -> None:
    """The program itself leaves with the exit code, and its piped output has no colours even with FORCE_COLOR unset."""
    done = orch("task", "list")
    assert done.returncode == Exit.CONFIG
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "\x1b" not in orch("--help", NO_COLOR="1").stdout
