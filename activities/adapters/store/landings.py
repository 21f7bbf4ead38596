"""`leases`, `merge_landings`: the rows that make landing happen once."""

from dataclasses import dataclass
from datetime import datetime

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The current holder of a queue."""

    epoch: int
    holder: str
    generation: int
    granted_at: datetime
    released_at: datetime | None


@dataclass(frozen=True, slots=True)
class LandingRow:
    """A landing that was begun."""

    candidate: str
    epoch: int
    status: str


class Landings:
    """Leases and landings."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open_lease(self, queue: str, holder: str, generation: int) -> LeaseRow:
        """Make `holder` the holder under a new epoch: greater than every epoch before it, in any queue."""
        row = await self._pool.fetchrow(
            """
            INSERT INTO leases (queue, epoch, holder, generation)
            VALUES ($1, nextval('lease_epochs'), $2, $3)
            ON CONFLICT (queue) DO UPDATE
               SET epoch = EXCLUDED.epoch, holder = $2, generation = $3, granted_at = now(), released_at = NULL
            RETURNING epoch, holder, generation, granted_at, released_at
            """,
            queue,
            holder,
            generation,
        )
        assert row is not None
        return LeaseRow(**row)

    async def close_lease(self, queue: str, epoch: int) -> None:
        """Mark an epoch released; an older epoch changes nothing."""
        await self._pool.execute("UPDATE leases SET released_at = now() WHERE queue = $1 AND epoch = $2", queue, epoch)

    async def open_lease_of(self, queue: str) -> LeaseRow | None:
        """The lease of a queue that nobody has given back, if there is one."""
        row = await self._pool.fetchrow(
            """
            SELECT epoch, holder, generation, granted_at, released_at FROM leases
            WHERE queue = $1 AND released_at IS NULL
            """,
            queue,
        )
        return LeaseRow(**row) if row else None

    async def has_landed(self, epoch: int) -> bool:
        """Whether something was landed under an epoch and read back."""
        return bool(
            await self._pool.fetchval("SELECT true FROM merge_landings WHERE epoch = $1 AND status = 'landed'", epoch)
        )

    async def holds(self, queue: str, epoch: int) -> bool:
        """Whether an epoch is the queue's current one and not released."""
        return bool(
            await self._pool.fetchval(
                "SELECT true FROM leases WHERE queue = $1 AND epoch = $2 AND released_at IS NULL",
                queue,
                epoch,
            )
        )

    async def open_landing(
        self,
        repo: str,
        candidate: str,
        epoch: int,
        *,
        queue: str,
        task: str,
        generation: int,
        base_sha: str,
        tree: str,
    ) -> LandingRow:
        """Record the intent to land before the merge call; a repeat reads it."""
        row = await self._pool.fetchrow(
            """
            INSERT INTO merge_landings (repo, candidate, epoch, task, generation, base_sha, tree, queue)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (repo, candidate, epoch) DO UPDATE SET task = merge_landings.task
            RETURNING candidate, epoch, status
            """,
            repo,
            candidate,
            epoch,
            task,
            generation,
            base_sha,
            tree,
            queue,
        )
        assert row is not None
        return LandingRow(**row)

    async def is_ours(self, repo: str, head: str) -> bool:
        """Whether a merged head was ours to merge: only open or landed intents count."""
        return bool(
            await self._pool.fetchval(
                "SELECT true FROM merge_landings WHERE repo = $1 AND candidate = $2 AND status <> 'abandoned'",
                repo,
                head,
            )
        )

    async def settle_landed(self, repo: str, candidate: str, landed_sha: str) -> str:
        """Record that a landing was read back from main as `landed_sha`; what landed, or nothing if it was not ours."""
        return (
            await self._pool.fetchval(
                """
                UPDATE merge_landings
                   SET status = 'landed', landed_sha = CASE WHEN landed_sha = '' THEN $3 ELSE landed_sha END,
                       settled_at = coalesce(settled_at, now())
                WHERE repo = $1 AND candidate = $2 AND epoch = (
                    SELECT max(epoch) FROM merge_landings
                    WHERE repo = $1 AND candidate = $2 AND status <> 'abandoned'
                )
                RETURNING landed_sha
                """,
                repo,
                candidate,
                landed_sha,
            )
            or ""
        )

    async def last_landed(self, queue: str) -> str:
        """What landed last through a queue, since a person last accepted that its base was rewound."""
        return (
            await self._pool.fetchval(
                """
                SELECT landed_sha FROM merge_landings
                WHERE queue = $1 AND status = 'landed' AND landed_sha <> '' AND settled_at > (
                    SELECT coalesce(max(lifted_at), '-infinity') FROM freezes
                    WHERE queue = $1 AND cause = 'base rewound'
                )
                ORDER BY settled_at DESC, epoch DESC LIMIT 1
                """,
                queue,
            )
            or ""
        )

    async def rewind_accepted(self, queue: str, since: datetime) -> bool:
        """Whether a person has accepted since then that a queue's base was rewound."""
        return bool(
            await self._pool.fetchval(
                "SELECT true FROM freezes WHERE queue = $1 AND cause = 'base rewound' AND lifted_at >= $2 LIMIT 1",
                queue,
                since,
            )
        )

    async def settle_abandoned(self, repo: str, candidate: str, epoch: int, *, reason: str) -> None:
        """Record that a landing did not happen."""
        await self._pool.execute(
            """
            UPDATE merge_landings SET status = 'abandoned', reason = $4, settled_at = now()
            WHERE repo = $1 AND candidate = $2 AND epoch = $3 AND status = 'open'
            """,
            repo,
            candidate,
            epoch,
            reason,
        )
