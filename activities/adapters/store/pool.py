"""The connection pool, with JSON read and written as Python values."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Answer = TypeVar("Answer")

DATABASE_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
    OSError,
)
"""A server that restarts refuses, cuts and half-closes connections."""
_PAUSE = 1.0


async def outlast(ask: Callable[[], Awaitable[Answer]], seconds: float = 120) -> Answer:
    """Ask until the database answers, for at most `seconds`: for what comes after work too dear to repeat.

    Raises:
        Exception: one of `DATABASE_AWAY`, if it is away for longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except DATABASE_AWAY:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_PAUSE)


async def open_pool(database_url: str, *, size: int = 10) -> Pool:
    """Open a pool; the caller closes it.

    Raises:
        OSError: nobody listens there.
        asyncpg.PostgresError: the server refuses us.
    """
    return await asyncpg.create_pool(database_url, min_size=1, max_size=size, init=_read_json)


async def _read_json(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
