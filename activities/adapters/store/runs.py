"""`agent_runs` and `pushed_shas`: what agents did, what it cost, and which commits are ours."""

from typing import Any

from activities.adapters.store.pool import Pool

_STARTED = (
    "task", "generation", "stage", "round", "attempt", "session_id", "role", "runner", "host", "resumed", "log",
)  # fmt: skip
_USED = (
    "input_tokens", "cache_read_tokens", "cache_creation_tokens", "cache_creation_1h_tokens", "output_tokens", "models",
    "cost_usd", "cost_source", "session_cost_usd",
)  # fmt: skip


class Runs:
    """Agent runs, kept for each attempt."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def started(self, values: dict[str, Any]) -> None:
        """Note that an attempt runs; a repeat of the same attempt changes nothing.

        Whatever ran before it in the same round was ended with its worker, and is written down as lost.
        """
        await self._pool.execute(
            """
            UPDATE agent_runs SET outcome = 'lost', ended_at = now(),
                   reason = 'its worker died or was cut off; attempt ' || $5::integer || ' took over'
            WHERE task = $1 AND generation = $2 AND stage = $3 AND round = $4 AND attempt < $5
              AND outcome = 'running'
            """,
            values["task"],
            values["generation"],
            values["stage"],
            values["round"],
            values["attempt"],
        )
        await self._pool.execute(
            """
            INSERT INTO agent_runs
                   (task, generation, stage, round, attempt, session_id, role, runner, host, resumed, log)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING
            """,
            *(values[name] for name in _STARTED),
        )

    async def ended(self, key: tuple[str, int, str, int, int], values: dict[str, Any]) -> None:
        """Note how an attempt (task, generation, stage, round, attempt) ended and what it used.

        One that was written down as lost meanwhile stays lost.
        """
        await self._pool.execute(
            """
            UPDATE agent_runs SET outcome = $6, cause = $7, verdict = $8, reason = $9, head_sha = $10, ended_at = now()
            WHERE task = $1 AND generation = $2 AND stage = $3 AND round = $4 AND attempt = $5
              AND outcome = 'running'
            """,
            *key,
            *(values[name] for name in ("outcome", "cause", "verdict", "reason", "head_sha")),
        )

    async def used(self, key: tuple[str, int, str, int, int], values: dict[str, Any]) -> None:
        """Note what an attempt used; also of one that was lost."""
        await self._pool.execute(
            """
            UPDATE agent_runs SET input_tokens = $6, cache_read_tokens = $7, cache_creation_tokens = $8,
                   cache_creation_1h_tokens = $9, output_tokens = $10, models = $11, cost_usd = $12, cost_source = $13,
                   session_cost_usd = $14
            WHERE task = $1 AND generation = $2 AND stage = $3 AND round = $4 AND attempt = $5
            """,
            *key,
            *(values[name] for name in _USED),
        )

    async def attempts(self, round_key: tuple[str, int, str, int], step: tuple[int, int]) -> list[dict[str, Any]]:
        """The attempts of a round (task, generation, stage, round) numbered from and below `step`, in order."""
        rows = await self._pool.fetch(
            """
            SELECT * FROM agent_runs WHERE task = $1 AND generation = $2 AND stage = $3 AND round = $4
               AND attempt >= $5 AND attempt < $6 ORDER BY attempt
            """,
            *round_key,
            *step,
        )
        return [dict(row) for row in rows]

    async def passed(self, round_key: tuple[str, int, str, int], nonce: str) -> dict[str, Any] | None:
        """The run of a round (task, generation, stage, round) that left a verdict with this nonce, if one did."""
        row = await self._pool.fetchrow(
            """
            SELECT * FROM agent_runs WHERE task = $1 AND generation = $2 AND stage = $3 AND round = $4
               AND outcome = 'ok' AND verdict->>'nonce' = $5
            """,
            *round_key,
            nonce,
        )
        return dict(row) if row else None

    async def totals(self, task: str, generation: int) -> tuple[dict[str, Any], ...]:
        """What each stage of a generation took, in the order in which they were first reached.

        `seconds` is all its time, up to now for the newest; a time between two lines belongs to the later one's stage.
        `unknown` counts runs whose cost is not known, `cut` those whose tokens may be more than was noted.
        """
        rows = await self._pool.fetch(
            """
            WITH lines AS (
                SELECT stage, n, round, at - coalesce(lag(at) OVER (ORDER BY n), at) AS took
                FROM transitions WHERE task = $1 AND generation = $2
            ), times AS (
                SELECT stage, min(n) AS first, max(round) AS rounds, extract(epoch FROM sum(took)) AS seconds
                FROM lines GROUP BY stage
            ), runs AS (
                SELECT stage, count(*) AS runs, sum(cost_usd) AS cost_usd,
                       sum(input_tokens + cache_read_tokens + cache_creation_tokens) AS tokens_in,
                       sum(cache_read_tokens) AS cached, sum(output_tokens) AS tokens_out,
                       count(*) FILTER (WHERE cost_usd IS NULL) AS unknown,
                       count(*) FILTER (WHERE outcome IN ('running', 'lost')) AS cut
                FROM agent_runs WHERE task = $1 AND generation = $2 GROUP BY stage
            ), newest AS (
                SELECT extract(epoch FROM now() - max(at)) AS seconds FROM transitions
                WHERE task = $1 AND generation = $2
            )
            SELECT stage, coalesce(times.rounds, 1) AS rounds, coalesce(times.seconds, 0)::float8 AS seconds,
                   greatest((SELECT seconds FROM newest), 0)::float8 AS since_last,
                   coalesce(runs.runs, 0)::int AS runs, runs.cost_usd, coalesce(tokens_in, 0)::bigint AS tokens_in,
                   coalesce(cached, 0)::bigint AS cached, coalesce(tokens_out, 0)::bigint AS tokens_out,
                   coalesce(runs.unknown, 0)::int AS unknown, coalesce(runs.cut, 0)::int AS cut
            FROM times FULL JOIN runs USING (stage) ORDER BY times.first NULLS LAST
            """,
            task,
            generation,
        )
        return tuple(dict(row) for row in rows)

    async def pushing(self, repo: str, sha: str, branch: str, fence: tuple[str, int, int, int]) -> None:
        """Write a sha down before it is pushed, so that our own push is never blamed on a person.

        `fence` is (task, generation, step, attempt).
        """
        await self._pool.execute(
            """
            INSERT INTO pushed_shas (repo, sha, branch, task, generation, step, attempt)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
            """,
            repo,
            sha,
            branch,
            *fence,
        )

    async def is_ours(self, repo: str, sha: str, branch: str) -> bool:
        """Whether we pushed this sha to this branch."""
        return bool(
            await self._pool.fetchval(
                "SELECT true FROM pushed_shas WHERE repo = $1 AND sha = $2 AND branch = $3", repo, sha, branch
            )
        )
