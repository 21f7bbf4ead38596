"""`fences`: the newest attempt of a task; whoever is older may not act any more."""

from activities.adapters.store.pool import Pool


class StaleAttempt(Exception):  # noqa: N818 - a fact about us, not an error of the world
    """A newer attempt of this task has begun elsewhere: this one must stop without any effect."""


class Fences:
    """Orders attempts by (generation, step, attempt)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take(self, task: str, generation: int, step: int, attempt: int, stage: str) -> None:
        """Become the newest attempt.

        Raises:
            StaleAttempt: a newer one has begun.
        """
        taken = await self._pool.fetchval(
            """
            INSERT INTO fences (task, generation, step, attempt, stage) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (task) DO UPDATE
               SET generation = $2, step = $3, attempt = $4, stage = $5, taken_at = now()
             WHERE (fences.generation, fences.step, fences.attempt) <= ($2, $3, $4)
            RETURNING true
            """,
            task,
            generation,
            step,
            attempt,
            stage,
        )
        if not taken:
            raise StaleAttempt(f"{task}: a newer attempt than g{generation} step {step}.{attempt} has begun")

    async def check(self, task: str, generation: int, step: int, attempt: int) -> None:
        """Make sure that we are still the newest attempt; called before each outward effect.

        Raises:
            StaleAttempt: a newer one has begun.
        """
        current = await self._pool.fetchrow("SELECT generation, step, attempt FROM fences WHERE task = $1", task)
        if current is None or tuple(current) != (generation, step, attempt):
            raise StaleAttempt(f"{task}: g{generation} step {step}.{attempt} is no longer the newest attempt")

    async def progress(self, task: str) -> tuple[int, str] | None:
        """The newest generation of a task, and a mark that changes with each step and attempt; None before the first.

        A task that gets on takes its fence anew for each outward effect.
        """
        row = await self._pool.fetchrow("SELECT generation, step, attempt, taken_at FROM fences WHERE task = $1", task)
        if row is None:
            return None
        return row["generation"], f"g{row['generation']} step {row['step']}.{row['attempt']} {row['taken_at']:%H:%M:%S}"

    async def last_step(self, task: str, generation: int) -> int:
        """The newest step of a generation, 0 before the first: a run that begins again goes on from there."""
        step = await self._pool.fetchval(
            "SELECT step FROM fences WHERE task = $1 AND generation = $2", task, generation
        )
        return int(step or 0)
