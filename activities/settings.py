"""The worker's settings: read once, typed, validated before anything starts; nobody else reads them."""

import os
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflows.projects import OrchConfig

SECRETS = ("plane_token", "gitea_token", "gitea_reviewer_token", "telegram_token")


class ConfigError(Exception):
    """The configuration cannot be used; the text lists every error with its source and how to mend it."""


class WorkerSettings(BaseSettings):
    """`ORCH_*` of a worker. It holds no webhook secret: those are the API's."""

    model_config = SettingsConfigDict(env_prefix="ORCH_", extra="ignore")

    database_url: SecretStr
    config: Path
    """The path of `orch.toml`."""
    home: Path
    """Where mirrors and workspaces live on this host."""
    plane_url: str
    plane_token: SecretStr
    gitea_url: str
    gitea_token: SecretStr
    """The account that pushes, opens pull requests and merges."""
    gitea_reviewer_token: SecretStr
    """Another account: an author cannot approve their own pull request (contracts/gitea.md, 3)."""
    telegram_url: str = "https://api.telegram.org"
    telegram_token: SecretStr | None = None
    telegram_chat: int | None = None
    plane_rate: float = Field(default=0.25, gt=0)
    """Activities a second on Plane's queue, over all workers: each makes up to four of the 60 calls a minute."""
    host_name: str = Field(default_factory=socket.gethostname, pattern=r"^[A-Za-z0-9._-]+$")
    """Stable over restarts: a restarted worker finds its workspaces again."""
    agent_slots: int = Field(default=2, ge=1)
    isolation: str = Field(default="required", pattern="^(required|preferred)$")
    """`preferred` runs agents and tests without bubblewrap where it is missing; for demos and tests."""
    reconcile_enabled: bool = True
    reconcile_plane_enabled: bool = True
    reconcile_interval: float = Field(default=120, ge=1)
    """Seconds between two passes over a project."""
    scripted_playbook: Path | None = None
    """What the `scripted` runner plays; for the demo and tests."""
    temporal_ui_url: str = ""

    @field_validator("plane_url", "gitea_url", "telegram_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("need an address that starts with http:// or https://")
        return value.rstrip("/")


def load_settings(environment: dict[str, str] | None = None) -> tuple[WorkerSettings, OrchConfig]:
    """Read the environment and `orch.toml`.

    A secret may also be given as `ORCH_<NAME>_FILE`, the path of a file that holds it.

    Raises:
        ConfigError: with all errors at once.
    """
    environment = dict(os.environ) if environment is None else environment
    values, problems = _secret_files(environment)
    settings: WorkerSettings | None = None
    try:
        settings = WorkerSettings(**values)
    except ValidationError as error:
        problems += [_explain(dict(problem)) for problem in error.errors()]
    config: OrchConfig | None = None
    if settings is not None:
        try:
            config = read_orch_toml(settings.config)
        except ConfigError as error:
            problems.append(str(error))
    if problems or settings is None or config is None:
        raise ConfigError("\n".join(problems))
    return settings, config


def read_orch_toml(path: Path) -> OrchConfig:
    """Read and validate `orch.toml`.

    Raises:
        ConfigError: the file is missing, not TOML, or says something else than the reference allows.
    """
    try:
        return OrchConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"ORCH_CONFIG ({path}): {error.strerror}; give the path of orch.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _secret_files(environment: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems = []
    for name in (*SECRETS, "database_url"):
        source = f"ORCH_{name.upper()}_FILE"
        if source not in environment:
            continue
        try:
            values[name] = Path(environment[source]).read_text(encoding="utf-8").strip()
        except OSError as error:
            problems.append(f"{source} ({environment[source]}): {error.strerror}; it must name a readable file")
    return values, problems


def _explain(problem: dict[str, Any]) -> str:
    name = f"ORCH_{str(problem['loc'][0]).upper()}"
    if problem["type"] == "missing":
        return f"{name} is not set; set it in the environment (or, for a secret, {name}_FILE)"
    return f"{name}: {problem['msg']}"


def exit_with(error: ConfigError) -> int:
    """Print what is wrong; 78 is EX_CONFIG, which supervisors must not treat as a crash."""
    sys.stderr.write(f"orch cannot start:\n{error}\n")
    return 78
