"""The ledger: what the workflows write down for people, and people's acts."""

from typing import Any

from temporalio import activity

from activities.adapters.store import Store
from workflows.contracts import ledger as contract
from workflows.model import Done, Stage
from workflows.state import DECISIONS, Act, OperatorAct

_COMMANDS = tuple(act.value for act in Act if act not in DECISIONS)


class Ledger:
    """Writes the read model. Every write may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @activity.defn
    async def record_progress(self, arg: contract.RecordProgress) -> Done:
        """One transaction: the task's row, the lines it has not seen, the announcement."""
        await self._store.tasks.record(
            arg.ref.key,
            arg.ref.generation,
            _row(arg),
            [line.model_dump() for line in arg.lines],
            arg.announce,
        )
        return Done()

    @activity.defn
    async def record_act(self, arg: contract.RecordAct) -> Done:
        """An act that reached the workflow as a raw update is an operator's act like any other."""
        act = arg.act
        await self._store.acts.settle(
            {
                "act_id": act.act_id,
                "task": arg.ref.key,
                "generation": arg.ref.generation,
                "act": act.act,
                "actor": act.by,
                "digest": act.digest,
                "reason": act.reason,
                "via": act.via,
                "at": act.at,
                "outcome": arg.outcome,
            }
        )
        return Done(reference=act.act_id)

    @activity.defn
    async def read_acts(self, arg: contract.ReadActs) -> contract.OpenActs:
        """Whatever a task can be told, except decisions: those are read by their gate."""
        rows = await self._store.acts.open(arg.ref.key, arg.ref.generation, _COMMANDS)
        return contract.OpenActs(acts=tuple(OperatorAct(by=row.pop("actor"), **row) for row in rows))


def _row(arg: contract.RecordProgress) -> dict[str, Any]:
    waiting = arg.waiting
    row: dict[str, Any] = {
        "stage": arg.ref.stage,
        "round": arg.ref.round,
        "status": _status(arg),
        "waiting_on": waiting.on if waiting else "",
        "waiting_reason": waiting.reason if waiting else "",
        "waiting_since": waiting.since if waiting else None,
        "next_check_at": waiting.next_check if waiting else None,
        "wait_ends_at": waiting.until if waiting else None,
        "needs_human": bool(waiting and waiting.needs_human),
        "seen_activity": arg.seen_activity,
        "spec_digest": arg.spec_digest,
        "head_sha": arg.head_sha,
        "pull_request": arg.pull.number if arg.pull else None,
        "pull_request_url": arg.pull.url if arg.pull else "",
        "landed_sha": arg.landed_sha,
        "deployed_sha": arg.deployed_sha,
        "merge_gate": arg.merge_gate,
        "cost_usd": arg.cost_usd,
        "paused_since": arg.paused.since if arg.paused else None,
        "paused_reason": arg.paused.reason if arg.paused else "",
        "updated_at": arg.at,
        "ended_at": arg.at if arg.outcome else None,
        "outcome": arg.outcome,
    }
    if arg.lines:
        row["lines_written"] = arg.lines[-1].n
    return row


def _status(arg: contract.RecordProgress) -> str:
    if arg.outcome:
        return "ended"
    if arg.waiting:
        return "waiting"
    return "ending" if arg.ref.stage is Stage.DONE else "working"
