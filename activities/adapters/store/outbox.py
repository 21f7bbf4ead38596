"""`notifications`: what people are told, delivered by a loop of its own so that no workflow waits for it."""

from dataclasses import dataclass

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message that is due."""

    id: int
    task: str
    text: str
    attempts: int


class Outbox:
    """The notification queue. Delivery is at least once: Telegram has no idempotency key."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int = 10, lease_seconds: float = 60) -> tuple[OutboxRow, ...]:
        """Take due messages; whoever dies with one gives it back when the lease ends."""
        rows = await self._pool.fetch(
            """
            UPDATE notifications SET attempts = attempts + 1,
                   next_attempt_at = now() + make_interval(secs => $2)
            WHERE id IN (SELECT id FROM notifications WHERE sent_at IS NULL AND next_attempt_at <= now()
                         ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING id, task, text, attempts
            """,
            limit,
            lease_seconds,
        )
        return tuple(OutboxRow(**row) for row in sorted(rows, key=lambda row: int(row["id"])))

    async def sent(self, row_id: int, message_id: int) -> None:
        """Note the delivery."""
        await self._pool.execute(
            "UPDATE notifications SET sent_at = now(), message_id = $2, last_error = '' WHERE id = $1",
            row_id,
            message_id,
        )

    async def failed(self, row_id: int, error: str, retry_in: float) -> None:
        """Note why a delivery failed and when to try again, in seconds."""
        await self._pool.execute(
            """
            UPDATE notifications SET last_error = $2, next_attempt_at = now() + make_interval(secs => $3)
            WHERE id = $1
            """,
            row_id,
            error,
            retry_in,
        )
