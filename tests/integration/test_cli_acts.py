"""What the command line tells tasks: decisions are on record first, the rest are updates that need a worker."""

import asyncio
import json
import sys
from typing import Any

import asyncpg
import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCStatusCode

from api.cli import acts
from api.cli.__main__ import run
from api.cli.outcome import CliError, Exit
from tests.fake_temporal import rpc_error
from tests.integration.conftest import Postgres
from workflows.interface import OperatorCommand

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
    assert await rows(pool) == [{"act": "approve", "actor": "ann", "digest": DIGEST, "reason": "fine", "via": "cli"}]
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


class Updates:
    """A stand-in for Temporal's client: what it was told, and how it answers."""

    def __init__(self, error: Exception | None = None, *, silent: bool = False) -> None:
        self.told: list[tuple[str, str, OperatorCommand]] = []
        self.error = error
        self.silent = silent

    def get_workflow_handle(self, workflow_id: str) -> "Updates":
        """Itself."""
        self.workflow_id = workflow_id
        return self

    async def execute_update(self, name: str, command: OperatorCommand, **options: Any) -> str:
        """Answer as told to; the update has the act's own id."""
        assert options == {"id": command.act_id, "result_type": str}
        self.told.append((self.workflow_id, name, command))
        if self.silent:
            await asyncio.sleep(60)
        if self.error is not None:
            raise self.error
        return f"{name} by {command.by} taken"

    def instead(self, monkeypatch: pytest.MonkeyPatch) -> "Updates":
        """Answer as Temporal."""

        async def temporal(_: object) -> Updates:
            return self

        monkeypatch.setattr(acts.connect, "temporal", temporal)
        return self


UPDATES = ["retry", "rollback", "accept", "pause", "resume", "cancel"]


@pytest.mark.parametrize("act", UPDATES)
async def test_an_update_says_who_and_why(
    environment: dict[str, str], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Each act is the workflow's update of that name, with actor, reason and an id; the row is the workflow's."""
    temporal = Updates().instead(monkeypatch)
    answer = await tell(environment, act, "pay-8")
    ((workflow_id, name, command),) = temporal.told
    assert (workflow_id, name, command.by, command.reason) == ("task/PAY-8", act, "ann", "because")
    assert answer == {
        "act_id": command.act_id, "task": "PAY-8", "act": act, "actor": "ann", "reason": "because",
        "answer": f"{act} by ann taken",
    }  # fmt: skip
    assert await rows(pool) == []


@pytest.mark.parametrize("act", UPDATES)
async def test_an_update_that_nobody_takes_is_unreachable(
    environment: dict[str, str], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Without Temporal or without a worker it fails with 7 and says that nothing was recorded, which is so."""
    with pytest.raises(CliError) as caught:
        await tell(environment, act, "PAY-7")
    assert caught.value.exit_code is Exit.UNREACHABLE
    assert "nothing was recorded" in caught.value.hint
    Updates(silent=True).instead(monkeypatch)
    monkeypatch.setattr(acts, "UPDATE_SECONDS", 0.1)
    with pytest.raises(CliError, match="nothing was recorded") as caught:
        await tell(environment, act, "PAY-7")
    assert caught.value.exit_code is Exit.UNREACHABLE
    assert await rows(pool) == []


@pytest.mark.parametrize("act", UPDATES)
async def test_a_refused_update_and_an_ended_task_are_conflicts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """What the workflow refuses is told in its words; what has ended, or has no workflow, is told nothing."""
    refused = WorkflowUpdateFailedError(ApplicationError(f"nothing to {act}: it works", type="ActRefused"))
    Updates(refused).instead(monkeypatch)
    with pytest.raises(CliError, match=f"nothing to {act}: it works") as caught:
        await tell(environment, act, "PAY-7")
    assert caught.value.exit_code is Exit.CONFLICT
    Updates(rpc_error(RPCStatusCode.NOT_FOUND)).instead(monkeypatch)
    with pytest.raises(CliError, match="runs no workflow of PAY-7") as caught:
        await tell(environment, act, "PAY-7")
    assert caught.value.exit_code is Exit.CONFLICT
    ended = Updates().instead(monkeypatch)
    with pytest.raises(CliError, match="has ended") as caught:
        await tell(environment, act, "PAY-9")
    assert (caught.value.exit_code, ended.told) == (Exit.CONFLICT, [])


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
    temporal = Updates().instead(monkeypatch)
    code = await asyncio.to_thread(run, ["task", "cancel", "PAY-8", "--by", "ann", "--json"])
    out, err = capsys.readouterr()
    assert asked == ["Cancel PAY-8?"]
    assert f"“{ends_as}”" in err
    if wanted:
        assert (code, json.loads(out)["ends_as"]) == (0, ends_as)
        assert [name for _, name, _ in temporal.told] == ["cancel"]
    else:
        assert (code, json.loads(out)["code"], temporal.told) == (Exit.FAILED, "failed", [])


async def test_cancelling_unasked_needs_no_terminal(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --yes nobody is asked, and the answer says how the task ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Updates().instead(monkeypatch)
    assert await asyncio.to_thread(run, ["task", "cancel", "PAY-8", "--by", "ann", "--yes"]) == 0
    assert capsys.readouterr().out == "PAY-8: cancel by ann taken; as it stands it ends as “cancelled”\n"
