"""Testing a base branch: on its own tip, with its own policy, in a checkout that is thrown away."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from activities.adapters.git import Mirror
from activities.base_tests import BaseTests
from activities.runners.isolation import Isolation
from tests.integration.git_world import World, make_world, names_in
from workflows.contracts.leases import TestBase
from workflows.model import GateOutcome, Repository

REPOSITORY = Repository(owner="acme", name="shop")


class Mirrors:
    """Hands out the world's mirror, fetched."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def fetched(self, _: Repository) -> Mirror:
        """As new as the remote."""
        await self.world.mirror.fetch()
        return self.world.mirror


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A remote with one commit on main."""
    return await make_world(tmp_path)


def base_tests(world: World) -> BaseTests:
    """The activity on this host."""
    settings: Any = SimpleNamespace(home=world.root / "home")
    mirrors: Any = Mirrors(world)
    return BaseTests(mirrors, Isolation(required=False), settings)


def policy(world: World, command: str) -> str:
    """Put a policy with this test command on main; the new tip."""
    world.person.write(".orch/pipeline.toml", f'[commands]\ntest = "{command}"\nproduction = "none"\n')
    world.person.commit("policy")
    return world.publish("main")


@pytest.mark.parametrize(
    ("command", "outcome"), [("grep -q two a.txt", GateOutcome.GREEN), ("echo 2 fail; false", GateOutcome.RED)]
)
async def test_the_tip_is_tested_with_its_own_command(world: World, command: str, outcome: GateOutcome) -> None:
    """The exit code of the policy's command on the tip decides; what a red one said is kept, the checkout is not."""
    tip = policy(world, command)
    tested = await base_tests(world).test_base(TestBase(repository=REPOSITORY))
    assert (tested.outcome, tested.sha) == (outcome, tip)
    assert ("2 fail" in tested.reason) == (outcome is GateOutcome.RED)
    assert names_in(world.root / "home/base-tests/acme/shop") == []


async def test_the_newest_tip_counts(world: World) -> None:
    """A base that was mended on the remote is green at the next test."""
    policy(world, "false")
    tests = base_tests(world)
    assert (await tests.test_base(TestBase(repository=REPOSITORY))).outcome is GateOutcome.RED
    policy(world, "true")
    assert (await tests.test_base(TestBase(repository=REPOSITORY))).outcome is GateOutcome.GREEN


async def test_a_base_without_policy_or_branch_is_unknown(world: World) -> None:
    """What cannot be tested is never red, and says how to mend it."""
    tests = base_tests(world)
    without = await tests.test_base(TestBase(repository=REPOSITORY))
    assert (without.outcome, ".orch/pipeline.toml" in without.reason) == (GateOutcome.UNKNOWN, True)
    gone = await tests.test_base(TestBase(repository=REPOSITORY.model_copy(update={"base": "trunk"})))
    assert gone.outcome is GateOutcome.UNKNOWN
    assert "has no branch trunk" in gone.reason
