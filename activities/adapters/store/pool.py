"""The connection pool, with JSON read and written as Python values."""

import json
from typing import TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


async def open_pool(database_url: str, *, size: int = 10) -> Pool:
    """Open a pool; the caller closes it.

    Raises:
        OSError: nobody listens there.
        asyncpg.PostgresError: the server refuses us.
    """
    return await asyncpg.create_pool(database_url, min_size=1, max_size=size, init=_read_json)


async def _read_json(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
