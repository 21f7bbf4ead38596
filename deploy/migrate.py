"""Brings the database's schema up to date: safe to run again, and by several processes at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6F726368
"""The key of the advisory lock: "orch"."""


def async_url(database_url: str) -> str:
    """The URL that SQLAlchemy's asyncpg driver wants for `postgresql://user:password@host:port/database`."""
    return make_url(database_url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def upgrade(database_url: str, *, versions: Path | None = None, revision: str = "head") -> None:
    """Apply every migration that is missing; whoever comes second waits and finds nothing left to do.

    Args:
        database_url: `postgresql://user:password@host:port/database`.
        versions: a folder of migrations other than ours.
        revision: how far to go.
    """
    engine = create_async_engine(async_url(database_url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            # Held by the session, not by a transaction: it outlives the commits of migrations.
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            await connection.commit()
            await connection.run_sync(_upgrade, versions, revision)
            await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, versions: Path | None, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    if versions is not None:
        config.set_main_option("version_locations", str(versions))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
