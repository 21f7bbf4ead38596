"""One embedded stack for all tests that only need a running one; it starts when the first of them does."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.harness import Orch, running_stack


@pytest.fixture(scope="session")
async def whole_stack() -> AsyncIterator[Orch]:
    """A stack that has carried one task through, so that both environments serve something."""
    async with running_stack() as orch:
        await orch.carry_through("Round order totals to whole cents")
        yield orch


@pytest.fixture
async def orch(whole_stack: Orch) -> AsyncIterator[Orch]:
    """The running stack with everything working and agents that do not dawdle."""
    yield whole_stack
    whole_stack.play()
    for server in ("plane", "gitea", "telegram", "production"):
        await whole_stack.faults(server)
