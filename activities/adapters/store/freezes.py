"""`freezes`: why a lease queue grants nothing, since when, and who lifted it."""

from dataclasses import dataclass
from datetime import datetime

from activities.adapters.store.pool import Pool

ANNOUNCE = "INSERT INTO notifications (intent_key, task, text) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True)
class FreezeRow:
    """One standing cause, and whose act froze the queue."""

    cause: str
    reason: str
    since: datetime
    by: str


class Freezes:
    """Standing causes by queue. The rows are the truth; a queue's workflow only mirrors them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self, queue: str, cause: str, *, reason: str, by: str) -> None:
        """Freeze for a cause and announce it once; one that stands keeps its since and gets the newer reason."""
        async with self._pool.acquire() as connection, connection.transaction():
            row_id = await connection.fetchval(
                """
                INSERT INTO freezes (queue, cause, reason, by_whom) VALUES ($1, $2, $3, $4)
                ON CONFLICT (queue, cause) WHERE lifted_at IS NULL DO UPDATE SET reason = $3
                RETURNING id
                """,
                queue,
                cause,
                reason,
                by,
            )
            await connection.execute(
                ANNOUNCE, f"freeze/{row_id}", queue, f"{queue} is frozen by {by}: {cause} ({reason})"
            )

    async def lift(self, queue: str, cause: str, *, reason: str, by: str) -> bool:
        """Lift a cause, and announce it once; whether it stood."""
        async with self._pool.acquire() as connection, connection.transaction():
            row_id = await connection.fetchval(
                """
                UPDATE freezes SET lifted_at = now(), lifted_by = $4, lifted_reason = $3
                WHERE queue = $1 AND cause = $2 AND lifted_at IS NULL RETURNING id
                """,
                queue,
                cause,
                reason,
                by,
            )
            if row_id is not None:
                said = f"{queue}: {by} lifted {cause} ({reason})"
                await connection.execute(ANNOUNCE, f"freeze/{row_id}/lifted", queue, said)
        return row_id is not None

    async def standing(self, queue: str) -> tuple[FreezeRow, ...]:
        """The causes that stand, oldest first."""
        rows = await self._pool.fetch(
            """
            SELECT cause, reason, since, by_whom AS by FROM freezes
            WHERE queue = $1 AND lifted_at IS NULL ORDER BY since, id
            """,
            queue,
        )
        return tuple(FreezeRow(**row) for row in rows)
