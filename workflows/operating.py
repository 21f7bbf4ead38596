"""Acts that operators have put on record: the task takes each exactly once, or refuses it with words."""

from workflows.calls import call
from workflows.contracts import ledger
from workflows.hints import Source, Topic
from workflows.state import act_refusal
from workflows.task_run import TaskRun


async def read(run: TaskRun) -> None:
    """Take the earliest act that is possible now; those behind it are judged when it has had its effect."""
    run.unsurveyed.discard(Topic.OPERATOR)
    try:
        found = await call(
            ledger.read_acts,
            ledger.ReadActs(ref=run.state.ref),
            summary="what have operators said?",
            wait_for_cancel=False,
        )
        for act in found.acts:
            if act.act_id in run.state.act_ids:
                continue  # taken, and on its way to whoever it is for
            refused = act_refusal(run.state, act.act, act.act_id, act.digest)
            if refused is None:
                run.take_act(act)
                run.unsurveyed.add(Topic.OPERATOR)
                return
            run.say(f"{act.act} by {act.by} refused: {refused}", source=Source.OPERATOR)
            await run.settle(act, f"refused: {refused}")
    except BaseException:
        run.unsurveyed.add(Topic.OPERATOR)  # broken off with the stage: the next one looks
        raise
