"""`intake_gaps`: times in which deliveries were refused, and which projects have been looked through since."""

from dataclasses import dataclass
from datetime import datetime

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a sender's deliveries were refused."""

    source: str
    since: datetime


class Gaps:
    """Each project covers each gap once, by a pass that begins after the gap's end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def uncovered(self, project: str) -> tuple[Gap, ...]:
        """Gaps that no pass of the project has covered, oldest first."""
        rows = await self._pool.fetch(
            "SELECT source, since FROM intake_gaps WHERE NOT covered @> ARRAY[$1] ORDER BY since", project
        )
        return tuple(Gap(row["source"], row["since"]) for row in rows)

    async def cover(self, project: str, gaps: tuple[Gap, ...]) -> None:
        """Note that a pass of the project has looked at everything since before these gaps."""
        for gap in gaps:
            await self._pool.execute(
                """
                UPDATE intake_gaps SET covered = array_append(covered, $1)
                WHERE source = $2 AND since = $3 AND NOT covered @> ARRAY[$1]
                """,
                project,
                gap.source,
                gap.since,
            )
