"""A task's workflow in the model: where each answer leads, as design section 6 says."""

from collections import Counter
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any

from tests.proof.gate_activities import Activities
from tests.proof.gate_parts import (
    DEVELOPER_RETRIES,
    ENDED,
    MERGE_ROUNDS,
    NEVER,
    REVIEW_ROUNDS,
    Cancelled,
    Candidate,
    Stage,
    Steps,
    Switch,
)
from tests.proof.model_git import Sha
from workflows.lease_state import Phase, Request
from workflows.model import FreezeCause, Lease, Priority


class Task(Activities):
    """A task's workflow, which is durable, and its activities, which are not."""

    def __init__(self, world: Any, number: int, priority: Priority) -> None:
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
        self.shielded = self.gone = False
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
