"""Seeded cases for the gate's model: up to 20 acts of tasks, people and fate, then everything runs dry."""

import random
from collections import Counter
from collections.abc import Callable

from tests.proof.gate_model import Switch, Violation, World
from workflows.model import FreezeCause, Priority

STEPS = 20

Act = Callable[[World, random.Random], None]


def _task(world: World, dice: random.Random) -> int:
    return dice.randrange(len(world.tasks))


def _approve(world: World, dice: random.Random) -> None:
    world.approve(world.tasks[_task(world, dice)])


def _go_on(world: World, dice: random.Random) -> None:
    world.advance(world.tasks[_task(world, dice)], dice.randrange(1, 16))


def _crash(world: World, dice: random.Random) -> None:
    task = world.tasks[_task(world, dice)]
    world.advance(task, dice.randrange(1, 12))
    busy = [one for one in world.tasks if one.current is not None]
    if busy:
        world.crash(dice.choice(busy), zombie=dice.random() < 0.7)


def _revive(world: World, dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 10)):
        if world.zombies:
            world.revive(dice.randrange(len(world.zombies)))
            world.beat()


def _signal(world: World, dice: random.Random) -> None:
    if world.signals.flying:
        index = dice.randrange(len(world.signals.flying))
        fate = dice.randrange(3)
        if fate == 0:
            world.signals.drop(index)
        else:
            world.deliver(index, twice=fate == 1)


def _one_boundary(world: World, dice: random.Random) -> None:
    """A task goes on while its signals stay where they are."""
    world.tasks[_task(world, dice)].advance()


def _crash_queue(world: World, _dice: random.Random) -> None:
    world.step_queue()
    world.crash_queue()


def _continue_as_new(world: World, _dice: random.Random) -> None:
    world.renew = True


def _let_through(world: World, dice: random.Random) -> None:
    """Somebody who waits in a frozen queue is let through."""
    world.freeze(dice.choice((FreezeCause.BASE_RED, FreezeCause.OPERATOR)))
    for _ in range(4):
        world.pump()
    if world.queue.waiting:
        key = dice.choice(world.queue.waiting).task
        world.let_through(next(task for task in world.tasks if task.key == key))


def _retry(world: World, dice: random.Random) -> None:
    task = world.tasks[_task(world, dice)]
    task.retried = task.waiting == "person"


ACTS: dict[str, tuple[int, Act]] = {
    "approve": (5, _approve),
    "go on": (30, _go_on),
    "one boundary": (4, _one_boundary),
    "signal": (6, _signal),
    "crash": (6, _crash),
    "revive": (6, _revive),
    "crash queue": (2, _crash_queue),
    "expire": (3, lambda world, _dice: world.expire()),
    "end queue": (1, lambda world, _dice: world.end_queue()),
    "continue as new": (2, _continue_as_new),
    "cancel": (1, lambda world, dice: world.cancel(world.tasks[_task(world, dice)])),
    "terminate": (1, lambda world, dice: world.terminate(world.tasks[_task(world, dice)])),
    "amend": (3, lambda world, dice: world.amend(world.tasks[_task(world, dice)], bad=dice.random() < 0.3)),
    "push main": (2, lambda world, dice: world.push_main(bad=dice.random() < 0.3)),
    "rewind main": (1, lambda world, _dice: world.rewind_main()),
    "freeze": (1, lambda world, _dice: world.freeze(FreezeCause.OPERATOR)),
    "lift": (1, lambda world, _dice: world.lift(FreezeCause.OPERATOR)),
    "pass": (2, _let_through),
    "flake": (1, lambda world, dice: setattr(world, "flakes", dice.randrange(1, 3))),
    "bump": (1, lambda world, dice: world.bump(world.tasks[_task(world, dice)], dice.choice(list(Priority)))),
    "drop": (1, lambda world, dice: world.drop_task(world.tasks[_task(world, dice)])),
    "object": (1, lambda world, dice: world.object_to(world.tasks[_task(world, dice)])),
    "retry": (2, _retry),
    "heal": (2, lambda world, _dice: world.heal()),
}
NAMES, WEIGHTS = list(ACTS), [weight for weight, _ in ACTS.values()]


def run_case(seed: int, switches: frozenset[Switch] = frozenset()) -> World:
    """One case; every invariant after every step, and at rest.

    Raises:
        Violation: one does not hold.
    """
    dice = random.Random(seed)
    world = World(seed, tasks=dice.choice((2, 3, 3)), switches=switches)
    world.weather = dice.choice((0.0, 0.05, 0.3))
    for task in world.tasks:
        if dice.random() < 0.8:
            world.approve(task)
    for name in dice.choices(NAMES, WEIGHTS, k=dice.randrange(8, STEPS + 1)):
        world.beat()
        world.seen[name] += 1
        ACTS[name][1](world, dice)
        world.check()
    world.run_dry()
    return world


def run_cases(count: int, first: int = 0) -> Counter[str]:
    """Many cases; how often each thing happened."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            seen += run_case(seed).seen
        except Violation as violation:
            violation.add_note(f"seed {seed}")
            raise
    return seen


def first_violation(switches: frozenset[Switch], limit: int) -> tuple[int, Violation] | None:
    """The first case in which a gate built wrongly is found out."""
    for seed in range(limit):
        try:
            run_case(seed, switches)
        except Violation as violation:
            return seed, violation
    return None
