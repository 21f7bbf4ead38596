"""Whole tasks on the embedded stack: many starts at once, two tasks at once."""

import pytest

from tests.e2e.auditor import Auditor
from tests.e2e.harness import Orch

pytestmark = pytest.mark.embedded


async def test_one_task_from_item_to_production(orch: Orch) -> None:
    """An approved task ends as done with every effect exactly once."""
    key = orch.keys[0]
    await Auditor(orch).check(key)
