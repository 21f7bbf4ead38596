"""Asking a gate until it is green or red, and waiting well in between."""

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

from workflows import names
from workflows.contracts import gates
from workflows.hints import Source
from workflows.model import GateOutcome, GateResult, Waiting, WaitingOn, grace_growth
from workflows.stages import Gate
from workflows.task_run import UNKNOWN_GRACE, TaskRun

CI_PATIENCE = timedelta(hours=1)
"""How long CI may be silent or busy before a person is told; the gate goes on looking."""


async def ask(run: TaskRun, question: Callable[[], gates.GateQuestion], queue: str = names.SHARED_QUEUE) -> GateResult:
    """Ask until green or red. A hint only makes it ask sooner; without any, the grace timer asks."""
    looks, source, reason, since = 0, Source.WORKFLOW, "", workflow.now()
    overdue = False
    while True:
        await run.take_answers()
        run.pending.clear()
        asked = question()
        result = await run.call(gates.evaluate_gate, asked, queue=queue, summary=f"gate: {asked.gate}")
        if result.outcome in {GateOutcome.GREEN, GateOutcome.RED}:
            run.update(waiting=None)
            run.say(f"{asked.gate}: {result.outcome}, {result.reason}", sha=result.sha, source=source)
            return result
        announce = ""
        if result.reason != reason:
            reason, since, looks = result.reason, workflow.now(), 0
            run.say(f"waits: {reason}", sha=result.sha, source=source)
            announce, overdue = _announcement(run, result), False
        waiting = _waiting(run, result, since, looks)
        if waiting.needs_human:
            await run.let_go()  # nobody stands in the queue behind a person
        if waiting.needs_human and result.waiting_on is WaitingOn.CI and not overdue:
            announce, overdue = f"{run.state.key} needs you: for {CI_PATIENCE} now, {result.reason}", True
        source = await run.wait(waiting, announce)
        looks = looks + 1 if source is Source.TIMER else looks


def question(run: TaskRun, gate: Gate, **facts: object) -> gates.GateQuestion:
    """A gate question about the task as it stands."""
    state = run.state
    known: dict[str, object] = {
        "ref": state.ref,
        "gate": gate,
        "project": state.project,
        "item": state.item,
        "policy": state.policy,
        "branch": state.branch,
        "head_sha": state.head_sha,
        "pull": state.pull,
    }
    return gates.GateQuestion.model_validate({**known, **facts})


def _waiting(run: TaskRun, result: GateResult, since: datetime, looks: int) -> Waiting:
    now = workflow.now()
    base = UNKNOWN_GRACE if result.outcome is GateOutcome.UNKNOWN else run.grace
    overdue = result.waiting_on is WaitingOn.CI and now - since >= CI_PATIENCE
    return Waiting(
        on=result.waiting_on,
        reason=result.reason,
        since=since,
        next_check=now + grace_growth(base, looks),
        needs_human=overdue or result.waiting_on is WaitingOn.PERSON,
    )


def _announcement(run: TaskRun, result: GateResult) -> str:
    return f"{run.state.key} needs you: {result.reason}" if result.waiting_on is WaitingOn.PERSON else ""
