"""Alembic's entry: migrates the connection `deploy.migrate` hands over, else `ORCH_DATABASE_URL`."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from deploy.migrate import async_url


def run(connection: Connection) -> None:
    """Run the migrations, each in a transaction of its own."""
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    """For the `alembic` command line."""
    engine = create_async_engine(async_url(os.environ["ORCH_DATABASE_URL"]), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is None:
    asyncio.run(connect_and_run())
else:
    run(given)
