"""`orch merge-queue`: freezes are rows before anybody is told; the rest are updates of the queue."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from temporalio.service import RPCStatusCode

from activities.adapters.store import Freezes
from api.cli import acts, queues
from api.cli.__main__ import run
from api.cli.outcome import Exit
from tests.fake_temporal import rpc_error
from tests.integration.conftest import Postgres
from workflows.interface import QueueCommand
from workflows.lease_rules import entered_phase, granted, requested
from workflows.lease_state import Phase, QueueState, Request
from workflows.model import Priority

NOW = datetime(2026, 1, 1, 10, tzinfo=UTC)
QUEUE = "merge/acme/payments/main"
CONFIG = """
plane_workspace = "w"
plane_public_url = "http://plane"
gitea_public_url = "http://gitea"
[projects.PAY]
plane_project_id = "6b4f6f9e-6a6b-4a53-9b0f-0f4c1d3e2a10"
repository = {owner = "acme", name = "payments"}
"""
SECOND = """
[projects.SHOP]
plane_project_id = "6b4f6f9e-6a6b-4a53-9b0f-0f4c1d3e2a11"
repository = {owner = "acme", name = "shop", base = "trunk"}
"""


class Temporal:
    """A stand-in for Temporal's client: the queue it knows, and what it was told."""

    def __init__(self, state: QueueState | None = None, *, error: Exception | None = None) -> None:
        self.state = state
        self.error = error
        self.told: list[tuple[str, str, Any]] = []

    def get_workflow_handle(self, workflow_id: str) -> "Temporal":
        """Itself."""
        self.workflow_id = workflow_id
        return self

    async def query(self, name: str, **_: Any) -> QueueState:
        """The queue, if there is one."""
        assert name == "show"
        if self.error is not None or self.state is None:
            raise self.error or rpc_error(RPCStatusCode.NOT_FOUND)
        return self.state

    async def execute_update(self, name: str, command: QueueCommand, **_: Any) -> str:
        """Taken, unless there is an error."""
        if self.error is not None:
            raise self.error
        self.told.append((self.workflow_id, name, command))
        return f"{name} taken"

    async def start_workflow(self, workflow: str, _: object, **options: Any) -> None:
        """Woken, unless there is an error."""
        if self.error is not None:
            raise self.error
        self.told.append((options["id"], workflow, options["start_signal"]))


@pytest.fixture
async def stack(
    pool: asyncpg.Pool, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> asyncpg.Pool:
    """PAY-1 and PAY-2 wait for the merge lease of the one repository that is configured."""
    for key in ("PAY-1", "PAY-2"):
        await pool.execute(
            """
            INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity, stage, round,
                               status, waiting_on, waiting_reason, waiting_since, started_at, updated_at)
            VALUES ($1, 1, 'PAY', gen_random_uuid(), 'Round totals', 'acme/payments', 'task/' || $1, $1,
                    'deploy-staging', 1, 'waiting', 'merge queue', 'queued', now(), now(), now())
            """,
            key,
        )
    (tmp_path / "orch.toml").write_text(CONFIG)
    monkeypatch.setenv("ORCH_CONFIG", str(tmp_path / "orch.toml"))
    monkeypatch.setenv("ORCH_DATABASE_URL", postgres.url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    return pool


def answer(monkeypatch: pytest.MonkeyPatch, temporal: Temporal) -> Temporal:
    """Let the stand-in answer as Temporal."""

    async def connected(_: object) -> Temporal:
        return temporal

    monkeypatch.setattr(acts.connect, "temporal", connected)
    return temporal


async def orch(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with --json; its exit code and its document."""
    code = await asyncio.to_thread(run, ["merge-queue", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def a_queue() -> QueueState:
    """PAY-3 holds and tests; PAY-2, which is urgent, and PAY-1 wait."""
    state = QueueState()
    for number, priority in ((3, Priority.NONE), (1, Priority.NONE), (2, Priority.URGENT)):
        request = Request(
            holder=f"task/PAY-{number}", generation=1, ticket=1, task=f"PAY-{number}", at=NOW, priority=priority
        )
        state = requested(state, request)
        if number == 3:
            state = granted(state, request, epoch=7, at=NOW, now=NOW)
    return entered_phase(state, "task/PAY-3", 7, Phase.TESTING, NOW)


async def test_show_puts_rows_and_queue_together(
    stack: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Holder, epoch, phase and its since, the line in order, freezes with who may lift them."""
    answer(monkeypatch, Temporal(a_queue()))
    await stack.execute("INSERT INTO leases (queue, epoch, holder, generation) VALUES ($1, 7, 'task/PAY-3', 1)", QUEUE)
    await stack.execute(
        "INSERT INTO freezes (queue, cause, reason, by_whom) VALUES ($1, 'base red', '2 fail', 'PAY-4')", QUEUE
    )
    code, found = await orch(capsys, "show")
    assert (code, found["queue"], found["note"]) == (0, QUEUE, "")
    assert (found["holder"]["task"], found["holder"]["epoch"], found["holder"]["phase"]) == ("PAY-3", 7, "testing")
    assert found["holder"]["phase_since"] == NOW.isoformat()
    assert [(row["position"], row["task"], row["priority"]) for row in found["waiting"]] == [
        (1, "PAY-2", "urgent"),
        (2, "PAY-1", "none"),
    ]
    (freeze,) = found["freezes"]
    assert (freeze["cause"], freeze["reason"], freeze["by"]) == ("base red", "2 fail", "PAY-4")
    assert "once the base passes its tests" in freeze["who_may_lift"]
    assert await asyncio.to_thread(run, ["merge-queue", "show"]) == 0
    shown = capsys.readouterr().out
    for words in ("PAY-3 holds the lease, epoch 7", "testing since", "frozen: base red since", "PAY-2", "lifted by"):
        assert words in shown


async def test_show_without_temporal_says_what_the_rows_know(
    stack: asyncpg.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who waits and what is frozen is shown while Temporal is away, and that the order is not known."""
    code, found = await orch(capsys, "show", "acme/payments")
    assert code == 0
    assert sorted((row["task"], row["position"]) for row in found["waiting"]) == [("PAY-1", None), ("PAY-2", None)]
    assert "order and phase are not known" in found["note"]


async def test_a_freeze_holds_without_temporal(stack: asyncpg.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    """The row and its announcement are there though nobody could be told, once however often it is said."""
    for reason in ("release week", "release week, day 2"):
        code, said = await orch(capsys, "freeze", "--reason", reason, "--by", "ann")
        assert (code, said["told"]) == (0, False)
        assert "on record" in said["note"]
    row = await stack.fetchrow("SELECT cause, reason, by_whom FROM freezes WHERE lifted_at IS NULL")
    assert tuple(row) == ("operator", "release week, day 2", "ann")
    assert await stack.fetchval("SELECT count(*) FROM notifications") == 1


async def test_freeze_and_unfreeze_wake_the_queue(
    stack: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both signal the queue, starting it if needed; the row says who lifted it and why; both are announced."""
    temporal = answer(monkeypatch, Temporal())
    await orch(capsys, "freeze", "--reason", "release week", "--by", "ann")
    code, said = await orch(capsys, "unfreeze", "--reason", "released", "--by", "bob")
    assert (code, said["still"], said["told"]) == (0, [], True)
    assert temporal.told == [(QUEUE, "MergeQueueWorkflow", "refresh")] * 2
    row = await stack.fetchrow("SELECT lifted_by, lifted_reason FROM freezes WHERE lifted_at IS NOT NULL")
    assert tuple(row) == ("bob", "released")
    texts = [row["text"] for row in await stack.fetch("SELECT text FROM notifications ORDER BY id")]
    assert texts == [f"{QUEUE} is frozen by ann: operator (release week)", f"{QUEUE}: bob lifted operator (released)"]


async def test_a_cause_that_does_not_stand_cannot_be_lifted(
    stack: asyncpg.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lifting the wrong cause is a conflict that names the one that stands, and changes nothing."""
    await Freezes(stack).open(QUEUE, "wrong tree", reason="because", by="PAY-1")  # type: ignore[arg-type]
    code, error = await orch(capsys, "unfreeze")
    assert (code, error["code"]) == (Exit.CONFLICT, "conflict")
    assert "--cause 'wrong tree'" in error["hint"]
    assert await stack.fetchval("SELECT count(*) FROM freezes WHERE lifted_at IS NULL") == 1


@pytest.mark.parametrize(
    ("arguments", "update", "priority"),
    [
        (("pass", "pay-1"), "grant_pass", None),
        (("bump", "PAY-1"), "bump", Priority.URGENT),
        (("bump", "PAY-1", "--priority", "low"), "bump", Priority.LOW),
        (("drop", "PAY-1"), "drop", None),
    ],
)
async def test_what_the_queue_is_told_says_who_and_why(
    stack: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    update: str,
    priority: Priority | None,
) -> None:
    """Pass, bump and drop are updates of the task's own queue, with actor, reason and an id."""
    temporal = answer(monkeypatch, Temporal())
    code, said = await orch(capsys, *arguments, "--reason", "hot", "--by", "ann")
    ((queue, name, command),) = temporal.told
    assert (code, queue, name) == (0, QUEUE, update)
    assert (command.task, command.by, command.reason, command.priority) == ("PAY-1", "ann", "hot", priority)
    assert command.act_id == said["act_id"]


@pytest.mark.parametrize("command", ["pass", "bump", "drop"])
async def test_an_update_that_nobody_takes_says_so(
    stack: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Without Temporal the exit code is 7; where the queue has ended nobody waits in it, which is a conflict."""
    code, error = await orch(capsys, command, "PAY-1")
    assert (code, error["code"]) == (Exit.UNREACHABLE, "unreachable")
    answer(monkeypatch, Temporal(error=rpc_error(RPCStatusCode.NOT_FOUND)))
    code, error = await orch(capsys, command, "PAY-1")
    assert code == Exit.CONFLICT
    assert "PAY-1 does not wait in it" in error["message"]


async def test_the_repository_is_needed_where_there_are_several(
    stack: asyncpg.Pool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One configured repository need not be named; of several one must be, and its own base is taken."""
    (tmp_path / "orch.toml").write_text(CONFIG + SECOND)
    code, error = await orch(capsys, "show")
    assert (code, error["message"]) == (Exit.USAGE, "several repositories are configured: acme/payments, acme/shop")
    code, found = await orch(capsys, "show", "acme/shop")
    assert (code, found["queue"]) == (0, "merge/acme/shop/trunk")
    code, error = await orch(capsys, "show", "acme")
    assert code == Exit.USAGE
    assert "OWNER/REPOSITORY" in error["hint"]


async def test_an_unknown_priority_is_a_usage_error(stack: asyncpg.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    """The priorities that exist are named."""
    code, error = await orch(capsys, "bump", "PAY-1", "--priority", "now")
    assert code == Exit.USAGE
    assert "urgent, high, medium, low, none" in error["hint"]


def test_every_cause_says_who_may_lift_it() -> None:
    """No freeze is shown without a way out."""
    assert set(queues.WHO_LIFTS) == set(queues.FreezeCause)
