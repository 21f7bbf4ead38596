"""The candidate: a task branch put on top of its base, in a place of ours that no agent ever sees.

The place is kept from landing to landing, because making one costs more than the rebase itself
(research: 1 to 5 s for 5,000 files against 0.2 s). It is cleaned before each use, locked while in use, and made anew
when git says that it is broken.
"""

import asyncio
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import Identity, Output, git
from activities.adapters.git.mirror import OWN_REFS, Mirror
from activities.adapters.git.names import check_sha
from activities.adapters.locks import WorkspaceLock

REBUILDS = 2
"""How often a broken place is made anew before the failure is told."""
_UNFINISHED = (
    "rebase-merge",
    "rebase-apply",
    "CHERRY_PICK_HEAD",
    "REBASE_HEAD",
    "AUTO_MERGE",
    "index.lock",
    "HEAD.lock",
)
_PATCH = ("--unified=0", "--no-renames", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv")
_DROPPED = re.compile(r"dropping ([0-9a-f]{40,64}) ")


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


@dataclass(slots=True)
class _Written:
    """What a range says under one author, time and subject: how many commits, and which lines they add on balance."""

    commits: int = 0
    lines: "Counter[bytes]" = field(default_factory=Counter)


async def rebase_onto(
    mirror: Mirror, place: Path, *, head: str, onto: str, identity: Identity, date: datetime
) -> RebaseOutcome:
    """Put the commits of `head` on top of `onto`, in the workspace kept at `place`.

    Committer name, address and `date` are pinned, so that the same arguments give the same commit on any
    machine. Authors and their dates stay. Commits whose patch the base has already, and commits that change
    nothing, are dropped. A branch with merges in it is not rebased but merged once more: a rebase would throw away
    how its conflicts were resolved.

    Raises:
        GitError: it could not be tried, or a commit was lost, doubled or changed by it.
        LockHeld: the place is in use for very long.
    """
    check_sha(head)
    check_sha(onto)
    if date.tzinfo is None:
        raise ValueError("the date must have a time zone, or it means another moment on another machine")
    if await mirror.is_ancestor(head, onto):
        return AlreadyLanded()
    pinned = {
        "GIT_COMMITTER_NAME": identity.name,
        "GIT_COMMITTER_EMAIL": identity.email,
        "GIT_COMMITTER_DATE": f"@{int(date.timestamp())} +0000",
    }
    if await mirror.is_ancestor(onto, head):
        return Rebased(head, await mirror.tree(head))
    if await mirror.has_merges(onto, head):
        return await _merged(mirror, head, onto, pinned)
    lock = WorkspaceLock(place.with_name(f"{place.name}.lock"))
    await lock.acquire(600)
    try:
        for rebuilt in range(REBUILDS + 1):
            try:
                return await _Place(mirror, place, lock).rebase(head, onto, pinned)
            except GitError as error:
                if error.kind not in ("corrupt", "locked") or rebuilt == REBUILDS:
                    # A place that was made anew and is broken again has it from the mirror's objects.
                    await mirror.discard_if_corrupt(error)
                    raise
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        raise AssertionError("unreachable")
    finally:
        lock.release()


async def _merged(mirror: Mirror, head: str, onto: str, pinned: dict[str, str]) -> RebaseOutcome:
    tree = await mirror.merge_tree(onto, head)
    if not isinstance(tree, str):
        return RebaseConflict(tree)
    if tree == await mirror.tree(onto):
        return AlreadyLanded()
    author = {name.replace("COMMITTER", "AUTHOR"): value for name, value in pinned.items()}
    sha = await mirror.commit_merge(tree, (onto, head), f"Merge {onto[:10]} into the task branch\n", pinned | author)
    return Rebased(sha, tree)


class _Place:
    """One use of the kept workspace."""

    def __init__(self, mirror: Mirror, tree: Path, lock: WorkspaceLock) -> None:
        self._mirror, self._tree, self._lock = mirror, tree, lock
        self._git_dir = tree / ".git"

    async def rebase(self, head: str, onto: str, pinned: dict[str, str]) -> RebaseOutcome:
        await self._clean(head)
        done = await self._rebase(onto, pinned)
        if done.exit_code != 0:
            return RebaseConflict(await self._unmerged())
        sha = (await self._git("rev-parse", "--verify", "HEAD^{commit}")).text
        await self._compare(head, onto, sha, set(_DROPPED.findall(done.stderr)))
        if sha == onto:
            changed = await self._mirror.diff_names(onto, head)
            return AlreadyLanded() if changed else Empty()
        if sha != head:
            await self._mirror.keep(self._git_dir, "HEAD", f"{OWN_REFS}candidates/{sha}")
        return Rebased(sha, await self._mirror.tree(sha))

    async def _clean(self, head: str) -> None:
        """Exactly the files of `head`, whatever the last use left."""
        if not await asyncio.to_thread((self._git_dir / "HEAD").exists):
            await asyncio.to_thread(shutil.rmtree, self._tree, ignore_errors=True)
            await asyncio.to_thread(self._tree.mkdir, parents=True)
            await self._git("init", "--quiet", "--template=")
        await asyncio.to_thread(self._forget_the_last_use)
        try:
            await self._git("update-ref", "--no-deref", "HEAD", head)
            await self._git("reset", "--hard", "--quiet")
            await self._git("clean", "-ffdxq")
        except GitError as error:
            if error.kind == "failed":
                raise GitError(str(error), kind="corrupt", exit_code=error.exit_code) from None
            raise

    def _forget_the_last_use(self) -> None:
        for name in _UNFINISHED:
            left = self._git_dir / name
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        info = self._git_dir / "objects/info"
        info.mkdir(parents=True, exist_ok=True)
        # Our own workspace may share the mirror's objects.
        (info / "alternates").write_text(f"{(self._mirror.path / 'objects').absolute()}\n", encoding="utf-8")

    async def _rebase(self, onto: str, pinned: dict[str, str]) -> Output:
        options = ("--quiet", "--no-fork-point", "--no-keep-empty", "--empty=drop", "--no-verify", "--no-stat")
        return await self._git("rebase", *options, onto, ok=(0, 1), env=pinned)

    async def _unmerged(self) -> tuple[str, ...]:
        """The files in conflict. Exit 1 alone says nothing: a full disk or a missing object end so too."""
        said = await self._git("diff", "--name-only", "--diff-filter=U", "-z", "--no-ext-diff")
        paths = tuple(dict.fromkeys(said.fields()))
        if not paths:
            raise GitError("git rebase: exit 1 without a file in conflict", exit_code=1)
        return paths

    async def _compare(self, head: str, onto: str, sha: str, dropped: set[str]) -> None:
        """Refuse a rebase that lost, doubled or changed a commit; what the base has already may be missing."""
        cherry = await self._git("cherry", onto, head)
        upstream = {line[2:] for line in cherry.text.splitlines() if line.startswith("- ")}
        before, after = await self._written(onto, head, dropped | upstream), await self._written(onto, sha, set())
        counts = {words: one.commits for words, one in before.items()}
        if counts != {words: one.commits for words, one in after.items()}:
            raise _untrue(head, onto, "a commit was lost or doubled")
        changed = {words: _balance(one.lines, after[words].lines) for words, one in before.items()}
        if not any(changed.values()):
            return
        base = await self._mirror.merge_base(head, onto)
        theirs = await self._balance_of(base, onto) if base else Counter[bytes]()
        for missing in changed.values():
            # A line may be missing only if the base has gained (or lost) it by itself.
            if any(count * theirs[line] <= 0 or abs(count) > abs(theirs[line]) for line, count in missing.items()):
                raise _untrue(head, onto, "a commit came out with other lines")

    async def _written(self, base: str, head: str, left_out: set[str]) -> dict[bytes, _Written]:
        found: dict[bytes, _Written] = {}
        # Nothing in a patch begins with `>`: a line of content begins with +, - or a backslash.
        said = await self._git(
            "log", "--format=>%H %at %ae %an%x09%s", "--no-merges", "-p", *_PATCH, f"{base}..{head}", "--"
        )
        for part in f"\n{said.stdout.decode('utf-8', 'surrogateescape')}".split("\n>")[1:]:
            title, _, patch = part.partition("\n")
            sha, _, words = title.partition(" ")
            lines = _lines(patch.encode("utf-8", "surrogateescape"))
            if sha in left_out or not lines:
                continue
            written = found.setdefault(words.encode("utf-8", "surrogateescape"), _Written())
            written.commits += 1
            _add(written.lines, lines)
        return found

    async def _balance_of(self, base: str, head: str) -> "Counter[bytes]":
        said = await self._git("diff", *_PATCH, base, head, "--")
        total: Counter[bytes] = Counter()
        _add(total, _lines(said.stdout))
        return total

    async def _git(self, *args: str, ok: tuple[int, ...] = (0,), env: dict[str, str] | None = None) -> Output:
        return await git(args, git_dir=self._git_dir, work_tree=self._tree, ok=ok, env=env, lock=self._lock)


def _untrue(head: str, onto: str, what: str) -> GitError:
    return GitError(
        f"git rebase of {head[:10]} onto {onto[:10]}: {what}; nothing was pushed; rebase the branch by hand and push it"
    )


def _lines(patch: bytes) -> list[tuple[bytes, int]]:
    """What a patch adds (1) and takes away (-1), in no order: a rebase moves it, in a file and with its file."""
    found: list[tuple[bytes, int]] = []
    header, index = True, b""
    for line in patch.split(b"\n"):
        if line.startswith(b"diff --git "):
            header = True
        elif line.startswith(b"@@ "):
            header = False
        elif header and line.startswith(b"index "):
            index = line
        elif header and line.startswith(b"Binary files"):
            found.append((index, 1))
        elif header and line.startswith((b"new file", b"deleted file", b"old mode", b"new mode")):
            found.append((line, 1))
        elif not header and line.startswith((b"+", b"-")):
            found.append((b" " + line[1:], 1 if line.startswith(b"+") else -1))
    return found


def _add(total: "Counter[bytes]", lines: list[tuple[bytes, int]]) -> None:
    for line, count in lines:
        total[line] += count


def _balance(one: "Counter[bytes]", other: "Counter[bytes]") -> dict[bytes, int]:
    """By how much they differ, line by line."""
    return {line: one[line] - other[line] for line in one.keys() | other.keys() if one[line] != other[line]}
