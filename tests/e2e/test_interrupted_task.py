"""People interrupt a real task, on real parts."""

import asyncio
import os
import signal
import sys
from pathlib import Path

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
    await orch.until("it asks again", lambda: asks_again(orch, key), key=key)
    await orch.move(key, "Approved")
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


async def test_a_pause_said_while_no_worker_runs_takes_effect_when_one_does(orch: Orch) -> None:
    """With its worker dead, `orch task pause` is on record; the next worker takes it, and `resume` goes on."""
    key = await orch.start("Paused while nobody works")
    await orch.asked(key)
    supervisor = orch.stack.status().supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGSTOP)  # or it would start another worker at once
    try:
        dead = orch.signal("worker")
        code, out, err = await tell(orch, "pause", key, "--reason", "lunch")
        assert (code, out) == (8, f"{key}: pause by ann recorded\n"), out + err
        assert await acts(orch, key) == [("pause", "ann", "orch", "")]
        assert not await paused(orch, key)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    await orch.back("worker", dead, key)
    await orch.until("it is paused", lambda: paused(orch, key), key=key)
    row = await orch.task(key)
    assert row is not None
    assert row["paused_reason"] == "ann said pause: lunch"
    assert await acts(orch, key) == [("pause", "ann", "orch", "taken")]
    code, out, err = await tell(orch, "resume", key)
    assert code == 0, out + err
    assert "resume by ann taken" in out
    await orch.until("it asks again", lambda: asks_again(orch, key), key=key)
    await orch.move(key, "Approved")
    await orch.done(key)
    assert [act[3] for act in await acts(orch, key)] == ["taken", "taken"]
    said = [str(comment["comment_html"]) for comment in await orch.comments(key)]
    (closing,) = [html for html in said if f"{key} is done" in html]
    assert "<table>" in closing
    assert "<strong>total</strong>" in closing


async def tell(orch: Orch, act: str, key: str, *more: str) -> tuple[int, str, str]:
    """Run `orch task …` as ann, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", "task", act, key, "--by", "ann", *more),
        cwd=Path(__file__).parents[2],
        env={"PATH": os.defpath, **orch.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def acts(orch: Orch, key: str) -> list[tuple[str, ...]]:
    """What people told the task: act, by whom, via what, and what became of it."""
    rows = await orch.rows("SELECT act, actor, via, outcome FROM operator_acts WHERE task = $1 ORDER BY at", key)
    return [tuple(row.values()) for row in rows]


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
