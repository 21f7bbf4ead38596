"""The rows behind lease queues: freezes, open leases, landings, fences."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from activities.adapters.store import Store, open_pool
from tests.integration.conftest import Postgres

QUEUE = "merge/acme/payments/main"


@pytest.fixture
async def store(pool: asyncpg.Pool, postgres: Postgres) -> AsyncIterator[Store]:
    """The worker's own view of empty tables."""
    own = await open_pool(postgres.url)
    yield Store(own)
    await own.close()


async def announced(pool: asyncpg.Pool) -> list[str]:
    """What people are told, oldest first."""
    return [row["text"] for row in await pool.fetch("SELECT text FROM notifications ORDER BY id")]


async def test_a_freeze_is_announced_once_and_so_is_its_end(store: Store, pool: asyncpg.Pool) -> None:
    """A cause that stands keeps its since, gets the newer reason and is told once; a later freeze is told anew."""
    await store.freezes.open(QUEUE, "base red", reason="2 fail", by="PAY-1")
    (first,) = await store.freezes.standing(QUEUE)
    await store.freezes.open(QUEUE, "base red", reason="3 fail", by="PAY-2")
    (again,) = await store.freezes.standing(QUEUE)
    assert (again.since, again.reason, again.by) == (first.since, "3 fail", "PAY-1")
    assert await announced(pool) == [f"{QUEUE} is frozen by PAY-1: base red (2 fail)"]
    assert await store.freezes.lift(QUEUE, "base red", reason="green", by="the merge queue")
    assert not await store.freezes.lift(QUEUE, "base red", reason="green", by="the merge queue")
    assert await store.freezes.standing(QUEUE) == ()
    assert (await announced(pool))[1:] == [f"{QUEUE}: the merge queue lifted base red (green)"]
    await store.freezes.open(QUEUE, "base red", reason="again", by="PAY-3")
    assert len(await announced(pool)) == 3


async def test_causes_stand_side_by_side_for_one_queue(store: Store) -> None:
    """Lifting one cause leaves the others, and no other queue is touched."""
    await store.freezes.open(QUEUE, "base red", reason="r", by="b")
    await store.freezes.open(QUEUE, "operator", reason="r", by="b")
    await store.freezes.open("merge/acme/shop/main", "operator", reason="r", by="b")
    await store.freezes.lift(QUEUE, "operator", reason="r", by="b")
    assert [row.cause for row in await store.freezes.standing(QUEUE)] == ["base red"]
    assert [row.cause for row in await store.freezes.standing("merge/acme/shop/main")] == ["operator"]


async def test_an_open_lease_is_found_until_it_is_closed(store: Store) -> None:
    """What a queue reads at a fresh start: the newest epoch, unless it was given back."""
    assert await store.landings.open_lease_of(QUEUE) is None
    await store.landings.open_lease(QUEUE, "task/PAY-1", 1)
    opened = await store.landings.open_lease(QUEUE, "task/PAY-2", 3)
    assert await store.landings.open_lease_of(QUEUE) == opened
    assert (opened.holder, opened.generation) == ("task/PAY-2", 3)
    await store.landings.close_lease(QUEUE, opened.epoch)
    assert await store.landings.open_lease_of(QUEUE) is None


async def test_only_a_landing_that_was_read_back_has_landed(store: Store) -> None:
    """An open or abandoned intent under an epoch is no landing."""
    intent = {"task": "PAY-1", "generation": 1, "base_sha": "b", "tree": "t"}
    await store.landings.open_landing("acme/payments", "c1", 41, queue=QUEUE, **intent)
    assert not await store.landings.has_landed(41)
    await store.landings.settle_abandoned("acme/payments", "c1", 41, reason="main moved")
    assert not await store.landings.has_landed(41)
    await store.landings.open_landing("acme/payments", "c1", 42, queue=QUEUE, **intent)
    await store.landings.settle_landed("acme/payments", "c1", "c1")
    assert await store.landings.has_landed(42)
    assert not await store.landings.has_landed(41)


async def test_each_step_and_attempt_is_progress(store: Store) -> None:
    """The mark changes with every step and attempt, and names the generation."""
    assert await store.fences.progress("PAY-1") is None
    marks = []
    for generation, step, attempt in ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)):
        await store.fences.take("PAY-1", generation, step, attempt, "deploy")
        marks.append(await store.fences.progress("PAY-1"))
    assert [mark[0] for mark in marks if mark] == [1, 1, 1, 2]
    assert len(set(marks)) == 4
