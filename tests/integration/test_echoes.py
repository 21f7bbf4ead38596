"""Our own writes come back as webhooks: they wake nobody. The loop breaker stops what comes back all the same."""

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api.breaker import Breaker
from api.forwarder import Forwarder
from api.inbox import Inbox, Source
from api.naming import Naming
from api.signalling import Tasks
from tests.fake_temporal import FakeTemporal
from tests.integration.test_forwarder import (
    COMMENT,
    CONFIG,
    IN_PROGRESS,
    ITEM,
    PROJECT,
    WORKFLOW,
    make_due,
    make_forwarder,
    open_task,
    push,
    rows,
    store,
)
from tests.recorded import recorded
from workflows.projects import OrchConfig

BOT = "68033053-876e-447a-8f45-420c79888946"
OLGA = "ab28899a-c6fb-4cf8-8e1d-5f1de917b7d2"
MOVED_TO = "3d25c9bf-e37d-48a6-84af-531092266ac0"
MOVE = "PAY-1/g1/analysis/r1/back-to-work"
SAID = "PAY-1/g1/analysis/r1/ask-comment"


def with_bot() -> OrchConfig:
    """The configuration, with a bot that is written in capitals."""
    project = CONFIG.projects["PAY"].model_dump() | {"bots": [BOT.upper()]}
    return OrchConfig.model_validate(CONFIG.model_dump() | {"projects": {"PAY": project}})


@pytest.fixture
def temporal() -> FakeTemporal:
    """PAY-1 runs."""
    return FakeTemporal(running={WORKFLOW})


@pytest.fixture
def forwarder(pool: asyncpg.Pool, temporal: FakeTemporal) -> Forwarder:
    """It knows our bot."""
    return Forwarder(Inbox(pool), Naming(pool, with_bot()), Tasks(temporal.client), Breaker(pool))


async def effect(pool: asyncpg.Pool, intent: str, kind: str, **more: Any) -> None:
    """We wrote something to Plane."""
    await pool.execute(
        """
        INSERT INTO effects (intent_key, kind, status, detail, opened_at, settled_at)
        VALUES ($1, $2, $3, $4, now() - $5 * interval '1 minute', now() - $5 * interval '1 minute')
        """,
        intent,
        kind,
        more.get("status", "done"),
        json.dumps({"to": more.get("to", MOVED_TO)}),
        more.get("minutes", 0),
    )


async def move(inbox: Inbox, actor: str = BOT, shown: str = MOVED_TO) -> None:
    """Plane reports that somebody moved the item to In Progress; `shown` is the state in the snapshot."""
    body = recorded(IN_PROGRESS)["body"]
    body["activity"]["actor"]["id"] = actor
    body["data"]["state"]["id"] = shown
    await inbox.receive(Source.PLANE, json.dumps(body).encode(), headers={}, event="", delivery_id="")


async def test_the_echo_of_our_own_move_wakes_nobody(forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A move by our bot that an effects row intended is ignored and names the intent."""
    await effect(pool, MOVE, "plane state")
    await move(inbox)
    await forwarder.forward_batch()
    assert await rows(pool) == [("ignored", f"echo of {MOVE}", None)]


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        pytest.param({}, {"actor": OLGA}, id="by a person"),
        pytest.param({"intent": "PAY-12/g1/analysis/r1/back-to-work"}, {}, id="of another task"),
        pytest.param({"to": OLGA}, {}, id="to another state"),
        pytest.param({"status": "abandoned"}, {}, id="which we gave up"),
        pytest.param({"minutes": 30}, {}, id="of half an hour ago"),
        pytest.param({}, {"shown": OLGA}, id="after which somebody moved it on"),
        pytest.param(None, {}, id="that we never intended"),
    ],
)
async def test_a_move_that_is_not_surely_ours_wakes(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, written: dict[str, Any] | None, reported: dict[str, str]
) -> None:
    """The same move wakes its task wherever actor, task, state, outcome, time or snapshot speak against an echo."""
    if written is not None:
        more = dict(written)
        await effect(pool, more.pop("intent", MOVE), "plane state", **more)
    await move(inbox, **reported)
    await forwarder.forward_batch()
    assert await rows(pool) == [("forwarded", "", "PAY-1")]


@pytest.mark.parametrize(
    ("actor", "external", "kind", "ends"),
    [
        (BOT, {}, "plane comment", ("ignored", f"echo of {SAID}", None)),
        (OLGA, {}, "plane comment", ("forwarded", "", "PAY-1")),
        (BOT, {"external_source": "delivery-app"}, "plane comment", ("forwarded", "", "PAY-1")),
        (BOT, {"external_id": "PAY-1/g1/analysis/r2/ask-comment"}, "plane comment", ("forwarded", "", "PAY-1")),
        (BOT, {}, "review", ("forwarded", "", "PAY-1")),
    ],
)
async def test_only_our_own_comment_is_an_echo(
    forwarder: Forwarder,
    inbox: Inbox,
    pool: asyncpg.Pool,
    actor: str,
    external: dict[str, str],
    kind: str,
    ends: tuple[str, str, str | None],
) -> None:
    """A comment is dropped if our bot wrote it under a known intent; anyone else's, or a stranger's id, wakes."""
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    await effect(pool, SAID, kind)
    body = recorded(COMMENT)["body"]
    body["activity"]["actor"]["id"] = actor
    body["data"] |= {"external_source": "orch", "external_id": SAID} | external
    await inbox.receive(Source.PLANE, json.dumps(body).encode(), headers={}, event="", delivery_id="")
    await forwarder.forward_batch()
    assert await rows(pool) == [ends]


async def test_our_own_push_is_never_dropped(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Deliveries of a push, a status and a pull request of ours wake the task whoever their sender is."""
    await open_task(pool)
    await push(pool, "PAY-1")
    for name in ("push_force", "status_success", "pull_request_opened"):
        await store(inbox, f"gitea/webhook_{name}.json", sender={"id": 1, "login": "orch-bot"})
    await forwarder.forward_batch()
    assert len(temporal.signals) == 3


async def test_the_loop_breaker_holds_back_a_task_that_is_woken_without_end(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Above the limit a task's rows wait with a reason, other tasks go on, and a person is told once."""
    temporal.running = {WORKFLOW, "task/PAY-2"}
    forwarder = make_forwarder(pool, temporal.client, breaker=Breaker(pool, 3))
    for number in range(3):
        await store(inbox, IN_PROGRESS, name=f"title {number}")
    await forwarder.forward_batch()
    for number in range(3, 5):
        await store(inbox, IN_PROGRESS, name=f"title {number}")
    await store(inbox, IN_PROGRESS, sequence_id=2)
    await forwarder.forward_batch()
    await make_due(pool)
    await forwarder.forward_batch()
    held = ("new", "loop breaker: PAY-1 was woken 3 times within the hour", None)
    assert (await rows(pool))[3:] == [held, held, ("forwarded", "", "PAY-2")]
    assert [id_ for id_, _ in temporal.signals] == [WORKFLOW, "task/PAY-2"]
    assert await pool.fetchval("SELECT max(attempts) FROM webhook_deliveries WHERE status = 'new'") == 0
    ((task, text),) = await pool.fetch("SELECT task, text FROM notifications")
    assert (task, "woken 3 times within an hour" in text) == ("PAY-1", True)


async def test_what_the_loop_breaker_held_back_is_forwarded_when_the_hour_is_over(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Held rows are not lost: they wake their task once the past hour is quiet enough."""
    forwarder = make_forwarder(pool, temporal.client, breaker=Breaker(pool, 1))
    await store(inbox, IN_PROGRESS)
    await forwarder.forward_batch()
    await store(inbox, IN_PROGRESS, name="again")
    await forwarder.forward_batch()
    assert [row[0] for row in await rows(pool)] == ["forwarded", "new"]
    await pool.execute("UPDATE webhook_deliveries SET last_received_at = now() - interval '61 minutes'")
    await make_due(pool)
    await forwarder.forward_batch()
    assert [row[0] for row in await rows(pool)] == ["forwarded", "forwarded"]


async def test_the_same_bytes_without_end_trip_the_loop_breaker(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A delivery that is sent again and again is one row, and still counts as often as it came."""
    forwarder = make_forwarder(pool, temporal.client, breaker=Breaker(pool, 3))
    for _ in range(5):
        await store(inbox, IN_PROGRESS)
        await forwarder.forward_batch()
    assert len(temporal.signals) == 2
    assert (await rows(pool))[0][0] == "new"
