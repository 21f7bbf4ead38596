"""The merge gate on real parts: what it prevents is shown by switching it off."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deploy.demo.playbook import playbook
from tests.e2e.auditor import Auditor
from tests.e2e.harness import WORK, Orch, running_stack

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]

PATIENCE = 240.0
"""Seconds in which two tasks that share slots, one with a second development round, have ended."""

TOGETHER = """\
import pathlib
import unittest


class Together(unittest.TestCase):
    def test_the_shares_are_not_more_than_the_whole(self):
        shares = [int(path.read_text()) for path in pathlib.Path("shares").glob("*.txt")]
        self.assertLessEqual(sum(shares), 1)
"""
"""Green for each task alone, red for two of them that take the whole."""


@pytest.fixture(scope="module")
async def narrow() -> AsyncIterator[Orch]:
    """A stack with room for one agent and for one piece of other work at a time, whose main is green."""
    async with running_stack(ORCH_AGENT_SLOTS="1", ORCH_WORK_SLOTS="1") as orch:
        await orch.carry_through("Round order totals to whole cents")
        yield orch


@pytest.fixture
async def ungated() -> AsyncIterator[Orch]:
    """A stack without the merge gate, whose main is green."""
    async with running_stack(ORCH_MERGE_GATE_ENABLED="false") as orch:
        await orch.carry_through("Round order totals to whole cents")
        yield orch


async def two_that_break_each_other(orch: Orch) -> list[str]:
    """Two tasks from the same main, each green by itself; both end as done."""
    await orch.commit_to_main("test_together.py", TOGETHER)
    takes = [
        [*WORK[:-1], {"write": "shares/{key}.txt", "text": f"{share}\n"}, {"commit": "{key}: take " + str(share)}]
        for share in (1, 0)
    ]
    orch.perform(playbook(*takes))
    keys = [await orch.start(f"Take a share, {name}") for name in ("one", "two")]
    # Both branches begin here, before either lands.
    await asyncio.gather(*(orch.asked(key) for key in keys))
    await asyncio.gather(*(orch.approve_when_asked(key) for key in keys))
    await asyncio.gather(*(orch.done(key, PATIENCE) for key in keys))
    return keys


async def main_is(orch: Orch, key: str) -> str:
    """What CI says of main's tip, once it has spoken."""
    tip = (await orch.gitea("/branches/main"))["commit"]["id"]

    async def spoken() -> str:
        state = str((await orch.gitea(f"/commits/{tip}/status"))["state"])
        return "" if state == "pending" else state

    return await orch.until("CI speaks of main", spoken, key)


async def test_two_tasks_share_one_slot(narrow: Orch) -> None:
    """With one slot for agents and one for all other work, two tasks at once both end: waiting holds no slot."""
    narrow.play()
    keys = [await narrow.start(f"One slot, {name}") for name in ("one", "two")]
    await asyncio.gather(*(narrow.approve_when_asked(key) for key in keys))
    await asyncio.gather(*(narrow.done(key, PATIENCE) for key in keys))
    await Auditor(narrow).check(*keys)


async def test_two_tasks_that_break_each_other_never_break_main(narrow: Orch) -> None:
    """With the gate on main stays green, and the second task ends as done after one more development round."""
    keys = await two_that_break_each_other(narrow)
    rounds = sorted([len(await narrow.attempts(key, "development")) for key in keys])
    assert rounds == [1, 2], await narrow.report(keys[1])
    assert await main_is(narrow, keys[1]) == "success"
    landed = await narrow.rows("SELECT candidate FROM merge_landings WHERE task = ANY($1) AND status = 'landed'", keys)
    assert len(landed) == 2
    for row in landed:
        state = (await narrow.gitea(f"/commits/{row['candidate']}/status"))["state"]
        assert state == "success", row


async def test_without_the_gate_main_breaks(ungated: Orch) -> None:
    """The control: with the gate off the same two tasks land unhindered and main is red; each says that it is off."""
    keys = await two_that_break_each_other(ungated)
    assert [len(await ungated.attempts(key, "development")) for key in keys] == [1, 1]
    assert await main_is(ungated, keys[1]) == "failure"
    for key in keys:
        row = await ungated.task(key)
        assert row is not None
        assert row["merge_gate"] == "merge gate off for acme/shop (ORCH_MERGE_GATE_ENABLED)"
        lines = await ungated.rows("SELECT text FROM transitions WHERE task = $1 AND text LIKE 'merge gate off%'", key)
        assert lines
