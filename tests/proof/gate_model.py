"""The merge gate as small step machines over the model's git: the reducer is the product's own, the rest follows
design section 6. Every `yield` is a boundary at which anything may crash, be repeated, or come back from the dead.
"""

import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.proof.model_git import Conflict, Git, Sha, Tree
from workflows import lease_rules as rules
from workflows.lease_state import Phase, QueueState, Request
from workflows.model import Freeze, FreezeCause, Lease, Priority

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
QUEUE = "merge/acme/payments/main"
NEVER = 10**9
DEVELOPER_RETRIES, MERGE_ROUNDS, REVIEW_ROUNDS = 3, 5, 5
ROUNDS_TO_REST = 250
"""For each task."""
HEAL_TICK = 25

Steps = Generator[None, None, Any]


class Violation(AssertionError):
    """An invariant does not hold; `invariant` is its number."""

    def __init__(self, invariant: str, said: str) -> None:
        super().__init__(f"{invariant}: {said}")
        self.invariant = invariant


class Switch(StrEnum):
    """Ways to build a gate that looks right and is wrong."""

    NO_RETEST = "no re-test"
    EARLY_RELEASE = "release before landing"
    UNFENCED_RELEASE = "unfenced release"
    FORCE_PUSH = "plain force on the task push"
    SPECULATIVE_EVICTION = "eviction on speculative evidence"
    WRONG_BASE = "squash with a wrong base"


class Stage(StrEnum):
    """Where a task is."""

    REVIEW = "review"
    GATE = "gate"
    DEVELOPMENT = "development"
    PARKED = "parked"
    LANDED = "landed"
    CANCELLED = "cancelled"


ENDED = {Stage.LANDED, Stage.CANCELLED}


class Cancelled(Exception):
    """A person cancelled the task."""


class Stale(Exception):
    """A newer attempt has begun."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """As the product's, in the model's words."""

    sha: Sha
    base: Sha
    replaces: Sha


@dataclass(slots=True)
class Row:
    """The row of `leases`."""

    epoch: int
    holder: str
    generation: int
    granted_at: datetime
    open: bool = True


@dataclass(slots=True)
class Message:
    """A signal on its way. What is not `lasting` may be lost for good; Temporal repeats the rest."""

    to: str
    kind: str
    body: Any
    lasting: bool = True


@dataclass(slots=True)
class Signals:
    """What is on its way, and what was dropped."""

    flying: list[Message] = field(default_factory=list)
    late: list[Message] = field(default_factory=list)

    def send(self, to: str, kind: str, body: Any, *, lasting: bool = True) -> None:
        """Send."""
        self.flying.append(Message(to, kind, body, lasting))

    def drop(self, index: int) -> None:
        """Lose one."""
        message = self.flying.pop(index)
        if message.lasting:
            self.late.append(message)

    def heal(self) -> None:
        """What Temporal repeats arrives after all."""
        self.flying += self.late
        self.late = []


class Task:
    """A task's workflow, which is durable, and its activities, which are not."""

    def __init__(self, world: "World", number: int, priority: Priority) -> None:
        self.world = world
        self.key = f"T-{number}"
        self.holder = f"task/{self.key}"
        self.branch = self.holder
        self.priority = priority
        self.stage = Stage.REVIEW
        self.approved = self.retried = self.cancel_wanted = self.crashed = self.objected = False
        self.objected_at = NEVER
        self.head: Sha = 0
        """The head that was reviewed."""
        self.place: datetime | None = None
        self.tickets = self.wanted = self.step = self.attempt = 0
        self.granted: Lease | None = None
        self.dropped = False
        self.lease: Lease | None = None
        self.unwanted: list[Lease] = []
        self.candidate: Candidate | None = None
        self.counts: Counter[str] = Counter()
        self.landed: list[Sha] = []
        self.current: Steps | None = None
        """The activity that runs."""
        self.waiting = ""
        self.shielded = False
        self._life = self.life()

    # -- being driven ----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a step would do anything."""
        if self.stage in ENDED:
            return bool(self.unwanted)
        return not self.waiting or self.cancel_wanted or bool(self.unwanted) or self._over

    @property
    def _over(self) -> bool:
        """Whether what the task waits for has come."""
        return bool(
            (self.waiting == "approval" and self.approved)
            or (self.waiting == "grant" and (self.granted or self.dropped))
            or (self.waiting == "person" and self.retried)
        )

    def advance(self) -> bool:
        """Go on to the next boundary; False if it waits."""
        if not self.ready:
            return False
        if self.unwanted:
            lease = self.unwanted.pop()
            self.world.signals.send("queue", "release", (self.holder, lease.epoch))
            return True
        next(self._life, None)
        return True

    def take_grant(self, lease: Lease) -> None:
        """The signal handler: what nobody waits for any more is given back."""
        if self.wanted and lease.ticket == self.wanted:
            self.granted = lease
        elif lease != self.lease:
            self.unwanted.append(lease)

    def ask(self) -> None:
        """Ask, or ask again: the queue ignores repeats."""
        if self.wanted and self.place is not None:
            request = Request(
                holder=self.holder,
                generation=1,
                ticket=self.wanted,
                task=self.key,
                at=self.world.now,
                priority=self.priority,
                place=self.place,
            )
            self.world.signals.send("queue", "request", request, lasting=False)

    # -- the workflow ----------------------------------------------------------------------------------------

    def life(self) -> Steps:
        """From review to the end."""
        try:
            while self.stage not in ENDED:
                yield from self._stage()
        except Cancelled:
            yield from self._leave()
            # Whoever interrupts after the landing finds that it has landed.
            self.stage = Stage.LANDED if self.landed else Stage.CANCELLED

    def _stage(self) -> Steps:
        if self.stage is Stage.REVIEW:
            yield from self._wait("approval")
            self.head = self.world.git.branches[self.branch]
            self.stage = Stage.GATE
        elif self.stage is Stage.GATE:
            self.stage = yield from self.gate()
            self.world.seen[str(self.stage)] += 1
        elif self.stage is Stage.DEVELOPMENT:
            yield from self.call(self._develop, "develop")
            self.stage = self._capped("developer", DEVELOPER_RETRIES, Stage.REVIEW)
        elif self.stage is Stage.PARKED:
            self.retried = False
            yield from self._wait("person")
            self.counts.clear()
            self.stage = Stage.GATE

    def _wait(self, on: str) -> Steps:
        while True:
            self.waiting = on
            self._stop_if_told()
            if self._over:
                break
            yield
        self.waiting = ""

    def _stop_if_told(self) -> None:
        if self.cancel_wanted and not self.shielded:
            self.waiting = ""
            if self.current is not None:
                self.world.zombies.append(self.current)
            self.current = None
            raise Cancelled

    def _capped(self, counter: str, cap: int, stage: Stage) -> Stage:
        self.counts[counter] += 1
        return stage if self.counts[counter] <= cap else Stage.PARKED

    def call(self, activity: Callable[..., Steps], *arguments: Any) -> Steps:
        """An activity until its result is on record; a crash begins it again, also after its effect."""
        self.step += 1
        self.attempt = 0
        while True:
            self.attempt += 1
            self.crashed = False
            fence = (self.step, self.attempt)
            self.world.fences[self.key] = fence
            self.current = activity(*arguments, fence)
            done = False
            result: Any = None
            while not self.crashed:
                if done:
                    self.current = None
                    return result
                try:
                    next(self.current)
                except StopIteration as end:
                    done, result = True, end.value
                yield
                self._stop_if_told()

    def gate(self) -> Generator[None, None, Stage]:
        """One round under one lease; where the task goes."""
        lease = yield from self.acquire()
        if lease is None:
            return Stage.PARKED
        self.phase(lease, Phase.REBASING)
        what, candidate = yield from self.call(self._build, lease)
        if candidate is None:
            yield from self.release(lease)
            return self._without_candidate(what)
        self.candidate, self.head = candidate, candidate.sha
        self.phase(lease, Phase.TESTING)
        verdict = yield from self._tested(lease, candidate)
        if verdict is not None:
            return verdict
        if Switch.EARLY_RELEASE in self.world.switches:
            yield from self.release(lease)
        self.phase(lease, Phase.LANDING)
        self.shielded = True
        what = yield from self.call(self._land, lease, candidate)
        if what == "landed":
            self.landed.append(candidate.sha)
        self.shielded = False
        if what == "landed" and FreezeCause.BASE_RED in lease.passes:
            self.world.lift(FreezeCause.BASE_RED)
        yield from self.release(lease)
        return self._after(what)

    def _without_candidate(self, what: str) -> Stage:
        if what == "landed":
            self.landed.append(self.head)
        return self._after(what)

    def _after(self, what: str) -> Stage:
        match what:
            case "landed":
                return Stage.LANDED
            case "head moved":
                return self._capped("review", REVIEW_ROUNDS, Stage.REVIEW)
            case "main moved" | "lease lost":
                return self._capped("merge", MERGE_ROUNDS, Stage.GATE)
            case "frozen" | "base red":
                return Stage.GATE
            case "rewound":
                self.world.freeze(FreezeCause.BASE_REWOUND)
                self.candidate = None
                return Stage.GATE
            case "conflict" | "red":
                return Stage.DEVELOPMENT
        return Stage.PARKED

    def _tested(self, lease: Lease, candidate: Candidate) -> Generator[None, None, Stage | None]:
        """None if the candidate is green."""
        world = self.world
        # Without a re-test the branch's own tests are taken for the candidate's.
        retests = Switch.NO_RETEST not in world.switches
        sha = candidate.sha if retests else candidate.replaces
        green = yield from self.call(self._test, sha)
        if not green:
            green = yield from self.call(self._test, sha)
        if green:
            if not retests:
                world.evidence.add(world.git.tree(candidate.sha))
            return None
        base_green = True
        if Switch.SPECULATIVE_EVICTION not in world.switches:
            base_green = yield from self.call(self._test, candidate.base)
            if not base_green:
                base_green = yield from self.call(self._test, candidate.base)
        if not base_green and FreezeCause.BASE_RED not in lease.passes:
            world.freeze(FreezeCause.BASE_RED)
            yield from self.release(lease)
            return self._after("base red")
        yield from self.release(lease)
        if not base_green:
            return self._after("let through in vain")  # a person let it through, a person looks
        world.evicted(self, candidate)
        return self._after("red")

    # -- the lease -------------------------------------------------------------------------------------------

    def acquire(self) -> Generator[None, None, Lease | None]:
        """Wait without an activity; None if a person dropped the wish."""
        self.place = self.place or self.world.now
        self.tickets += 1
        self.wanted, self.granted, self.dropped = self.tickets, None, False
        self.ask()
        yield from self._wait("grant")
        lease, self.granted = self.granted, None
        self.wanted = 0
        self.lease = lease
        return lease

    def phase(self, lease: Lease, begins: Phase) -> None:
        """Say what begins now."""
        self.world.signals.send("queue", "phase", (self.holder, lease.epoch, begins), lasting=False)

    def release(self, lease: Lease) -> Steps:
        """Give back."""
        yield from self.call(self._send_release, lease)
        if self.lease == lease:
            self.lease = None

    def _send_release(self, lease: Lease, _fence: object) -> Steps:
        self.world.signals.send("queue", "release", (self.holder, lease.epoch))
        yield

    def _leave(self) -> Steps:
        self.cancel_wanted, self.shielded = False, True
        if self.wanted:
            self.world.signals.send("queue", "withdraw", (self.holder, (1, self.wanted)))
            if self.granted:
                self.unwanted.append(self.granted)
            self.wanted, self.granted = 0, None
        if self.lease is not None:
            yield from self.release(self.lease)

    # -- the activities --------------------------------------------------------------------------------------

    def _fenced(self, fence: object) -> None:
        if self.world.fences[self.key] != fence:
            raise Stale

    def _develop(self, _kind: str, _fence: object) -> Steps:
        """The developer mends what is red or in conflict, most of the time."""
        world, git = self.world, self.world.git
        head = git.branches[self.branch]
        yield
        fix = git.new_change()
        if world.dice.random() < 0.7:
            tree = git.tree(git.main) | git.tree(head)
            for broken in git.broken(tree):
                broken.mended_by.add(fix)
            git.conflicts = {pair for pair in git.conflicts if not pair & tree}
        git.push(self.branch, git.commit(head, fix), head)

    def _build(self, lease: Lease, fence: object) -> Steps:
        world, git = self.world, self.world.git
        if not world.holds(lease.epoch):
            return "lease lost", None
        if world.stopped_by(lease):
            return "frozen", None
        yield
        main = git.main
        if self.candidate and not git.is_ancestor(self.candidate.base, main):
            return "rewound", None
        if git.is_ancestor(self.head, main):
            return ("landed" if world.ours(self.head) else "on main by hand"), None
        yield
        base = self._base(main)
        built = git.rebase(self.head, base, lease.granted_at)
        if built is None:
            return "nothing to land", None
        if isinstance(built, Conflict):
            return "conflict", None
        if Switch.WRONG_BASE in world.switches:
            built = git.commit(base, git.new_change(), None, git.tree(self.head))
        yield
        self._fenced(fence)
        yield
        force = Switch.FORCE_PUSH in world.switches
        world.pushing(self, built, self.head)
        if not git.push(self.branch, built, self.head, force=force) and git.branches[self.branch] != built:
            return "head moved", None
        yield
        return "ready", Candidate(built, base, self.head)

    def _base(self, main: Sha) -> Sha:
        if Switch.SPECULATIVE_EVICTION not in self.world.switches:
            return main
        for other in self.world.tasks:
            if other is not self and other.stage is Stage.GATE:
                ahead = self.world.git.rebase(other.head, main, None)
                if isinstance(ahead, Sha):
                    return ahead
        return main

    def _test(self, sha: Sha, _fence: object) -> Steps:
        yield
        return self.world.tested(self.world.git.tree(sha))

    def _land(self, lease: Lease, candidate: Candidate, fence: object) -> Steps:
        world, git = self.world, self.world.git
        began = world.tick
        yield
        if git.is_ancestor(candidate.sha, git.main):
            world.settle(candidate.sha, lease.epoch, "landed")
            return "landed"
        if not world.holds(lease.epoch) and Switch.EARLY_RELEASE not in world.switches:
            return "lease lost"
        if world.stopped_by(lease):
            return "frozen"
        yield
        if git.main != candidate.base:
            return "main moved" if git.is_ancestor(candidate.base, git.main) else "rewound"
        if git.branches[self.branch] != candidate.sha:
            return "head moved"
        yield
        if self.objected:
            return "not allowed"
        world.intents.setdefault((candidate.sha, lease.epoch), "open")
        yield
        self._fenced(fence)
        yield
        before = git.main
        answer = git.fast_forward(self.branch, candidate.sha)
        if answer == "merged":
            world.merged(self, candidate, lease, began, before)
        yield
        if answer in {"merged", "already merged"}:
            assert git.is_ancestor(candidate.sha, git.main) or world.rewound_at >= began
            yield
            world.settle(candidate.sha, lease.epoch, "landed")
            return "landed"
        world.settle(candidate.sha, lease.epoch, "abandoned")
        return answer


class World:
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
        others = [change for change in range(1, mine[0])]
        if others and dice.random() < 0.5:
            git.break_on((dice.choice(others), mine[-1]))
        if others and dice.random() < 0.1:
            git.conflicts.add(frozenset((dice.choice(others), mine[0])))
        return task

    # -- rows ------------------------------------------------------------------------------------------------

    def open_lease(self, request: Request) -> Row:
        """A new epoch; what the row said before is over."""
        if self.row is not None:
            self.closed_at.setdefault(self.row.epoch, self.tick)
        self.epochs += 1
        self.row = Row(self.epochs, request.holder, request.generation, self.now)
        return self.row

    def close_lease(self, epoch: int) -> None:
        """Only the current epoch is closed."""
        if self.row is not None and self.row.epoch == epoch:
            self.row.open = False
            self.closed_at.setdefault(epoch, self.tick)

    def holds(self, epoch: int) -> bool:
        """Whether an epoch is the current one and not released."""
        return self.row is not None and self.row.open and self.row.epoch == epoch

    def stopped_by(self, lease: Lease) -> bool:
        """Whether a cause stands that this holder was not let through."""
        return any(cause not in lease.passes for cause in self.rows)

    def ours(self, sha: Sha) -> bool:
        """Whether an intent stands for what is on main."""
        epochs = [epoch for (known, epoch), status in self.intents.items() if known == sha and status != "abandoned"]
        for epoch in epochs:
            self.intents[sha, epoch] = "landed"
        return bool(epochs)

    def settle(self, sha: Sha, epoch: int, status: str) -> None:
        """What became of an intent."""
        self.intents[sha, epoch] = status

    # -- the queue's workflow --------------------------------------------------------------------------------

    def _done(self, effect: Callable[[], Any]) -> Steps:
        """An activity of the queue: a crash after its effect repeats it."""
        while True:
            result = effect()
            self.queue_crashed = False
            yield
            if not self.queue_crashed:
                return result

    queue_crashed = False

    def _serve(self) -> Steps:
        while True:
            yield from self._read_rows()
            for epoch in self.queue.to_close:
                yield from self._done(lambda epoch=epoch: self.close_lease(epoch))
                self.queue = rules.closed(self.queue, epoch)
            yield from self._inspect()
            yield from self._grant()
            self._test_base()
            if self.renew:
                self.renew = False
                self.seen["continued as new"] += 1
                self.queue = QueueState.model_validate_json(self.queue.model_dump_json())
            if not self._has_work:
                yield

    @property
    def _has_work(self) -> bool:
        state = self.queue
        return bool(
            self.look
            or state.to_close
            or rules.next_request(state)
            or (state.holding and state.holding.deadline <= self.now)
            or (state.base_test_at and state.base_test_at <= self.now)
            or self.renew
        )

    def _read_rows(self) -> Steps:
        if not self.look:
            return
        self.look, fresh = False, not self.queue.was_read
        row = self.row
        rows = yield from self._done(lambda: tuple(self.rows.values()))
        if fresh and row is not None and row.open:
            self.queue = rules.took_over(
                self.queue,
                task=row.holder.removeprefix("task/"),
                holder=row.holder,
                generation=row.generation,
                epoch=row.epoch,
                granted_at=row.granted_at,
                now=self.now,
            )
        self.queue = rules.refreshed(self.queue, rows, self.now)

    def _inspect(self) -> Steps:
        holding = self.queue.holding
        if holding is None or holding.deadline > self.now:
            return
        task = self._named(holding.request.task)
        lie, self.lie = self.lie, False

        def look() -> tuple[bool, bool, str]:
            landed = any(
                epoch == holding.epoch and status == "landed" for (_, epoch), status in self.intents.items()
            )
            return task.stage not in ENDED and not lie, landed, str(self.fences.get(task.key))

        running, landed, mark = yield from self._done(look)
        before = self.queue.holding
        self.queue = rules.inspected(
            self.queue, holding.epoch, running=running, landed=landed, mark=mark, now=self.now
        )
        if before is not None and self.queue.holding is None:
            self.seen["reclaimed"] += 1

    def _grant(self) -> Steps:
        request = rules.next_request(self.queue)
        if request is None or self.queue.to_close:
            return
        row = yield from self._done(lambda: self.open_lease(request))
        if self.look or rules.next_request(self.queue) != request:
            self.queue = rules.not_granted(self.queue, row.epoch)
            return
        self._check_order(request)
        if self.queue.holding is not None:
            raise Violation("I3", f"{request.task} is granted while {self.queue.holding.request.task} holds")
        waiting = self.queue
        self.queue = rules.granted(waiting, request, epoch=row.epoch, at=row.granted_at, now=self.now)
        assert self.queue.holding is not None
        passes = self.queue.holding.passes
        lease = Lease(
            queue=QUEUE, epoch=row.epoch, ticket=request.ticket, granted_at=row.granted_at, passes=passes
        )
        self.seen["granted"] += 1
        self.signals.send(request.task, "grant", lease)

    def _test_base(self) -> None:
        due = self.queue.base_test_at
        if due is None or due > self.now:
            return
        if self.git.passes(self.git.tree(self.git.main)):
            self.lift(FreezeCause.BASE_RED)
        self.queue = rules.base_tested(self.queue, self.now)

    def step_queue(self) -> bool:
        """One boundary of the queue; False if it waits."""
        if not self.running or (self._idle_queue and not self._has_work):
            return False
        self._idle_queue = False
        next(self._serving)
        self._idle_queue = self._serving.gi_yieldfrom is None
        return True

    _idle_queue = False

    def _named(self, key: str) -> Task:
        return next(task for task in self.tasks if task.key == key)

    def hear(self, message: Message) -> None:
        """A signal arrives."""
        if message.to != "queue":
            task = self._named(message.to)
            if message.kind == "grant":
                task.take_grant(message.body)
            return
        if not self.running:
            if message.kind not in {"request", "refresh"}:
                return
            self._begin_queue()
        getattr(self, f"_hear_{message.kind}")(message.body)

    def _begin_queue(self) -> None:
        self.queue, self.running, self.look = QueueState(), True, True
        self._serving, self._idle_queue = self._serve(), False

    def _hear_request(self, request: Request) -> None:
        self.queue = rules.requested(self.queue, request)

    def _hear_withdraw(self, body: tuple[str, tuple[int, int]]) -> None:
        self.queue = rules.withdrawn(self.queue, *body)

    def _hear_phase(self, body: tuple[str, int, Phase]) -> None:
        self.queue = rules.entered_phase(self.queue, *body, self.now)

    def _hear_refresh(self, _body: None) -> None:
        self.look = True

    def _hear_release(self, body: tuple[str, int]) -> None:
        before = self.queue.holding
        if Switch.UNFENCED_RELEASE in self.switches and before is not None:
            self.queue = rules.released(self.queue, before.request.holder, before.epoch)
        else:
            self.queue = rules.released(self.queue, *body)
        self.queue = rules.base_may_have_moved(self.queue, self.now)
        gone = before is not None and self.queue.holding is None
        if before is not None and gone and (before.request.holder, before.epoch) != body:
            raise Violation("I4", f"the release of epoch {body[1]} cleared epoch {before.epoch}")

    # -- what happens to main --------------------------------------------------------------------------------

    def tested(self, tree: Tree) -> bool:
        """Run the suite; a flake is red for no reason."""
        green = self.git.passes(tree)
        if green and self.flakes:
            self.flakes -= 1
            self.seen["flaked"] += 1
            return False
        if green:
            self.evidence.add(tree)
        return green

    def merged(self, task: Task, candidate: Candidate, lease: Lease, began: int, before: Sha) -> None:
        """We changed main: everything that must be true of that, by other means than the gate's own."""
        git = self.git
        self.landings.append((task.key, candidate.sha))
        rewound = self.rewound_at >= began
        self.seen["merged"] += 1
        tree, base = git.tree(candidate.sha), git.tree(before)
        mine = {commit.change for commit in git.own(before, candidate.replaces)} - base
        if Switch.WRONG_BASE in self.switches:
            mine = tree - base
        if not rewound and not (base | mine) <= tree:
            raise Violation("I6", f"{sorted((base | mine) - tree)} were lost by landing {task.key}")
        landed = git.changes(before, candidate.sha)
        same = set(landed) == mine and len(set(landed)) == len(landed)
        if not (rewound or same or Switch.WRONG_BASE in self.switches):
            raise Violation("I6", f"{task.key} landed {landed} where its branch has {sorted(mine)}")
        if not git.passes(tree):
            raise Violation("I1", f"main is red after {task.key} landed")
        if tree not in self.evidence:
            raise Violation("I1", f"{task.key} landed a tree that was never tested")
        if before != candidate.base and not rewound:
            raise Violation("I2", f"{task.key} landed on another base than it was tested on")
        if self.closed_at.get(lease.epoch, NEVER) < began:
            raise Violation("I4", f"epoch {lease.epoch} was over when {task.key} began to land")
        for cause, since in self.frozen_at.items():
            if since < began and cause not in lease.passes:
                raise Violation("I8", f"{task.key} landed although {cause} stood")
        if task.objected and task.objected_at < began:
            raise Violation("I8", f"{task.key} landed although a person had objected")

    def pushing(self, task: Task, sha: Sha, expected: Sha) -> None:
        """The gate is about to push."""
        actual = self.git.branches[task.branch]
        if Switch.FORCE_PUSH in self.switches and actual not in {expected, sha}:
            raise Violation("I5", f"the push of {task.key} throws away {actual}")

    def evicted(self, task: Task, candidate: Candidate) -> None:
        """A task is sent back because its candidate is red."""
        self.seen["evicted"] += 1
        if candidate.base not in self.git.tips:
            raise Violation("I7", f"{task.key} is blamed for a base that never landed")
        if not self.git.passes(self.git.tree(candidate.base)):
            raise Violation("I7", f"{task.key} is blamed for a red base")

    def _check_order(self, request: Request) -> None:
        causes = set(self.queue.causes)
        for other in self.queue.waiting:
            passes = [one for one in self.queue.passes if one.task == other.task]
            may = not causes or any(causes <= set(one.causes) for one in passes)
            if may and (other.priority.rank, other.place) < (request.priority.rank, request.place):
                raise Violation("I11", f"{request.task} overtook {other.task}")
        if causes and not any(one.task == request.task and causes <= set(one.causes) for one in self.queue.passes):
            raise Violation("I8", f"{request.task} is granted although the queue is frozen")

    def check(self) -> None:
        """What holds after every step."""
        holding, row = self.queue.holding, self.row
        if self.running and holding is not None and (row is None or row.epoch != holding.epoch):
            raise Violation("I3", f"epoch {holding.epoch} holds in the queue, {row} on record")
        if sum(1 for task in self.tasks if task.lease and self.holds(task.lease.epoch)) > 1:
            raise Violation("I3", "two tasks hold a valid epoch")
        for task in self.tasks:
            if task.waiting == "grant" and task.current is not None:
                raise Violation("I10", f"{task.key} waits for a lease while an activity of it runs")

    # -- people and fate -------------------------------------------------------------------------------------

    def approve(self, task: Task) -> None:
        """A person approves."""
        task.approved = True

    def cancel(self, task: Task) -> None:
        """A person cancels."""
        task.cancel_wanted = task.stage not in ENDED

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
            self.queue = self.queue.model_copy(
                update={"holding": holding.model_copy(update={"deadline": self.now})}
            )
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
        """Everything on its way arrives in order, the queue takes a step."""
        moved = False
        while self.signals.flying:
            self.hear(self.signals.flying.pop(0))
            moved = True
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
        return quiet and tasks and not any(task.ready for task in self.tasks) and not (
            self.running and (state.holding or state.waiting or state.to_close or self.look)
        )

    def run_dry(self) -> None:
        """No new faults: people lift what people lift, and everything comes to rest."""
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

    def _check_rest(self) -> None:
        for key, sha in self.landings:
            if not self.git.passes(self.git.tree(sha)):
                raise Violation("I1", f"the tip that {key} made is red")
        per_task = Counter(key for key, _ in self.landings)
        for task in self.tasks:
            if task.stage is Stage.LANDED and len(task.landed) != 1:
                raise Violation("I9", f"{task.key} landed {len(task.landed)} times on record")
            if task.stage is Stage.LANDED and per_task[task.key] < 1:
                raise Violation("I9", f"{task.key} is on record as landed and is not on main")
            if per_task[task.key] > 1 and self.rewound_at < 0:
                raise Violation("I6", f"{task.key} changed main {per_task[task.key]} times")
        # A queue that is not running looks at its row when the next request starts it.
        if self.running and self.row is not None and self.row.open:
            raise Violation("I9", f"epoch {self.row.epoch} is open although nobody holds it")
