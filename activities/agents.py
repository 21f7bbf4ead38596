"""Agent runs: supervise one process to its end, read its verdict, keep its cost."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.adapters.locks import WorkspaceLock
from activities.adapters.process_tree import kill_run
from activities.adapters.store import Store, outlast
from activities.agent_records import AgentRecords
from activities.fencing import Fence
from activities.runners.base import Before, Job, Reading, Runner, Spending
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from activities.supervising import Supervisor
from activities.verdict_files import judged
from workflows.contracts.workspaces import RunAgent
from workflows.usage import added
from workflows.verdicts import AgentRun, Binding, Earlier, RunOutcome, Verdict

AGAIN = frozenset({RunOutcome.RETRYABLE, RunOutcome.KILLED, RunOutcome.CANCELLED})
"""Ends after which the same run is begun again. One that was told to stop, but not by us, is one of them."""
CORRECTION_TURNS = 10
CORRECTION_USD = 0.25
"""What a turn that only gives the verdict may cost, also where the budget is nearly used up."""
SPENT = "its earlier attempts used up its budget (max_budget_usd in .orch/pipeline.toml)"


class Agents:
    """Runs agents in workspaces of this host."""

    def __init__(
        self, runners: Mapping[str, Runner], isolation: Isolation, store: Store, settings: WorkerSettings
    ) -> None:
        self._runners = runners
        self._supervisor = Supervisor(isolation, settings)
        self._records = AgentRecords(store, settings)
        self._store = store
        self._home = settings.home

    @activity.defn
    async def run_agent(self, arg: RunAgent) -> AgentRun:
        """One attempt: whatever an earlier attempt left running is ended first.

        Raises:
            ApplicationError: a passing trouble; the next attempt takes the session up again.
        """
        runner = self._runner(arg.runner)
        fence = await Fence.take(self._store, arg.ref)
        if (written := await self._records.written_down(arg)) is not None:
            return written
        workspace = Path(arg.workspace.path)
        run_id = f"{self._home}/{arg.ref.intent('agent')}/{arg.nonce}"
        await kill_run(run_id)
        async with WorkspaceLock(
            workspace.parent / f"{workspace.name}.lock",
            run_id,
        ) as lock:
            await fence.check()
            await asyncio.to_thread(remove_git_locks, workspace)
            job = _job(arg, workspace, self._home, caged=await self._supervisor.confines())
            job = await self._records.begin(arg, fence.attempt, runner, job)
            earlier = await self._records.earlier(arg.ref, fence.attempt)
            reading, seconds, cancelled = await self._work(arg, runner, _within(job, earlier), run_id, lock)
            verdict, problem = judged(reading, job)
            ended = _ended(arg, job, reading, verdict, problem).model_copy(
                update={"seconds": seconds, "earlier": earlier}
            )
        # The run is paid for: a database that is away for a moment must not make it happen again.
        await outlast(fence.check)
        await outlast(lambda: self._records.end(ended, reading, fence.attempt))
        if cancelled:
            raise asyncio.CancelledError
        if ended.outcome not in AGAIN:
            return ended
        if fence.attempt < arg.terms.attempts:
            delay = timedelta(seconds=max(1.0, reading.delay or 0.0))
            raise ApplicationError(ended.reason, type=f"Agent{ended.outcome.title()}", next_retry_delay=delay)
        return ended.model_copy(update={"reason": f"{ended.reason} (attempt {fence.attempt}, the last one)"})

    def _runner(self, name: str) -> Runner:
        runner = self._runners.get(name)
        if runner is None:
            known = ", ".join(sorted(self._runners))
            raise ApplicationError(f"no runner named {name!r}; this worker has: {known}", non_retryable=True)
        if problem := runner.problem():
            raise ApplicationError(problem, non_retryable=True)
        return runner

    async def _work(
        self, arg: RunAgent, runner: Runner, job: Job, run_id: str, lock: WorkspaceLock
    ) -> tuple[Reading, float, bool]:
        """One run, and one turn more in its session if it left no verdict that can be used.

        Answers with what came of it, its seconds, and whether we were cancelled meanwhile.
        """
        if job.terms.max_budget_usd <= 0:
            return Reading(RunOutcome.LIMIT, "budget", SPENT), 0.0, False
        log = self._records.log(arg.ref, job)
        reading, seconds, cancelled = await self._supervisor.run(runner, job, run_id, lock, log)
        verdict, _ = judged(reading, job)
        if _wants_correction(reading, verdict) and not cancelled and runner.resumes and runner.has_session(job):
            first = reading.spent
            reading, more, cancelled = await self._supervisor.run(runner, _correction(job, first), run_id, lock, log)
            reading = replace(reading, spent=_together(first, reading.spent))
            seconds += more
        return reading, seconds, cancelled


def _ended(arg: RunAgent, job: Job, reading: Reading, verdict: Verdict | None, problem: str) -> AgentRun:
    missing = verdict is None and reading.outcome is RunOutcome.OK
    return AgentRun(
        binding=Binding(ref=arg.ref, head_sha=arg.workspace.head_sha, nonce=arg.nonce),
        runner=arg.runner,
        session_id=job.session_id,
        outcome=RunOutcome.NO_VERDICT if missing else reading.outcome,
        verdict=verdict,
        reason=problem,
        usage=reading.spent.usage,
        cost_usd=reading.spent.cost_usd,
        cost_source=reading.spent.cost_source,
    )


def _within(job: Job, earlier: Earlier) -> Job:
    """The job with what its earlier attempts have left of its budget; a command line only counts its own."""
    left = round(job.terms.max_budget_usd - earlier.cost_usd, 6)
    return replace(job, terms=job.terms.model_copy(update={"max_budget_usd": left}))


def _wants_correction(reading: Reading, verdict: Verdict | None) -> bool:
    return verdict is None and reading.outcome in {RunOutcome.OK, RunOutcome.NO_VERDICT}


def _correction(job: Job, spent: Spending) -> Job:
    before = Before(spent.session_cost or 0.0, exact=spent.session_cost is not None)
    left = max(job.terms.max_budget_usd - (spent.cost_usd or 0.0), CORRECTION_USD)
    terms = job.terms.model_copy(update={"max_turns": CORRECTION_TURNS, "max_budget_usd": left})
    return replace(job, turn="correct", before=before, terms=terms)


def _together(first: Spending, second: Spending) -> Spending:
    known = first.cost_usd is not None and second.cost_usd is not None
    exact = first.cost_source == second.cost_source == "reported"
    return Spending(
        usage=added(first.usage, second.usage),
        cost_usd=(first.cost_usd or 0.0) + (second.cost_usd or 0.0) if known else None,
        cost_source="unknown" if not known else "reported" if exact else "computed",
        session_cost=second.session_cost,
    )


def _job(arg: RunAgent, workspace: Path, home: Path, *, caged: bool) -> Job:
    data = workspace.parent / f"{workspace.name}.data"
    inputs = data / "untrusted"
    shutil.rmtree(data, ignore_errors=True)
    inputs.mkdir(parents=True)
    for name, text in arg.data.items():
        (inputs / name).write_text(text, encoding="utf-8")
    return Job(
        role=arg.role,
        key=arg.ref.key,
        title=arg.data.get("item.md", "").partition("\n")[0].removeprefix("# "),
        round=arg.ref.round,
        workspace=workspace,
        data=data,
        verdict_file=data / "verdict.json",
        nonce=arg.nonce,
        session_id=arg.session_id,
        artifact_path=arg.artifact_path,
        headings=arg.headings,
        inputs=inputs,
        files=tuple(name for name, text in arg.data.items() if text.strip()),
        branch=arg.branch,
        base_sha=arg.workspace.base_sha,
        home=home / "agents" / arg.ref.key,
        terms=arg.terms,
        caged=caged,
    )


def remove_git_locks(workspace: Path) -> None:
    """Remove the locks of a git that was killed with its agent, or no later one could commit.

    The caller holds the workspace, so no living git holds them. Links are not followed.
    """
    with contextlib.suppress(OSError):
        folder = os.open(workspace / ".git", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for here, _, names, where in os.fwalk(".", dir_fd=folder):
                # Objects are many, and git locks none of them.
                for name in names if not here.startswith("./objects") else ():
                    if name.endswith(".lock"):
                        os.unlink(name, dir_fd=where)
        finally:
            os.close(folder)
