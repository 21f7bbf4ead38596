"""One run of a task: its state, its voice, and the ways in which it waits and acts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from workflows import names
from workflows.calls import ATTEMPT_LIMIT, Arg, Result, call
from workflows.contracts import items, ledger
from workflows.contracts.leases import LeaseDropped
from workflows.hints import Hint, Pending, Source, Topic, note_hint
from workflows.model import Lease, Stage, Waiting, WaitingOn, grace_growth
from workflows.situation import Judgement
from workflows.stages import REGISTRY, StageSpec
from workflows.state import DECISIONS, Act, OperatorAct, TaskState, told, why

UNKNOWN_GRACE = timedelta(seconds=30)
"""How soon a source that could not be read is asked again; doubles like every other wait."""
HUMAN_REMINDER = timedelta(hours=24)
PARKED = frozenset({"Unauthorized", "ProjectNotConfigured"})
"""Refusals that end by themselves once somebody mends the token or the configuration: nobody has to say `retry`."""
ANSWERS = frozenset({Act.APPROVE, Act.REJECT, Act.RETRY, Act.ROLLBACK, Act.ACCEPT})
"""Acts that answer what a stage waits for; the others interrupt it."""


class TaskRun:
    """The state of a running task and the few ways in which a stage may change it."""

    def __init__(self, state: TaskState | None) -> None:
        self._state = state
        self.pending: Pending = dict(state.pending) if state else {}
        """What the stage has not looked at yet."""
        self.unsurveyed: set[Topic] = set(state.unsurveyed) if state else set()
        """What the watch has not looked at yet."""
        self.acts: list[OperatorAct] = list(state.acts) if state else []
        self.wanted_ticket = 0
        self.granted: Lease | None = None
        self.dropped: LeaseDropped | None = None
        """A person took this task out of a queue; answered by a person."""
        self.unwanted: list[Lease] = []
        self.let_go: Callable[[], Awaitable[None]] = _hold_nothing
        """Gives back every lease; nothing is held while a person is waited for."""
        self.interrupted: Judgement | None = None
        """What people want instead of the stage that runs; it must not be forgotten once it has been read."""
        self.stage_stops = False
        self.watch_stops = False
        """A cancelled activity may still succeed, and then nobody hears of the cancellation: these are asked too."""
        self._shields = 0
        self._recorded = state.lines_written if state else 0
        self._shown: tuple[object, ...] = ()

    # -- state ---------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether this generation has started."""
        return self._state is not None

    @property
    def state(self) -> TaskState:
        """The task's state."""
        if self._state is None:
            raise RuntimeError("the task has not begun")  # a bug of ours, never an input
        return self._state

    @state.setter
    def state(self, state: TaskState) -> None:
        self._state = state

    @property
    def state_or_none(self) -> TaskState | None:
        """The task's state, or None while it is not known whether a person started it."""
        return self._state

    def update(self, **changes: object) -> None:
        """Replace fields of the state."""
        self._state = self.state.model_copy(update=changes)

    def next_step(self) -> TaskState:
        """Advance the fence: whatever an earlier step still does elsewhere is stale from now on."""
        self.update(step=self.state.step + 1)
        return self.state

    @property
    def spec(self) -> StageSpec:
        """The registry's row for the current stage."""
        return REGISTRY[self.state.stage]

    @property
    def grace(self) -> timedelta:
        """How long a quiet wait in the current stage lasts before the first look: the policy's word, else the row's."""
        return self.state.policy.graces.get(self.state.stage, self.spec.grace)

    def carried(self) -> TaskState:
        """The state with everything not yet acted on, for the next run."""
        return self.state.model_copy(
            update={
                "pending": self.pending,
                "acts": tuple(self.acts),
                "unsurveyed": tuple(sorted(self.unsurveyed)),
            }
        )

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Let nobody interrupt what must be seen through: a landing, a deployment."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    @property
    def interruptible(self) -> bool:
        """Whether the stage may be broken off now."""
        return self._shields == 0

    def stop_if_told(self) -> None:
        """End the stage here if it is being broken off.

        Raises:
            asyncio.CancelledError: it is.
        """
        if self.stage_stops and self.interruptible:
            raise asyncio.CancelledError

    # -- speaking ------------------------------------------------------------------------------------------

    def say(self, text: str, *, sha: str = "", source: str = "") -> None:
        """Add a line to the timeline."""
        self.state = told(self.state, workflow.now(), text, sha=sha, source=source)

    async def record(self, announce: str = "") -> None:
        """Write the read model and the new timeline lines, and show the task in Temporal's own views."""
        state = self.state
        await call(
            ledger.record_progress,
            ledger.RecordProgress(
                ref=state.ref,
                project=state.project,
                item=state.item,
                branch=state.branch,
                start_activity=state.start_activity,
                seen_activity=state.seen_activity,
                started_at=state.started_at,
                at=workflow.now(),
                waiting=state.waiting,
                spec_digest=state.ask.digest if state.ask else "",
                head_sha=state.head_sha,
                pull=state.pull,
                landed_sha=state.landed_sha,
                deployed_sha=state.deployed_sha,
                cost_usd=state.cost_usd if state.cost_complete else None,
                lines=tuple(line for line in state.timeline if line.n > self._recorded),
                merge_gate=state.gate_off,
                announce=announce,
                outcome=state.outcome,
                paused=state.paused,
            ),
            summary=f"record {state.stage}",
        )
        self._recorded = state.lines_written
        self._show()

    def _show(self) -> None:
        state = self.state
        waiting = state.waiting
        shown = (state.stage, waiting.on if waiting else "", bool(waiting and waiting.needs_human), state.cost_usd)
        if shown != self._shown:
            workflow.upsert_search_attributes(
                [
                    names.STAGE.value_set(state.stage),
                    names.WAITING_ON.value_set(waiting.on if waiting else WaitingOn.NOTHING),
                    names.NEEDS_HUMAN.value_set(bool(waiting and waiting.needs_human)),
                    names.COST_USD.value_set(state.cost_usd),
                ]
            )
            self._shown = shown
        lines = "\n".join(f"- {line.at:%H:%M:%S} {line.stage}: {line.text}" for line in state.timeline[-5:])
        pull = f"\n\nPull request: {state.pull.url}" if state.pull else ""
        workflow.set_current_details(f"**{why(state)}**\n\n{lines}{pull}")

    async def show_on_item(self) -> None:
        """Bring the item's status comment up to date."""
        state = self.next_step()
        lines = "\n".join(f"- {line.at:%Y-%m-%d %H:%M} {line.stage}: {line.text}" for line in state.timeline[-8:])
        await self.call(
            items.show_status,
            items.ShowStatus(ref=state.ref, item=state.item, headline=why(state), lines=lines),
            queue=names.PLANE_QUEUE,
            summary="status comment",
        )

    # -- doing ---------------------------------------------------------------------------------------------

    async def call(
        self,
        contract: Callable[[Arg], Awaitable[Result]],
        arg: Arg,
        *,
        summary: str,
        queue: str = names.SHARED_QUEUE,
        limit: timedelta = ATTEMPT_LIMIT,
        shield: bool = False,
    ) -> Result:
        """Run an activity; what is refused for good needs a person, and is tried again when they say so.

        `shield` sees it through whatever people want meanwhile.
        """
        looks, since = 0, workflow.now()
        while True:
            self.stop_if_told()
            try:
                with self.shielded() if shield else contextlib.nullcontext():
                    return await call(contract, arg, summary=summary, queue=queue, limit=limit)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                reason = f"{summary}: {error.cause or error}"
                if isinstance(error.cause, ApplicationError) and error.cause.type in PARKED:
                    await self._parked(reason, since, looks)
                    looks += 1
                else:
                    await self.ask_human(reason)
                # The next attempt starts counting from 1 again: only a new step outranks the old ones.
                arg = arg.model_copy(update={"ref": self.next_step().ref})

    async def _parked(self, reason: str, since: datetime, looks: int) -> None:
        if looks == 0:
            self.say(f"parked: {reason}")
        self.pending.clear()
        await self.wait(
            Waiting(
                on=WaitingOn.SOURCE,
                reason=reason,
                since=since,
                next_check=workflow.now() + grace_growth(UNKNOWN_GRACE, looks, timedelta(hours=1)),
                needs_human=True,
            ),
            announce=f"{self.state.key} is parked: {reason}" if looks == 0 else "",
        )
        self.update(waiting=None)

    # -- waiting -------------------------------------------------------------------------------------------

    def hint(self, hint: Hint) -> None:
        """Mark what to look at; called by the signal handler."""
        if hint.topic is not Topic.OPERATOR:  # an act on record is for the watch to read
            self.pending = note_hint(self.pending, hint, workflow.now())
        self.unsurveyed.add(hint.topic)

    def take_act(self, act: OperatorAct) -> None:
        """Accept a person's act once; called by update handlers, and for acts found on record."""
        state = self.state
        if act.act_id not in state.act_ids:
            self.update(act_ids=(*state.act_ids, act.act_id)[-100:])
            self.acts.append(act)

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Count the time of the block as waited, not worked."""
        since, stage = workflow.now(), self.state.stage
        try:
            yield
        except GeneratorExit:
            raise  # thrown out of a worker's cache, not ended: there is no clock any more
        except BaseException:
            self._count(since, stage)
            raise
        self._count(since, stage)

    def _count(self, since: datetime, stage: Stage) -> None:
        waited = self.state.waited
        spent = (workflow.now() - since).total_seconds()
        self.update(waited={**waited, stage: waited.get(stage, 0.0) + spent})

    async def wait(self, waiting: Waiting, announce: str = "") -> Source:
        """Wait until something may have changed or the next check is due; say what woke us."""
        self.update(waiting=waiting)
        await self.record(announce)
        self.stop_if_told()
        try:
            with self.waits():
                await workflow.wait_condition(
                    lambda: bool(self.pending or self._answers() or self.granted or self.dropped or self.stage_stops),
                    timeout=max(waiting.next_check - workflow.now(), timedelta(0)),
                    timeout_summary=f"{waiting.on}: {waiting.reason}"[:200],
                )
        except TimeoutError:
            return Source.TIMER
        if self._answers():
            return Source.OPERATOR
        first = min(self.pending.values(), key=lambda hint: hint.since, default=None)
        return first.source if first else Source.WORKFLOW

    async def ask_human(self, reason: str, *, offers: tuple[Act, ...] = (Act.RETRY,)) -> OperatorAct:
        """Stand still until a person says one of `offers`; the reason says what they must look at."""
        self.say(f"needs a person: {reason}")
        await self.let_go()
        since, announce = workflow.now(), f"{self.state.key} needs you: {reason}"
        while True:
            chosen: OperatorAct | None = None
            for act in await self.take_answers():
                wanted = act.act in offers and chosen is None
                chosen = act if wanted else chosen
                said = f": {act.reason}" if act.reason else ""
                meant = "" if wanted else ", which answers nothing that is asked now"
                self.say(f"{act.by} said {act.act}{said}{meant}", source=Source.OPERATOR)
            if chosen is not None:
                self.update(waiting=None, offers=())
                return chosen
            self.pending.clear()
            self.update(offers=offers)
            await self.wait(
                Waiting(
                    on=WaitingOn.PERSON,
                    reason=reason,
                    since=since,
                    next_check=workflow.now() + HUMAN_REMINDER,
                    needs_human=True,
                ),
                announce,
            )
            announce = ""

    def _answers(self) -> list[OperatorAct]:
        return [act for act in self.acts if act.act in ANSWERS]

    async def take_answers(self) -> tuple[OperatorAct, ...]:
        """Hand over the acts that answer a stage, once they are on record."""
        return await self._take(self._answers())

    async def take_commands(self) -> tuple[OperatorAct, ...]:
        """Hand over the acts that interrupt a stage, once they are on record."""
        return await self._take(self.commands())

    def commands(self) -> list[OperatorAct]:
        """The acts that want to interrupt the stage."""
        return [act for act in self.acts if act.act not in ANSWERS]

    async def take_late(self, reason: str) -> None:
        """Answer whoever said something that nothing waits for any more: it came too late."""
        late = list(self.acts) if self.state.outcome else self._answers()
        for act in await self._take(late, f"too late: {reason}"):
            self.say(f"{act.act} by {act.by} came too late: {reason}", source=Source.OPERATOR)

    async def settle(self, act: OperatorAct, outcome: str) -> None:
        """Put on record what became of an act."""
        await call(
            ledger.record_act,
            ledger.RecordAct(ref=self.state.ref, act=act, outcome=outcome),
            summary=f"record {act.act} by {act.by}",
        )

    async def _take(self, acts: list[OperatorAct], outcome: str = "") -> tuple[OperatorAct, ...]:
        for act in acts:
            await self.settle(act, outcome or ("" if act.act in DECISIONS else "taken"))
        self.acts = [act for act in self.acts if act not in acts]
        return tuple(acts)


async def _hold_nothing() -> None:
    """Nothing to give back."""
