"""From inbox rows to hints: the loop that wakes tasks, outside any request.

A row ends as forwarded, ignored or dead; while Temporal or PostgreSQL is down it stays new. Signals carry
no facts and coalesce, so a row that is forwarded twice (a crash between signal and settling) does no harm.
"""

import asyncio
import random
from collections import defaultdict
from datetime import timedelta
from typing import NamedTuple

import structlog

from api.breaker import Breaker
from api.inbox import ROW_FAULTS, STORE_DOWN, Delivery, Inbox, Settlement, Status
from api.naming import Ignored, Naming, Unresolved, Wake
from api.signalling import Tasks, TemporalDownError, one_line
from api.webhooks.reading import PayloadError

BATCH = 50
LEASE = timedelta(minutes=1)
POLL = timedelta(seconds=5)
LONGEST_DELAY = timedelta(seconds=30)
ATTEMPTS = 10
"""After so many failures that were neither Temporal's nor PostgreSQL's absence, a row is dead."""
DOWN_AFTER = 3
"""So many tasks in a row that Temporal does not answer for, and the rest of the batch waits too."""

NOT_RUNNING = "no such task is running"

Named = list[tuple[Delivery, list[Wake]]]
Outcomes = dict[str | int, bool | Exception]
"""By task (does it run?) or row handed over, or what went wrong. What was not tried is missing."""

TOO_OFTEN_DELAY = timedelta(minutes=5)
"""After so long it is asked again whether a task that was woken too often may be woken."""


class WokenTooOftenError(Exception):
    """The loop breaker holds a task's wakes back."""


log = structlog.get_logger("api.forwarder")


class Forwarder:
    """Claims deliveries, names their tasks and wakes them."""

    def __init__(self, inbox: Inbox, naming: Naming, tasks: Tasks, breaker: Breaker, *, poll: timedelta = POLL) -> None:
        self._inbox = inbox
        self._naming = naming
        self._tasks = tasks
        self._breaker = breaker
        self._poll = poll
        self._wake = asyncio.Event()
        inbox.wake_on_arrival(self._wake)
        self._store_outages = 0
        self._temporal_outages = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop` is set; the batch in hand is finished first."""
        listening = asyncio.create_task(self._listen(), name="inbox listener")
        try:
            while not stop.is_set():
                self._wake.clear()
                rest = await self._survive_batch()
                if rest is not None:
                    events = (stop,) if rest.deaf else (stop, self._wake)
                    await _first_of(*events, timeout=rest.pause)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def forward_batch(self) -> int:
        """Claim and forward one batch; how many rows it held.

        Raises:
            TemporalDownError: Temporal does not answer; its rows wait for a later batch.
        """
        deliveries = await self._inbox.claim(BATCH, LEASE)
        self._store_outages = 0
        named, unresolved = await self._name(deliveries)
        outcomes = await self._wake_tasks(named)
        outcomes |= await self._hand_over(unresolved)
        down = [outcome for outcome in outcomes.values() if isinstance(outcome, TemporalDownError)]
        if down:
            self._temporal_outages += 1
        elif outcomes:
            self._temporal_outages = 0
        for delivery, wakes in named:
            await self._conclude(delivery, {wake.task: outcomes.get(wake.task) for wake in wakes})
        for delivery, found in unresolved:
            await self._conclude_handover(delivery, found, outcomes.get(delivery.id))
        if down and len(down) == len(outcomes):
            raise down[0]
        return len(deliveries)

    async def _name(self, deliveries: list[Delivery]) -> tuple[Named, list[tuple[Delivery, Unresolved]]]:
        """Settle what concerns no task; the others with whom they wake, or with what is to be resolved."""
        named: Named = []
        unresolved: list[tuple[Delivery, Unresolved]] = []
        for delivery in deliveries:
            try:
                found = await self._naming.wakes(delivery)
            except PayloadError as error:
                await self._settle(delivery, Status.DEAD, str(error))
            except ROW_FAULTS as error:
                await self._fail(delivery, error)
            except STORE_DOWN:
                raise
            except Exception as error:  # noqa: BLE001 - one bad row must not stop the others
                await self._fail(delivery, error)
            else:
                match found:
                    case Ignored():
                        await self._settle(delivery, Status.IGNORED, found.reason)
                    case Unresolved():
                        unresolved.append((delivery, found))
                    case _:
                        named.append((delivery, found))
        return named, unresolved

    async def _wake_tasks(self, named: Named) -> Outcomes:
        """Wake each task once for the whole batch, unless Temporal turns out to be down."""
        by_task: dict[str, list[Wake]] = defaultdict(list)
        for _, wakes in named:
            for wake in wakes:
                by_task[wake.task].append(wake)
        outcomes: Outcomes = {}
        silent = 0
        tripped = await self._breaker.tripped(by_task) if by_task else set()
        for task, wakes in by_task.items():
            if silent == DOWN_AFTER:
                break
            if task in tripped:
                outcomes[task] = WokenTooOftenError(f"{task} was woken {self._breaker.limit} times within the hour")
                continue
            try:
                outcomes[task] = await self._tasks.wake(task, wakes)
                silent = 0
            except TemporalDownError as error:
                outcomes[task] = error
                silent += 1
            except Exception as error:  # noqa: BLE001 - one bad row must not stop the others
                outcomes[task] = error
        return outcomes

    async def _hand_over(self, unresolved: list[tuple[Delivery, Unresolved]]) -> Outcomes:
        """Hand over the rows of each unknown commit together, unless Temporal turns out to be down."""
        by_commit: dict[str, list[tuple[Delivery, Unresolved]]] = defaultdict(list)
        for delivery, found in unresolved:
            by_commit[found.workflow_id].append((delivery, found))
        outcomes: Outcomes = {}
        for rows in by_commit.values():
            outcome: bool | Exception = True
            try:
                await self._tasks.resolve(rows)
            except Exception as error:  # noqa: BLE001 - one bad row must not stop the others
                outcome = error
            outcomes |= {delivery.id: outcome for delivery, _ in rows}
            if isinstance(outcome, TemporalDownError):
                break
        return outcomes

    async def _conclude_handover(self, delivery: Delivery, found: Unresolved, outcome: bool | Exception | None) -> None:
        """Note that a row is being resolved; resolving writes the end into it, be it before this note."""
        if outcome is True:
            await self._settle(delivery, Status.FORWARDED, f"handed to {found.workflow_id}")
        else:
            await self._conclude(delivery, {"": outcome})

    async def _conclude(self, delivery: Delivery, outcomes: dict[str, bool | Exception | None]) -> None:
        """End a delivery once all its tasks were woken; else it waits and wakes them all again."""
        found = list(outcomes.values())
        if None in found or any(isinstance(outcome, TemporalDownError) for outcome in found):
            down = next((str(outcome) for outcome in found if isinstance(outcome, TemporalDownError)), "")
            reason = f"Temporal is down: {down}" if down else "Temporal is down"
            delay = _delay(self._temporal_outages)
            # The row is not to blame, so the attempt does not count.
            await self._inbox.retry_later(delivery, delay, reason, attempts=delivery.attempts - 1)
            return
        often = [outcome for outcome in found if isinstance(outcome, WokenTooOftenError)]
        faults = [outcome for outcome in found if isinstance(outcome, Exception) and outcome not in often]
        if often:
            reason = f"loop breaker: {often[0]}"
            await self._inbox.retry_later(delivery, TOO_OFTEN_DELAY, reason, attempts=delivery.attempts - 1)
        elif faults:
            await self._fail(delivery, faults[0])
        elif True in found:
            running = ", ".join(sorted(task for task, outcome in outcomes.items() if outcome))
            await self._settle(delivery, Status.FORWARDED, "", running)
        else:
            await self._settle(delivery, Status.IGNORED, NOT_RUNNING, ", ".join(sorted(outcomes)))

    async def _settle(self, delivery: Delivery, status: Status, reason: str, task: str | None = None) -> None:
        log.info("delivery settled", row=delivery.id, status=status.value, reason=reason, task=task)
        await self._inbox.settle(Settlement(delivery=delivery, status=status, reason=reason, task=task))

    async def _fail(self, delivery: Delivery, error: Exception) -> None:
        """Our fault or the row's: try again a few times, then keep it as dead for a person to look at."""
        reason = f"can not be forwarded: {type(error).__name__}: {one_line(error)}"
        log.error("delivery failed", row=delivery.id, reason=reason, exc_info=error)
        if delivery.attempts >= ATTEMPTS:
            await self._settle(delivery, Status.DEAD, f"{reason} ({delivery.attempts} attempts)")
        else:
            delay = _delay(delivery.attempts)
            await self._inbox.retry_later(delivery, delay, reason, attempts=delivery.attempts)

    async def _survive_batch(self) -> "_Rest | None":
        """One batch; how to rest after it, or None to go on at once."""
        try:
            return None if await self.forward_batch() else _Rest(self._poll)
        except TemporalDownError as error:
            log.warning("temporal is down, deliveries wait", cause=str(error))
            return _Rest(_delay(self._temporal_outages), deaf=True)
        except STORE_DOWN as error:
            self._store_outages += 1
            log.warning("postgresql is down, forwarding waits", cause=one_line(error))
            return _Rest(_delay(self._store_outages), deaf=True)
        except Exception:
            log.exception("a batch failed; its rows come due again when their lease ends")
            return _Rest(self._poll, deaf=True)

    async def _listen(self) -> None:
        while True:
            try:
                await self._inbox.ring(self._wake)
            except STORE_DOWN as error:
                log.warning("can not listen for deliveries, polling goes on", cause=one_line(error))
            await asyncio.sleep(self._poll.total_seconds())


class _Rest(NamedTuple):
    """A pause between batches. A deaf one does not end because a delivery arrives."""

    pause: timedelta
    deaf: bool = False


def _delay(times: int) -> timedelta:
    """1 s, 2 s, 4 s ... 30 s, spread so that two forwarders do not keep step."""
    longest = min(LONGEST_DELAY.total_seconds(), float(1 << min(max(times, 1) - 1, 20)))
    return timedelta(seconds=longest * random.uniform(0.75, 1))  # noqa: S311 - not a secret


async def _first_of(*events: asyncio.Event, timeout: timedelta) -> None:  # noqa: ASYNC109 - for several events
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
