"""The home folder: where one embedded stack keeps all it has."""

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploy.errors import StackError

SECRETS = (
    "postgres_password",
    "ORCH_PLANE_TOKEN",
    "ORCH_GITEA_TOKEN",
    "ORCH_GITEA_REVIEWER_TOKEN",
    "ORCH_TELEGRAM_TOKEN",
    "ORCH_PLANE_WEBHOOK_SECRET",
    "ORCH_GITEA_WEBHOOK_SECRET",
)
"""Made at random once for each home; see `Home.secrets`."""


def default_home() -> Path:
    """`ORCH_HOME`, or the folder for user data that this system prescribes."""
    given = os.environ.get("ORCH_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("orch")


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _make(name: str) -> str:
    secret = secrets.token_urlsafe(24)
    # A bot's token begins with the bot's id; Telegram, and the sandbox in its place, refuse any other.
    return f"{secrets.randbelow(9 * 10**9) + 10**9}:{secret}" if name == "ORCH_TELEGRAM_TOKEN" else secret


def _usable(name: str, secret: str | None) -> bool:
    """False for one that is missing, and for the Telegram tokens without a bot's id that were made once."""
    return secret is not None and (name != "ORCH_TELEGRAM_TOKEN" or ":" in secret)


@dataclass(frozen=True)
class Home:
    """The folders and files of one stack."""

    root: Path

    @classmethod
    def at(cls, path: Path | None = None) -> "Home":
        """The home at this path, or the default one."""
        return cls((path or default_home()).expanduser().resolve())

    @property
    def stack_file(self) -> Path:
        """Ports, processes and phase of the stack."""
        return self.root / "stack.json"

    @property
    def env_file(self) -> Path:
        """How to reach the running stack, as `KEY=value` lines."""
        return self.root / "orch.env"

    @property
    def config_file(self) -> Path:
        """The configuration of the orchestrator itself; written by `orch init` or by hand."""
        return self.root / "orch.toml"

    @property
    def secrets_file(self) -> Path:
        """The secrets that were made for this home."""
        return self.root / "secrets.json"

    @property
    def temporal_config(self) -> Path:
        """Where Temporal's clients and its command line find the server; in `TEMPORAL_CONFIG_FILE`."""
        return self.root / "temporal.toml"

    @property
    def logs(self) -> Path:
        """One file for each service, and one for the supervisor."""
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data, unless the account that runs it cannot enter here."""
        return self.root / "postgres"

    @property
    def temporal(self) -> Path:
        """Temporal's database."""
        return self.root / "temporal"

    @property
    def sandbox(self) -> Path:
        """The sandbox servers' configuration and data."""
        return self.root / "sandbox"

    @property
    def run(self) -> Path:
        """Locks."""
        return self.root / "run"

    def log(self, service: str) -> Path:
        """The log of a service."""
        return self.logs / f"{service}.log"

    def create(self) -> None:
        """Make the folders that are missing; the permissions of folders that exist are left alone.

        Raises:
            StackError: the folder cannot be made or belongs to another user.
        """
        root = os.geteuid() == 0
        try:
            if not self.root.exists():
                self.root.mkdir(parents=True)
                # PostgreSQL's own account has to pass through, and secrets are protected file by file.
                self.root.chmod(0o711 if root else 0o700)
            for folder in (self.logs, self.temporal, self.sandbox, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"{self.root}: {error.strerror}; choose another folder with ORCH_HOME, or give this one to"
                f" the user who runs orch (uid {os.geteuid()})"
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise StackError(
                f"{self.root} belongs to uid {self.root.stat().st_uid} and cannot be written by uid"
                f" {os.geteuid()}; run orch as that user or choose another folder with ORCH_HOME"
            )

    def secrets(self) -> dict[str, str]:
        """This home's secrets; those that are missing are made and remembered.

        Raises:
            StackError: the file cannot be read.
        """
        known: dict[str, str] = {}
        try:
            known = json.loads(self.secrets_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise StackError(
                f"{self.secrets_file} cannot be read ({error}); it holds the database's password, so restore"
                " it, or delete the whole home folder to begin anew"
            ) from error
        missing = {name: _make(name) for name in SECRETS if not _usable(name, known.get(name))}
        if missing:
            known |= missing
            write_private(self.secrets_file, json.dumps(known, indent=2) + "\n")
        return known

    def environment(self) -> dict[str, str]:
        """What `orch.env` says; empty where no stack was ever started."""
        try:
            lines = self.env_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
