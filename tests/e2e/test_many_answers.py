"""Many people answer one question at once, by every way there is: one answer counts, everybody else is told."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import pytest
from temporalio.client import WorkflowUpdateFailedError

from api.cli import records
from deploy.demo import seed
from deploy.demo.playbook import playbook
from tests.e2e.auditor import Auditor
from tests.e2e.harness import WORK, Orch, Row
from workflows.hints import Hint, Source, Topic
from workflows.interface import OperatorCommand
from workflows.names import task_workflow_id

pytestmark = pytest.mark.embedded

EACH = 5
STATES = {"approve": "Approved", "reject": "Rejected"}
SAID = {"approve": "approved", "reject": "rejected"}


def act(key: str, word: str, digest: str, actor: str) -> dict[str, str]:
    """An answer as `orch task approve` writes it down."""
    return {
        "act_id": str(uuid.uuid4()), "task": key, "act": word, "actor": actor, "digest": digest, "reason": f"{actor}!",
    }  # fmt: skip


async def put_on_record(orch: Orch, answer: dict[str, str]) -> bool:
    """Write an answer down on a connection of its own; False if the question is not asked any more."""
    connection = await asyncpg.connect(orch.environment["ORCH_DATABASE_URL"], timeout=10)
    try:
        return await records.insert_decision(connection, answer)
    finally:
        await connection.close()


async def wake(orch: Orch, key: str) -> None:
    """Say that somebody has answered; says nothing of what."""
    hint = Hint(topic=Topic.DECISION, source=Source.OPERATOR)
    await (await orch.temporal()).get_workflow_handle(task_workflow_id(key)).signal("hint", hint)


async def by_orch(orch: Orch, answer: dict[str, str]) -> None:
    """Answer as `orch` does: on record first, then the hint."""
    if await put_on_record(orch, answer):
        await wake(orch, answer["task"])


async def answers_in_plane(orch: Orch, key: str) -> list[tuple[datetime, str]]:
    """Moves to an answering state by olga, by the time Plane recorded, each as what it says."""
    item = (await orch.rows("SELECT item_id, project_id FROM items WHERE task = $1", key))[0]
    root = f"/api/v1/workspaces/{seed.WORKSPACE}/projects/{item['project_id']}"
    token = orch.environment["ORCH_PLANE_TOKEN"]
    page = await orch.request("GET", "plane", f"{root}/work-items/{item['item_id']}/activities/", token=token)
    words = {state: word for word, state in STATES.items()}
    return [
        (datetime.fromisoformat(row["created_at"]), words[row["new_value"]])
        for row in page["results"]
        if row["field"] == "state" and row["new_value"] in words
    ]


async def outcome(orch: Orch, key: str, digest: str) -> dict[str, Any]:
    """What became of a question: the moves out of analysis' first round, the comment, the operators' rows."""
    lines = await orch.rows("SELECT text FROM transitions WHERE task = $1 AND stage = 'analysis' AND round = 1", key)
    comments = [
        one for one in await orch.comments(key) if one["external_id"] == f"{key}/g1/analysis/r1/decision-comment"
    ]
    return {
        "moves": [line["text"] for line in lines if line["text"].startswith("analysis -> ")],
        "comments": [comment["comment_html"] for comment in comments],
        "acts": await orch.rows("SELECT * FROM operator_acts WHERE task = $1 AND digest = $2 ORDER BY at", key, digest),
    }


@asynccontextmanager
async def trouble(orch: Orch, kind: str) -> AsyncIterator[None]:
    """The worker works, stands still, or is killed, while the block runs."""
    if kind == "working":
        yield
    elif kind == "frozen":
        orch.signal("worker", signal.SIGSTOP)
        try:
            yield
        finally:
            orch.signal("worker", signal.SIGCONT)
    else:
        dead = orch.signal("worker")
        yield
        await orch.back("worker", dead)


@pytest.mark.parametrize("worker", ["working", "frozen", "killed"])
async def test_twenty_opposite_answers_at_once(orch: Orch, worker: str) -> None:
    """Of twenty opposite answers at once by two ways exactly one counts, and whoever was too late is told."""
    orch.perform(playbook(WORK, rejected_once=True))
    key = await orch.start(f"Twenty answers while the worker is {worker}")
    digest = await orch.asked(key)
    answers = [act(key, word, digest, f"{word}-{n}") for n in range(EACH) for word in STATES]
    async with trouble(orch, worker):
        await asyncio.gather(
            *(by_orch(orch, answer) for answer in answers),
            *(orch.move(key, state) for _ in range(EACH) for state in STATES.values()),
        )

    async def decided() -> bool:
        row = await orch.task(key)
        return bool(row and (row["stage"] != "analysis" or row["round"] > 1))

    await orch.until(f"{key} is decided", decided, key)
    found = await outcome(orch, key, digest)
    said = answer_that_counted(found)
    assert len(found["moves"]) == 1, await orch.report(key)
    assert f"{SAID[said]} by" in found["moves"][0], found
    assert {row["outcome"] for row in found["acts"]} <= {"counted", "too late"}, found["acts"]
    if worker == "frozen":  # every answer was there before anybody looked
        in_plane = await answers_in_plane(orch, key)
        everything = in_plane + [(row["at"], row["act"]) for row in found["acts"]]
        assert said == min(everything)[1], (sorted(everything), found)
        named = [row["actor"] for row in found["acts"] if row["actor"] in found["comments"][0]]
        assert len(named) == len(answers), found
        assert found["comments"][0].count("does not count") == len(everything) - 1, found
    if said == "reject":
        await orch.asked(key, after=digest)
        # The last of the twenty moves may have left the item where it is to be moved to.
        await orch.move(key, "Awaiting approval")
        await orch.approve_when_asked(key)
    await orch.done(key)
    await Auditor(orch).check(key)


def answer_that_counted(found: dict[str, Any]) -> str:
    """The word of the one answer that the comment says counted; the operators' rows agree with it."""
    assert len(found["comments"]) == 1, found
    first = found["comments"][0].partition("came later")[0]
    words = [word for word, said in SAID.items() if f"{said} by" in first]
    assert len(words) == 1, first
    counted = [row for row in found["acts"] if row["outcome"] == "counted"]
    if "via plane" in first:
        assert counted == [], found["acts"]
    else:
        assert [row["act"] for row in counted] == words, found["acts"]
        assert counted[0]["actor"] in first, found
    return words[0]


async def looks(orch: Orch, key: str) -> int:
    """How often the gate has looked for a decision."""
    rows = await orch.rows("SELECT looks FROM gate_results WHERE task = $1 AND stage = 'analysis'", key)
    return sum(row["looks"] for row in rows)


async def looked_again(orch: Orch, key: str, before: int) -> Row:
    """Wait until the gate has looked again; the task as it stands then."""

    async def again() -> Row | None:
        row = await orch.task(key)
        return row if await looks(orch, key) > before and row and row["status"] == "waiting" else None

    return await orch.until(f"the gate of {key} looks again", again, key)


async def test_only_approvers_decide(orch: Orch) -> None:
    """A person who is not an approver in orch.toml may move the item to Approved, and it is not approved."""
    stranger = {"display_name": "boris", "first_name": "Boris", "last_name": "Passerby"}
    people = {"workspace": {"slug": seed.WORKSPACE, "name": "Acme"}, "users": [stranger]}
    await orch.request("POST", "plane", "/_sandbox/seed", people)
    key = await orch.start("Approved by nobody who may")
    digest = await orch.asked(key)
    before = await looks(orch, key)
    await orch.move(key, "Approved", actor="boris")
    row = await looked_again(orch, key, before)
    assert (row["stage"], row["spec_digest"], row["waiting_on"]) == ("analysis", digest, "person")
    assert (await outcome(orch, key, digest))["moves"] == []
    await orch.move(key, "Awaiting approval")
    await orch.move(key, "Approved")
    await orch.done(key)
    found = await outcome(orch, key, digest)
    assert found["moves"] == ["analysis -> architecture: approved by olga via plane"]
    assert "boris" not in found["comments"][0]
    await Auditor(orch).check(key)


async def test_an_answer_to_an_older_spec_does_not_count(orch: Orch) -> None:
    """An answer bound to the digest of an earlier spec is refused everywhere, and decides nothing where it slips in."""
    orch.perform(playbook(WORK, rejected_once=True))
    key = await orch.start("Answered to what was asked before")
    old = await orch.asked(key)
    await orch.move(key, "Rejected")
    new = await orch.asked(key, after=old)
    assert new
    assert new != old
    late = act(key, "approve", old, "slow")
    assert not await put_on_record(orch, late)
    handle = (await orch.temporal()).get_workflow_handle(task_workflow_id(key))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("approve", OperatorCommand(by="slow", digest=old), result_type=str)
    assert new in str(refused.value.cause)
    before = await looks(orch, key)
    smuggle = (
        "INSERT INTO operator_acts (act_id, task, act, actor, digest, via) VALUES ($1, $2, 'approve', 'me', $3, 'x')"
    )
    await orch.rows(smuggle, late["act_id"], key, old)
    await wake(orch, key)
    row = await looked_again(orch, key, before)
    assert (row["stage"], row["round"], row["spec_digest"]) == ("analysis", 2, new)
    await orch.approve_when_asked(key)
    await orch.done(key)
    told = await orch.rows("SELECT outcome FROM operator_acts WHERE act_id = $1", late["act_id"])
    assert told == [{"outcome": "too late"}]
    await Auditor(orch).check(key)
