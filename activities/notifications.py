"""The sender loop of the notification outbox: no workflow ever waits for Telegram."""

import asyncio

import structlog

from activities.adapters.errors import AdapterError, RateLimited
from activities.adapters.store import DATABASE_AWAY, Outbox, OutboxRow
from activities.adapters.telegram import TelegramClient, escape

log = structlog.get_logger(__name__)

POLL = 1.0
"""Seconds between looks at an empty outbox."""
MAX_BACKOFF = 300.0


class Sender:
    """Delivers what is due, oldest first. A message that cannot be delivered waits; the others go on."""

    def __init__(self, outbox: Outbox, telegram: TelegramClient, chat: int) -> None:
        self._outbox = outbox
        self._telegram = telegram
        self._chat = chat

    async def run(self) -> None:
        """Send until cancelled; a database that is away is asked again."""
        while True:
            try:
                rows = await self._outbox.claim()
            except DATABASE_AWAY as error:
                log.warning("outbox_unreachable", error=f"{type(error).__name__}: {error}")
                rows = ()
            for row in rows:
                await self._deliver(row)
            if not rows:
                await asyncio.sleep(POLL)

    async def _deliver(self, row: OutboxRow) -> None:
        """Send one message; one that cannot be comes due again when its claim ends."""
        try:
            await self._send(row)
        except DATABASE_AWAY as error:
            log.warning("outbox_unreachable", task=row.task, error=f"{type(error).__name__}: {error}")
        except Exception:
            log.exception("notification_broken", task=row.task, row=row.id)

    async def _send(self, row: OutboxRow) -> None:
        try:
            sent = await self._telegram.send_message(self._chat, escape(row.text))
        except AdapterError as error:
            wait = error.retry_after if isinstance(error, RateLimited) else min(2.0**row.attempts, MAX_BACKOFF)
            log.warning("notification_failed", task=row.task, error=str(error), retry_in=wait)
            await self._outbox.failed(row.id, str(error), wait)
        else:
            await self._outbox.sent(row.id, sent.message_id)
