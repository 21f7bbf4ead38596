"""The inbox on a real PostgreSQL: one row for one body, leases, settling, waking."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from api.inbox import Delivery, Inbox, Receipt, Settlement, Source, Status
from api.webhook_admin import replay

LEASE = timedelta(minutes=1)


async def receive(inbox: Inbox, body: bytes = b"{}", source: Source = Source.PLANE) -> Receipt:
    """Store a delivery."""
    return await inbox.receive(source, body, headers={"x-plane-event": "issue"}, event="issue", delivery_id="d1")


async def claim_one(inbox: Inbox) -> Delivery:
    """Claim the only due delivery."""
    (delivery,) = await inbox.claim(10, LEASE)
    return delivery


def ended(delivery: Delivery, status: Status = Status.FORWARDED, reason: str = "") -> Settlement:
    """An end of a delivery."""
    return Settlement(delivery=delivery, status=status, reason=reason, task="DEMO-1")


async def expire_leases(pool: asyncpg.Pool) -> None:
    """As if every forwarder that holds a row had died and its time had passed."""
    await pool.execute("UPDATE webhook_deliveries SET leased_until = now() - interval '1 second'")


async def test_any_bytes_are_stored_as_they_came(inbox: Inbox) -> None:
    """A body that is no text at all comes out of the inbox byte for byte."""
    body = bytes(range(256)) + b'"\\u0000\\ud800"'
    await receive(inbox, body)
    delivery = await claim_one(inbox)
    assert (delivery.body, delivery.headers) == (body, {"x-plane-event": "issue"})


async def test_a_hundred_equal_deliveries_make_one_row(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """Concurrent copies of one body are one row that counts all of them."""
    receipts = await asyncio.gather(*(receive(inbox) for _ in range(100)))
    assert {receipt.id for receipt in receipts} == {receipts[0].id}
    assert sorted(receipt.times_received for receipt in receipts) == list(range(1, 101))
    assert await pool.fetchval("SELECT count(*) FROM webhook_deliveries") == 1


async def test_equal_bodies_of_two_senders_are_two_rows(inbox: Inbox) -> None:
    """Deliveries are told apart by sender and body."""
    assert (await receive(inbox)).id != (await receive(inbox, source=Source.GITEA)).id


@pytest.mark.parametrize("status", [Status.FORWARDED, Status.IGNORED, Status.DEAD])
async def test_a_redelivery_wakes_again(inbox: Inbox, pool: asyncpg.Pool, status: Status) -> None:
    """The same bytes after the row was settled make it new, due and unattempted again."""
    await receive(inbox)
    await inbox.settle(ended(await claim_one(inbox), status, "because"))
    assert await inbox.claim(10, LEASE) == []
    assert (await receive(inbox)).times_received == 2
    row = await pool.fetchrow("SELECT status, reason, attempts, settled_at FROM webhook_deliveries")
    assert tuple(row or ()) == ("new", "", 0, None)
    assert (await claim_one(inbox)).times_received == 2


async def test_a_redelivery_makes_a_waiting_row_due_now(inbox: Inbox) -> None:
    """A row that waits for its next attempt is due at once when its bytes come again."""
    await receive(inbox)
    await inbox.retry_later(await claim_one(inbox), timedelta(hours=1), "later", attempts=1)
    assert await inbox.claim(10, LEASE) == []
    await receive(inbox)
    assert await claim_one(inbox)


async def test_a_redelivery_during_a_lease_survives_the_settling(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """Bytes that come again while a forwarder holds the row are not swallowed by its settling."""
    await receive(inbox)
    delivery = await claim_one(inbox)
    await receive(inbox)
    assert await inbox.claim(10, LEASE) == []
    await inbox.settle(ended(delivery))
    assert await pool.fetchval("SELECT status FROM webhook_deliveries") == "new"
    assert (await claim_one(inbox)).times_received == 2


async def test_a_redelivery_during_a_lease_survives_a_retry(inbox: Inbox) -> None:
    """Bytes that come again while a forwarder holds the row are due as soon as it gives the row back."""
    await receive(inbox)
    delivery = await claim_one(inbox)
    await receive(inbox)
    await inbox.retry_later(delivery, timedelta(hours=1), "later", attempts=1)
    assert (await claim_one(inbox)).attempts == 1


async def test_concurrent_claims_never_overlap(inbox: Inbox) -> None:
    """Many forwarders claiming at once get every row exactly once."""
    for number in range(60):
        await receive(inbox, b"%d" % number)
    batches = await asyncio.gather(*(inbox.claim(7, LEASE) for _ in range(12)))
    claimed = [delivery.id for batch in batches for delivery in batch]
    assert sorted(claimed) == sorted(set(claimed))
    assert len(claimed) == 60


async def test_a_claim_holds_no_transaction(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """While a row is leased nothing is locked: no transaction spans the call to Temporal."""
    await receive(inbox)
    await inbox.claim(10, LEASE)
    await pool.execute("SELECT id FROM webhook_deliveries FOR UPDATE NOWAIT")
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert await pool.fetchval(idle) == 0


async def test_a_dead_forwarders_rows_come_back(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A row whose lease ran out is claimed again, as its second attempt."""
    await receive(inbox)
    await inbox.claim(10, LEASE)
    assert await inbox.claim(10, LEASE) == []
    await expire_leases(pool)
    assert (await claim_one(inbox)).attempts == 2


async def test_a_lost_lease_settles_nothing(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A forwarder that comes back after its lease ran out cannot touch a row that another one holds."""
    await receive(inbox)
    late = await claim_one(inbox)
    await expire_leases(pool)
    holder = await claim_one(inbox)
    held = "SELECT status, reason, attempts, leased_until FROM webhook_deliveries"
    before = await pool.fetchrow(held)
    await inbox.settle(ended(late, Status.DEAD, "too late"))
    assert await pool.fetchrow(held) == before
    await inbox.retry_later(late, timedelta(hours=1), "too late", attempts=9)
    assert await pool.fetchrow(held) == before
    await inbox.settle(ended(holder))
    row = await pool.fetchrow("SELECT status, reason, task FROM webhook_deliveries")
    assert tuple(row or ()) == ("forwarded", "", "DEMO-1")


async def test_oldest_due_rows_go_first(inbox: Inbox) -> None:
    """A limited claim takes the rows that have been due for longest."""
    receipts = [await receive(inbox, b"%d" % number) for number in range(3)]
    assert [row.id for row in await inbox.claim(2, LEASE)] == [receipt.id for receipt in receipts[:2]]


async def test_a_delivery_wakes_at_once(inbox: Inbox) -> None:
    """Whoever waits for arrivals is woken by each stored delivery, also by a redelivery."""
    wake = asyncio.Event()
    inbox.wake_on_arrival(wake)
    for _ in range(2):
        wake.clear()
        await receive(inbox)
        assert wake.is_set()


async def test_a_replay_rings(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A listener is woken when another process says that rows are due again."""
    wake = asyncio.Event()
    listener = asyncio.create_task(inbox.ring(wake))
    await asyncio.wait_for(wake.wait(), 5)
    wake.clear()
    await receive(inbox)
    async with pool.acquire() as connection:
        await replay(connection, [1], actor="anna", reason="again")
    await asyncio.wait_for(wake.wait(), 5)
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)


async def test_listening_ends_with_its_connection(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A listener whose connection is cut returns, so that its caller can listen again."""
    wake = asyncio.Event()
    listener = asyncio.create_task(inbox.ring(wake))
    await asyncio.wait_for(wake.wait(), 5)
    await pool.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await asyncio.wait_for(asyncio.wait([listener]), 5)
    assert listener.done()
    assert not listener.cancelled()
    await asyncio.gather(listener, return_exceptions=True)
