"""What the command line tells tasks: every act is on record first, then the task is told."""

import asyncio
import json
import sys

import asyncpg
import pytest
from temporalio.service import RPCStatusCode

from api.cli import acts
from api.cli.__main__ import run
from api.cli.outcome import CliError, Exit
from tests.fake_temporal import rpc_error
from tests.integration.conftest import Postgres
from workflows.hints import Hint, Source, Topic

DIGEST = "3f2a00000000"


@pytest.fixture
async def environment(pool: asyncpg.Pool, postgres: Postgres) -> dict[str, str]:
    """PAY-7 asks for a decision, PAY-8 works, PAY-9 has ended; nobody answers as Temporal."""
    await pool.execute("TRUNCATE operator_acts, transitions")
    for key, digest, ended in (("PAY-7", DIGEST, None), ("PAY-8", "", None), ("PAY-9", "", "now()")):
        await pool.execute(
            f"""
            INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity, stage, round,
                               status, waiting_on, waiting_reason, waiting_since, needs_human, spec_digest,
                               started_at, updated_at, ended_at, outcome)
            VALUES ($1, 1, 'PAY', gen_random_uuid(), 'Round totals', 'acme/payments', 'task/' || $1, $1, 'analysis', 1,
                    'waiting', 'person', 'decide', now(), true, $2, now(), now(), {ended or "NULL"}, '')
            """,
            key,
            digest,
        )
    return {"ORCH_DATABASE_URL": postgres.url, "TEMPORAL_ADDRESS": "127.0.0.1:1", "TEMPORAL_NAMESPACE": "orch"}


async def rows(pool: asyncpg.Pool) -> list[dict[str, object]]:
    """The acts on record."""
    return [dict(row) for row in await pool.fetch("SELECT act, actor, digest, reason, via FROM operator_acts")]


async def decide(
    environment: dict[str, str], key: str, act: str = "approve", digest: str | None = None
) -> dict[str, object]:
    """Decide as ann."""
    return await acts.decide(environment, act, key, digest=digest, reason="fine", actor="ann")


async def test_a_decision_counts_while_temporal_is_away(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """The row is there with the digest that was asked about, and the answer says that it takes effect later."""
    answer = await decide(environment, "pay-7")
    assert await rows(pool) == [{"act": "approve", "actor": "ann", "digest": DIGEST, "reason": "fine", "via": "orch"}]
    assert answer["told"] is False
    assert "it counts" in str(answer["note"])
    json.dumps(answer)


async def test_the_same_decision_again_makes_no_second_row(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """Repeating an approval answers with the first one, whoever gave it."""
    first = await decide(environment, "PAY-7")
    again = await decide(environment, "PAY-7")
    assert again["repeated"] is True
    assert again["act_id"] == first["act_id"]
    assert len(await rows(pool)) == 1


async def test_the_opposite_of_what_is_decided_is_a_conflict(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """A rejection after an approval of the same spec is refused: the earliest counts."""
    await decide(environment, "PAY-7")
    with pytest.raises(CliError) as caught:
        await decide(environment, "PAY-7", "reject")
    assert caught.value.exit_code is Exit.CONFLICT
    assert len(await rows(pool)) == 1


@pytest.mark.parametrize(
    ("key", "digest", "code"),
    [
        ("PAY-7", "0ld", Exit.CONFLICT),
        ("PAY-8", None, Exit.CONFLICT),
        ("PAY-9", None, Exit.CONFLICT),
        ("X-1", None, Exit.NOT_FOUND),
    ],
)
async def test_what_cannot_be_decided_leaves_no_row(
    environment: dict[str, str], pool: asyncpg.Pool, key: str, digest: str | None, code: Exit
) -> None:
    """An old digest, a task that asks nothing, an ended task and an unknown one are refused with a way to mend it."""
    with pytest.raises(CliError) as caught:
        await decide(environment, key, digest=digest)
    assert caught.value.exit_code is code
    assert caught.value.hint
    assert await rows(pool) == []


async def test_a_spec_that_changes_in_between_is_not_approved(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """The row is inserted only if exactly this digest is still asked about at that moment."""
    await pool.execute("UPDATE tasks SET spec_digest = 'newer' WHERE task = 'PAY-7'")
    with pytest.raises(CliError, match="newer"):
        await decide(environment, "PAY-7", digest=DIGEST)
    assert await rows(pool) == []


async def tell(environment: dict[str, str], act: str, key: str) -> dict[str, object]:
    """Say something else to a task, as ann."""
    row = await acts.running(environment, act, key)
    return await acts.tell(environment, act, row, reason="because", actor="ann")


class Temporal:
    """A stand-in for Temporal's client, and for a worker that takes what is on record when it is hinted at."""

    def __init__(self, environment: dict[str, str], outcome: str = "taken", error: Exception | None = None) -> None:
        self.told: list[tuple[str, str, Hint]] = []
        self.database = environment["ORCH_DATABASE_URL"]
        self.outcome = outcome
        self.error = error

    def get_workflow_handle(self, workflow_id: str) -> "Temporal":
        """Itself."""
        self.workflow_id = workflow_id
        return self

    async def signal(self, name: str, hint: Hint, **_: object) -> None:
        """Hear the hint; the row is there before it."""
        if self.error is not None:
            raise self.error
        self.told.append((self.workflow_id, name, hint))
        key = self.workflow_id.removeprefix("task/")
        connection = await asyncpg.connect(self.database)
        open_acts = await connection.fetch("SELECT act FROM operator_acts WHERE task = $1 AND outcome = ''", key)
        assert len(open_acts) == 1
        await connection.execute("UPDATE operator_acts SET outcome = $2 WHERE task = $1", key, self.outcome)
        if self.outcome == "taken":
            paused = "now()" if open_acts[0]["act"] == "pause" else "NULL"
            ended = "now()" if open_acts[0]["act"] == "cancel" else "NULL"
            await connection.execute(
                f"UPDATE tasks SET paused_since = {paused}, paused_reason = 'ann said pause', ended_at = {ended},"
                " outcome = 'cancelled', updated_at = now() WHERE task = $1",
                key,
            )
        await connection.close()

    def instead(self, monkeypatch: pytest.MonkeyPatch) -> "Temporal":
        """Answer as Temporal."""

        async def temporal(_: object) -> Temporal:
            return self

        monkeypatch.setattr(acts.connect, "temporal", temporal)
        return self


ACTS = ["retry", "rollback", "accept", "pause", "resume", "cancel"]


@pytest.mark.parametrize("act", ACTS)
async def test_an_act_is_a_row_before_it_is_a_hint(
    environment: dict[str, str], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Each act is on record with who, why and for which generation when the task is told; its effect is reported."""
    temporal = Temporal(environment).instead(monkeypatch)
    answer = await tell(environment, act, "pay-8")
    ((workflow_id, name, hint),) = temporal.told
    assert (workflow_id, name, hint) == ("task/PAY-8", "hint", Hint(topic=Topic.OPERATOR, source=Source.OPERATOR))
    assert await rows(pool) == [{"act": act, "actor": "ann", "digest": "", "reason": "because", "via": "orch"}]
    assert await pool.fetchval("SELECT generation FROM operator_acts") == 1
    assert (answer["outcome"], answer["told"], answer["note"]) == ("taken", True, "")
    if act in {"pause", "cancel"}:
        assert {"pause": "paused since", "cancel": "has ended: cancelled"}[act] in str(answer["why"])
    json.dumps(answer)


@pytest.mark.parametrize("act", ACTS)
async def test_an_act_that_nobody_takes_is_recorded(
    environment: dict[str, str], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Without Temporal, its workflow or a worker the act stays on record, open, and the answer says when it counts."""
    monkeypatch.setattr(acts, "TAKEN_SECONDS", 0.1)
    away = await tell(environment, act, "PAY-7")
    assert (away["outcome"], away["told"]) == ("", False)
    assert "takes effect later" in str(away["note"])
    Temporal(environment, error=rpc_error(RPCStatusCode.NOT_FOUND)).instead(monkeypatch)
    unknown = await tell(environment, act, "PAY-7")
    assert "no running workflow" in str(unknown["note"])
    Temporal(environment, outcome="").instead(monkeypatch)
    unheard = await tell(environment, act, "PAY-8")
    assert (unheard["outcome"], unheard["told"]) == ("", True)
    assert "takes effect when one runs" in str(unheard["note"])
    assert [row["act"] for row in await rows(pool)] == [act] * 3
    assert await pool.fetchval("SELECT count(*) FROM operator_acts WHERE outcome = ''") == 3


@pytest.mark.parametrize("act", ACTS)
async def test_a_refused_act_and_an_ended_task_are_conflicts(
    environment: dict[str, str], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """What the task refuses is told in its words; a task that has ended is told nothing, and no row is left."""
    Temporal(environment, outcome=f"refused: nothing to {act}: it works").instead(monkeypatch)
    with pytest.raises(CliError, match=f"refused: nothing to {act}: it works") as caught:
        await tell(environment, act, "PAY-7")
    assert caught.value.exit_code is Exit.CONFLICT
    temporal = Temporal(environment).instead(monkeypatch)
    with pytest.raises(CliError, match="has ended") as caught:
        await tell(environment, act, "PAY-9")
    assert (caught.value.exit_code, temporal.told) == (Exit.CONFLICT, [])
    row = await acts.running(environment, act, "PAY-8")
    await pool.execute("UPDATE tasks SET ended_at = now() WHERE task = 'PAY-8'")
    with pytest.raises(CliError, match="has ended") as caught:
        await acts.tell(environment, act, row, reason="", actor="ann")
    assert (caught.value.exit_code, temporal.told) == (Exit.CONFLICT, [])
    assert len(await rows(pool)) == 1


@pytest.mark.parametrize(("landed", "ends_as"), [("", "cancelled"), ("c" * 40, "landed, not deployed")])
@pytest.mark.parametrize("wanted", [True, False])
async def test_cancelling_on_a_terminal_asks_first(
    environment: dict[str, str],
    pool: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: bool,
    landed: str,
    ends_as: str,
) -> None:
    """A person is told what becomes of the task as it stands and is asked; only a yes is passed on."""
    await pool.execute("UPDATE tasks SET landed_sha = $1 WHERE task = 'PAY-8'", landed)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    asked: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        assert err
        asked.append(question)
        return wanted

    monkeypatch.setattr("typer.confirm", confirm)
    temporal = Temporal(environment).instead(monkeypatch)
    code = await asyncio.to_thread(run, ["task", "cancel", "PAY-8", "--by", "ann", "--json"])
    out, err = capsys.readouterr()
    assert asked == ["Cancel PAY-8?"]
    assert f"“{ends_as}”" in err
    if wanted:
        assert (code, json.loads(out)["ends_as"]) == (0, ends_as)
        assert [row["act"] for row in await rows(pool)] == ["cancel"]
    else:
        assert (code, json.loads(out)["code"], temporal.told) == (Exit.FAILED, "failed", [])


async def test_cancelling_unasked_needs_no_terminal(
    environment: dict[str, str],
    pool: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --yes nobody is asked, and the answer says how the task stands then."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Temporal(environment).instead(monkeypatch)
    assert await asyncio.to_thread(run, ["task", "cancel", "PAY-8", "--by", "ann", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out == "PAY-8: cancel by ann taken\n  PAY-8 has ended: cancelled.\n"
    assert "In Progress" in err


async def test_a_pause_nobody_takes_exits_as_pending_and_shows_as_open(
    environment: dict[str, str],
    pool: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without Temporal the exit code is 8; `show` lists the act by whom and via what, and that nobody has taken it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(run, ["task", "pause", "PAY-8", "--by", "ann", "--reason", "lunch"]) == Exit.PENDING
    out, err = capsys.readouterr()
    assert out == "PAY-8: pause by ann recorded\n"
    assert "takes effect later" in err
    assert await asyncio.to_thread(run, ["task", "show", "PAY-8", "--json"]) == 0
    (act,) = json.loads(capsys.readouterr().out)["acts"]
    assert (act["act"], act["actor"], act["via"], act["reason"], act["outcome"]) == (
        "pause",
        "ann",
        "orch",
        "lunch",
        "",
    )
    await pool.execute("UPDATE operator_acts SET outcome = 'refused: nothing to pause'")
    assert await asyncio.to_thread(run, ["task", "show", "PAY-8"]) == 0
    assert "refused: nothing to pause" in " ".join(capsys.readouterr().out.split())


async def test_the_list_tells_paused_tasks_apart(
    environment: dict[str, str],
    pool: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A paused task says so, why and since when; --needs-human leaves out who needs nobody."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "160")
    paused_for = "paused_since = now() - interval '2 hours', paused_reason = 'ann said pause'"
    await pool.execute(f"UPDATE tasks SET {paused_for} WHERE task = 'PAY-8'")
    assert await asyncio.to_thread(run, ["task", "list"]) == 0
    (paused,) = [line for line in capsys.readouterr().out.splitlines() if "PAY-8" in line]
    assert "paused: ann said pause" in paused
    assert "2 h" in paused
    await pool.execute("UPDATE tasks SET needs_human = false WHERE task = 'PAY-7'")
    assert await asyncio.to_thread(run, ["task", "list", "--needs-human", "--all", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task"], row["paused_reason"]) == ("PAY-8", "ann said pause")
