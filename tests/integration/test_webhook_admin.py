"""`orch webhooks`: dead and past deliveries are listed, shown and replayed, on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from api import webhook_admin
from api.cli.__main__ import run
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


class Said(NamedTuple):
    """What one command line answered."""

    exit_code: int
    stdout: str
    stderr: str


Orch = Callable[..., Awaitable[Said]]
"""Runs `orch webhooks ...` as a person does."""


@pytest.fixture
def orch(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Orch:
    """The command line, which knows the database from its environment."""
    monkeypatch.delenv("ORCH_DATABASE_URL_FILE", raising=False)
    monkeypatch.setenv("ORCH_DATABASE_URL", postgres.url)

    async def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = await asyncio.to_thread(run, ["webhooks", *arguments])
        return Said(code, *capsys.readouterr())

    return call


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
    past: None, orch: Orch, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A replay makes the row new and due, its task is woken once more, and the act is on record."""
    result = await orch("replay", "1", "--by", "olga", "--reason", "lost", "--json")
    assert (result.exit_code, json.loads(result.stdout)["replayed"]) == (0, [1])
    assert (await rows(pool))[0][:2] == ("new", "replayed by olga")
    assert await make_forwarder(pool, temporal.client).forward_batch() == 1
    assert [id_ for id_, _ in temporal.signals] == [WORKFLOW, WORKFLOW]
    assert (await rows(pool))[0] == ("forwarded", "", "PAY-1")
    (act,) = await pool.fetch("SELECT task, act, actor, reason, via, outcome FROM operator_acts")
    assert tuple(act) == ("PAY-1", "replay", "olga", "lost", "orch", "row 1, which was forwarded")


async def test_all_dead_deliveries_are_replayed_at_once(past: None, orch: Orch, pool: asyncpg.Pool) -> None:
    """`--dead` replays the dead rows alone."""
    result = await orch("replay", "--dead", "--by", "olga")
    assert (result.exit_code, result.stdout) == (0, "replayed: 2\n")
    assert [row[0] for row in await rows(pool)] == ["forwarded", "new", "ignored"]


async def test_a_row_in_hand_is_not_replayed(inbox: Inbox, orch: Orch, pool: asyncpg.Pool) -> None:
    """A row that a forwarder holds is left to it; a row that does not exist is named."""
    await store(inbox, IN_PROGRESS)
    await inbox.claim(1, timedelta(minutes=1))
    busy, missing = await orch("replay", "1"), await orch("replay", "1", "99")
    assert (busy.exit_code, busy.stderr) == (6, "1: being forwarded at this moment\n")
    assert (missing.exit_code, "99: there is no such delivery" in missing.stderr) == (3, True)
    assert await pool.fetchval("SELECT count(*) FROM operator_acts") == 0


async def test_one_delivery_is_shown_whole(past: None, orch: Orch) -> None:
    """A row is shown with its headers and its body as JSON; bytes that are no text cannot steer the terminal."""
    shown = json.loads((await orch("show", "1", "--json")).stdout)
    assert (shown["status"], shown["task"], shown["body"]["event"]) == ("forwarded", "PAY-1", "issue")
    assert shown["headers"]["x-plane-event"] == "issue"
    poison = await orch("show", "2")
    assert (poison.exit_code, "\x1b" in poison.stdout, "the body is not UTF-8" in poison.stdout) == (0, False, True)
    listed = await orch("list", "--status", "dead", "--since", "1h")
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
async def test_what_cannot_be_done_has_its_exit_code(inbox: Inbox, orch: Orch, arguments: list[str], code: int) -> None:
    """Unknown rows and words that mean nothing end with the documented code, as JSON where that is asked for."""
    result = await orch(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr
    as_json = await orch(*arguments, "--json")
    assert (as_json.exit_code, set(json.loads(as_json.stdout))) == (code, {"code", "message", "hint"})


async def test_a_list_in_a_pipe_has_no_colours(past: None, orch: Orch) -> None:
    """The table is one line for each delivery, without escape sequences; nothing found is said in words."""
    listed = await orch("list")
    assert (listed.exit_code, "\x1b" in listed.stdout) == (0, False)
    assert [word in listed.stdout for word in ("forwarded", "dead", "ignored", "PAY-1")] == [True] * 4
    assert (await orch("list", "--task", "PAY-11")).stdout == "No delivery matches.\n"


@pytest.mark.parametrize(
    ("url", "code"),
    [("", 78), ("nonsense://secret@", 78), ("postgresql://orch:secret@127.0.0.1:1/orch", 7)],
)
async def test_an_unreachable_database_has_its_exit_code(
    orch: Orch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, code: int
) -> None:
    """A missing, wrong or unreachable database is told apart, and its password is never shown."""
    monkeypatch.setenv("ORCH_DATABASE_URL", url)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    result = await orch("list", "--json")
    assert (result.exit_code, "secret" in result.stdout + result.stderr) == (code, False)
    assert set(json.loads(result.stdout)) == {"code", "message", "hint"}
