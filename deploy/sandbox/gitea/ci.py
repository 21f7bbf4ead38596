"""A small Actions: each new commit is tested once, in a clean checkout, and its statuses tell how it went."""

import asyncio
import contextlib
import io
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.gitea.git import export
from deploy.sandbox.gitea.records import ACTIONS_USER, Repository, Run
from deploy.sandbox.gitea.service import GiteaService

ALLOWED = ("LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")
CHUNK = 65536
DRAIN_SECONDS = 1.0


class Ci:
    """Queues runs, runs them, remembers them."""

    def __init__(self, service: GiteaService, config: SandboxConfig) -> None:
        self._service, self._tables, self._config = service, service.tables, config
        self._home = config.home / "ci"
        self._slots = asyncio.Semaphore(config.ci_slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        service.new_commit.append(self.on_commit)

    async def start(self) -> None:
        """Take up the runs a stopped or killed process left behind, and commits it had no time to queue."""
        for run in self._tables.runs.all():
            if run.status != "completed":
                self._kill_leftover(run)
                self._spawn(run)
        for repository in self._tables.repositories.all():
            for branch, sha in (await self._service.git(repository).branches()).items():
                self.on_commit(repository, branch, sha, repository.owner)

    async def stop(self) -> None:
        """Kill what runs; it is run again at the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_commit(self, repository: Repository, branch: str, sha: str, by: str) -> None:
        """Queue a run, unless this commit already has one."""
        if repository.ci_command is None or any(run.sha == sha for run in self._tables.runs.of(repository.id)):
            return
        number = self._service.store.next("gitea.run")
        run = Run(
            id=str(number), number=number, job_number=self._service.store.next("gitea.job"), sha=sha,
            branch=branch,
            index=self._service.store.next(f"gitea.run.{repository.id}"), repository=repository.id, actor=by,
            created_at=time.time(),
        )  # fmt: skip
        self._spawn(self._tables.runs.put(run))

    def rerun(self, run: Run) -> bool:
        """Run a completed run again as its next attempt; False if it is not over."""
        if run.status != "completed":
            return False
        run.attempt, run.status, run.conclusion, run.completed_at = run.attempt + 1, "queued", None, None
        self._spawn(self._tables.runs.put(run))
        return True

    def cancel(self, run: Run) -> None:
        """Cancel a run: a failure in Gitea, told apart by the description and the run's conclusion."""
        if task := self._tasks.get(run.id):
            self._cancelled.add(run.id)
            task.cancel()

    def log_path(self, run: Run) -> Path:
        """Where the log of the newest attempt is."""
        return self._home / run.id / "log.txt"

    def _spawn(self, run: Run) -> None:
        task = asyncio.create_task(self._work(run))
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run.id, None))

    async def _work(self, run: Run) -> None:
        try:
            await self._run(run)
        except asyncio.CancelledError:
            if run.id not in self._cancelled:
                raise
            self._cancelled.discard(run.id)
            await self._finish(run, "cancelled", "Has been cancelled")

    async def _run(self, run: Run) -> None:
        await self._report(run, "pending", "Waiting to run")
        async with self._slots:
            run.status, run.started_at = "in_progress", time.time()
            self._tables.runs.put(run)
            await self._report(run, "pending", "Has started running")
            try:
                passed = await self._execute(run)
            except (OSError, RuntimeError) as error:
                self.log_path(run).parent.mkdir(parents=True, exist_ok=True)
                self.log_path(run).write_text(f"the run could not start: {error}\n")
                passed = False
            took = _duration(time.time() - run.started_at)
            await self._finish(run, "success" if passed else "failure",
                               f"Successful in {took}" if passed else f"Failing after {took}")  # fmt: skip

    async def _finish(self, run: Run, conclusion: str, description: str) -> None:
        run.status, run.completed_at = "completed", time.time()
        run.conclusion = (
            "success" if conclusion == "success" else "cancelled" if conclusion == "cancelled" else "failure"
        )
        self._tables.runs.put(run)
        await self._report(run, "success" if conclusion == "success" else "failure", description)

    async def _report(self, run: Run, state: str, description: str) -> None:
        repository = self._repository(run)
        page = f"/{run.repository}/actions/runs/{run.number}/jobs/{run.job_number}"
        await self._service.create_status(
            repository, run.sha, state, context=repository.ci_context, description=description,
            target_url=page, by=ACTIONS_USER.id,
        )  # fmt: skip
        action = "requested" if run.status == "queued" else run.status
        await self._service.tell_run(repository, run, action)

    async def _execute(self, run: Run) -> bool:
        repository = self._repository(run)
        folder, log = self._home / run.id, self.log_path(run)
        work = folder / "work"
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        await export(self._service.path(repository), run.sha, work)
        command = repository.ci_command or []
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        prefix = [part.replace("{workdir}", str(work)) for part in self._config.ci_prefix]
        with log.open("wb") as out:
            out.write(f"$ {shlex.join(argv)}\n".encode())
            out.flush()
            try:
                code = await self._spawn_process([*prefix, *argv], work, self._environment(run, folder), out)
            except TimeoutError:
                out.write(f"\nstopped: longer than {self._config.ci_timeout:g} s\n".encode())
                code = -1
            out.write(f"\nexit code {code}\n".encode())
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        return code == 0

    async def _spawn_process(self, argv: list[str], work: Path, env: dict[str, str], out: io.BufferedWriter) -> int:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=work, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout
        self._pid_path(work).write_text(str(process.pid))
        reader = asyncio.create_task(self._keep(process.stdout, out))
        try:
            async with asyncio.timeout(self._config.ci_timeout):
                return await process.wait()
        finally:
            # The whole group: a server a test left running must not outlive its run, nor hold the log open.
            _kill_group(process.pid)
            await process.wait()
            await asyncio.wait({reader}, timeout=DRAIN_SECONDS)
            reader.cancel()
            self._pid_path(work).unlink(missing_ok=True)

    def _kill_leftover(self, run: Run) -> None:
        """End tests a killed sandbox could not end; a process id alone may be somebody else's by now."""
        work = self._home / run.id / "work"
        try:
            pid = int(self._pid_path(work).read_text())
            mine = Path(f"/proc/{pid}/cwd").readlink().is_relative_to(work.resolve())
        except (OSError, ValueError):
            return
        if mine:
            _kill_group(pid)

    @staticmethod
    def _pid_path(work: Path) -> Path:
        return work.with_name("pid")

    async def _keep(self, stream: asyncio.StreamReader, out: io.BufferedWriter) -> None:
        room = self._config.ci_log_limit
        while chunk := await stream.read(CHUNK):
            if room > 0:
                out.write(chunk[:room])
                out.flush()
                room -= len(chunk)
                if room <= 0:
                    out.write(b"\n(the rest of the log was not kept)\n")

    def _environment(self, run: Run, folder: Path) -> dict[str, str]:
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ALLOWED if name in os.environ}
        # The interpreter of the sandbox comes first, so that `python -m pytest` finds what the demo needs.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        facts = {"CI": "true", "GITEA_ACTIONS": "true", "GITHUB_SHA": run.sha, "GITHUB_REF_NAME": run.branch}
        return {**kept, **facts, "PATH": path, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}

    def _repository(self, run: Run) -> Repository:
        repository = self._tables.repositories.get(run.repository)
        assert repository, "runs do not outlive their repository"
        return repository


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
