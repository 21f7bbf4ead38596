"""`deployments`: the rows that make deploy and rollback commands run once."""

from dataclasses import dataclass

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A command that was begun; `previous_sha` is what was served before it, if that could be said."""

    sha: str
    status: str
    previous_sha: str
    output_tail: str
    is_new: bool


class DeploymentRows:
    """Commands that were begun, by intent key, and what they say is served."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def known(self, intent_key: str) -> bool:
        """Whether this was begun before."""
        return bool(await self._pool.fetchval("SELECT true FROM deployments WHERE intent_key = $1", intent_key))

    async def begin(
        self,
        intent_key: str,
        *,
        task: str,
        generation: int,
        repo: str,
        environment: str,
        sha: str,
        previous_sha: str,
        kind: str,
    ) -> DeploymentRow:
        """Record that a command is about to run; a repeat reads the first record."""
        row = await self._pool.fetchrow(
            """
            INSERT INTO deployments (intent_key, task, generation, repo, environment, sha, previous_sha, kind)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (intent_key) DO UPDATE SET task = deployments.task
            RETURNING sha, status, previous_sha, output_tail, (xmax = 0) AS is_new
            """,
            intent_key,
            task,
            generation,
            repo,
            environment,
            sha,
            previous_sha,
            kind,
        )
        assert row is not None
        return DeploymentRow(**row)

    async def settle(self, intent_key: str, status: str, output_tail: str) -> None:
        """Record how a command ended: `succeeded`, `failed`, or `lost` where nobody can tell."""
        await self._pool.execute(
            "UPDATE deployments SET status = $2, output_tail = $3, ended_at = now() WHERE intent_key = $1",
            intent_key,
            status,
            output_tail,
        )

    async def last(self, repo: str, environment: str) -> str:
        """The sha of the newest command that succeeded, whoever ran it; empty if there is none."""
        found = await self._pool.fetchval(
            """
            SELECT sha FROM deployments WHERE repo = $1 AND environment = $2 AND status = 'succeeded'
            ORDER BY ended_at DESC, started_at DESC LIMIT 1
            """,
            repo,
            environment,
        )
        return str(found or "")
