"""The API's settings: the environment (prefix `ORCH_`) and `orch.toml`. Only its own secrets are here."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.breaker import WAKES_PER_HOUR
from workflows.projects import OrchConfig

PREFIX = "ORCH_"
EX_CONFIG = 78
"""The exit code for a configuration that can not be started with (sysexits.h)."""


class ConfigurationError(Exception):
    """Everything that is wrong with the configuration, one line each: where it comes from, how to mend it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _not_empty(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is empty")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_not_empty)]


class ApiSettings(BaseSettings):
    """What the API process needs. Each secret may come from a file instead: `<NAME>_FILE`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=False
    )

    database_url: Secret
    config: Path
    api_host: str = Field(default="127.0.0.1", min_length=1)
    api_port: int = Field(default=8700, ge=0, le=65535)
    wakes_per_hour: int = Field(default=WAKES_PER_HOUR, ge=1)
    plane_webhook_secret: Secret
    plane_webhook_secret_previous: Secret | None = None
    gitea_webhook_secret: Secret
    gitea_webhook_secret_previous: Secret | None = None

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
    from_files, problems = _read_secret_files()
    unreadable = set(from_files) | {problem.split("_FILE:")[0] for problem in problems}
    settings: ApiSettings | None = None
    try:
        settings = ApiSettings(**from_files)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = _variable(str(fault["loc"][0]))
            if name not in unreadable:
                problems.append(_problem(name, fault["type"], fault["msg"]))
    projects = _read_projects(os.environ.get(_variable("config")), problems)
    if problems or settings is None or projects is None:
        raise ConfigurationError(problems)
    return Loaded(settings, projects)


_FIXES = {
    "database_url": "a PostgreSQL address such as postgresql://orch@127.0.0.1/orch",
    "config": "the path of orch.toml",
    "plane_webhook_secret": "the secret Plane showed when the webhook was created",
    "gitea_webhook_secret": "the secret that was entered when the Gitea webhook was created",
}


def _secrets() -> list[str]:
    return [name for name in ApiSettings.model_fields if name == "database_url" or "_secret" in name]


def _variable(field: str) -> str:
    return f"{PREFIX}{field.upper()}"


def _keys(current: SecretStr, previous: SecretStr | None) -> tuple[bytes, ...]:
    return tuple(secret.get_secret_value().encode() for secret in (current, previous) if secret is not None)


def _read_secret_files() -> tuple[dict[str, Any], list[str]]:
    """The secrets given as files, by field, and what is wrong with those files."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for field in _secrets():
        name = _variable(field)
        path = os.environ.get(f"{name}_FILE")
        if path is None:
            continue
        if name in os.environ:
            problems.append(f"{name}_FILE: {name} is set too; unset one of them")
            continue
        try:
            found[field] = SecretStr(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"{name}_FILE: {path} can not be read ({cause}); name a readable file")
            continue
        if not found[field].get_secret_value():
            problems.append(f"{name}_FILE: {path} is empty; write the secret into it")
    return found, problems


def _problem(name: str, kind: str, message: str) -> str:
    field = name.removeprefix(PREFIX).lower()
    fix = _FIXES.get(field.removesuffix("_previous"), "see docs/reference/webhooks.md")
    if kind == "missing":
        or_file = f" (or {name}_FILE)" if field in _secrets() else ""
        return f"{name}: is not set; set it{or_file} to {fix}"
    what = message.removeprefix("Value error, ")
    if what == "is empty":
        unset = ", or unset it" if field.endswith("_previous") else ""
        return f"{name}: is empty; set it to {fix}{unset}"
    return f"{name}: {what}"


def _read_projects(text: str | None, problems: list[str]) -> OrchConfig | None:
    if text is None:
        return None
    if not text:
        problems.append(_problem(_variable("config"), "", "is empty"))
        return None
    path = Path(text)
    try:
        return OrchConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        problems.append(f"{_variable('config')}: {path} can not be read ({error.strerror}); name a readable file")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: is not TOML ({error}); mend it there")
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            where = ".".join(map(str, fault["loc"]))
            problems.append(f"{path}: {where}: {fault['msg']}; mend it there")
    return None
