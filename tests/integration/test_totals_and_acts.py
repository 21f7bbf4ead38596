"""On a real PostgreSQL: acts that are taken once, and the table of a closing comment."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from temporalio.testing import ActivityEnvironment

from activities.adapters.store import Store
from activities.adapters.store import open_pool as open_store
from activities.ledger import Ledger
from activities.markup import to_html
from activities.totals import table
from tests.integration.conftest import Postgres
from workflows.contracts.ledger import ReadActs, RecordAct
from workflows.model import Stage, TaskRef
from workflows.state import Act, OperatorAct

REF = TaskRef(key="PAY-1", generation=2, stage=Stage.REVIEW, round=1)
NOW = datetime.now(UTC)
LINE = "INSERT INTO transitions (task, generation, n, at, stage, round, text)"


@pytest.fixture
async def store(pool: asyncpg.Pool, postgres: Postgres) -> AsyncIterator[Store]:
    """The worker's tables, empty, with generation 2 of PAY-1."""
    await pool.execute("TRUNCATE transitions, agent_runs")
    await pool.execute(
        """
        INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity, stage, round,
                           status, started_at, updated_at)
        VALUES ('PAY-1', 2, 'PAY', gen_random_uuid(), 'T', 'acme/payments', 'b', 'a', 'review', 1, 'working',
                now(), now())
        """
    )
    ours = await open_store(postgres.url)
    yield Store(ours)
    await ours.close()


async def put(pool: asyncpg.Pool, act_id: str, act: str, generation: int | None = 2, seconds: int = 0) -> None:
    """An act as the command line puts it on record."""
    await pool.execute(
        """
        INSERT INTO operator_acts (act_id, task, generation, act, actor, via, at, digest)
        VALUES ($1, 'PAY-1', $2, $3, 'ann', 'orch', $4, 'd')
        """,
        act_id,
        generation,
        act,
        NOW + timedelta(seconds=seconds),
    )


async def read(store: Store) -> list[OperatorAct]:
    """What the task finds."""
    return list((await ActivityEnvironment().run(Ledger(store).read_acts, ReadActs(ref=REF))).acts)


async def outcomes(pool: asyncpg.Pool) -> dict[str, str]:
    """What became of each act."""
    return {row["act_id"]: row["outcome"] for row in await pool.fetch("SELECT act_id, outcome FROM operator_acts")}


async def test_only_open_commands_of_this_generation_are_read(store: Store, pool: asyncpg.Pool) -> None:
    """Decisions, replays, unknown words and other generations' acts are not the task's to take; order is by time."""
    await put(pool, "later", "resume", seconds=5)
    await put(pool, "first", "pause")
    for act_id, act, generation in (
        ("a", "approve", 2), ("b", "replay", 2), ("c", "dance", 2), ("d", "cancel", 1), ("e", "cancel", None),
    ):  # fmt: skip
        await put(pool, act_id, act, generation)
    assert [(act.act_id, act.act, act.by, act.via) for act in await read(store)] == [
        ("first", Act.PAUSE, "ann", "orch"),
        ("later", Act.RESUME, "ann", "orch"),
    ]


async def test_what_became_of_an_act_is_noted_once(store: Store, pool: asyncpg.Pool) -> None:
    """A taken act is not read again, and a second word on it changes nothing; an unknown one is inserted with it."""
    await put(pool, "one", "pause")
    (act,) = await read(store)
    for outcome in ("taken", "refused: late"):
        await ActivityEnvironment().run(Ledger(store).record_act, RecordAct(ref=REF, act=act, outcome=outcome))
    raw = OperatorAct(act_id="raw", act=Act.RETRY, by="olga", at=NOW)
    await ActivityEnvironment().run(Ledger(store).record_act, RecordAct(ref=REF, act=raw, outcome="taken"))
    assert await read(store) == []
    assert await outcomes(pool) == {"one": "taken", "raw": "taken"}
    assert await pool.fetchval("SELECT count(*) FROM operator_acts WHERE settled_at IS NULL") == 0
    assert await pool.fetchval("SELECT generation FROM operator_acts WHERE act_id = 'raw'") == 2


async def test_a_task_that_ends_refuses_what_it_has_not_taken(store: Store, pool: asyncpg.Pool) -> None:
    """With its last record an act that came too late is refused; another generation's is left alone."""
    await put(pool, "late", "pause")
    await put(pool, "other", "pause", 3)
    row = {"spec_digest": "", "outcome": "done", "ended_at": NOW, "lines_written": 0}
    await store.tasks.record("PAY-1", 2, row, [], "")
    assert await outcomes(pool) == {"late": "refused: the task has ended: done", "other": ""}


async def test_the_totals_are_summed_by_stage(store: Store, pool: asyncpg.Pool) -> None:
    """Rounds, runs, tokens, cost and time of each stage and of all; what is unknown or cut off is a lower bound."""
    lines = [(1, "analysis", 1, 0), (2, "analysis", 1, 100), (3, "development", 1, 160), (4, "development", 2, 4000)]
    for n, stage, round_, seconds in lines:
        await pool.execute(
            f"{LINE} VALUES ('PAY-1', 2, $1, $2, $3, $4, '')",
            n,
            NOW - timedelta(hours=2) + timedelta(seconds=seconds),
            stage,
            round_,
        )
    for stage, attempt, outcome, tokens, cost in (
        ("analysis", 1, "ok", (10, 90, 5), 0.25),
        ("development", 1, "ok", (100, 300, 50), 1.5),
        ("development", 2, "lost", (0, 0, 0), None),
        ("review", 1, "running", (0, 0, 0), None),
    ):
        await run_of(pool, stage, attempt, outcome, tokens, cost)
    waited = {Stage.ANALYSIS: 70.0, Stage.DEPLOY: 9.0}
    rows = await store.runs.totals("PAY-1", 2)
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(rows, waited, Stage.ANALYSIS).split("\n")
    ]
    # What has passed since the newest line is analysis' time here, and depends on the clock.
    assert [cells[:6] for cells in shown[2:]] == [
        ["analysis", "1", "1", "100 (90%)", "5", "$0.2500"],
        ["development", "2", "2", "at least 400 (75%)", "at least 50", "at least $1.5000"],
        ["review", "1", "1", "unknown", "unknown", "unknown"],
        ["**total**", "4", "4", "at least 500 (78%)", "at least 55", "at least $1.7500"],
    ]
    assert [cells[7] for cells in shown[2:]] == ["1 min 10 s", "0 s", "0 s", "1 min 10 s"]
    assert shown[3][6] == "1 h 5 min"


async def test_the_table_survives_what_plane_may_show(store: Store, pool: asyncpg.Pool) -> None:
    """The table's Markdown becomes an HTML table with nothing but allowed tags; without any line there is none."""
    assert table(await store.runs.totals("PAY-1", 2), {}, Stage.REVIEW) == ""
    await pool.execute(
        f"{LINE} VALUES ('PAY-1', 2, 1, now(), 'review', 1, '')",
    )
    html = to_html(table(await store.runs.totals("PAY-1", 2), {}, Stage.REVIEW))
    assert html.count("<tr>") == 3
    assert "<td>review</td>" in html
    assert "<strong>total</strong>" in html
    assert "|" not in html


async def run_of(
    pool: asyncpg.Pool, stage: str, attempt: int, outcome: str, tokens: tuple[int, int, int], cost: float | None
) -> None:
    """One agent run on record: tokens are input, cached and output."""
    await pool.execute(
        """
        INSERT INTO agent_runs (task, generation, stage, round, attempt, session_id, role, runner, host, outcome,
                                input_tokens, cache_read_tokens, output_tokens, cost_usd)
        VALUES ('PAY-1', 2, $1, 1, $2, '', '', '', '', $3, $4, $5, $6, $7)
        """,
        stage,
        attempt,
        outcome,
        *tokens,
        cost,
    )
