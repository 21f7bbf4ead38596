"""Reading a bare repository that only we write to."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import Output, git
from activities.adapters.git.names import check_branch, check_path, check_ref, check_sha, is_sha

_DIFF = ("--no-color", "--no-ext-diff", "--no-textconv", "--end-of-options")
_REGULAR = ("100644", "100755")
_COMMIT_FIELDS = ("%H", "%P", "%an", "%ae", "%ct", "%s")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; `subject` is the first line of its message. Author and subject are anybody's text."""

    sha: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    committed_at: datetime
    subject: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """A changed file: `status` is A, M, D, T, R or C; `old_path` is where a renamed or copied file was."""

    status: str
    path: str
    old_path: str | None = None


@dataclass(frozen=True, slots=True)
class DiffStat:
    """How large a change is, in files and lines; binary files count no lines."""

    files: int
    insertions: int
    deletions: int


class History:
    """Questions to a bare repository. Every method raises GitError; `corrupt` means it should be thrown away.

    Comparisons of `base` with `head` look at what `head` did since they parted, as a pull request shows it.
    """

    def __init__(self, path: Path, *, timeout: float = 600.0) -> None:
        self.path = path
        self._timeout = timeout

    async def resolve(self, ref: str) -> str | None:
        """The commit that a branch name, a full ref or a full commit id stands for, or None."""
        branch_or_ref = ref if is_sha(ref) or ref.startswith("refs/") else f"refs/heads/{check_branch(ref)}"
        name = branch_or_ref if is_sha(branch_or_ref) else check_ref(branch_or_ref)
        found = await self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", ok=(0, 1, 128))
        if found.exit_code == 0:
            return found.text
        # An id that is not here is 128 without a word under --quiet; anything said is a real failure.
        if found.stderr and "Needed a single revision" not in found.stderr:
            raise GitError(f"git rev-parse: {found.stderr.strip()[:300]}", kind="corrupt")
        return None

    async def read_file(self, sha: str, path: str, max_bytes: int) -> bytes | None:
        """A regular file's bytes at a commit; None if it is missing, a link, a directory or a submodule.

        Raises:
            GitError: `too_large`.
        """
        check_path(path)
        entries = (await self._git("ls-tree", "-z", "--long", check_sha(sha), "--", path)).fields()
        for entry in entries:
            facts, name = entry.split("\t", 1)
            mode, _, blob, size = facts.split()
            if name != path or mode not in _REGULAR:
                continue
            # The size of a damaged blob is "BAD"; reading it below then says so in git's own words.
            if size.isdigit() and int(size) > max_bytes:
                raise GitError(f"{path} is {size} bytes, more than {max_bytes}", kind="too_large")
            return (await self._git("cat-file", "blob", blob)).stdout
        return None

    async def list_files(self, sha: str, prefix: str = "") -> tuple[str, ...]:
        """Every path at a commit, of one directory (or file) if `prefix` is given."""
        where = ("--", check_path(prefix.rstrip("/"))) if prefix else ()
        return tuple((await self._git("ls-tree", "-r", "-z", "--name-only", check_sha(sha), *where)).fields())

    async def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether `descendant` contains `ancestor`; a commit contains itself."""
        args = ("merge-base", "--is-ancestor", check_sha(ancestor), check_sha(descendant))
        return (await self._git(*args, ok=(0, 1))).exit_code == 0

    async def merge_base(self, one: str, other: str) -> str | None:
        """Where two commits parted, or None if their histories are unrelated."""
        return (await self._git("merge-base", check_sha(one), check_sha(other), ok=(0, 1))).text or None

    async def tree(self, sha: str) -> str:
        """The tree of a commit: equal trees are equal files."""
        return (await self._git("rev-parse", "--verify", f"{check_sha(sha)}^{{tree}}")).text

    async def log(self, base: str, head: str, *, limit: int = 500) -> tuple[Commit, ...]:
        """Commits of `head` that `base` does not have, newest first."""
        wanted = "%x00".join(_COMMIT_FIELDS)
        revisions = f"{check_sha(base)}..{check_sha(head)}"
        args = (
            "log",
            "-z",
            f"--max-count={limit}",
            f"--format={wanted}",
            "--no-show-signature",
            revisions,
            "--",
        )
        # -z separates commits, so the last field has no NUL of its own.
        parts = (await self._git(*args)).stdout.decode("utf-8", "replace").split("\0")
        size = len(_COMMIT_FIELDS)
        rows = [parts[at : at + size] for at in range(0, len(parts) - size + 1, size)]
        return tuple(
            Commit(sha, tuple(parents.split()), name, email, datetime.fromtimestamp(int(when), UTC), subject)
            for sha, parents, name, email, when, subject in rows
        )

    async def diff_names(self, base: str, head: str) -> tuple[FileChange, ...]:
        """The files that `head` changed, with renames recognised."""
        fields = iter((await self._diff(base, head, "--name-status", "-z", "--find-renames")).fields())
        changes = []
        for status in fields:
            old = next(fields) if status[0] in "RC" else None
            changes.append(FileChange(status[0], next(fields), old))
        return tuple(changes)

    async def diff_stat(self, base: str, head: str) -> DiffStat:
        """How much `head` changed."""
        lines = (await self._diff(base, head, "--numstat", "-z", "--no-renames")).fields()
        counts = [line.split("\t")[:2] for line in lines]
        added, removed = (sum(int(pair[column]) for pair in counts if pair[column].isdigit()) for column in (0, 1))
        return DiffStat(len(lines), added, removed)

    async def patch_id(self, base: str, head: str) -> str:
        """A digest of what `head` changed, equal after a clean rebase and after nothing else.

        Unlike `git patch-id` it keeps white space, which is meaning in Python, and the contents of binary
        files; like it, it leaves out where in a file a hunk stands.
        """
        digest = hashlib.sha256()
        lines = _Lines(lambda line: digest.update(_stable(line) + b"\n"))
        args = ("--binary", "--full-index", "--no-renames", "--unified=3")
        await self._diff(base, head, *args, on_output=lines.feed)
        lines.end()
        return digest.hexdigest()

    async def merge_conflicts(self, base: str, head: str) -> tuple[str, ...]:
        """The paths that would conflict if `head` were merged into `base`; empty if none would."""
        merged = await self.merge_tree(base, head)
        return () if isinstance(merged, str) else merged

    async def merge_tree(self, base: str, head: str) -> str | tuple[str, ...]:
        """The tree of `head` merged into `base`, or the paths in conflict; no work tree is needed.

        Judged by the unmerged files git names, not by its exit code alone: a killed git is no conflict.
        """
        args = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages")
        result = await self._git(*args, check_sha(base), check_sha(head), ok=(0, 1))
        if result.exit_code == 0:
            return check_sha(result.text.rstrip("\0"))
        paths = result.fields()[1:]
        if not any(paths):
            raise GitError("git merge-tree: exit 1 without an unmerged file", exit_code=1)
        return tuple(dict.fromkeys(path for path in paths if path))

    async def has_merges(self, base: str, head: str) -> bool:
        """Whether a merge is among what `head` has and `base` has not."""
        args = ("rev-list", "--merges", "--max-count=1", f"{check_sha(base)}..{check_sha(head)}", "--")
        return bool((await self._git(*args)).text)

    async def has_upstream(self, base: str, head: str) -> bool:
        """Whether a patch of `head` is in `base` already, as another commit."""
        said = await self._git("cherry", check_sha(base), check_sha(head))
        return any(line.startswith("- ") for line in said.text.splitlines())

    async def _diff(
        self, base: str, head: str, *options: str, on_output: Callable[[bytes], None] | None = None
    ) -> Output:
        revisions = f"{check_sha(base)}...{check_sha(head)}"
        return await self._git("diff", *options, *_DIFF, revisions, "--", on_output=on_output)

    async def _git(
        self, *args: str, ok: tuple[int, ...] = (0,), on_output: Callable[[bytes], None] | None = None
    ) -> Output:
        return await git(args, git_dir=self.path, ok=ok, on_output=on_output, timeout=self._timeout)


class _Lines:
    """Cuts a stream into whole lines of any length, because a digest may drop nothing."""

    def __init__(self, each: Callable[[bytes], None]) -> None:
        self._each = each
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            self._each(b"".join((*self._parts, line)))
            self._parts.clear()
        if rest:
            self._parts.append(rest)

    def end(self) -> None:
        if self._parts:
            self.feed(b"\n")


def _stable(line: bytes) -> bytes:
    # Only headers can begin like this: a line of content begins with a space, +, - or a backslash.
    if line.startswith(b"@@ "):
        return b"@@"
    return b"" if line.startswith(b"index ") else line
