"""The API's settings: the environment (prefix `ORCH_`) and `orch.toml`. Only its own secrets are here."""

import os
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.breaker import WAKES_PER_HOUR
from workflows.problems import EX_CONFIG, PREFIX, Secret, cause, explain_settings, secret_files
from workflows.projects import OrchConfig, parse_orch_toml

__all__ = ["EX_CONFIG", "ApiSettings", "ConfigurationError", "Loaded", "load"]


class ConfigurationError(Exception):
    """Everything that is wrong with the configuration, one line each: where it comes from, how to mend it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ApiSettings(BaseSettings):
    """What the API process needs. Each secret may come from a file instead: `<NAME>_FILE`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=False,
        use_attribute_docstrings=True,
    )

    database_url: Secret
    """PostgreSQL's address, such as postgresql://orch@127.0.0.1/orch."""
    config: Path
    """The path of orch.toml."""
    api_host: str = Field(default="127.0.0.1", min_length=1)
    """The address the API listens on."""
    api_port: int = Field(default=8700, ge=0, le=65535)
    """The port the API listens on."""
    wakes_per_hour: int = Field(default=WAKES_PER_HOUR, ge=1)
    """The number of wakes of a task in an hour above which the loop breaker holds them back."""
    plane_webhook_secret: Secret
    """The secret Plane showed when the webhook was created."""
    plane_webhook_secret_previous: Secret | None = None
    """The secret before it, accepted too while it is changed."""
    gitea_webhook_secret: Secret
    """The secret that was entered when the Gitea webhook was created."""
    gitea_webhook_secret_previous: Secret | None = None
    """The secret before it, accepted too while it is changed."""

    @field_validator("config", mode="before")
    @classmethod
    def _a_path(cls, value: object) -> object:
        if value == "":
            raise ValueError("is empty")
        return value

    @property
    def plane_secrets(self) -> tuple[bytes, ...]:
        """Plane's current and previous secret."""
        return _keys(self.plane_webhook_secret, self.plane_webhook_secret_previous)

    @property
    def gitea_secrets(self) -> tuple[bytes, ...]:
        """Gitea's current and previous secret."""
        return _keys(self.gitea_webhook_secret, self.gitea_webhook_secret_previous)


class Loaded(NamedTuple):
    """A configuration that can be started with."""

    settings: ApiSettings
    projects: OrchConfig


def load() -> Loaded:
    """Read and check the whole configuration.

    Raises:
        ConfigurationError: with every problem found, not only the first.
    """
    from_files, problems = secret_files(os.environ, ApiSettings, _read)
    settings: ApiSettings | None = None
    try:
        settings = ApiSettings(**from_files)
    except ValidationError as error:
        problems += explain_settings(error, ApiSettings, problems)
    projects = _read_projects(os.environ.get(f"{PREFIX}CONFIG"), problems)
    if problems or settings is None or projects is None:
        raise ConfigurationError(problems)
    return Loaded(settings, projects)


def _keys(current: SecretStr, previous: SecretStr | None) -> tuple[bytes, ...]:
    return tuple(secret.get_secret_value().encode() for secret in (current, previous) if secret is not None)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _read_projects(path: str | None, problems: list[str]) -> OrchConfig | None:
    if not path:
        return None
    try:
        config, faults = parse_orch_toml(_read(path), path)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{PREFIX}CONFIG: {path} can not be read ({cause(error)}); name a readable file")
        return None
    problems += faults
    return config
