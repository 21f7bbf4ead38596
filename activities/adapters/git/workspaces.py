"""Working copies: a clone for an agent, a clean checkout for a test run."""

import asyncio
import contextlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import Identity, git
from activities.adapters.git.mirror import OWN_REFS, Mirror
from activities.adapters.git.names import check_branch, check_sha


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


@contextlib.asynccontextmanager
async def _fresh(mirror: Mirror, dest: Path) -> AsyncIterator[tuple[Path, Path]]:
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
