"""10,000 simulated landings: none leaves main red with the gate, some do without."""

from collections.abc import Iterator

from tests.proof.gate_model import Stage, Switch, World

LANDINGS = 10_000
TASKS = 12
"""Tasks of one world: their changes may be red together with those of any other."""


class Lenient(World):
    """Counts red tips instead of stopping at the first."""

    red = 0

    def merged(self, task, candidate, lease, began, before) -> None:
        """Main changed."""
        self.landings.append((task.key, candidate.sha))
        self.red += not self.git.passes(self.git.tree(candidate.sha))

    def check(self) -> None:
        """Nor after each step."""

    def _check_rest(self) -> None:
        """Only red tips are asked about here."""


def worlds(switches: frozenset[Switch], landings: int) -> Iterator[Lenient]:
    """Worlds until there are enough landings."""
    landed = seed = 0
    while landed < landings:
        world = Lenient(seed, tasks=TASKS, switches=switches)
        seed += 1
        for task in world.tasks:
            world.approve(task)
        world.run_dry()
        assert all(task.stage in {Stage.LANDED, Stage.PARKED} for task in world.tasks)
        landed += len(world.landings)
        yield world


def test_the_gate_leaves_main_green_ten_thousand_times() -> None:
    """Of 10,000 landings through the gate none leaves main red."""
    ran = list(worlds(frozenset(), LANDINGS))
    total, red = sum(len(world.landings) for world in ran), sum(world.red for world in ran)
    print(f"\nwith the gate: {total} landings, {red} red tips")  # noqa: T201
    assert total >= LANDINGS
    assert red == 0


def test_without_a_re_test_main_turns_red() -> None:
    """The same changes, each tested on its own branch only, turn main red."""
    ran = list(worlds(frozenset({Switch.NO_RETEST}), LANDINGS // 10))
    total, red = sum(len(world.landings) for world in ran), sum(world.red for world in ran)
    print(f"\nwithout a re-test: {total} landings, {red} red tips")  # noqa: T201
    assert red > 0
