"""`operator_acts`: what operators told tasks, and what became of it. Decisions are read by `Tasks.decisions`."""

from collections.abc import Sequence
from typing import Any

from activities.adapters.store.pool import Pool


class Acts:
    """People's acts on record."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def settle(self, values: dict[str, Any]) -> None:
        """Insert an act, or note what became of a known one; what became of it is noted once."""
        await self._pool.execute(
            """
            INSERT INTO operator_acts
                (act_id, task, generation, act, actor, digest, reason, via, at, outcome, settled_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $10 <> '' THEN now() END)
            ON CONFLICT (act_id) DO UPDATE SET outcome = EXCLUDED.outcome, settled_at = EXCLUDED.settled_at
            WHERE operator_acts.outcome = ''
            """,
            values["act_id"],
            values["task"],
            values["generation"],
            values["act"],
            values["actor"],
            values["digest"],
            values["reason"],
            values["via"],
            values["at"],
            values["outcome"],
        )

    async def open(self, task: str, generation: int, acts: Sequence[str]) -> tuple[dict[str, Any], ...]:
        """The acts of these kinds for a generation that nobody has taken or refused, earliest first."""
        rows = await self._pool.fetch(
            """
            SELECT act_id, act, actor, digest, reason, via, at FROM operator_acts
            WHERE task = $1 AND generation = $2 AND act = ANY($3) AND outcome = '' ORDER BY at, act_id
            """,
            task,
            generation,
            list(acts),
        )
        return tuple(dict(row) for row in rows)
