"""The API's settings: complete or refused, with everything that is wrong said at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.settings import ConfigurationError, load

ORCH_TOML = """
plane_workspace = "acme"
plane_public_url = "https://plane.example.com"
gitea_public_url = "https://gitea.example.com"
[projects.PAY]
plane_project_id = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
repository = { owner = "acme", name = "payments" }
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A complete environment and nothing of ours besides."""
    for name in os.environ:
        if name.startswith("ORCH_"):
            monkeypatch.delenv(name)
    config = tmp_path / "orch.toml"
    config.write_text(ORCH_TOML)
    monkeypatch.setenv("ORCH_CONFIG", str(config))
    monkeypatch.setenv("ORCH_DATABASE_URL", "postgresql://orch@127.0.0.1/orch")
    monkeypatch.setenv("ORCH_PLANE_WEBHOOK_SECRET", "plane-secret")
    monkeypatch.setenv("ORCH_GITEA_WEBHOOK_SECRET", "gitea-secret")
    return monkeypatch


def problems() -> list[str]:
    """What loading complains about."""
    with pytest.raises(ConfigurationError) as refusal:
        load()
    return refusal.value.problems


def test_a_complete_environment_loads(environment: pytest.MonkeyPatch) -> None:
    """Four settings are enough; the address has a default on loopback."""
    settings, projects = load()
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8700)
    assert (settings.plane_secrets, settings.gitea_secrets) == ((b"plane-secret",), (b"gitea-secret",))
    assert list(projects.projects) == ["PAY"]


def test_a_previous_secret_comes_second(environment: pytest.MonkeyPatch) -> None:
    """During a rotation both secrets are known."""
    environment.setenv("ORCH_PLANE_WEBHOOK_SECRET_PREVIOUS", "old")
    assert load().settings.plane_secrets == (b"plane-secret", b"old")


def test_a_secret_may_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`<NAME>_FILE` is read without the newline at its end."""
    (tmp_path / "secret").write_text("from-file\n")
    environment.delenv("ORCH_GITEA_WEBHOOK_SECRET")
    environment.setenv("ORCH_GITEA_WEBHOOK_SECRET_FILE", str(tmp_path / "secret"))
    assert load().settings.gitea_secrets == (b"from-file",)


def test_everything_missing_is_said_at_once(environment: pytest.MonkeyPatch) -> None:
    """An empty environment names each required setting once, with its source and what to set it to."""
    required = ("CONFIG", "DATABASE_URL", "GITEA_WEBHOOK_SECRET", "PLANE_WEBHOOK_SECRET")
    for name in required:
        environment.delenv(f"ORCH_{name}")
    found = sorted(problems())
    assert [problem.split(":")[0] for problem in found] == [f"ORCH_{name}" for name in required]
    assert all("is not set; set it" in problem for problem in found)


@pytest.mark.parametrize("name", ["PLANE_WEBHOOK_SECRET", "GITEA_WEBHOOK_SECRET", "PLANE_WEBHOOK_SECRET_PREVIOUS"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_secret_refuses_to_start(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    """An empty secret would let anyone sign, so it is a problem, also where the setting is optional."""
    environment.setenv(f"ORCH_{name}", value)
    assert [problem.split(";")[0] for problem in problems()] == [f"ORCH_{name}: is empty"]


def test_secret_file_problems_are_said_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file, an empty one and a secret given twice are one problem each, naming the file setting."""
    (tmp_path / "empty").touch()
    environment.delenv("ORCH_PLANE_WEBHOOK_SECRET")
    environment.setenv("ORCH_PLANE_WEBHOOK_SECRET_FILE", str(tmp_path / "missing"))
    environment.setenv("ORCH_GITEA_WEBHOOK_SECRET_FILE", str(tmp_path / "empty"))
    environment.delenv("ORCH_DATABASE_URL")
    environment.setenv("ORCH_DATABASE_URL_FILE", str(tmp_path / "empty"))
    found = sorted(problems())
    assert [problem.split(":")[0] for problem in found] == [
        "ORCH_DATABASE_URL_FILE",
        "ORCH_GITEA_WEBHOOK_SECRET_FILE",
        "ORCH_PLANE_WEBHOOK_SECRET_FILE",
    ]
    assert "is empty" in found[0]
    assert "is set too" in found[1]
    assert "can not be read" in found[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [("projects = [", "is not TOML"), (ORCH_TOML + "\nsurprise = 1", "surprise"), ("", "plane_workspace")],
)
def test_a_faulty_orch_toml_is_named(environment: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str) -> None:
    """What is wrong inside orch.toml is said with the file and the key, beside the other problems."""
    (tmp_path / "orch.toml").write_text(text)
    environment.setenv("ORCH_API_PORT", "eighty")
    found = problems()
    assert any(str(tmp_path / "orch.toml") in problem and said in problem for problem in found)
    assert any(problem.startswith("ORCH_API_PORT") for problem in found)


def test_an_empty_path_of_orch_toml_is_said(environment: pytest.MonkeyPatch) -> None:
    """An ORCH_CONFIG that is set but empty is a problem like one that is missing."""
    environment.setenv("ORCH_CONFIG", "")
    assert problems() == ["ORCH_CONFIG: is empty; set it to the path of orch.toml"]


def test_no_problem_shows_a_secret(environment: pytest.MonkeyPatch) -> None:
    """Error texts and the settings' own text never hold a secret."""
    environment.setenv("ORCH_PLANE_WEBHOOK_SECRET", "canary-1")
    assert "canary-1" not in repr(load().settings)
    environment.setenv("ORCH_DATABASE_URL", "postgresql://orch:canary-2@db/orch")
    environment.setenv("ORCH_API_PORT", "-1")
    assert "canary" not in "\n".join(problems())


def test_a_bad_configuration_exits_with_78(environment: pytest.MonkeyPatch) -> None:
    """The process ends at once with the code supervisors know for a bad configuration, one problem a line."""
    environment.delenv("ORCH_CONFIG")
    environment.setenv("ORCH_API_PORT", "0x50")
    ended = subprocess.run([sys.executable, "-m", "api"], check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 78
    assert [line.split(":")[1].strip() for line in ended.stderr.splitlines()] == [
        "ORCH_CONFIG",
        "ORCH_API_PORT",
    ]
