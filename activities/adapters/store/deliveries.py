"""`webhook_deliveries` as far as a resolving step writes it, and whom a pull request's head names."""

from collections.abc import Sequence

from activities.adapters.store.pool import Pool


class Deliveries:
    """Rows of the inbox that were handed over by the API."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def tasks_of_pull(self, repos: Sequence[str], number: int, branch: str, sha: str) -> tuple[str, ...]:
        """Open tasks whose pull request, branch or commit this is."""
        rows = await self._pool.fetch(
            """
            SELECT task FROM tasks
            WHERE repo = ANY($1) AND ended_at IS NULL AND (branch = $3 OR head_sha = $4 OR pull_request = $2)
            UNION
            SELECT open.task FROM pushed_shas AS pushed
            JOIN tasks AS open ON open.task = pushed.task AND open.ended_at IS NULL
            WHERE pushed.repo = ANY($1) AND pushed.sha = $4
            ORDER BY task
            """,
            list(repos),
            number,
            branch,
            sha,
        )
        return tuple(row["task"] for row in rows)

    async def tasks_in_development(self, repos: Sequence[str]) -> tuple[str, ...]:
        """Open tasks of a repository whose stage is development."""
        rows = await self._pool.fetch(
            """
            SELECT task FROM tasks WHERE repo = ANY($1) AND ended_at IS NULL AND stage = 'development' ORDER BY task
            """,
            list(repos),
        )
        return tuple(row["task"] for row in rows)

    async def settle(self, row: int, times_received: int, status: str, reason: str, task: str) -> None:
        """End a row that was handed over, before or after the forwarder noted that it did so.

        Taking the lease away makes the forwarder's own note come too late. A row that came again, or that a
        person replays, is left to the forwarder.
        """
        await self._pool.execute(
            """
            UPDATE webhook_deliveries SET
                leased_until = NULL, status = $3, reason = $4, task = nullif($5, ''), settled_at = now()
            WHERE id = $1 AND times_received = $2 AND (status <> 'new' OR leased_until IS NOT NULL)
            """,
            row,
            times_received,
            status,
            reason,
            task,
        )
