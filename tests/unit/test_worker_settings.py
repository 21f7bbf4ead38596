"""The worker's settings: complete or refused, with everything that is wrong said at once and no secret said ever."""

import os
from pathlib import Path

import pytest

from activities.settings import ConfigError, exit_with, load_settings

ORCH_TOML = """
plane_workspace = "acme"
plane_public_url = "https://plane.example.com"
gitea_public_url = "https://gitea.example.com"
[projects.PAY]
plane_project_id = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
repository = { owner = "acme", name = "payments" }
"""
SECRET = "s3cr3t-of-olga"


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A complete environment and nothing of ours besides."""
    for name in os.environ:
        if name.startswith("ORCH_"):
            monkeypatch.delenv(name)
    config = tmp_path / "orch.toml"
    config.write_text(ORCH_TOML)
    values = {
        "DATABASE_URL": f"postgresql://orch:{SECRET}@127.0.0.1/orch",
        "CONFIG": str(config),
        "HOME": str(tmp_path / "home"),
        "PLANE_URL": "https://plane.example.com/",
        "PLANE_TOKEN": SECRET,
        "GITEA_URL": "http://gitea:3000",
        "GITEA_TOKEN": SECRET,
        "GITEA_REVIEWER_TOKEN": SECRET,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"ORCH_{name}", value)
    return monkeypatch


def refused() -> str:
    """What loading complains about."""
    with pytest.raises(ConfigError) as error:
        load_settings()
    return str(error.value)


def test_a_complete_environment_loads(complete: pytest.MonkeyPatch) -> None:
    """What is required is enough; addresses lose their last slash."""
    settings, config = load_settings()
    assert settings.plane_url == "https://plane.example.com"
    assert settings.plane_token.get_secret_value() == SECRET
    assert list(config.projects) == ["PAY"]
    assert settings.isolation == "required", "the safe choice is the default"


def test_everything_that_is_wrong_is_said_at_once(complete: pytest.MonkeyPatch) -> None:
    """Three mistakes are three lines, each with the name to set."""
    complete.delenv("ORCH_PLANE_TOKEN")
    complete.setenv("ORCH_GITEA_URL", "gitea:3000")
    complete.setenv("ORCH_AGENT_SLOTS", "0")
    said = refused().splitlines()
    assert len(said) == 3
    assert any(line.startswith("ORCH_PLANE_TOKEN: is not set") and "ORCH_PLANE_TOKEN_FILE" in line for line in said)
    assert any(line.startswith("ORCH_GITEA_URL:") and "http://" in line for line in said)
    assert any(line.startswith("ORCH_AGENT_SLOTS:") for line in said)


def test_no_secret_is_ever_said(complete: pytest.MonkeyPatch) -> None:
    """Neither an error nor the settings themselves show a secret."""
    complete.setenv("ORCH_AGENT_SLOTS", SECRET)
    complete.setenv("ORCH_PLANE_URL", "nonsense")
    assert SECRET not in refused().replace("ORCH_AGENT_SLOTS", "")
    complete.delenv("ORCH_AGENT_SLOTS")
    complete.setenv("ORCH_PLANE_URL", "https://plane.example.com")
    settings, _ = load_settings()
    assert SECRET not in repr(settings) + str(settings)


def test_a_secret_may_come_from_a_file(complete: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`ORCH_<NAME>_FILE` is read without the newline at its end; beside the variable it is an error, as in the API."""
    (tmp_path / "token").write_text("from-file\n")
    complete.setenv("ORCH_PLANE_TOKEN_FILE", str(tmp_path / "token"))
    complete.delenv("ORCH_GITEA_TOKEN")
    complete.setenv("ORCH_GITEA_TOKEN_FILE", str(tmp_path / "token"))
    assert refused() == "ORCH_PLANE_TOKEN_FILE: ORCH_PLANE_TOKEN is set too; unset one of them"
    complete.delenv("ORCH_PLANE_TOKEN")
    settings, _ = load_settings()
    assert settings.plane_token.get_secret_value() == "from-file"
    assert settings.gitea_token.get_secret_value() == "from-file"


def test_an_unreadable_secret_file_is_named(complete: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is not there is named with its variable."""
    complete.delenv("ORCH_PLANE_TOKEN")
    complete.setenv("ORCH_PLANE_TOKEN_FILE", str(tmp_path / "missing"))
    said = refused()
    assert said.startswith(f"ORCH_PLANE_TOKEN_FILE: {tmp_path / 'missing'} can not be read (No such file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("[projects", "not TOML"),
        (ORCH_TOML + "approvrs = []\n", "projects.PAY.approvrs"),
        (ORCH_TOML.partition("[projects")[0], "projects"),
    ],
)
def test_a_broken_orch_toml_is_refused(
    complete: pytest.MonkeyPatch, tmp_path: Path, content: str | None, said: str
) -> None:
    """A missing, broken or misspelt `orch.toml` is refused with its path and the place in it."""
    path = tmp_path / "other.toml"
    if content is not None:
        path.write_text(content)
    complete.setenv("ORCH_CONFIG", str(path))
    problem = refused()
    assert str(path) in problem
    assert said in problem


def test_a_configuration_error_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code tells supervisors not to try again."""
    assert exit_with(ConfigError(["ORCH_HOME: is not set; set it"])) == 78
    assert capsys.readouterr().err == "orch cannot start:\nORCH_HOME: is not set; set it\n"
