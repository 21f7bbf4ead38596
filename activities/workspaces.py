"""Workspaces and test runs on this host's disk.

A workspace is a full clone for one round, made from the trusted mirror. An agent may write it, so no git of ours
ever runs inside it: the mirror fetches from it.
"""

import asyncio
import shutil
from pathlib import Path

from temporalio import activity

from activities.adapters.git import Identity, Mirror, Pushed, StaleHead, checkout_clean, clone_for_task
from activities.adapters.process import run
from activities.adapters.process_tree import kill_run
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.mirrors import Mirrors
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from workflows.contracts import workspaces as contract
from workflows.model import Done, TaskRef, TestRun
from workflows.stages import decision_digest, missing_headings

AGENT = Identity(name="Orch Agent", email="agent@orch.invalid")
ARTIFACT_LIMIT = 1024 * 1024
TEST_LIMIT = 45 * 60
"""Seconds a project's tests may take."""
TAIL = 8_000


class Workspaces:
    """The folders of this host's tasks, below `<home>/work/<KEY>/g<generation>/`."""

    def __init__(self, mirrors: Mirrors, isolation: Isolation, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._isolation = isolation
        self._store = store
        self._root = settings.home / "work"
        self._host = settings.host_name

    @activity.defn
    async def claim_host(self, arg: contract.ClaimHost) -> contract.HostClaim:  # noqa: ARG002
        """Whichever worker answers takes the task."""
        return contract.HostClaim(host=self._host)

    @activity.defn
    async def prepare_workspace(self, arg: contract.PrepareWorkspace) -> contract.Workspace:
        """Made anew for every round and attempt: what an earlier one left is thrown away."""
        await Fence.take(self._store, arg.ref)
        mirror = await self._mirrors.fetched(arg.repository)
        base = await mirror.resolve(f"refs/heads/{arg.repository.base}")
        if base is None:
            raise ValueError(f"{arg.repository} has no branch {arg.repository.base}")
        head = await mirror.resolve(f"refs/heads/{arg.branch}") or base
        path = self._folder(arg.ref) / f"{arg.ref.stage}-r{arg.ref.round}-s{arg.ref.step}"
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        await clone_for_task(mirror, path, arg.branch, head, AGENT)
        return contract.Workspace(path=str(path), base_sha=base, head_sha=head)

    @activity.defn
    async def publish_work(self, arg: contract.PublishWork) -> contract.Published:
        """Fetch the agent's commits into the mirror, then push exactly them over exactly the old head."""
        fence = await Fence.take(self._store, arg.ref)
        mirror = await self._mirrors.fetched(arg.repository)
        before = arg.workspace.head_sha
        incoming = f"refs/orch/{arg.ref.intent('incoming')}"
        sha = await mirror.import_from(Path(arg.workspace.path), f"refs/heads/{arg.branch}", incoming)
        if sha == before:
            return contract.Published(
                outcome=contract.Publish.NOTHING_NEW, head_sha=before, reason="the agent made no commit"
            )
        if not await mirror.is_ancestor(before, sha):
            return contract.Published(
                outcome=contract.Publish.REFUSED,
                head_sha=before,
                reason="the agent rewrote commits that are already pushed",
            )
        await fence.check()
        await self._store.runs.pushing(
            str(arg.repository),
            sha,
            arg.branch,
            (arg.ref.key, arg.ref.generation, arg.ref.step, fence.attempt),
        )
        started_here = await mirror.remote_head(arg.branch)
        pushed = await mirror.push(sha, arg.branch, before if started_here else None)
        if isinstance(pushed, StaleHead) and pushed.actual != sha:
            return contract.Published(
                outcome=contract.Publish.STALE,
                head_sha=pushed.actual or before,
                reason="somebody else pushed to the task branch meanwhile",
            )
        if not isinstance(pushed, Pushed | StaleHead):
            return contract.Published(
                outcome=contract.Publish.REFUSED, head_sha=before, reason=f"push refused: {pushed.reason}"
            )
        changed = await mirror.diff_names(before, sha)
        return contract.Published(
            outcome=contract.Publish.PUSHED,
            head_sha=sha,
            commits=len(await mirror.log(before, sha)),
            changed=tuple(change.path for change in changed[:50]),
            artifact=await self._artifact(arg, mirror, sha),
        )

    async def _artifact(self, arg: contract.PublishWork, mirror: Mirror, sha: str) -> contract.Artifact | None:
        if not arg.artifact_path:
            return None
        content = await mirror.read_file(sha, arg.artifact_path, ARTIFACT_LIMIT)
        if content is None:
            return contract.Artifact(path=arg.artifact_path)
        return contract.Artifact(
            path=arg.artifact_path,
            digest=decision_digest(arg.ref, content),
            missing=missing_headings(content.decode(errors="replace"), arg.headings),
        )

    @activity.defn
    async def run_tests(self, arg: contract.RunTests) -> TestRun:
        """A clean checkout that shares nothing with the mirror; the command comes from the base branch's policy."""
        await Fence.take(self._store, arg.ref)
        # Begins with our home: another stack on this machine may have a task of the same name.
        run_id = f"{self._root.parent}/{arg.ref.intent('tests')}/s{arg.ref.step}"
        await kill_run(run_id)
        mirror = await self._mirrors.fetched(arg.repository)
        path = self._folder(arg.ref) / f"tests-s{arg.ref.step}"
        home = path.with_name(f"{path.name}.home")
        await self._remove(path, home)
        path.parent.mkdir(parents=True, exist_ok=True)
        await checkout_clean(mirror, path, arg.sha)
        home.mkdir()
        try:
            cage = await self._isolation.cage(path, (home,), {"CI": "true"})
            result = await run(
                [*cage.argv, "sh", "-c", arg.command],
                cwd=path,
                env=cage.env,
                timeout=TEST_LIMIT,
                run_id=run_id,
            )
        finally:
            await self._remove(path, home)
        note = f"\n(stopped after {TEST_LIMIT} s)" if result.timed_out else ""
        return TestRun(
            sha=arg.sha,
            passed=result.exit_code == 0 and not result.timed_out,
            exit_code=result.exit_code,
            tail=result.output_tail[-TAIL:] + note,
            seconds=round(result.duration, 3),
        )

    @activity.defn
    async def remove_workspaces(self, arg: contract.RemoveWorkspaces) -> Done:
        """Everything worth keeping has been pushed."""
        await self._remove(self._folder(arg.ref))
        return Done()

    def _folder(self, ref: TaskRef) -> Path:
        return self._root / ref.key / f"g{ref.generation}"

    async def _remove(self, *paths: Path) -> None:
        for path in paths:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
