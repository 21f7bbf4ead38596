"""What an outage cost is found again: gaps are recorded, passes asked for, and covered once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from aiohttp import ServerDisconnectedError
from temporalio.client import ScheduleOverlapPolicy
from temporalio.service import RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import ItemRow
from activities.adapters.store import Store
from activities.adapters.store import open_pool as open_store
from activities.projects import Projects
from activities.reconcile import OVERLAP, Reconcile
from activities.settings import WorkerSettings
from api.app import note_gaps
from api.gaps import GapWatch
from api.signalling import Tasks, TemporalDownError
from tests.fake_temporal import FakeTemporal, rpc_error
from tests.integration.conftest import Postgres
from tests.integration.test_forwarder import CONFIG, ITEM, open_task
from tests.integration.test_webhooks_http import Api, becomes, serving
from workflows.contracts.reconcile import Pass, ReconcileProject

NOW = datetime.now(UTC)
IN_PROGRESS = "5c1a9c1e-0f0b-4f0e-9d5c-3f6f3c1f0a11"
TRIGGERED = ("reconcile/PAY", ScheduleOverlapPolicy.BUFFER_ONE)


@pytest.fixture
async def api(pool: asyncpg.Pool, inbox: Any) -> AsyncIterator[Api]:
    """The API on empty tables."""
    async with serving(inbox) as running:
        yield running


async def nothing() -> None:
    """A receiver that remembers no outage, as after a restart."""


async def gap(pool: asyncpg.Pool, source: str = "plane", hours: float = 10) -> datetime:
    """A sender was refused for a minute, so many hours ago; since when."""
    since = NOW - timedelta(hours=hours)
    values = (source, since, since + timedelta(minutes=1))
    await pool.execute("INSERT INTO intake_gaps (source, since, until) VALUES ($1, $2, $3)", *values)
    return since


async def asked(pool: asyncpg.Pool) -> list[bool]:
    """Of each gap, whether passes were asked for."""
    return [row["asked"] for row in await pool.fetch("SELECT asked_at IS NOT NULL AS asked FROM intake_gaps")]


async def test_the_end_of_an_outage_asks_for_passes_without_any_delivery(
    api: Api, pool: asyncpg.Pool, postgres: Postgres
) -> None:
    """Once PostgreSQL is back, the gap is recorded and each project's pass asked for, once, after one that runs."""
    temporal = FakeTemporal()
    watch = GapWatch(pool, Tasks(temporal.client), CONFIG.projects, lambda: note_gaps(api.app))
    with postgres.down():
        with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
            await api.plane()
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await watch.look()
    await watch.look()
    await watch.look()
    assert temporal.reconciled == [TRIGGERED]
    assert await asked(pool) == [True]


@pytest.mark.parametrize("status", [RPCStatusCode.UNAVAILABLE, RPCStatusCode.NOT_FOUND])
async def test_passes_are_asked_for_until_temporal_takes_it(pool: asyncpg.Pool, status: RPCStatusCode) -> None:
    """While Temporal is down or a Schedule is missing the gap stays unasked, also for the API's next process."""
    temporal = FakeTemporal(error=lambda _: rpc_error(status))
    await gap(pool)
    with pytest.raises((TemporalDownError, type(rpc_error(status)))):
        await GapWatch(pool, Tasks(temporal.client), CONFIG.projects, nothing).look()
    assert await asked(pool) == [False]
    temporal.error = lambda _: None
    await GapWatch(pool, Tasks(temporal.client), CONFIG.projects, nothing).look()
    assert temporal.reconciled == [TRIGGERED]
    assert await asked(pool) == [True]


async def test_the_watch_outlives_trouble(pool: asyncpg.Pool) -> None:
    """The loop goes on after Temporal was away."""
    temporal = FakeTemporal(error=lambda _: rpc_error(RPCStatusCode.UNAVAILABLE))
    tried = asyncio.Event()

    async def note_try() -> None:
        tried.set()

    temporal.before = note_try
    await gap(pool)
    watch = GapWatch(pool, Tasks(temporal.client), CONFIG.projects, nothing)
    loop = asyncio.create_task(watch.run())
    await asyncio.wait_for(tried.wait(), 10)
    temporal.error = lambda _: None
    await becomes(pool, "SELECT asked_at IS NOT NULL FROM intake_gaps")
    loop.cancel()
    assert temporal.reconciled == [TRIGGERED]


class FakePlane:
    """One state, one item; remembers from when on it was asked."""

    def __init__(self, changed: datetime) -> None:
        self.since: list[datetime | None] = []
        self.fails = False
        self._row = ItemRow(id=ITEM, sequence_id=1, name="t", state=IN_PROGRESS, updated_at=changed)

    async def list_states(self, _: str) -> list[Any]:
        """In Progress."""
        return [SimpleNamespace(id=IN_PROGRESS, name="In Progress")]

    async def list_items_changed(self, _: str, since: datetime | None) -> AsyncIterator[tuple[ItemRow, ...]]:
        """The item, if it changed since."""
        self.since.append(since)
        if self.fails:
            raise OSError("made up")
        if since is None or self._row.updated_at >= since:
            yield (self._row,)


class Passes:
    """Reconcile passes over a real PostgreSQL; Plane and Temporal are fakes."""

    def __init__(self, store: Store) -> None:
        self.temporal, self.plane, self.store = FakeTemporal(), FakePlane(NOW - timedelta(hours=10)), store
        settings = SimpleNamespace(reconcile_enabled=True, reconcile_plane_enabled=True)
        self._reconcile = Reconcile(
            cast("PlaneClient", self.plane),
            self.temporal.client,
            store,
            cast("Projects", SimpleNamespace(config=CONFIG)),
            cast("WorkerSettings", settings),
        )

    async def run(self) -> Pass:
        """One pass over PAY."""
        return await ActivityEnvironment().run(self._reconcile.reconcile_project, ReconcileProject(project="PAY"))


@pytest.fixture
async def passes(postgres: Postgres, pool: asyncpg.Pool) -> AsyncIterator[Passes]:
    """A project whose last pass has seen everything up to now."""
    await pool.execute("TRUNCATE reconcile_watermarks")
    store_pool = await open_store(postgres.url)
    store = Store(store_pool)
    await store.tasks.move_watermark("PAY", NOW, {})
    yield Passes(store)
    await store_pool.close()


async def test_a_pass_goes_back_before_the_gap_and_covers_it_once(passes: Passes, pool: asyncpg.Pool) -> None:
    """The first pass after a gap lists changes since before it and starts what it lost; the next one does not."""
    since = await gap(pool)
    await gap(pool, hours=2)
    first, second = await passes.run(), await passes.run()
    assert passes.plane.since == [since - OVERLAP, NOW - OVERLAP]
    assert (first.gaps, first.started, second.gaps, second.started) == (2, 1, 0, 0)
    assert [start["id"] for start in passes.temporal.starts] == ["task/PAY-1"]
    assert await pool.fetch("SELECT covered FROM intake_gaps") == [(["PAY"],), (["PAY"],)]
    assert (await passes.store.tasks.watermark("PAY")).until == NOW


async def test_a_pass_that_fails_leaves_the_gap_to_the_next(passes: Passes, pool: asyncpg.Pool) -> None:
    """A gap is covered only when a pass got through, whatever ended the one before."""
    since = await gap(pool)
    passes.plane.fails = True
    with pytest.raises(OSError, match="made up"):
        await passes.run()
    passes.plane.fails = False
    assert (await passes.run()).gaps == 1
    assert passes.plane.since == [since - OVERLAP] * 2


async def test_a_gap_of_gitea_makes_every_open_task_look(passes: Passes, pool: asyncpg.Pool) -> None:
    """Where Gitea's deliveries were refused, each open task is woken once, and none that has ended."""
    await open_task(pool)
    await open_task(pool, "PAY-2", "task/PAY-2")
    await open_task(pool, "PAY-3", "task/PAY-3", ended=True)
    passes.temporal.running = {"task/PAY-1", "task/PAY-2", "task/PAY-3"}
    await gap(pool, "gitea", hours=1)
    await passes.run()
    await passes.run()
    assert sorted(name for name, _ in passes.temporal.signals) == ["task/PAY-1", "task/PAY-2"]


async def test_a_gap_is_covered_by_each_project_for_itself(passes: Passes, pool: asyncpg.Pool) -> None:
    """One project's pass leaves the gap to the others."""
    await gap(pool)
    await passes.run()
    assert await passes.store.gaps.uncovered("PAY") == ()
    assert len(await passes.store.gaps.uncovered("OTHER")) == 1
