"""Working copies: a clone for an agent, a clean checkout for a test run, a rebase in our own place."""

import asyncio
import contextlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import Identity, git
from activities.adapters.git.mirror import OWN_REFS, Mirror
from activities.adapters.git.names import check_branch, check_sha


@dataclass(frozen=True, slots=True)
class Rebased:
    """The candidate, kept in the mirror under refs/orch/candidates/; a repeated rebase gives it again."""

    sha: str
    tree: str


@dataclass(frozen=True, slots=True)
class RebaseConflict:
    """The branch does not apply; `paths` are the files in conflict at the first commit that does not."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlreadyLanded:
    """Everything the branch has is in the base already, as the same commits or as the same patches."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The branch has commits of its own but they change nothing."""


RebaseOutcome = Rebased | RebaseConflict | AlreadyLanded | Empty


async def clone_for_task(mirror: Mirror, dest: Path, branch: str, start_sha: str, identity: Identity) -> None:
    """A full clone at `dest`, `branch` checked out at `start_sha`; no shared objects, no remote, no hooks.

    Branches of the remote are there as refs/remotes/origin/*. It belongs to the agent from then on: never run
    git in it again, use `Mirror.import_from`.

    Raises:
        GitError: `exists`: `dest` is there already and is not empty.
    """
    ref = f"refs/heads/{check_branch(branch)}"
    async with _fresh(mirror, dest) as (tree, git_dir):
        refspecs = ("+refs/heads/*:refs/remotes/origin/*", f"{check_sha(start_sha)}:{ref}")
        await _take(mirror, git_dir, *refspecs)
        for key, value in (("user.name", identity.name), ("user.email", identity.email)):
            await git(("config", key, value), git_dir=git_dir)
        await git(("symbolic-ref", "HEAD", ref), git_dir=git_dir)
        await git(("reset", "--hard", "--quiet"), git_dir=git_dir, work_tree=tree)


async def checkout_clean(mirror: Mirror, dest: Path, sha: str) -> None:
    """Exactly the files of `sha` at `dest`, with a `.git` of its own that holds that history only.

    Raises:
        GitError: `exists`: `dest` is there already and is not empty.
    """
    async with _fresh(mirror, dest) as (tree, git_dir):
        await _take(mirror, git_dir, f"{check_sha(sha)}:{OWN_REFS}checkout")
        await git(("update-ref", "--no-deref", "HEAD", sha), git_dir=git_dir)
        await git(("reset", "--hard", "--quiet"), git_dir=git_dir, work_tree=tree)


async def rebase_onto(
    mirror: Mirror, workdir: Path, *, head: str, onto: str, identity: Identity, date: datetime
) -> RebaseOutcome:
    """Put the commits of `head` on top of `onto`, in a workspace under `workdir` that is gone afterwards.

    Committer name, address and `date` are pinned, so that the same arguments give the same commit on any
    machine. Authors and their dates stay. Merge commits are flattened, as by every rebase; commits whose
    patch the base has already, and commits that change nothing, are dropped.

    Raises:
        GitError: it could not be tried; nothing is left behind.
    """
    check_sha(head)
    check_sha(onto)
    if date.tzinfo is None:
        raise ValueError("the date must have a time zone, or it means another moment on another machine")
    if await mirror.is_ancestor(head, onto):
        return AlreadyLanded()
    place = workdir / f"rebase-{uuid.uuid4().hex}"
    async with _fresh(mirror, place, keep=False) as (tree, git_dir):
        # Our own workspace, which no agent ever sees, may share the mirror's objects.
        objects = (mirror.path / "objects").absolute()
        await asyncio.to_thread((git_dir / "objects/info/alternates").write_text, f"{objects}\n")
        await git(("update-ref", "--no-deref", "HEAD", head), git_dir=git_dir)
        await git(("reset", "--hard", "--quiet"), git_dir=git_dir, work_tree=tree)
        if not await _rebase(git_dir, tree, onto, identity, date):
            return RebaseConflict(await _unmerged(git_dir, tree))
        sha = (await git(("rev-parse", "--verify", "HEAD^{commit}"), git_dir=git_dir)).text
        if sha == onto:
            changed = await mirror.diff_names(onto, head)
            return AlreadyLanded() if changed else Empty()
        if sha != head:
            await mirror.keep(git_dir, "HEAD", f"{OWN_REFS}candidates/{sha}")
        return Rebased(sha, await mirror.tree(sha))


async def _rebase(git_dir: Path, tree: Path, onto: str, identity: Identity, date: datetime) -> bool:
    env = {
        "GIT_COMMITTER_NAME": identity.name,
        "GIT_COMMITTER_EMAIL": identity.email,
        "GIT_COMMITTER_DATE": f"@{int(date.timestamp())} +0000",
    }
    options = ("--quiet", "--no-fork-point", "--no-keep-empty", "--empty=drop", "--no-verify", "--no-stat")
    args = ("rebase", *options, onto)
    return (await git(args, git_dir=git_dir, work_tree=tree, env=env, ok=(0, 1))).exit_code == 0


async def _unmerged(git_dir: Path, tree: Path) -> tuple[str, ...]:
    args = ("diff", "--name-only", "--diff-filter=U", "-z", "--no-ext-diff")
    paths = tuple(dict.fromkeys((await git(args, git_dir=git_dir, work_tree=tree)).fields()))
    if not paths:
        raise GitError("git rebase: exit 1 without a file in conflict", exit_code=1)
    return paths


@contextlib.asynccontextmanager
async def _fresh(mirror: Mirror, dest: Path, *, keep: bool = True) -> AsyncIterator[tuple[Path, Path]]:
    """A new empty repository that takes the place of `dest` only when it is complete."""
    building = dest.with_name(f".{dest.name}.new-{uuid.uuid4().hex}")
    try:
        await asyncio.to_thread(_prepare, dest, building)
        git_dir = building / ".git"
        await git(("init", "--quiet", "--template="), git_dir=git_dir, work_tree=building)
        # git init writes the work tree's place into the configuration, and the directory is renamed below.
        await git(("config", "--unset-all", "core.worktree"), git_dir=git_dir, ok=(0, 5))
        await asyncio.to_thread((git_dir / "objects/info").mkdir, exist_ok=True)
        yield building, git_dir
        if keep:
            await asyncio.to_thread(_put, building, dest)
    except GitError as error:
        await mirror.discard_if_corrupt(error)
        raise
    finally:
        await asyncio.to_thread(shutil.rmtree, building, ignore_errors=True)


def _prepare(dest: Path, building: Path) -> None:
    if os.path.lexists(dest) and (not dest.is_dir() or any(dest.iterdir())):
        raise GitError(f"{dest.name} is there already", kind="exists")
    building.mkdir(parents=True)


def _put(building: Path, dest: Path) -> None:
    try:
        building.rename(dest)
    except OSError as error:
        raise GitError(f"{dest.name} cannot be put in place: {error.strerror}", kind="exists") from None


async def _take(mirror: Mirror, git_dir: Path, *refspecs: str) -> None:
    args = (
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--end-of-options",
        str(mirror.path.absolute()),
    )
    await git((*args, *refspecs), git_dir=git_dir, transport="file")
