"""Migrations against a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.embedded import servers
from deploy.migrate import upgrade

pytestmark = pytest.mark.embedded

FIRST = '''"""First."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply it."""
    op.execute("CREATE TABLE things (id bigint PRIMARY KEY)")
    op.execute("SELECT pg_sleep(0.3)")
    op.execute("INSERT INTO things VALUES (1)")
'''
BROKEN = '''"""Second."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Fail half way."""
    op.execute("INSERT INTO things VALUES (2)")
    op.execute("SELECT 1/0")
'''


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[str]:
    """A PostgreSQL server; its URL."""
    async with servers(services=("postgres",)) as status:
        yield status.database_url


@pytest.fixture
async def database(server: str, request: pytest.FixtureRequest) -> str:
    """A new database on it; its URL."""
    name = request.node.name
    connection = await asyncpg.connect(server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return f"{server.rpartition('/')[0]}/{name}"


async def fetch(url: str, query: str) -> list[object]:
    """The first column of what the query finds."""
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_three_at_once_apply_each_migration_once(database: str, tmp_path: Path) -> None:
    """Three that migrate at the same time all succeed, and the migration ran once."""
    (tmp_path / "0001_first.py").write_text(FIRST)
    await asyncio.gather(*(upgrade(database, versions=tmp_path) for _ in range(3)))
    assert await fetch(database, "SELECT id FROM things") == [1]
    await upgrade(database, versions=tmp_path)
    assert await fetch(database, "SELECT version_num FROM alembic_version") == ["0001"]


async def test_failed_migration_leaves_the_one_before_and_no_lock(database: str, tmp_path: Path) -> None:
    """A failing migration is undone as a whole, those before it stay, and the next try is not blocked."""
    (tmp_path / "0001_first.py").write_text(FIRST)
    (tmp_path / "0002_broken.py").write_text(BROKEN)
    with pytest.raises(Exception, match="division by zero"):
        await upgrade(database, versions=tmp_path)
    assert await fetch(database, "SELECT id FROM things") == [1]
    (tmp_path / "0002_broken.py").write_text(BROKEN.replace("1/0", "1"))
    async with asyncio.timeout(20):
        await upgrade(database, versions=tmp_path)
    assert await fetch(database, "SELECT id FROM things ORDER BY id") == [1, 2]
    assert await fetch(database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [0]


async def test_our_own_migrations_apply_twice(database: str) -> None:
    """The migrations of this version apply to an empty database, and a second time change nothing."""
    await upgrade(database)
    await upgrade(database)
