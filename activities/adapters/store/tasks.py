"""`tasks`, `transitions`, `items`, `gate_results`, `operator_acts`: what people and the board read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One life of a task."""

    generation: int
    start_activity: str
    seen_activity: str
    """The last Plane activity it acted on; what follows it is fresh."""
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ActRow:
    """A person's act on record."""

    act_id: str
    act: str
    actor: str
    at: datetime
    reason: str
    via: str


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to when changes have been seen (None before the first pass), and the rows seen within the overlap.

    `seen` maps an item's UUID to what it looked like, so that the overlap wakes nobody twice.
    """

    until: datetime | None
    seen: dict[str, str]


class Tasks:
    """The read model. Nothing is decided from it except generations and operators' acts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def last_generation(self, task: str) -> GenerationRow | None:
        """The newest generation of a task."""
        row = await self._pool.fetchrow(
            """
            SELECT generation, start_activity, seen_activity, ended_at FROM tasks
            WHERE task = $1 ORDER BY generation DESC LIMIT 1
            """,
            task,
        )
        return GenerationRow(**row) if row else None

    async def open_tasks(self, project: str) -> frozenset[str]:
        """The tasks of a project whose generation has not ended."""
        rows = await self._pool.fetch("SELECT task FROM tasks WHERE project = $1 AND ended_at IS NULL", project)
        return frozenset(row["task"] for row in rows)

    async def watermark(self, project: str) -> Watermark:
        """How far a project's changes have been seen."""
        row = await self._pool.fetchrow(
            "SELECT changed_until, seen FROM reconcile_watermarks WHERE project = $1", project
        )
        return Watermark(row["changed_until"], row["seen"]) if row else Watermark(None, {})

    async def move_watermark(self, project: str, until: datetime, seen: dict[str, str]) -> None:
        """Note how far a pass has come; it never goes back."""
        await self._pool.execute(
            """
            INSERT INTO reconcile_watermarks (project, changed_until, seen) VALUES ($1, $2, $3)
            ON CONFLICT (project) DO UPDATE
               SET changed_until = greatest(reconcile_watermarks.changed_until, $2), seen = $3, passed_at = now()
            """,
            project,
            until,
            seen,
        )

    async def open_generation(self, values: dict[str, Any]) -> None:
        """Insert a generation's row and the item it works on; a repeat changes nothing."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                """
                INSERT INTO items (item_id, project_id, task) VALUES ($1::uuid, $2::uuid, $3)
                ON CONFLICT (item_id) DO UPDATE SET task = $3, seen_at = now()
                """,
                values["item_id"],
                values["project_id"],
                values["task"],
            )
            await connection.execute(
                """
                INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity,
                                   item_url, stage, round, status, started_at, updated_at)
                VALUES ($1, $2, $3, $4::uuid, $5, $6, $7, $8, $9, 'analysis', 1, 'working', now(), now())
                ON CONFLICT DO NOTHING
                """,
                values["task"],
                values["generation"],
                values["project"],
                values["item_id"],
                values["title"],
                values["repo"],
                values["branch"],
                values["start_activity"],
                values["item_url"],
            )

    async def record(
        self, task: str, generation: int, row: dict[str, Any], lines: Sequence[dict[str, Any]], announce: str
    ) -> None:
        """Write a generation's row, its new timeline lines and an announcement, in one transaction.

        Each is written once however often this is repeated: lines and announcement carry their number.
        """
        columns = list(row)
        assignments = ", ".join(f"{column} = ${number}" for number, column in enumerate(columns, start=3))
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                f"UPDATE tasks SET {assignments} WHERE task = $1 AND generation = $2",  # noqa: S608 - our columns
                task,
                generation,
                *row.values(),
            )
            if row["outcome"]:
                await connection.execute(
                    """
                    UPDATE operator_acts SET outcome = 'refused: the task has ended: ' || $3::text, settled_at = now()
                    WHERE task = $1 AND generation = $2 AND outcome = '' AND act NOT IN ('approve', 'reject')
                    """,
                    task,
                    generation,
                    row["outcome"],
                )
            if not row["spec_digest"]:
                # Nothing is asked any more: whoever answered after the last look is told as well.
                await connection.execute(
                    """
                    UPDATE operator_acts SET outcome = 'too late'
                    WHERE task = $1 AND digest <> '' AND outcome = '' AND act IN ('approve', 'reject')
                    """,
                    task,
                )
            await connection.executemany(
                """
                INSERT INTO transitions (task, generation, n, at, stage, round, text, sha, source)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
                """,
                [
                    (task, generation, line["n"], line["at"], line["stage"], line["round"], line["text"],
                     line["sha"], line["source"])
                    for line in lines
                ],
            )  # fmt: skip
            if announce:
                await connection.execute(
                    """
                    INSERT INTO notifications (intent_key, task, text) VALUES ($1, $2, $3)
                    ON CONFLICT DO NOTHING
                    """,
                    f"{task}/g{generation}/line{row['lines_written']}/notify",
                    task,
                    announce,
                )

    async def record_gate(self, values: dict[str, Any]) -> None:
        """Note what a gate found; the same answer again only counts another look."""
        await self._pool.execute(
            """
            INSERT INTO gate_results
                (task, generation, stage, round, gate, outcome, reason, sha, fingerprint, links)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (task, generation, stage, round, gate, outcome, sha, fingerprint)
            DO UPDATE SET looks = gate_results.looks + 1, last_at = now(), reason = EXCLUDED.reason
            """,
            values["task"],
            values["generation"],
            values["stage"],
            values["round"],
            values["gate"],
            values["outcome"],
            values["reason"],
            values["sha"],
            values["fingerprint"],
            values["links"],
        )

    async def decisions(self, task: str, digest: str) -> tuple[ActRow, ...]:
        """The approvals and rejections of exactly this digest, earliest first."""
        rows = await self._pool.fetch(
            """
            SELECT act_id, act, actor, at, reason, via FROM operator_acts
            WHERE task = $1 AND digest = $2 AND act IN ('approve', 'reject') ORDER BY at, act_id
            """,
            task,
            digest,
        )
        return tuple(ActRow(**row) for row in rows)

    async def settle_decision(self, task: str, digest: str, winner: str) -> None:
        """Tell every act on a digest whether it counted, so that who asked can be told."""
        await self._pool.execute(
            """
            UPDATE operator_acts SET outcome = CASE WHEN act_id = $3 THEN 'counted' ELSE 'too late' END
            WHERE task = $1 AND digest = $2 AND act IN ('approve', 'reject')
            """,
            task,
            digest,
            winner,
        )
