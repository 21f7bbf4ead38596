"""What goes on in the worker while PostgreSQL restarts."""

import asyncio
from typing import Any, cast

import asyncpg
import pytest

from activities.adapters.store import OutboxRow, outlast
from activities.adapters.store import pool as pool_module
from activities.notifications import Sender

ROW = OutboxRow(id=1, task="DEMO-1", text="DEMO-1 is done", attempts=1)
AWAY = [
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.InterfaceError("connection is closed"),
    ConnectionRefusedError(111, "refused"),
    asyncpg.CrashShutdownError("another server process exited abnormally"),
]


class Outbox:
    """Fails as told, then has one message; is content when its delivery is on record."""

    def __init__(self, claims: list[Exception], marks: list[Exception]) -> None:
        self.claims, self.marks = claims, marks
        self.done = asyncio.Event()

    async def claim(self) -> tuple[OutboxRow, ...]:
        """One message, until it is on record as sent."""
        if self.claims:
            raise self.claims.pop()
        return () if self.done.is_set() else (ROW,)

    async def sent(self, row_id: int, message_id: int) -> None:
        """The record."""
        if self.marks:
            raise self.marks.pop()
        self.done.set()


class Telegram:
    """Takes everything."""

    async def send_message(self, chat: int, text: str) -> Any:
        """A message with an id."""
        return type("Message", (), {"message_id": 7})


@pytest.mark.parametrize("where", ["claims", "marks"])
async def test_sender_outlives_a_restart_of_the_database(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a database that restarts answers, the sender goes on and the message is sent."""
    monkeypatch.setattr("activities.notifications.POLL", 0.001)
    failures = {"claims": [], "marks": []} | {where: [*AWAY, ValueError("a bug")] if where == "marks" else [*AWAY]}
    outbox = Outbox(**failures)
    sender = asyncio.create_task(Sender(cast("Any", outbox), cast("Any", Telegram()), 1).run())
    await asyncio.wait_for(outbox.done.wait(), 10)
    assert not sender.done()
    sender.cancel()


async def test_what_follows_dear_work_outlasts_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write after an agent's run is repeated until the database is back; other errors pass at once."""
    monkeypatch.setattr(pool_module, "_PAUSE", 0.001)
    failures: list[Exception] = [*AWAY]

    async def write() -> str:
        if failures:
            raise failures.pop()
        return "written"

    assert await outlast(write) == "written"
    failures.append(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await outlast(write)
    failures.append(ConnectionRefusedError())
    with pytest.raises(ConnectionRefusedError):
        await outlast(write, seconds=-1)
