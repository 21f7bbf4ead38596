"""The worker's settings: read once, typed, validated before anything starts; nobody else reads them."""

import os
import re
import socket
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflows.problems import EX_CONFIG, PREFIX, Secret, cause, explain_settings, secret_files
from workflows.projects import OrchConfig, parse_orch_toml


class ConfigError(Exception):
    """The configuration cannot be used; every problem is one line: its source, what is wrong, how to mend it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class WorkerSettings(BaseSettings):
    """`ORCH_*` of a worker. It holds no webhook secret: those are the API's."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    database_url: Secret
    """PostgreSQL's address, such as postgresql://orch@127.0.0.1/orch."""
    config: Path
    """The path of orch.toml."""
    home: Path
    """The folder for mirrors and workspaces on this host."""
    plane_url: str
    """Plane's address for programs, such as https://plane.example.com."""
    plane_token: Secret
    """The API key of the bot's account in Plane."""
    gitea_url: str
    """Gitea's address for programs, such as https://git.example.com."""
    gitea_token: Secret
    """The token of the account in Gitea that pushes, opens pull requests and merges."""
    gitea_reviewer_token: Secret
    """The token of another account in Gitea. An author cannot approve their own pull request."""
    telegram_url: str = "https://api.telegram.org"
    """Telegram's address for programs."""
    telegram_token: Secret | None = None
    """The token of the bot in Telegram. Without it and a chat nothing is sent."""
    telegram_chat: int | None = None
    """The number of the chat in Telegram that messages go to."""
    plane_rate: float = Field(default=0.25, gt=0)
    """Activities a second on Plane's queue, over all workers. Each makes up to four of the 60 calls a minute."""
    host_name: str = Field(default_factory=socket.gethostname, pattern=r"^[A-Za-z0-9._-]+$")
    """This host's name in task queues. Stable over restarts: a restarted worker finds its workspaces again."""
    agent_slots: int = Field(default=2, ge=1)
    """The number of agents at once on this host."""
    work_slots: int = Field(default_factory=lambda: os.cpu_count() or 2, ge=1)
    """The number of test runs, candidates, landings and deployments at once on this host."""
    isolation: Literal["required", "preferred"] = "required"
    """`required` or `preferred`. Preferred goes on without bubblewrap where it is missing, for demos and tests."""
    reconcile_enabled: bool = True
    """Whether passes over a project are made (true or false)."""
    reconcile_plane_enabled: bool = True
    """Whether a pass also lists Plane's items (true or false)."""
    reconcile_interval: float = Field(default=120, ge=1)
    """Seconds between two passes over a project."""
    merge_gate_enabled: bool = True
    """Whether a branch must pass its tests on current main before it lands (true or false)."""
    merge_gate_repos: str = ""
    """The repositories the merge gate is for, `owner/name` with commas between. Empty means all."""
    anthropic_api_key: Secret | None = None
    """The key the `claude` runner works with. The agent's commands can read it: give it a spending limit of its own."""
    anthropic_base_url: str = ""
    """The model API's address for the `claude` runner. Empty for Anthropic's own."""
    claude_path: Path | None = None
    """Where Claude Code is. Without it the one on the worker's PATH is used."""
    claude_retries: int = Field(default=3, ge=0)
    """How often Claude Code itself asks the API again before the run is begun anew, later."""
    agent_command: str = ""
    """The program of the `command` runner with its arguments, as in a shell but run without one."""
    agent_tool_silence: float = Field(default=120, gt=0)
    """Seconds an agent may say nothing while a tool runs, before it is ended and its session taken up again."""
    agent_model_silence: float = Field(default=360, gt=0)
    """Seconds an agent may say nothing while the model is asked."""
    agent_exit_grace: float = Field(default=30, ge=0)
    """Seconds between an agent's result and its exit, before it is ended."""
    agent_stop_grace: float = Field(default=10, ge=0)
    """Seconds between asking an agent to stop and killing it."""
    scripted_playbook: Path | None = None
    """What the `scripted` runner plays. For the demo and tests."""
    temporal_ui_url: str = ""
    """The address of Temporal's Web UI, for links."""

    @field_validator("config", "home", "plane_url", "gitea_url", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if value == "":
            raise ValueError("is empty")
        return value

    @field_validator("merge_gate_repos")
    @classmethod
    def _repositories(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        for name in names:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
                raise ValueError(f"{name!r} is no repository; write owner/name, with commas between several")
        return ",".join(names)

    @field_validator("plane_url", "gitea_url", "telegram_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("is no address; it starts with http:// or https://")
        return value.rstrip("/")


def load_settings() -> tuple[WorkerSettings, OrchConfig]:
    """Read the environment and `orch.toml`.

    A secret may also be given as `ORCH_<NAME>_FILE`, the path of a file that holds it.

    Raises:
        ConfigError: with all errors at once.
    """
    values, problems = secret_files(os.environ, WorkerSettings, _read)
    settings: WorkerSettings | None = None
    try:
        settings = WorkerSettings(**values)
    except ValidationError as error:
        problems += explain_settings(error, WorkerSettings, problems)
    config: OrchConfig | None = None
    if path := os.environ.get(f"{PREFIX}CONFIG"):  # also where other settings are wrong: everything is said at once
        try:
            config = read_orch_toml(Path(path))
        except ConfigError as error:
            problems += error.problems
    if problems or settings is None or config is None:
        raise ConfigError(problems)
    return settings, config


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def read_orch_toml(path: Path) -> OrchConfig:
    """Read and validate `orch.toml`.

    Raises:
        ConfigError: the file is missing, not TOML, or says something else than the reference allows.
    """
    try:
        config, problems = parse_orch_toml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"ORCH_CONFIG: {path} can not be read ({cause(error)}); name a readable file"]) from error
    if config is None:
        raise ConfigError(problems)
    return config


def exit_with(error: ConfigError) -> int:
    """Print what is wrong; supervisors must not treat the exit code as a crash."""
    sys.stderr.write(f"orch cannot start:\n{error}\n")
    return EX_CONFIG
