"""`effects`: every outward effect is written down before it happens and looked up before a repeat."""

from dataclasses import dataclass
from typing import Any

from activities.adapters.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Effect:
    """One intended effect. `detail` is what was known when it was first intended."""

    intent_key: str
    status: str
    reference: str
    detail: dict[str, Any]


class Effects:
    """The effect journal."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self, intent_key: str, kind: str, detail: dict[str, Any] | None = None) -> Effect:
        """Record an intent, or read the one that is there: the first `detail` is kept."""
        row = await self._pool.fetchrow(
            """
            INSERT INTO effects (intent_key, kind, detail) VALUES ($1, $2, $3)
            ON CONFLICT (intent_key) DO UPDATE SET kind = effects.kind
            RETURNING intent_key, status, reference, detail
            """,
            intent_key,
            kind,
            detail or {},
        )
        assert row is not None
        return Effect(**row)

    async def find(self, intent_key: str) -> Effect | None:
        """Read an intent, if there is one."""
        row = await self._pool.fetchrow(
            "SELECT intent_key, status, reference, detail FROM effects WHERE intent_key = $1", intent_key
        )
        return Effect(**row) if row else None

    async def settle(self, intent_key: str, reference: str = "", status: str = "done") -> None:
        """Record that the effect happened (or was abandoned), and the other side's id for it."""
        await self._pool.execute(
            """
            UPDATE effects SET status = $3, reference = $2, settled_at = now()
            WHERE intent_key = $1 AND status = 'open'
            """,
            intent_key,
            reference,
            status,
        )
