"""The trusted bare mirror of a remote repository: the only place pushes come from."""

import asyncio
import contextlib
import logging
import os
import shutil
import time
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import GitAuth, Output, git, remote_failure, transport_of
from activities.adapters.git.history import History
from activities.adapters.git.imports import import_commit
from activities.adapters.git.names import check_branch, check_ref, check_sha, is_task_branch
from activities.adapters.locks import WorkspaceLock

log = logging.getLogger(__name__)

TASK_PREFIX = "task/"
"""Only branches under it are ever pushed."""
OWN_REFS = "refs/orch/"
"""Where we keep commits that are not branches of the remote; fetching and pruning leave it alone."""
_ALL_BRANCHES = "+refs/heads/*:refs/heads/*"
_FETCH = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--end-of-options")
_ALWAYS_PROTECTED = frozenset({"main", "master"})
_LOCK_AGE = 60.0
"""Seconds after which a git lock file is stale; no git of ours is alive then, for we hold its lock."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The remote branch is at the commit now, by this push or by an earlier one whose answer was lost."""


@dataclass(frozen=True, slots=True)
class StaleHead:
    """The remote branch is not where it was expected; `actual` is where it is, None if it does not exist."""

    actual: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """We (protected or foreign branch) or the server (hook, protection) refuse; repeating is useless."""

    reason: str


PushOutcome = Pushed | StaleHead | Refused


class Mirror(History):
    """A bare mirror at `path` of the branches of `remote_url`.

    One file lock beside it serialises everything that changes it, over processes too, and git children
    inherit it. `protected` are branch names that are never pushed, beside main and master and all that is not
    `task/...`.

    Methods that talk to the remote raise Unauthorized, NotFound or Unavailable beside GitError.
    """

    def __init__(
        self,
        path: Path,
        remote_url: str,
        auth: GitAuth | None = None,
        protected: frozenset[str] = frozenset(),
        *,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(path, timeout=timeout)
        self._transport = transport_of(remote_url)
        self._url = remote_url
        self._auth = auth
        self._protected = frozenset(
            unicodedata.normalize("NFKC", name).casefold() for name in protected | _ALWAYS_PROTECTED
        )
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._broken = path.with_name(f"{path.name}.corrupt")

    async def ensure(self) -> None:
        """Make the mirror usable: clone it, or throw a half, corrupt or foreign one away and clone again.

        A fresh clone has no imported commits: those are still in the workspaces they came from.
        """
        async with self._locked() as lock:
            await asyncio.to_thread(self._remove_leftovers)
            if not await self._healthy(lock):
                await self._clone(lock)

    async def fetch(self) -> None:
        """Bring every branch to where the remote has it, and drop branches it no longer has.

        What a branch pointed at before may be lost, unless it is under refs/orch/.
        """
        try:
            async with self._locked() as lock:
                await self._remote("fetch", "--prune", *_FETCH, self._url, _ALL_BRANCHES, lock=lock)
        except GitError as error:
            await self.discard_if_corrupt(error)
            raise

    async def remote_head(self, branch: str) -> str | None:
        """The commit the remote branch is at right now, or None if there is no such branch."""
        ref = f"refs/heads/{check_branch(branch)}"
        said = (await self._remote("ls-remote", "--end-of-options", self._url, ref)).text
        lines = (line.partition("\t") for line in said.splitlines())
        return next((check_sha(sha) for sha, _, name in lines if name == ref), None)

    async def import_from(self, clone_path: Path, ref: str, as_ref: str) -> str:
        """Take the commit that `ref` names in an untrusted clone into this mirror as `as_ref`; return its id.

        Nothing in the clone is run or believed: see `imports`. `as_ref` must be under refs/orch/.

        Raises:
            GitError: `unsafe` if the clone was tampered with, `failed` if it has no such ref.
        """
        if not check_ref(as_ref).startswith(OWN_REFS):
            raise GitError(f"{as_ref} is not under {OWN_REFS}", kind="unsafe")
        async with self._locked() as lock:
            return await import_commit(
                self.path, clone_path, ref=check_ref(ref), as_ref=as_ref, lock=lock, timeout=self._timeout
            )

    async def push(self, sha: str, branch: str, expected_old: str | None) -> PushOutcome:
        """Move a task branch of the remote from `expected_old` (None: it does not exist) to `sha`.

        Raises:
            Unavailable: ambiguous, it may have happened; repeat with the same arguments.
        """
        ref = f"refs/heads/{check_branch(branch)}"
        refusal = self.refusal(branch)
        if refusal is not None:
            return Refused(refusal)
        lease = f"--force-with-lease={ref}:{check_sha(expected_old) if expected_old else ''}"
        refspec = f"{check_sha(sha)}:{ref}"
        args = (
            "push",
            "--porcelain",
            "--no-verify",
            "--no-signed",
            lease,
            "--end-of-options",
            self._url,
            refspec,
        )
        result = await self._remote(*args, writes=True, ok=(0, 1))
        line = next((line for line in result.text.splitlines() if f":{ref}\t" in line), None)
        if line is not None and not line.startswith("!"):
            return Pushed()
        # The remote's state, not the wording of the refusal, says what happened.
        actual = await self.remote_head(branch)
        if actual == sha:
            return Pushed()
        if actual != expected_old:
            return StaleHead(actual)
        if line is None:
            raise remote_failure(GitError(f"git push: {result.stderr.strip()[:300]}"), ambiguous=True)
        remote = " ".join(text[7:].strip() for text in result.stderr.splitlines() if text.startswith("remote:"))
        return Refused(f"{line.rsplit(chr(9), 1)[-1]} {remote}".strip()[:500])

    def refusal(self, branch: str) -> str | None:
        """Why this branch may never be pushed, or None if it may."""
        if unicodedata.normalize("NFKC", branch).casefold() in self._protected:
            return f"{branch} is a protected branch"
        if not is_task_branch(branch):
            return f"{branch} is not a task branch ({TASK_PREFIX}... in plain letters)"
        return None

    async def keep(self, source: Path, revision: str, ref: str) -> None:
        """Fetch a commit out of a workspace of our own and hold it under refs/orch/."""
        async with self._locked() as lock:
            await git(
                ("fetch", *_FETCH, str(source), f"+{revision}:{check_ref(ref)}"),
                git_dir=self.path,
                transport="file",
                lock=lock,
                timeout=self._timeout,
            )

    async def commit_merge(self, tree: str, parents: tuple[str, ...], message: str, env: dict[str, str]) -> str:
        """Write a commit of a tree and hold it under refs/orch/candidates/; the same arguments give the same commit."""
        words = [word for parent in parents for word in ("-p", check_sha(parent))]
        async with self._locked() as lock:
            args = ("commit-tree", check_sha(tree), *words, "-m", message)
            sha = (await git(args, git_dir=self.path, env=env, lock=lock)).text
            await git(("update-ref", f"{OWN_REFS}candidates/{check_sha(sha)}", sha), git_dir=self.path, lock=lock)
        return sha

    async def discard_if_corrupt(self, error: GitError) -> None:
        """Make the next `ensure` clone anew, if this error says that the mirror is broken."""
        if error.kind == "corrupt":
            await asyncio.to_thread(self._broken.touch)

    async def _git(
        self, *args: str, ok: tuple[int, ...] = (0,), on_output: Callable[[bytes], None] | None = None
    ) -> Output:
        try:
            return await super()._git(*args, ok=ok, on_output=on_output)
        except GitError as error:
            await self.discard_if_corrupt(error)
            raise

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[WorkspaceLock]:
        lock = WorkspaceLock(self._lock_path)
        await lock.acquire(self._timeout)
        try:
            yield lock
        finally:
            lock.release()

    async def _remote(
        self, *args: str, writes: bool = False, ok: tuple[int, ...] = (0,), lock: WorkspaceLock | None = None
    ) -> Output:
        try:
            return await git(
                args,
                git_dir=self.path,
                ok=ok,
                transport=self._transport,
                auth=self._auth,
                lock=lock,
                timeout=self._timeout,
            )
        except GitError as error:
            raise remote_failure(error, ambiguous=writes) from None

    async def _healthy(self, lock: WorkspaceLock) -> bool:
        """Whether it is the mirror of this remote, and every branch's commit and tree can be read."""
        if await asyncio.to_thread(self._broken.exists) or not await asyncio.to_thread(self.path.is_dir):
            return False
        try:
            url = await git(("config", "--get", "remote.origin.url"), git_dir=self.path, ok=(0, 1), lock=lock)
            refs = await git(("for-each-ref", "--format=%(objectname)^{tree}"), git_dir=self.path, lock=lock)
            asked = refs.stdout
            found = await git(("cat-file", "--batch-check"), git_dir=self.path, stdin=asked, lock=lock)
        except GitError as error:
            if error.kind in ("disk", "timeout", "locked"):
                raise
            log.warning("throwing a broken mirror away: %s", error)
            return False
        whole = not any(line.endswith(b" missing") for line in found.stdout.splitlines())
        return whole and url.text == self._url

    async def _clone(self, lock: WorkspaceLock) -> None:
        """Clone beside the path and rename: a half clone never stands where a whole one is expected."""
        fresh = self.path.with_name(f".{self.path.name}.new-{uuid.uuid4().hex}")
        try:
            await asyncio.to_thread(fresh.mkdir, parents=True)
            await git(("init", "--bare", "--quiet", "--template="), git_dir=fresh, lock=lock)
            for key, value in (("remote.origin.url", self._url), ("uploadpack.allowAnySHA1InWant", "true")):
                await git(("config", key, value), git_dir=fresh, lock=lock)
            try:
                await git(
                    ("fetch", *_FETCH, self._url, _ALL_BRANCHES),
                    git_dir=fresh,
                    transport=self._transport,
                    auth=self._auth,
                    lock=lock,
                    timeout=self._timeout,
                )
            except GitError as error:
                raise remote_failure(error) from None
            await asyncio.to_thread(self._replace, fresh)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)

    def _replace(self, fresh: Path) -> None:
        if self.path.exists():
            old = self.path.with_name(f".{self.path.name}.old-{uuid.uuid4().hex}")
            self.path.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        fresh.rename(self.path)
        self._broken.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what killed commands left: half clones at once, git's own lock files when they are old.

        The caller holds the lock that our git children inherit, so none of them is alive.
        """
        for pattern in (f".{self.path.name}.new-*", f".{self.path.name}.old-*"):
            for leftover in self.path.parent.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        for directory, _, names in os.walk(self.path):
            for name in names:
                lock = Path(directory, name)
                if name.endswith(".lock") and time.time() - lock.lstat().st_mtime > _LOCK_AGE:
                    log.warning("removing the stale git lock %s", lock.relative_to(self.path))
                    lock.unlink(missing_ok=True)
