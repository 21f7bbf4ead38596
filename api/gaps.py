"""After an outage: put its gaps on record and ask for a reconcile pass of every project at once.

That a pass was asked for is a column of the gap, so a restart in between changes nothing; that a pass has covered it
is the pass's own to note.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import asyncpg
import structlog
from temporalio.service import RPCError

from api.inbox import ACQUIRE_SECONDS, STORE_DOWN
from api.signalling import Tasks, TemporalDownError, one_line

POLL = timedelta(seconds=5)

log = structlog.get_logger("api.gaps")

_UNASKED = "SELECT source, since FROM intake_gaps WHERE asked_at IS NULL"
_ASKED = "UPDATE intake_gaps SET asked_at = now() WHERE source = $1 AND since = $2"


class GapWatch:
    """Looks for gaps that nobody has been told of."""

    def __init__(
        self, pool: asyncpg.Pool, tasks: Tasks, projects: Iterable[str], record: Callable[[], Awaitable[None]]
    ) -> None:
        """`record` writes what the receiver still remembers of an outage; it may fail while PostgreSQL is away."""
        self._pool = pool
        self._tasks = tasks
        self._projects = tuple(projects)
        self._record = record
        self._trouble = ""

    async def run(self) -> None:
        """Look every few seconds until cancelled. Trouble is logged when it begins, not each time."""
        while True:
            trouble = ""
            try:
                await self.look()
            except (TemporalDownError, RPCError, *STORE_DOWN) as error:
                trouble = one_line(error)
            if trouble != self._trouble and trouble:
                log.warning("a pass over a gap can not be asked for yet", cause=trouble)
            self._trouble = trouble
            await asyncio.sleep(POLL.total_seconds())

    async def look(self) -> None:
        """Record what is over, and ask for a pass of every project if any gap is new.

        Raises:
            TemporalDownError: Temporal can not be asked now.
            RPCError: a project has no Schedule yet; a worker makes it when it starts.
        """
        await self._record()
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            gaps = await connection.fetch(_UNASKED)
        if not gaps:
            return
        for project in self._projects:
            await self._tasks.reconcile_now(project)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            for gap in gaps:
                await connection.execute(_ASKED, gap["source"], gap["since"])
        log.info("reconcile passes asked for", gaps=len(gaps), projects=self._projects)
