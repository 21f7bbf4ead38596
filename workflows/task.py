"""TaskWorkflow: one Plane item's way to done. Read `run` first; steps.py and delivery.py have the stages."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from workflows import beginning, delivery, ending_early, leasing, steps, watching
from workflows.contracts import items
from workflows.contracts.leases import LeaseDropped
from workflows.hints import Hint
from workflows.interface import OperatorCommand, Status, TaskOutcome, status_of
from workflows.model import Lease, Stage, TimelineLine
from workflows.situation import Effect, Judgement
from workflows.state import Act, Move, OperatorAct, TaskInput, act_refusal, entered, exhausted
from workflows.task_run import TaskRun

STAGES: dict[Stage, Callable[[TaskRun], Awaitable[Move]]] = {
    Stage.ANALYSIS: steps.analysis,
    Stage.ARCHITECTURE: steps.architecture,
    Stage.DEVELOPMENT: steps.development,
    Stage.REVIEW: steps.review,
    Stage.TESTING: steps.testing,
    Stage.DEPLOY_STAGING: delivery.deploy_staging,
    Stage.DEPLOY: delivery.deploy,
}


@workflow.defn
class TaskWorkflow:
    """One task. Its id is `task/<KEY>`; its input is the key, for instance `{"key": "DEMO-1"}`."""

    @workflow.init
    def __init__(self, arg: TaskInput) -> None:
        self._key = arg.key
        self._task = TaskRun(arg.state)
        self._task.let_go = lambda: leasing.release_all(self._task)

    @workflow.run
    async def run(self, arg: TaskInput) -> TaskOutcome:
        """Play one round of one stage, then go on as a new run; end when the task is done or people end it."""
        task = self._task
        if not task.begun:
            reason = await beginning.begin(task, arg.key)
            if reason is not None:
                return TaskOutcome(key=arg.key, outcome=f"not started: {reason}")
        if task.state.stage is Stage.DONE:
            return await self._end(await delivery.finish(task))
        try:
            ending = await self._round()
        except asyncio.CancelledError:
            ending = Judgement(effect=Effect.CANCEL, reason="the workflow was cancelled")
        if ending is not None:
            await leasing.release_all(task)
            return await self._end(await ending_early.close(task, ending))
        await leasing.return_unwanted(task)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return workflow.continue_as_new(TaskInput(key=arg.key, state=task.carried()))

    async def _round(self) -> Judgement | None:
        """Play the stage while watching what people do. None: it moved on; a judgement ends the task."""
        task = self._task
        while True:
            if task.state.paused is not None:
                ending = await watching.stand_still(task)
                if ending is not None:
                    return ending
            stage, watch = asyncio.create_task(self._play()), asyncio.create_task(watching.interruption(task))
            try:
                await workflow.wait([stage, watch], return_when=asyncio.FIRST_COMPLETED)
                # The stage may have begun in this very moment what must be seen through.
                await workflow.wait_condition(functools.partial(_breakable, task, stage))
            except asyncio.CancelledError:
                await workflow.wait_condition(functools.partial(_breakable, task, stage))
                await self._stop(stage, watch)
                raise
            moved_on = stage.done()
            await self._stop(stage, watch)
            if moved_on:
                stage.result()
            else:
                await leasing.release_all(task)
            judgement, task.interrupted = task.interrupted, None
            if task.state.stage is Stage.DONE:
                return None  # nothing is left that could be stopped
            if judgement is not None and judgement.effect is not Effect.PAUSE:
                return judgement
            if judgement is not None:
                watching.pause(task, judgement)
            if moved_on:
                return None

    async def _stop(self, stage: "asyncio.Task[None]", watch: "asyncio.Task[None]") -> None:
        """Break off what still runs, and wait until it is over."""
        self._task.stage_stops = self._task.watch_stops = True
        for each in (stage, watch):
            if not each.done():
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError, ActivityError):
                    await each
        self._task.stage_stops = self._task.watch_stops = False

    async def _play(self) -> None:
        """One round of the current stage, and the way out of it."""
        if not self._task.state.host:
            await beginning.pin(self._task)
        move = await STAGES[self._task.state.stage](self._task)
        await self._leave(move)

    async def _end(self, outcome: str) -> TaskOutcome:
        """Close the books, unless a person has started the next generation meanwhile."""
        task = self._task
        task.update(outcome=outcome, waiting=None, paused=None, ask=None)
        await task.take_late(f"the task is {outcome}")
        task.say(outcome, sha=task.state.landed_sha)
        await task.record(announce=f"{self._key} is {outcome}: {task.state.item.title}")
        await workflow.wait_condition(workflow.all_handlers_finished)
        while task.unsurveyed & watching.SURVEYED:
            task.unsurveyed.clear()
            found = await beginning.look(self._key)
            if found.start is items.Start.STARTED:
                workflow.continue_as_new(TaskInput(key=self._key))
        state = task.state
        return TaskOutcome(key=state.key, outcome=outcome, landed_sha=state.landed_sha, deployed_sha=state.deployed_sha)

    async def _leave(self, move: Move) -> None:
        """Go where a round led, unless that way has been gone too often: then a person decides."""
        task = self._task
        await task.take_late(f"{task.state.stage} is over")
        reason = exhausted(task.state, move)
        if reason is not None:
            await task.ask_human(f"{move.reason} ({reason})")
            if move.spends:
                task.update(spent={**task.state.spent, move.spends: 0})
        with task.shielded():
            task.say(f"{task.state.stage} -> {move.to}: {move.reason}", source=move.source)
            task.state = entered(task.state, move)
            await task.record()
        await task.show_on_item()

    # -- what others may say ---------------------------------------------------------------------------------

    @workflow.signal(description="Something may have changed: look at the topic again.")
    def hint(self, hint: Hint) -> None:
        """Mark what to look at; never acts by itself."""
        self._task.hint(hint)

    @workflow.signal(description="The lease queue's answer to a request of this task.")
    def lease_granted(self, lease: Lease) -> None:
        """Note a grant."""
        leasing.note_grant(self._task, lease)

    @workflow.signal(description="A person took this task out of a lease queue.")
    def lease_dropped(self, dropped: LeaseDropped) -> None:
        """Note it; the task asks a person."""
        leasing.note_dropped(self._task, dropped)

    @workflow.update(description="Approve the spec that is asked about, by its digest.")
    def approve(self, command: OperatorCommand) -> str:
        """Take an approval."""
        return self._take(Act.APPROVE, command)

    @approve.validator
    def _validate_approve(self, command: OperatorCommand) -> None:
        self._validate(Act.APPROVE, command)

    @workflow.update(description="Reject the spec that is asked about, by its digest, with a reason.")
    def reject(self, command: OperatorCommand) -> str:
        """Take a rejection."""
        return self._take(Act.REJECT, command)

    @reject.validator
    def _validate_reject(self, command: OperatorCommand) -> None:
        self._validate(Act.REJECT, command)

    @workflow.update(description="Try again what needs a person.")
    def retry(self, command: OperatorCommand) -> str:
        """Take a retry."""
        return self._take(Act.RETRY, command)

    @retry.validator
    def _validate_retry(self, command: OperatorCommand) -> None:
        self._validate(Act.RETRY, command)

    @workflow.update(description="Bring back what production served before a deployment that failed.")
    def rollback(self, command: OperatorCommand) -> str:
        """Take a rollback."""
        return self._take(Act.ROLLBACK, command)

    @rollback.validator
    def _validate_rollback(self, command: OperatorCommand) -> None:
        self._validate(Act.ROLLBACK, command)

    @workflow.update(description="Take production as it is after a deployment that failed, and end the task.")
    def accept(self, command: OperatorCommand) -> str:
        """Take an acceptance."""
        return self._take(Act.ACCEPT, command)

    @accept.validator
    def _validate_accept(self, command: OperatorCommand) -> None:
        self._validate(Act.ACCEPT, command)

    @workflow.update(description="Stand still until somebody says resume.")
    def pause(self, command: OperatorCommand) -> str:
        """Take a pause."""
        return self._take(Act.PAUSE, command)

    @pause.validator
    def _validate_pause(self, command: OperatorCommand) -> None:
        self._validate(Act.PAUSE, command)

    @workflow.update(description="Go on after a pause.")
    def resume(self, command: OperatorCommand) -> str:
        """Take a resume."""
        return self._take(Act.RESUME, command)

    @resume.validator
    def _validate_resume(self, command: OperatorCommand) -> None:
        self._validate(Act.RESUME, command)

    @workflow.update(description="End the task; what has landed stays landed and is not deployed.")
    def cancel(self, command: OperatorCommand) -> str:
        """Take a cancellation."""
        return self._take(Act.CANCEL, command)

    @cancel.validator
    def _validate_cancel(self, command: OperatorCommand) -> None:
        self._validate(Act.CANCEL, command)

    def _validate(self, act: Act, command: OperatorCommand) -> None:
        refused = act_refusal(self._task.state_or_none, act, command.act_id, command.digest)
        if refused:
            raise ApplicationError(refused, type="ActRefused", non_retryable=True)

    def _take(self, act: Act, command: OperatorCommand) -> str:
        act_id = command.act_id or str(workflow.uuid4())
        self._task.take_act(
            OperatorAct(
                act_id=act_id,
                act=act,
                by=command.by,
                at=workflow.now(),
                digest=command.digest,
                reason=command.reason,
            )
        )
        return f"{act} by {command.by} taken"

    @workflow.query(description="Where the task stands, as one JSON object.")
    def status(self) -> Status:
        """The task as it stands."""
        return status_of(self._key, self._task.state_or_none)

    @workflow.query(description="The last things that happened, oldest first.")
    def timeline(self) -> list[TimelineLine]:
        """The newest timeline lines; the ledger has all of them."""
        state = self._task.state_or_none
        return list(state.timeline) if state else []

    @workflow.query(description="One sentence: what the task does or waits for.")
    def why(self) -> str:
        """What a person asks first."""
        return self.status().why


def _breakable(run: TaskRun, stage: "asyncio.Task[None]") -> bool:
    return stage.done() or run.interruptible
