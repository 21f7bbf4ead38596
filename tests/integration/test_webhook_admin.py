"""`orch webhooks`: dead and past deliveries are listed, shown and replayed, on a real PostgreSQL."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from api import webhook_admin
from api.cli.webhooks import app
from api.inbox import Inbox, Source, Status
from api.webhook_admin import Filter
from tests.fake_temporal import FakeTemporal
from tests.integration.conftest import Postgres
from tests.integration.test_forwarder import IN_PROGRESS, WORKFLOW, make_forwarder, rows, store


@pytest.fixture
def temporal() -> FakeTemporal:
    """PAY-1 runs."""
    return FakeTemporal(running={WORKFLOW})


@pytest.fixture
async def past(inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal) -> None:
    """Row 1 woke PAY-1, row 2 is dead, row 3 was ignored."""
    await store(inbox, IN_PROGRESS)
    await inbox.receive(Source.PLANE, b'\xff\x1b[2J{"a": 1}', headers={}, event="issue", delivery_id="")
    await store(inbox, "gitea/webhook_push_main_after_merge.json")
    await make_forwarder(pool, temporal.client).forward_batch()
    assert [row[0] for row in await rows(pool)] == ["forwarded", "dead", "ignored"]


async def orch(postgres: Postgres, *arguments: str) -> Result:
    """Run `orch webhooks ...` as a person does."""
    runner = CliRunner(env={"ORCH_DATABASE_URL": postgres.url})
    return await asyncio.to_thread(runner.invoke, app, list(arguments))


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), [3, 2, 1]),
        (Filter(status=Status.DEAD), [2]),
        (Filter(source=Source.GITEA), [3]),
        (Filter(task="pay-1"), [1]),
        (Filter(task="PAY-11"), []),
        (Filter(since=timedelta(minutes=1)), [3, 2, 1]),
        (Filter(since=timedelta(0)), []),
    ],
)
async def test_deliveries_are_listed_newest_first(
    past: None, pool: asyncpg.Pool, wanted: Filter, ids: list[int]
) -> None:
    """Each filter narrows the list to what it names."""
    async with pool.acquire() as connection:
        assert [row["id"] for row in await webhook_admin.list_rows(connection, wanted)] == ids


async def test_a_replayed_delivery_wakes_again(
    past: None, postgres: Postgres, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A replay makes the row new and due, its task is woken once more, and the act is on record."""
    result = await orch(postgres, "replay", "1", "--by", "olga", "--reason", "lost", "--json")
    assert (result.exit_code, json.loads(result.stdout)["replayed"]) == (0, [1])
    assert (await rows(pool))[0][:2] == ("new", "replayed by olga")
    assert await make_forwarder(pool, temporal.client).forward_batch() == 1
    assert [id_ for id_, _ in temporal.signals] == [WORKFLOW, WORKFLOW]
    assert (await rows(pool))[0] == ("forwarded", "", "PAY-1")
    (act,) = await pool.fetch("SELECT task, act, actor, reason, via, outcome FROM operator_acts")
    assert tuple(act) == ("PAY-1", "replay", "olga", "lost", "cli", "row 1, which was forwarded")


async def test_all_dead_deliveries_are_replayed_at_once(past: None, postgres: Postgres, pool: asyncpg.Pool) -> None:
    """`--dead` replays the dead rows alone."""
    result = await orch(postgres, "replay", "--dead", "--by", "olga")
    assert (result.exit_code, result.stdout) == (0, "replayed: 2\n")
    assert [row[0] for row in await rows(pool)] == ["forwarded", "new", "ignored"]


async def test_a_row_in_hand_is_not_replayed(inbox: Inbox, postgres: Postgres, pool: asyncpg.Pool) -> None:
    """A row that a forwarder holds is left to it; a row that does not exist is named."""
    await store(inbox, IN_PROGRESS)
    await inbox.claim(1, timedelta(minutes=1))
    busy, missing = await orch(postgres, "replay", "1"), await orch(postgres, "replay", "1", "99")
    assert (busy.exit_code, busy.stderr) == (6, "1: being forwarded at this moment\n")
    assert (missing.exit_code, "99: there is no such delivery" in missing.stderr) == (3, True)
    assert await pool.fetchval("SELECT count(*) FROM operator_acts") == 0


async def test_one_delivery_is_shown_whole(past: None, postgres: Postgres) -> None:
    """A row is shown with its headers and its body as JSON; bytes that are no text cannot steer the terminal."""
    shown = json.loads((await orch(postgres, "show", "1", "--json")).stdout)
    assert (shown["status"], shown["task"], shown["body"]["event"]) == ("forwarded", "PAY-1", "issue")
    assert shown["headers"]["x-plane-event"] == "issue"
    poison = await orch(postgres, "show", "2")
    assert (poison.exit_code, "\x1b" in poison.stdout, "the body is not UTF-8" in poison.stdout) == (0, False, True)
    listed = await orch(postgres, "list", "--status", "dead", "--since", "1h")
    assert "dead" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "99"], 3),
        (["replay"], 2),
        (["replay", "1", "--dead"], 2),
        (["list", "--status", "lost"], 2),
        (["list", "--since", "yesterday"], 2),
        (["show", "9223372036854775808"], 2),
    ],
)
async def test_what_cannot_be_done_has_its_exit_code(
    inbox: Inbox, postgres: Postgres, arguments: list[str], code: int
) -> None:
    """Unknown rows and words that mean nothing end with the documented code, as JSON where that is asked for."""
    result = await orch(postgres, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"ORCH_DATABASE_URL": ""}, 78),
        ({"ORCH_DATABASE_URL": "nonsense://secret@"}, 78),
        ({"ORCH_DATABASE_URL": "postgresql://orch:secret@127.0.0.1:1/orch"}, 7),
    ],
)
async def test_an_unreachable_database_has_its_exit_code(environment: dict[str, Any], code: int) -> None:
    """A missing, wrong or unreachable database is told apart, and its password is never shown."""
    result = await asyncio.to_thread(CliRunner(env=environment).invoke, app, ["list", "--json"])
    assert (result.exit_code, "secret" in result.output) == (code, False)
    assert set(json.loads(result.stdout)) == {"code", "message", "hint"}
