"""People interrupt a real task, on real parts."""

import pytest

from tests.e2e.harness import Orch

pytestmark = pytest.mark.embedded


async def test_a_task_paused_while_it_asks_takes_the_answer_in_plane_after_resume(orch: Orch) -> None:
    """An operator's pause leaves the item in Awaiting approval; after resume a move to Approved counts as ever."""
    key = await orch.start("Paused while it asks")
    await orch.asked(key)
    await say(orch, key, "pause")
    await orch.until("it is paused", lambda: paused(orch, key), key=key)
    await say(orch, key, "resume")
    await orch.until("it asks again", lambda: asks_again(orch, key), key=key)
    await orch.move(key, "Approved")
    await orch.done(key)


async def test_an_item_taken_back_and_moved_on_goes_on_where_it_was(orch: Orch) -> None:
    """A person's move to Todo pauses, their move to In Progress resumes, and the analyst does not work twice."""
    key = await orch.start("Taken back for a moment")
    await orch.asked(key)
    await orch.move(key, "Todo")
    await orch.until("it is paused", lambda: paused(orch, key), key=key)
    await orch.move(key, "In Progress")
    await orch.approve_when_asked(key)
    await orch.done(key)
    runs = await orch.rows("SELECT role FROM agent_runs WHERE task = $1 AND role = 'analyst'", key)
    assert len(runs) == 1


async def test_a_cancelled_task_stays_cancelled_until_a_person_starts_it_anew(orch: Orch) -> None:
    """Cancelling ends it with the item in Cancelled; moved to In Progress it begins as the next generation."""
    key = await orch.start("Cancelled, then wanted after all")
    await orch.asked(key)
    await say(orch, key, "cancel")
    await orch.until("it is cancelled", lambda: ended(orch, key, 1), key=key)
    await orch.move(key, "In Progress")
    await orch.until("the next generation begins", lambda: begun(orch, key, 2), key=key)
    branch = await orch.rows("SELECT branch FROM tasks WHERE task = $1 AND generation = 2", key)
    assert branch[0]["branch"] == f"task/{key}-g2"
    await orch.approve_when_asked(key)
    await orch.done(key)


async def say(orch: Orch, key: str, word: str) -> None:
    """Tell the task something by Temporal's own command."""
    words = ("workflow", "update", "execute", "-w", f"task/{key}", "--name", word, "--input", '{"by": "ann"}')
    code, out, err = await orch.cli(*words)
    assert code == 0, out + err


async def paused(orch: Orch, key: str) -> bool:
    """Whether the task says that it stands still."""
    lines = await orch.rows("SELECT text FROM transitions WHERE task = $1 ORDER BY n DESC LIMIT 1", key)
    return bool(lines) and str(lines[0]["text"]).startswith("paused")


async def asks_again(orch: Orch, key: str) -> bool:
    """Whether a second question is on the timeline, and the task waits for its answer."""
    lines = await orch.rows("SELECT text FROM transitions WHERE task = $1 AND text LIKE 'asked a person%'", key)
    row = await orch.task(key)
    return len(lines) == 2 and bool(row and row["waiting_reason"].startswith("an approver"))


async def ended(orch: Orch, key: str, generation: int) -> bool:
    """Whether a generation has ended as cancelled."""
    rows = await orch.rows("SELECT outcome FROM tasks WHERE task = $1 AND generation = $2", key, generation)
    return bool(rows) and rows[0]["outcome"] == "cancelled"


async def begun(orch: Orch, key: str, generation: int) -> bool:
    """Whether a generation has begun."""
    return bool(await orch.rows("SELECT 1 FROM tasks WHERE task = $1 AND generation = $2", key, generation))
