"""What is written down of agent runs: one row for each attempt, with what it used, also if it was cut off."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from activities.adapters.store import Store
from activities.runners.base import Before, Job, Reading, Runner, Spending
from activities.sessions import Session, choose
from activities.settings import WorkerSettings
from workflows.contracts.workspaces import RunAgent
from workflows.model import TaskRef
from workflows.usage import Tokens, Usage, added
from workflows.verdicts import AgentRun, Binding, Earlier, RunOutcome, Verdict

_CHUNK = 1024 * 1024


class AgentRecords:
    """Rows of `agent_runs`, and the logs beside them."""

    def __init__(self, store: Store, settings: WorkerSettings) -> None:
        self._runs = store.runs
        self._host = settings.host_name

    async def written_down(self, arg: RunAgent) -> AgentRun | None:
        """What an earlier attempt wrote down before its answer was lost: a run is paid for once."""
        ref = arg.ref
        row = await self._runs.passed((ref.key, ref.generation, ref.stage, ref.round), arg.nonce)
        if row is None:
            return None
        return AgentRun(
            binding=Binding(ref=ref, head_sha=arg.workspace.head_sha, nonce=arg.nonce),
            runner=row["runner"],
            session_id=row["session_id"],
            outcome=RunOutcome.OK,
            verdict=Verdict.model_validate(row["verdict"]),
            reason=row["reason"],
            usage=_usage(row),
            cost_usd=_dollars(row["cost_usd"]),
            cost_source=row["cost_source"],
            seconds=(row["ended_at"] - row["started_at"]).total_seconds(),
            earlier=await self._earlier(ref, row["attempt"]),
        )

    async def begin(self, arg: RunAgent, attempt: int, runner: Runner, job: Job) -> Job:
        """Note that an attempt runs; answer its job with the session it uses."""
        ref = arg.ref
        rows = await self._attempts(ref, _number(ref.step, attempt))
        session = Session(arg.session_id)
        if runner.resumes:
            session = choose(arg.session_id, rows, lambda session: runner.has_session(replace(job, session_id=session)))
        job = replace(job, session_id=session.id, turn=session.turn, before=session.before)
        job = replace(job, attempt=_number(ref.step, attempt))
        await self._runs.started(
            {
                "task": ref.key,
                "generation": ref.generation,
                "stage": ref.stage,
                "round": ref.round,
                "attempt": job.attempt,
                "session_id": session.id,
                "role": arg.role,
                "runner": arg.runner,
                "host": self._host,
                "resumed": session.turn == "resume",
                "log": str(self.log(ref, job)),
            }
        )
        for row in rows:
            if row["ended_at"] is None or row["outcome"] == "lost":
                await self._recover(row, runner, job)
        return job

    def log(self, ref: TaskRef, job: Job) -> Path:
        """Where an attempt's output is kept."""
        return job.home / "logs" / f"g{ref.generation}-{ref.stage}-r{ref.round}-{job.attempt}.jsonl"

    async def end(self, ended: AgentRun, reading: Reading, attempt: int) -> None:
        """Note how an attempt ended and what it used."""
        ref = ended.binding.ref
        key = (ref.key, ref.generation, ref.stage, ref.round, _number(ref.step, attempt))
        await self._runs.used(key, _used(reading.spent))
        await self._runs.ended(
            key,
            {
                "outcome": ended.outcome,
                "cause": reading.cause,
                "verdict": ended.verdict.model_dump(mode="json") if ended.verdict else None,
                "reason": ended.reason,
                "head_sha": ended.binding.head_sha,
            },
        )

    async def earlier(self, ref: TaskRef, attempt: int) -> Earlier:
        """What the attempts before this one used."""
        return await self._earlier(ref, _number(ref.step, attempt))

    async def _earlier(self, ref: TaskRef, number: int) -> Earlier:
        rows = await self._attempts(ref, number)
        usage, cost = Usage(), 0.0
        for row in rows:
            usage = added(usage, _usage(row))
            cost += _dollars(row["cost_usd"]) or 0.0
        return Earlier(usage=usage, cost_usd=cost, complete=all(row["cost_usd"] is not None for row in rows))

    async def _attempts(self, ref: TaskRef, below: int) -> list[dict[str, Any]]:
        first = _number(ref.step, 0)
        return await self._runs.attempts((ref.key, ref.generation, ref.stage, ref.round), (first, below))

    async def _recover(self, row: Mapping[str, Any], runner: Runner, job: Job) -> None:
        """A worker that was killed wrote nothing down; its agent's log says what was used until then."""
        if row["cost_source"] != "unknown" or not row["log"]:
            return
        watch = runner.watch(replace(job, session_id=row["session_id"], before=Before(exact=not row["resumed"])))

        def read() -> Spending | None:
            try:
                with Path(row["log"]).open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        watch.feed(chunk)
            except FileNotFoundError:
                return None
            return watch.read(None).spent

        key = (row["task"], row["generation"], row["stage"], row["round"], row["attempt"])
        if (spent := await asyncio.to_thread(read)) is not None:
            await self._runs.used(key, _used(spent))


def _number(step: int, attempt: int) -> int:
    """Unique within a round, in which an agent may be run in more than one step."""
    return step * 1000 + attempt


def _used(spent: Spending) -> dict[str, Any]:
    usage = spent.usage
    return {
        "input_tokens": usage.input,
        "cache_read_tokens": usage.cache_read,
        "cache_creation_tokens": usage.cache_creation,
        "cache_creation_1h_tokens": usage.cache_creation_1h,
        "output_tokens": usage.output,
        "models": {model: tokens.model_dump() for model, tokens in usage.models.items()},
        "cost_usd": spent.cost_usd,
        "cost_source": spent.cost_source,
        "session_cost_usd": spent.session_cost,
    }


def _usage(row: Mapping[str, Any]) -> Usage:
    return Usage(
        input=row["input_tokens"],
        cache_read=row["cache_read_tokens"],
        cache_creation=row["cache_creation_tokens"],
        cache_creation_1h=row["cache_creation_1h_tokens"],
        output=row["output_tokens"],
        models={model: Tokens.model_validate(tokens) for model, tokens in row["models"].items()},
    )


def _dollars(value: Any) -> float | None:
    return None if value is None else float(value)
