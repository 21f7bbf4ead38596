"""`orch config` and `orch init` as people and scripts see them."""

import json
import os
import stat
from pathlib import Path

import pytest

from api.cli.__main__ import run
from api.cli.outcome import Exit
from tests.unit.configured import ORCH_TOML, SECRETS, clear, configure

PIPELINE = '[commands]\ntest = "t"\nproduction = "none"\n'


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A complete environment."""
    configure(monkeypatch, tmp_path)
    return monkeypatch


def test_a_right_configuration_exits_with_0(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is wrong stdout is empty, and JSON says ok."""
    assert run(["config", "check"]) == Exit.OK
    assert capsys.readouterr() == ("", "the configuration can be used\n")
    assert run(["config", "check", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": [], "warnings": []}


def test_a_wrong_configuration_exits_with_78(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each problem is a line on stdout; warnings and the count go to stderr."""
    environment.setenv("ORCH_API_PORT", "x")
    environment.setenv("ORCH_PLANE_URL", "x")
    environment.setenv("ORCH_HOEM", "x")
    assert run(["config", "check"]) == Exit.CONFIG
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["ORCH_PLANE_URL", "ORCH_API_PORT"]
    assert err.splitlines() == [
        "warning: ORCH_HOEM: is not known and has no effect; did you mean ORCH_HOME?",
        "2 to mend",
    ]
    assert run(["config", "check", "--json"]) == Exit.CONFIG
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], len(said["problems"]), len(said["warnings"])) == (False, 2, 1)


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("pipeline.toml", PIPELINE, Exit.OK),
        ("pipeline.toml", "", Exit.CONFIG),
        ("pipeline.toml", ORCH_TOML, Exit.CONFIG),
        ("orch.toml", ORCH_TOML, Exit.OK),
        ("orch.toml", PIPELINE, Exit.CONFIG),
        ("other.toml", PIPELINE, Exit.OK),
        ("other.toml", ORCH_TOML, Exit.OK),
        ("other.toml", "[", Exit.CONFIG),
    ],
)
def test_a_file_is_checked_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, code: int
) -> None:
    """The name says what a file is, else its content; no environment is needed."""
    clear(monkeypatch)
    (tmp_path / name).write_text(text)
    assert run(["config", "check", str(tmp_path / name)]) == code
    assert all(line.startswith(str(tmp_path / name)) for line in capsys.readouterr().out.splitlines())


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that leads nowhere exits with 78 and says so."""
    assert run(["config", "check", str(tmp_path / "none")]) == Exit.CONFIG
    assert "can not be read (No such file or directory); name a readable file" in capsys.readouterr().out


def test_show_names_value_source_and_meaning(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each setting; JSON has the same."""
    assert run(["config", "show"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert "ORCH_AGENT_SLOTS = 7  [environment]  The number of agents at once on this host." in lines
    assert "ORCH_PLANE_TOKEN = set  [environment]  The API key of the bot's account in Plane." in lines
    assert "projects.PAY.states.done = Shipped  [orch.toml]  Where Orch moves it once its change is deployed." in lines
    assert run(["config", "show", "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert len(document) == len(lines)
    assert set(document[0]) == {"name", "value", "source", "meaning", "used_by"}


def test_what_orch_up_left_is_shown_and_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the environment names no database, orch.env counts, and is named as the source."""
    configure(monkeypatch, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    names = [name for name in os.environ if name.startswith("ORCH_") and name != "ORCH_HOME"]
    (home / "orch.env").write_text("".join(f"{name}={os.environ[name]}\n" for name in names))
    clear(monkeypatch)
    monkeypatch.setattr(os, "environ", {**os.environ, "ORCH_HOME": str(home)})
    assert run(["config", "show"]) == Exit.OK
    out = capsys.readouterr().out
    assert f"ORCH_AGENT_SLOTS = 7  [{home}/orch.env]" in out
    assert "secret-of" not in out


def test_no_command_shows_a_secret(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither show nor check lets a secret out, right or wrong, as text or JSON."""
    for name in SECRETS:
        environment.setenv(name, f"canary-{name}")
    environment.setenv("ORCH_API_PORT", "canary-port")
    for command in ("check", "show"):
        for options in ([], ["--json"]):
            run(["config", command, *options])
            out = "".join(capsys.readouterr()).replace("canary-port", "")
            assert "canary" not in out


def test_init_writes_a_start_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both files are there, readable by their owner only, and the steps name the webhooks with URL and events."""
    folder = tmp_path / "new one"
    assert run(["init", str(folder)]) == Exit.OK
    out = capsys.readouterr().out
    assert f"wrote {folder}/orch.toml" in out
    for said in ("/webhooks/plane", "Issue and Issue comment", "/webhooks/gitea", "workflow job", "orch config check"):
        assert said in out
    for name in ("orch.toml", ".env"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert f"ORCH_CONFIG='{folder}/orch.toml'" in (folder / ".env").read_text()


def test_what_init_writes_can_be_read_and_is_not_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The start is valid TOML in which the check names exactly what is to be filled in."""
    run(["init", str(tmp_path)])
    capsys.readouterr()
    assert run(["config", "check", str(tmp_path / "orch.toml")]) == Exit.CONFIG
    found = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in found] == [
        f"projects.DEMO.{name}" for name in ("plane_project_id", "bots", "approvers")
    ]


@pytest.mark.parametrize("existing", [["orch.toml"], [".env"], ["orch.toml", ".env"]])
def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str], existing: list[str]) -> None:
    """What exists stays as it is and is named; what is missing is written."""
    for name in existing:
        (tmp_path / name).write_text("mine")
    assert run(["init", str(tmp_path), "--json"]) == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert said["existing"] == [str(tmp_path / name) for name in ("orch.toml", ".env") if name in existing]
    assert all((tmp_path / name).read_text() == "mine" for name in existing)
    assert len(said["written"]) == 2 - len(existing)


def test_init_does_not_follow_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dangling link of that name counts as existing: nothing is written through it."""
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    run(["init", str(tmp_path)])
    assert f"exists, left as it is: {tmp_path}/.env" in capsys.readouterr().out
    assert not (tmp_path / "elsewhere").exists()


def test_init_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in place of the folder exits with 1 and says which."""
    (tmp_path / "file").touch()
    assert run(["init", str(tmp_path / "file")]) == Exit.FAILED
    assert str(tmp_path / "file") in capsys.readouterr().err
