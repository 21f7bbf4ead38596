"""Main is never red, whatever people, signals and crashes do: the gate's rules on a model of git."""

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.proof import gate_cases
from tests.proof.gate_model import Stage, Switch, World
from workflows.model import FreezeCause, Priority

CASES = 1500
"""Seeded cases; a case is up to 20 acts."""
EXAMPLES = 120
"""Cases that hypothesis thinks of, and shrinks if they fail."""
CONTROL_LIMIT = 2000
"""Cases within which a gate built wrongly must be found out."""

TASKS = st.integers(0, 2)
ANY = st.integers(0, 99)


class Gate(RuleBasedStateMachine):
    """Three tasks, one queue, people who push past the gate, workers that die and come back."""

    switches: frozenset[Switch] = frozenset()

    @initialize(seed=st.integers(0, 10_000), weather=st.sampled_from((0.0, 0.3)))
    def begin(self, seed: int, weather: float) -> None:
        """The seed says which changes are red, alone or together, and how good the developer is."""
        self.world = World(seed, switches=self.switches)
        self.world.weather = weather

    @rule(number=TASKS)
    def approve(self, number: int) -> None:
        """A review is green."""
        self.world.approve(self.world.tasks[number])

    @rule(number=TASKS, boundaries=st.integers(1, 15))
    def go_on(self, number: int, boundaries: int) -> None:
        """A task and the queue go on."""
        self.world.advance(self.world.tasks[number], boundaries)

    @rule(number=TASKS)
    def one_boundary(self, number: int) -> None:
        """A task goes on while its signals stay where they are."""
        self.world.beat()
        self.world.tasks[number].advance()

    @rule(number=TASKS, zombie=st.booleans())
    def crash(self, number: int, *, zombie: bool) -> None:
        """An activity's worker dies at this very boundary, or only seems to."""
        self.world.crash(self.world.tasks[number], zombie=zombie)

    @precondition(lambda self: bool(self.world.zombies))
    @rule(index=ANY)
    def revive(self, index: int) -> None:
        """Who was given up takes one more step."""
        self.world.beat()
        self.world.revive(index % len(self.world.zombies))

    @rule()
    def crash_queue(self) -> None:
        """An activity of the queue is repeated after its effect."""
        self.world.step_queue()
        self.world.crash_queue()

    @precondition(lambda self: bool(self.world.signals.flying))
    @rule(index=ANY, fate=st.sampled_from(("deliver", "twice", "drop")))
    def signal(self, index: int, fate: str) -> None:
        """A signal is overtaken by others, arrives twice, or is lost until the heal tick."""
        index %= len(self.world.signals.flying)
        if fate == "drop":
            self.world.signals.drop(index)
        else:
            self.world.deliver(index, twice=fate == "twice")

    @rule(number=TASKS)
    def cancel(self, number: int) -> None:
        """A person cancels."""
        self.world.cancel(self.world.tasks[number])

    @rule(number=TASKS)
    def terminate(self, number: int) -> None:
        """Somebody terminates the task's workflow while it holds whatever it holds."""
        self.world.terminate(self.world.tasks[number])

    @rule(number=TASKS, bad=st.booleans())
    def amend(self, number: int, *, bad: bool) -> None:
        """Somebody pushes to the task branch."""
        self.world.amend(self.world.tasks[number], bad=bad)

    @rule(bad=st.booleans())
    def push_main(self, *, bad: bool) -> None:
        """Somebody pushes to main past the gate."""
        self.world.beat()
        self.world.push_main(bad=bad)

    @rule()
    def rewind_main(self) -> None:
        """Somebody forces main back."""
        self.world.beat()
        self.world.rewind_main()

    @rule(cause=st.sampled_from((FreezeCause.OPERATOR, FreezeCause.DEPLOY_FAILED, FreezeCause.BASE_RED)))
    def freeze(self, cause: FreezeCause) -> None:
        """A cause stands."""
        self.world.beat()
        self.world.freeze(cause)

    @rule(cause=st.sampled_from(FreezeCause))
    def lift(self, cause: FreezeCause) -> None:
        """A person lifts a cause."""
        self.world.lift(cause)

    @rule(number=TASKS)
    def let_through(self, number: int) -> None:
        """A person gives a pass."""
        self.world.let_through(self.world.tasks[number])

    @rule(number=TASKS, priority=st.sampled_from(Priority))
    def bump(self, number: int, priority: Priority) -> None:
        """A hot item overtakes those who wait."""
        self.world.bump(self.world.tasks[number], priority)

    @rule(number=TASKS)
    def drop(self, number: int) -> None:
        """A person takes a waiting task out."""
        self.world.drop_task(self.world.tasks[number])

    @rule(number=TASKS)
    def object_to(self, number: int) -> None:
        """A person requests changes, or takes it back."""
        self.world.beat()
        self.world.object_to(self.world.tasks[number])

    @rule(number=TASKS)
    def retry(self, number: int) -> None:
        """A person says retry."""
        task = self.world.tasks[number]
        task.retried = task.waiting == "person"

    @rule(times=st.integers(1, 3))
    def flake(self, times: int) -> None:
        """The next green runs are red for no reason."""
        self.world.flakes = times

    @rule()
    def expire(self) -> None:
        """The lease runs out early; whoever looks believes the holder dead."""
        self.world.expire()

    @rule()
    def end_queue(self) -> None:
        """The queue's workflow is terminated."""
        self.world.end_queue()

    @rule()
    def continue_as_new(self) -> None:
        """The queue goes on in a new run: only what is written down remains."""
        self.world.renew = True

    @rule()
    def heal(self) -> None:
        """The heal tick."""
        self.world.heal()

    @invariant()
    def nothing_is_broken(self) -> None:
        """I1 to I8, after every step."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """No new faults: everything comes to rest, I9 to I11."""
        if hasattr(self, "world"):
            self.world.run_dry()


def test_no_order_of_events_breaks_the_gate() -> None:
    """Hypothesis finds no order of people, signals and crashes that breaks an invariant."""
    hard = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None, database=None, derandomize=True)
    run_state_machine_as_test(Gate, settings=hard)


def test_many_seeded_cases_keep_every_invariant() -> None:
    """Thousands of seeded cases keep every invariant, and everything that may happen did happen in them."""
    begun, cpu = time.perf_counter(), time.process_time()
    seen = gate_cases.run_cases(CASES)
    wall, worked = (time.perf_counter() - begun) / 60, (time.process_time() - cpu) / 60
    print(f"\n{CASES} cases: {CASES / wall:.0f} a minute, {CASES / worked:.0f} a minute of processor time")  # noqa: T201
    wanted = (
        *gate_cases.ACTS, "merged", "landed", "evicted", "parked", "reclaimed", "flaked", "crashed", "revived",
        "fenced", "merged by a zombie", "terminated", "continued as new", "queue ended", "passed",
    )  # fmt: skip
    assert [name for name in wanted if not seen[name]] == []


@pytest.mark.parametrize(
    ("switch", "invariant"),
    [
        (Switch.NO_RETEST, "I1"),
        (Switch.EARLY_RELEASE, "I4"),
        (Switch.UNFENCED_RELEASE, "I4"),
        (Switch.FORCE_PUSH, "I5"),
        (Switch.SPECULATIVE_EVICTION, "I7"),
        (Switch.WRONG_BASE, "I6"),
        (Switch.NO_RECHECK, "I8"),
    ],
)
def test_a_gate_built_wrongly_is_found_out(switch: Switch, invariant: str) -> None:
    """Each way to build a gate that looks right breaks the invariant that forbids it."""
    found = gate_cases.first_violation(frozenset({switch}), CONTROL_LIMIT)
    assert found is not None
    case, violation = found
    print(f"\n{switch}: case {case}: {violation}")  # noqa: T201
    assert violation.invariant == invariant


def test_a_quiet_world_lands_everything_green() -> None:
    """Without any fault every task that can be green lands: the invariants are not kept by doing nothing."""
    for seed in range(50):
        world = World(seed)
        for task in world.tasks:
            world.approve(task)
        world.run_dry()
        assert {task.stage for task in world.tasks} <= {Stage.LANDED, Stage.PARKED}
        assert len(world.landings) == sum(task.stage is Stage.LANDED for task in world.tasks)
        assert world.landings


def before_the_merge(world: World) -> None:
    """Lead the only task to where nothing but the merge call is left of its landing."""
    task = world.tasks[0]
    while task.current is None or task.current.__name__ != "_land":
        world.advance(task, 1)
    world.advance(task, 4)
    assert not world.landings


def test_a_refused_merge_is_no_word_on_an_earlier_landing() -> None:
    """What an attempt given up has landed stands, though somebody then pushes and the next attempt is refused."""
    world = next(world for world in (World(seed, tasks=1) for seed in range(100)) if not world.git.breaks)
    task = world.tasks[0]
    world.approve(task)
    before_the_merge(world)
    world.crash(task, zombie=True)
    world.advance(task, 1)
    before_the_merge(world)
    world.revive(0)
    assert len(world.landings) == 1
    world.amend(task, bad=False)
    world.run_dry()
    assert task.stage is Stage.LANDED
    assert world.landings == [(task.key, task.landed[0])]
