"""The loop breaker: whoever wakes a task without end, by writing what wakes it, is slowed down and reported.

Counts come from the inbox itself, so that several forwarders and restarts see the same.
"""

from collections.abc import Iterable

import asyncpg
import structlog

from api.inbox import ACQUIRE_SECONDS

WAKES_PER_HOUR = 600

log = structlog.get_logger("api.breaker")


class Breaker:
    """Knows which tasks have been woken too often."""

    def __init__(self, pool: asyncpg.Pool, limit: int = WAKES_PER_HOUR) -> None:
        self._pool = pool
        self.limit = limit

    async def tripped(self, tasks: Iterable[str]) -> set[str]:
        """Those of the tasks that deliveries have woken more often within the hour than is allowed.

        The first time in an hour, a person is told.
        """
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            rows = await connection.fetch(_WAKES, sorted(set(tasks)), self.limit)
            for row in rows:
                task, wakes = row["task"], row["wakes"]
                text = (
                    f"{task} was woken {wakes} times within an hour by webhooks; more than {self.limit} are not "
                    "passed on. Something may answer Orch's own writes. The rest waits: "
                    "orch webhooks list --status new"
                )
                if await connection.fetchval(_TELL, task, text) is not None:
                    log.warning("loop breaker: wakes of a task wait", task=task, wakes=wakes, limit=self.limit)
        return {row["task"] for row in rows}


_WAKES = """
    SELECT task, sum(CASE WHEN received_at > now() - interval '1 hour' THEN times_received ELSE 1 END) AS wakes
    FROM webhook_deliveries
    WHERE task = ANY($1) AND last_received_at > now() - interval '1 hour' AND status IN ('new', 'forwarded')
    GROUP BY task
    HAVING sum(CASE WHEN received_at > now() - interval '1 hour' THEN times_received ELSE 1 END) >= $2
"""
"""A row that came again is new but still names its task, so the same bytes sent without end are counted too."""

_TELL = """
    INSERT INTO notifications (intent_key, task, text)
    VALUES ($1 || '/wakes/' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24'), $1, $2)
    ON CONFLICT DO NOTHING
    RETURNING id
"""
