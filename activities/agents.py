"""Agent runs: supervise one process to its end, read its verdict, keep its cost."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.adapters.locks import WorkspaceLock
from activities.adapters.process import ProcessResult, run
from activities.adapters.process_tree import kill_run
from activities.adapters.store import Store, outlast
from activities.fencing import Fence
from activities.runners.base import Job, Reading, Runner
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from workflows.contracts.workspaces import RunAgent
from workflows.model import Usage
from workflows.verdicts import AgentRun, Binding, RunOutcome, Verdict

VERDICT_LIMIT = 64 * 1024
WALL_CLOCK = 3 * 3600
"""Seconds one agent process may live."""
LOCK_PATIENCE = 30
"""Seconds a new attempt waits for an earlier one's processes to be gone, after having ended them."""


class Agents:
    """Runs agents in workspaces of this host."""

    def __init__(
        self, runners: Mapping[str, Runner], isolation: Isolation, store: Store, settings: WorkerSettings
    ) -> None:
        self._runners = runners
        self._isolation = isolation
        self._store = store
        self._host = settings.host_name
        self._home = settings.home

    @activity.defn
    async def run_agent(self, arg: RunAgent) -> AgentRun:
        """One attempt: whatever an earlier attempt left running is ended first."""
        runner = self._runners.get(arg.runner)
        if runner is None:
            known = ", ".join(sorted(self._runners))
            raise ApplicationError(f"no runner named {arg.runner!r}; this worker has: {known}", non_retryable=True)
        fence = await Fence.take(self._store, arg.ref)
        if (written := await self._written_down(arg)) is not None:
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
            await self._note_start(arg, fence.attempt)
            job = _job(arg, workspace)
            result, seconds = await self._supervise(runner, job, run_id, lock)
            outcome = _outcome(arg, runner, runner.read(job, result), job, seconds)
        # The run is paid for: a database that is away for a moment must not make it happen again.
        await outlast(fence.check)
        await outlast(lambda: self._note_end(outcome, fence.attempt))
        return outcome

    async def _written_down(self, arg: RunAgent) -> AgentRun | None:
        """What an earlier attempt wrote down before its answer was lost: a run is paid for once."""
        ref = arg.ref
        row = await self._store.runs.passed((ref.key, ref.generation, ref.stage, ref.round), arg.nonce)
        if row is None:
            return None
        return AgentRun(
            binding=Binding(ref=ref, head_sha=arg.workspace.head_sha, nonce=arg.nonce),
            runner=row["runner"],
            session_id=row["session_id"],
            outcome=RunOutcome.OK,
            verdict=Verdict.model_validate(row["verdict"]),
            reason=row["reason"],
            usage=Usage(
                input=row["input_tokens"],
                cache_read=row["cache_read_tokens"],
                cache_creation=row["cache_creation_tokens"],
                output=row["output_tokens"],
            ),
            cost_usd=None if row["cost_usd"] is None else float(row["cost_usd"]),
            cost_source=row["cost_source"],
            seconds=(row["ended_at"] - row["started_at"]).total_seconds(),
        )

    async def _supervise(
        self, runner: Runner, job: Job, run_id: str, lock: WorkspaceLock
    ) -> tuple[ProcessResult, float]:
        argv, extra = runner.command(job)
        cage = await self._isolation.cage(job.workspace, (job.data,), {**_identity(), **extra})
        result = await run(
            [*cage.argv, *argv],
            cwd=job.workspace,
            env=cage.env,
            timeout=WALL_CLOCK,
            run_id=run_id,
            lock=lock,
        )
        return result, result.duration

    async def _note_start(self, arg: RunAgent, attempt: int) -> None:
        ref = arg.ref
        await self._store.runs.started(
            {
                "task": ref.key,
                "generation": ref.generation,
                "stage": ref.stage,
                "round": ref.round,
                "attempt": _attempt_number(ref.step, attempt),
                "session_id": arg.session_id,
                "role": arg.role,
                "runner": arg.runner,
                "host": self._host,
            }
        )

    async def _note_end(self, ended: AgentRun, attempt: int) -> None:
        ref, usage = ended.binding.ref, ended.usage
        await self._store.runs.ended(
            (ref.key, ref.generation, ref.stage, ref.round, _attempt_number(ref.step, attempt)),
            {
                "outcome": ended.outcome,
                "verdict": ended.verdict.model_dump(mode="json") if ended.verdict else None,
                "reason": ended.reason,
                "head_sha": ended.binding.head_sha,
                "input_tokens": usage.input,
                "cache_read_tokens": usage.cache_read,
                "cache_creation_tokens": usage.cache_creation,
                "output_tokens": usage.output,
                "cost_usd": ended.cost_usd,
                "cost_source": ended.cost_source,
            },
        )


def _attempt_number(step: int, attempt: int) -> int:
    """Unique within a round, in which an agent may be run in more than one step."""
    return step * 1000 + attempt


def _job(arg: RunAgent, workspace: Path) -> Job:
    data = workspace.parent / f"{workspace.name}.data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    for name, text in arg.data.items():
        (data / name).write_text(text, encoding="utf-8")
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
    )


def _identity() -> dict[str, str]:
    """Who an agent commits as; the clone's own configuration is not trusted to say."""
    name, email = "Orch Agent", "agent@orch.invalid"
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }


def _outcome(arg: RunAgent, runner: Runner, reading: Reading, job: Job, seconds: float) -> AgentRun:
    verdict, problem = None, reading.problem
    if not problem:
        try:
            raw = reading.verdict if reading.verdict is not None else read_verdict(job.verdict_file)
            verdict = Verdict.model_validate_json(raw)
        except (OSError, ValueError) as error:
            problem = f"no usable verdict: {_short(error)}"
    ended = RunOutcome.OK if verdict else RunOutcome.FAILED if reading.problem else RunOutcome.NO_VERDICT
    return AgentRun(
        binding=Binding(ref=arg.ref, head_sha=arg.workspace.head_sha, nonce=arg.nonce),
        runner=runner.name,
        session_id=arg.session_id,
        outcome=ended,
        verdict=verdict,
        reason=problem,
        usage=reading.usage,
        cost_usd=reading.cost_usd,
        cost_source=reading.cost_source,
        seconds=seconds,
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


def read_verdict(path: Path) -> str:
    """Read a verdict file an agent left: a regular file of at most 64 KiB, no link.

    Raises:
        OSError: there is none, or it is a link.
        ValueError: it is not a regular file, too large, or not UTF-8.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not path.is_file():
            raise ValueError("the verdict is not a regular file")
        content = file.read(VERDICT_LIMIT + 1)
    if len(content) > VERDICT_LIMIT:
        raise ValueError(f"the verdict is larger than {VERDICT_LIMIT} bytes")
    return content.decode()


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())[:500]
    return str(error)[:500]
