"""Watching what people do while a stage works: they win over any agent, at any time."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows import leasing, operating
from workflows.calls import call
from workflows.contracts import items
from workflows.hints import Source, Topic
from workflows.model import Waiting, WaitingOn, grace_growth
from workflows.names import PLANE_QUEUE
from workflows.situation import Effect, Judgement, PauseCause, Situation, still_paused, verdict_on
from workflows.state import Act, Paused
from workflows.task_run import TaskRun

SURVEYED = frozenset({Topic.ITEM, Topic.DECISION, Topic.PULL_REQUEST, Topic.BRANCH})
"""Hints that may mean a person's act; the others only concern gates."""
WATCHED = SURVEYED | {Topic.OPERATOR}
SURVEY_GRACE = timedelta(minutes=15)
"""How soon we look without any hint; doubles like every other wait."""
INTERRUPTING = frozenset({Effect.PAUSE, Effect.CANCEL, Effect.DONE_BY_HAND})


async def interruption(run: TaskRun) -> None:
    """Return when people want something else than the stage that runs, and it may be broken off.

    What they want is noted at once: it has been read, and would not be found again if the stage ended just now.
    """
    looks = 0
    while True:
        quiet = await _nothing_for(run, grace_growth(SURVEY_GRACE, looks))
        looks = looks + 1 if quiet else 0
        judgement = await _commanded(run, look=quiet)
        if judgement is None and (quiet or run.unsurveyed & SURVEYED):
            judgement = await _look(run)
        if judgement is not None and judgement.effect in INTERRUPTING:
            run.interrupted = judgement
            await workflow.wait_condition(lambda: run.interruptible)
            return


async def stand_still(run: TaskRun) -> Judgement | None:
    """Wait while paused. None means go on; a judgement ends the task."""
    paused = run.state.paused
    assert paused is not None
    announce, looks = f"{run.state.key} is paused: {paused.reason}", 0
    while True:
        judgement = await _commanded(run, look=True)
        situation = Situation(problem="not asked") if judgement else await survey(run)
        judgement = judgement or verdict_on(situation, run.state.stage)
        if judgement.effect in {Effect.CANCEL, Effect.DONE_BY_HAND}:
            return judgement
        if judgement.effect is Effect.RESUME or not still_paused(paused.cause, situation):
            reason = judgement.reason or f"the {paused.cause} is back"
            run.update(paused=None, waiting=None)
            run.say(f"resumed: {reason}", source=Source.OPERATOR)
            await run.record()
            return None
        run.update(
            waiting=Waiting(
                on=WaitingOn.PERSON,
                reason=paused.reason,
                since=paused.since,
                next_check=workflow.now() + grace_growth(SURVEY_GRACE, looks),
                needs_human=True,
            )
        )
        await run.record(announce)
        announce = ""
        with run.waits():
            quiet = await _nothing_for(run, grace_growth(SURVEY_GRACE, looks))
        looks = looks + 1 if quiet else 0


def pause(run: TaskRun, judgement: Judgement) -> None:
    """Note why the task stands still."""
    run.update(paused=Paused(cause=judgement.cause, reason=judgement.reason, since=workflow.now()))
    run.say(f"paused: {judgement.reason}", source=Source.OPERATOR)


async def survey(run: TaskRun) -> Situation:
    """Read what people may have touched, and note how far we have read."""
    state = run.state
    topics = run.unsurveyed - {Topic.OPERATOR}
    run.unsurveyed -= topics
    try:
        situation = await call(
            items.read_situation,
            items.ReadSituation(
                ref=state.ref,
                item=state.item,
                repository=state.project.repository,
                branch=state.branch,
                branch_expected=bool(state.head_sha) and not state.landed_sha,
                pull=state.pull.number if state.pull else None,
                seen_activity=state.seen_activity,
            ),
            queue=PLANE_QUEUE,
            summary="what have people done?",
            wait_for_cancel=False,
        )
    except ActivityError as error:
        if is_cancelled_exception(error):
            run.unsurveyed |= topics  # broken off with the stage: the next one looks
            raise
        return Situation(problem=str(error.cause or error))  # refused for good: the next look is by the timer
    except BaseException:
        run.unsurveyed |= topics
        raise
    if situation.seen_activity:
        run.update(seen_activity=situation.seen_activity)
    return situation


async def _look(run: TaskRun) -> Judgement:
    return verdict_on(await survey(run), run.state.stage)


async def _commanded(run: TaskRun, *, look: bool) -> Judgement | None:
    """What an operator told the task, the newest first. `look` reads the record although nobody hinted at it."""
    if look or Topic.OPERATOR in run.unsurveyed:
        await operating.read(run)
    effects = {Act.PAUSE: Effect.PAUSE, Act.CANCEL: Effect.CANCEL, Act.RESUME: Effect.RESUME}
    newest: Judgement | None = None
    for act in await run.take_commands():
        said = f": {act.reason}" if act.reason else ""
        newest = Judgement(
            effect=effects[act.act],
            cause=PauseCause.OPERATOR,
            reason=f"{act.by} said {act.act}{said}",
            by=act.by,
        )
    return newest


async def _nothing_for(run: TaskRun, patience: timedelta) -> bool:
    """Wait for a hint or a command; True if there was none for so long. Leases nobody wants go back at once."""
    until = workflow.now() + patience
    while True:
        await leasing.return_unwanted(run)
        if run.watch_stops:
            raise asyncio.CancelledError
        try:
            await workflow.wait_condition(
                lambda: bool(run.unsurveyed & WATCHED or run.commands() or run.unwanted or run.watch_stops),
                timeout=max(until - workflow.now(), timedelta(0)),
                timeout_summary="look at what people have done",
            )
        except TimeoutError:
            return True
        if not run.unwanted and not run.watch_stops:
            return False
