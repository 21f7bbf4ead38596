"""The merge gate's world: git, rows, a queue, tasks, signals, people and fate."""

import random
from collections import Counter

from tests.proof.gate_oracle import Oracle
from tests.proof.gate_parts import (
    ENDED,
    HEAL_TICK,
    MINUTE,
    ROUNDS_TO_REST,
    SECOND,
    START,
    Row,
    Signals,
    Stage,
    Stale,
    Steps,
    Switch,
    Violation,
)
from tests.proof.gate_queue import Queue
from tests.proof.gate_task import Task
from tests.proof.model_git import Git, Sha, Tree
from workflows import lease_rules as rules
from workflows.lease_state import QueueState
from workflows.model import Freeze, FreezeCause, Priority


class World(Queue, Oracle):
    """Everything: git, rows, the queue, tasks, signals, people, and what keeps an eye on them."""

    def __init__(self, seed: object = 0, *, tasks: int = 3, switches: frozenset[Switch] = frozenset()) -> None:
        self.dice = random.Random(seed)
        self.switches = switches
        self.git = Git()
        self.now = START
        self.tick = 0
        self.row: Row | None = None
        self.epochs = 0
        self.closed_at: dict[int, int] = {}
        self.rows: dict[FreezeCause, Freeze] = {}
        self.frozen_at: dict[FreezeCause, int] = {}
        self.rewound_at = -1
        self.intents: dict[tuple[Sha, int], str] = {}
        self.fences: dict[str, object] = {}
        self.evidence: set[Tree] = set()
        self.flakes = 0
        self.weather = 0.0
        """The share of signals that go astray."""
        self.over: dict[str, int] = {}
        """The last ticket of each holder that is over, as this run of the queue must know."""
        self.signals = Signals()
        self.zombies: list[Steps] = []
        self.seen: Counter[str] = Counter()
        self.landings: list[tuple[str, Sha]] = []
        self.queue = QueueState()
        self.running = self.look = self.renew = False
        self.lie = False
        self._serving = self._serve()
        self.tasks = [self._task(number) for number in range(1, tasks + 1)]

    def _task(self, number: int) -> Task:
        """A branch of one or two commits off main, green by itself unless fate says otherwise."""
        dice, git = self.dice, self.git
        task = Task(self, number, dice.choice((Priority.NONE, Priority.NONE, Priority.HIGH)))
        head = git.main
        mine = [git.new_change() for _ in range(dice.choice((1, 1, 2)))]
        for change in mine:
            head = git.commit(head, change)
        git.branches[task.branch] = head
        if dice.random() < 0.15:
            git.break_on(mine[:1])
        others = list(range(1, mine[0]))
        if others and dice.random() < 0.5:
            git.break_on((dice.choice(others), mine[-1]))
        if others and dice.random() < 0.1:
            git.conflicts.add(frozenset((dice.choice(others), mine[0])))
        return task

    # -- people and fate -------------------------------------------------------------------------------------

    def approve(self, task: Task) -> None:
        """A person approves."""
        task.approved = True

    def cancel(self, task: Task) -> None:
        """A person cancels."""
        task.cancel_wanted = task.stage not in ENDED

    def terminate(self, task: Task) -> None:
        """Somebody terminates the task's workflow: it gives nothing back, and its activity may go on."""
        if task.stage not in ENDED:
            if task.current is not None:
                self.zombies.append(task.current)
            task.stage, task.gone, task.waiting, task.wanted = Stage.CANCELLED, True, "", 0
            task.current = task.lease = task.granted = None
            task.unwanted.clear()
            self.seen["terminated"] += 1

    def amend(self, task: Task, *, bad: bool) -> None:
        """Somebody pushes to the task branch."""
        git = self.git
        change = git.new_change()
        if bad:
            git.break_on((change,))
        git.branches[task.branch] = git.commit(git.branches[task.branch], change)

    def push_main(self, *, bad: bool) -> None:
        """Somebody pushes to main past the gate."""
        git = self.git
        change = git.new_change()
        if bad:
            git.break_on((change,))
        git.set_main(git.commit(git.main, change))

    def rewind_main(self) -> None:
        """Somebody forces main back to where it was."""
        parent = self.git._commits[self.git.main].parent
        if parent is not None:
            self.rewound_at = self.tick
            self.git.set_main(parent.sha)

    def freeze(self, cause: FreezeCause) -> None:
        """A cause stands from now on; the queue is told."""
        if cause not in self.rows:
            self.rows[cause] = Freeze(cause=cause, reason="because", since=self.now, by="olga")
            self.frozen_at[cause] = self.tick
        self.signals.send("queue", "refresh", None)

    def lift(self, cause: FreezeCause) -> None:
        """A cause is over."""
        if self.rows.pop(cause, None):
            self.frozen_at.pop(cause)
            self.signals.send("queue", "refresh", None)

    def let_through(self, task: Task) -> None:
        """A person gives a waiting task a pass."""
        if self.running and not rules.pass_refusal(self.queue, task.key):
            self.queue = rules.passed(self.queue, task.key, "olga")
            self.seen["passed"] += 1

    def bump(self, task: Task, priority: Priority) -> None:
        """A person gives a waiting task another priority."""
        if self.running and not rules.refusal(self.queue, task.key):
            task.priority = priority
            self.queue = rules.bumped(self.queue, task.key, priority)

    def drop_task(self, task: Task) -> None:
        """A person takes a waiting task out."""
        request = rules.waiting_for(self.queue, task.key) if self.running else None
        if request is not None:
            self.queue = rules.dropped(self.queue, task.key)
            task.dropped = task.dropped or request.ticket == task.wanted

    def object_to(self, task: Task) -> None:
        """A person requests changes, or takes it back."""
        task.objected, task.objected_at = not task.objected, self.tick

    def crash(self, task: Task, *, zombie: bool) -> None:
        """The worker of a task's activity dies, or only seems to."""
        if task.current is not None and task.waiting == "":
            if zombie:
                self.zombies.append(task.current)
            task.crashed = True
            self.seen["crashed"] += 1

    def crash_queue(self) -> None:
        """The worker of a queue's activity dies after its effect."""
        self.queue_crashed = True

    def revive(self, index: int) -> None:
        """An attempt that was given up takes one more step."""
        zombie, landings = self.zombies[index], len(self.landings)
        try:
            next(zombie)
            self.seen["revived"] += 1
        except StopIteration:
            self.zombies.remove(zombie)
        except Stale:
            self.seen["fenced"] += 1
            self.zombies.remove(zombie)
        self.seen["merged by a zombie"] += len(self.landings) - landings

    def expire(self) -> None:
        """The lease runs out early, and whoever looks believes the holder dead."""
        holding = self.queue.holding
        if self.running and holding is not None:
            self.queue = self.queue.model_copy(update={"holding": holding.model_copy(update={"deadline": self.now})})
            self.lie = True

    def end_queue(self) -> None:
        """Somebody terminates the queue's workflow: what it knew is gone, the rows are not."""
        self.running, self.queue = False, QueueState()
        self.seen["queue ended"] += 1

    def heal(self) -> None:
        """The heal tick: what was dropped arrives, tasks ask again, the queue looks."""
        self.signals.heal()
        for task in self.tasks:
            if task.waiting == "grant":
                task.ask()
        if self.running:
            self.look = True

    # -- running ---------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Time passes."""
        self.tick += 1
        self.now += SECOND

    def deliver(self, index: int, *, twice: bool = False) -> None:
        """One signal arrives, in whatever order."""
        message = self.signals.flying[index]
        if not twice:
            self.signals.flying.pop(index)
        self.hear(message)

    def pump(self) -> bool:
        """What is on its way arrives, most of it in order; the queue takes a step."""
        moved = False
        while self.signals.flying:
            message = self.signals.flying.pop(0)
            moved = True
            if self.dice.random() < self.weather:
                # Late, or now and once more later; what may be lost for good is lost.
                if self.dice.random() < 0.5:
                    self.hear(message)
                elif not message.lasting:
                    continue
                self.signals.late.append(message)
            else:
                self.hear(message)
        return self.step_queue() or moved

    def advance(self, task: Task, boundaries: int) -> None:
        """Let a task and the queue go on for a while."""
        for _ in range(boundaries):
            self.beat()
            moved = self.pump()
            moved = task.advance() or moved
            if not moved:
                break
            self.check()

    @property
    def at_rest(self) -> bool:
        """Whether nothing would ever happen again by itself."""
        quiet = not self.signals.flying and not self.signals.late
        tasks = all(task.waiting in {"approval", "person"} or task.stage in ENDED for task in self.tasks)
        state = self.queue
        return (
            quiet
            and tasks
            and not any(task.ready for task in self.tasks)
            and not (self.running and (state.holding or state.waiting or state.to_close or self.look))
        )

    def run_dry(self) -> None:
        """No new faults: people lift what people lift, and everything comes to rest."""
        self.weather = 0.0
        for done in range(ROUNDS_TO_REST * len(self.tasks)):
            self.beat()
            if done % HEAL_TICK == HEAL_TICK - 1:
                self.heal()
            moved = self.pump()
            for task in self.tasks:
                moved = task.advance() or moved
            self.check()
            if not moved:
                if self.at_rest:
                    break
                self._pass_time()
        else:
            where = ", ".join(f"{task.key} {task.stage} ({task.waiting})" for task in self.tasks)
            raise Violation("I9", f"no rest: {where}; the queue {self.queue!r}, {self.row}")
        self._check_rest()

    def _pass_time(self) -> None:
        git = self.git
        for cause in list(self.rows):
            if cause is FreezeCause.BASE_RED:
                self._mend_main(git)
            else:
                self.lift(cause)
        due = [self.now + MINUTE]
        if self.queue.holding:
            due.append(self.queue.holding.deadline)
        if self.queue.base_test_at:
            due.append(self.queue.base_test_at)
        self.now = max(due)
        self.heal()

    def _mend_main(self, git: Git) -> None:
        broken = list(git.broken(git.tree(git.main)))
        if broken:
            fix = git.new_change()
            for one in broken:
                one.mended_by.add(fix)
            git.set_main(git.commit(git.main, fix))
