"""Dead and past deliveries, for people: list them, show one, replay them. Every statement of `orch webhooks`."""

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from api.inbox import CHANNEL, Source, Status
from workflows.model import Frozen

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Row = dict[str, Any]

MANY = 50
"""Rows a list shows unless more are asked for."""


class Filter(Frozen):
    """Which deliveries; what is None does not narrow."""

    status: Status | None = None
    source: Source | None = None
    task: str | None = None
    since: timedelta | None = None
    """Received no longer ago than this."""


class Replay(Frozen):
    """What became of the wish to replay some rows."""

    replayed: tuple[int, ...] = ()
    busy: tuple[int, ...] = ()
    """Being forwarded at this moment."""
    missing: tuple[int, ...] = ()


_SUMMARY = """
    id, source, event, status, reason, task, attempts, times_received, received_at, last_received_at,
    next_attempt_at, settled_at, octet_length(body) AS bytes
"""

_MATCHES = """
    ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR source = $2)
    AND ($3::text IS NULL OR upper($3) = ANY(string_to_array(upper(task), ', ')))
    AND ($4::interval IS NULL OR last_received_at > now() - $4)
"""


async def list_rows(connection: Connection, wanted: Filter, limit: int = MANY) -> list[Row]:
    """The newest deliveries that match, newest first, without their bodies."""
    query = (
        f"SELECT {_SUMMARY} FROM webhook_deliveries WHERE {_MATCHES} "  # noqa: S608 - constants
        "ORDER BY last_received_at DESC, id DESC LIMIT $5"
    )
    return [dict(row) for row in await connection.fetch(query, *_values(wanted), limit)]


async def show_row(connection: Connection, row_id: int) -> Row | None:
    """One delivery with its headers and its body, as JSON where it is JSON; None if there is no such row."""
    query = f"SELECT {_SUMMARY}, headers::text, delivery_id, body FROM webhook_deliveries WHERE id = $1"  # noqa: S608 - constants
    found = await connection.fetchrow(query, row_id)
    if found is None:
        return None
    row = dict(found)
    return {**row, "headers": json.loads(row["headers"]), "body": readable(row["body"])}


async def replay(connection: Connection, ids: Sequence[int], *, actor: str, reason: str = "") -> Replay:
    """Make rows new and due now, whatever became of them; each is an operator's act on record."""
    wanted = sorted(set(ids))
    async with connection.transaction():
        known = await connection.fetch(
            """
            SELECT id, task, status, (status = 'new' AND leased_until > now()) IS TRUE AS busy
            FROM webhook_deliveries WHERE id = ANY($1) ORDER BY id FOR UPDATE
            """,
            wanted,
        )
        free = [row for row in known if not row["busy"]]
        await connection.execute(
            """
            UPDATE webhook_deliveries SET status = 'new', reason = 'replayed by ' || $2::text, attempts = 0,
                next_attempt_at = now(), leased_until = NULL, settled_at = NULL
            WHERE id = ANY($1)
            """,
            [row["id"] for row in free],
            actor,
        )
        await connection.executemany(
            """
            INSERT INTO operator_acts (act_id, task, act, actor, reason, via, outcome)
            VALUES ($1, $2, 'replay', $3, $4, 'orch', $5)
            """,
            [
                (str(uuid.uuid4()), row["task"] or "", actor, reason, f"row {row['id']}, which was {row['status']}")
                for row in free
            ],
        )
        if free:
            await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
    present = {row["id"] for row in known}
    return Replay(
        replayed=tuple(row["id"] for row in free),
        busy=tuple(row["id"] for row in known if row["busy"]),
        missing=tuple(row_id for row_id in wanted if row_id not in present),
    )


async def matching(connection: Connection, wanted: Filter) -> list[int]:
    """The ids of every delivery that matches, oldest first."""
    query = f"SELECT id FROM webhook_deliveries WHERE {_MATCHES} ORDER BY id"  # noqa: S608 - constants
    return [row["id"] for row in await connection.fetch(query, *_values(wanted))]


def readable(body: bytes) -> Any:
    """A body as people can read it: JSON where it is JSON, else its text with the rest escaped."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _values(wanted: Filter) -> tuple[object, ...]:
    status, source = wanted.status, wanted.source
    return (status.value if status else None, source.value if source else None, wanted.task, wanted.since)
