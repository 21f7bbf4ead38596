"""The inbox: every delivery is a row before it is anything else.

Rows are leased by a committed `leased_until`, so that no transaction spans a call to Temporal. Whoever
settles must still hold the lease, and a delivery that came again meanwhile stays new. Times are
PostgreSQL's, so hosts' clocks need not agree.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from workflows.model import Frozen

CHANNEL = "orch_inbox"

ACQUIRE_SECONDS = 2.0
STATEMENT_SECONDS = 3.0

ROW_FAULTS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""PostgreSQL is well, but these values can not be stored."""

STORE_DOWN = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""How asyncpg says that the database can not be used now (where `ROW_FAULTS` are caught before)."""


class Source(StrEnum):
    """Who sends webhooks; the values are stored."""

    PLANE = "plane"
    GITEA = "gitea"


class Status(StrEnum):
    """Where a delivery stands; the values are stored."""

    NEW = "new"
    FORWARDED = "forwarded"
    IGNORED = "ignored"
    DEAD = "dead"


class Receipt(Frozen):
    """What became of a received delivery. More than once means that the same bytes came before."""

    id: int
    times_received: int


class Delivery(Frozen):
    """A claimed row. `leased_until` and `times_received` prove at settling that the claim still holds."""

    id: int
    source: Source
    body: bytes
    headers: dict[str, str]
    attempts: int
    times_received: int
    leased_until: datetime


class Settlement(Frozen):
    """How a claimed delivery ends, with a reason a person understands."""

    delivery: Delivery
    status: Status
    reason: str
    task: str | None = None


_RECEIVE = """
    INSERT INTO webhook_deliveries AS row (source, body_sha256, body, headers, event, delivery_id)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (source, body_sha256) DO UPDATE SET
        times_received = row.times_received + 1, last_received_at = now(),
        delivery_id = excluded.delivery_id, status = 'new', reason = '',
        attempts = 0, next_attempt_at = now(), settled_at = NULL
    RETURNING id, times_received
"""
"""No NOTIFY: transactions that notify commit one after the other, each with a flush of its own."""

_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM webhook_deliveries
        WHERE status = 'new' AND next_attempt_at <= now() AND (leased_until IS NULL OR leased_until <= now())
        ORDER BY next_attempt_at, id
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries AS row SET leased_until = now() + $2::interval, attempts = attempts + 1
    FROM due WHERE row.id = due.id
    RETURNING row.id, source, body, headers, attempts, times_received, leased_until
"""

_SETTLE = """
    UPDATE webhook_deliveries SET
        leased_until = NULL,
        task = coalesce($6, task),
        status = CASE WHEN times_received = $3 THEN $4 ELSE status END,
        reason = CASE WHEN times_received = $3 THEN $5 ELSE reason END,
        settled_at = CASE WHEN times_received = $3 THEN now() ELSE settled_at END
    WHERE id = $1 AND leased_until = $2
"""

_LATER = """
    UPDATE webhook_deliveries SET
        leased_until = NULL,
        reason = $4,
        attempts = CASE WHEN times_received = $3 THEN $6 ELSE attempts END,
        next_attempt_at = CASE WHEN times_received = $3 THEN now() + $5::interval ELSE next_attempt_at END
    WHERE id = $1 AND leased_until = $2
"""


_GAP = """
    INSERT INTO intake_gaps (source, since, until) VALUES ($1, now() - $2::interval, now()) ON CONFLICT DO NOTHING
"""


class Inbox:
    """The rows of `webhook_deliveries`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._wakes: list[asyncio.Event] = []

    def wake_on_arrival(self, wake: asyncio.Event) -> None:
        """Set `wake` for each delivery that this inbox stores; other processes' are found by polling."""
        self._wakes.append(wake)

    async def receive(
        self, source: Source, body: bytes, *, headers: Mapping[str, str], event: str, delivery_id: str
    ) -> Receipt:
        """Store a delivery and wake the forwarder. The same bytes again make no second row but wake again.

        The caller bounds the time: a bound of our own around the pool would cost each delivery another task.
        """
        digest = sha256(body).digest()
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _RECEIVE, source, digest, body, json.dumps(dict(headers)), event, delivery_id
            )
        assert row is not None
        for wake in self._wakes:
            wake.set()
        return Receipt(id=row["id"], times_received=row["times_received"])

    async def note_gap(self, source: Source, seconds: float) -> None:
        """Mark that deliveries of a sender were refused from so many seconds ago until now."""
        async with self._connection() as connection:
            await connection.execute(_GAP, source, timedelta(seconds=seconds))

    async def claim(self, limit: int, lease: timedelta) -> list[Delivery]:
        """Lease due deliveries, oldest first; nobody else gets them until the lease runs out."""
        async with self._connection() as connection:
            rows = await connection.fetch(_CLAIM, limit, lease)
        claimed = [Delivery(**{**row, "headers": json.loads(row["headers"])}) for row in rows]
        return sorted(claimed, key=lambda delivery: delivery.id)

    async def settle(self, end: Settlement) -> None:
        """End a delivery. If its lease was lost it is left alone; if it came again meanwhile it stays new."""
        row = end.delivery
        async with self._connection() as connection:
            await connection.execute(
                _SETTLE, row.id, row.leased_until, row.times_received, end.status, end.reason, end.task
            )

    async def retry_later(self, delivery: Delivery, delay: timedelta, reason: str, *, attempts: int) -> None:
        """Give the lease back; the row comes due again after `delay`, at once if it came again meanwhile."""
        async with self._connection() as connection:
            await connection.execute(
                _LATER,
                delivery.id,
                delivery.leased_until,
                delivery.times_received,
                reason,
                delay,
                attempts,
            )

    async def ring(self, wake: asyncio.Event) -> None:
        """Listen for replays until the connection ends, setting `wake` for each and once at the start.

        Polling covers what a lost connection misses, so callers only call this again after a while.
        """
        ended = asyncio.Event()

        def heard(*_: object) -> None:
            wake.set()

        async with self._connection() as connection:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(CHANNEL, heard)
            wake.set()
            try:
                await ended.wait()
            finally:
                if not connection.is_closed():
                    await connection.remove_listener(CHANNEL, heard)

    async def probe(self) -> None:
        """Raise what keeps deliveries from being stored, if anything does."""
        async with self._connection() as connection:
            await connection.execute("SELECT id FROM webhook_deliveries LIMIT 0")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy]:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            yield connection


async def open_pool(database_url: str, *, size: int = 10) -> asyncpg.Pool:
    """A pool that opens connections when they are needed, so that PostgreSQL may come up after us.

    A call fails within about five seconds if PostgreSQL does not answer.
    """
    return await asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=size,
        timeout=ACQUIRE_SECONDS,
        command_timeout=STATEMENT_SECONDS,
        reset=_leave_as_it_is,
        server_settings={"application_name": "orch-api"},
    )


async def _leave_as_it_is(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Save a round trip for each delivery: nothing here changes a session, and `ring` takes its listener back."""
