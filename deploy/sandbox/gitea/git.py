"""Real git on a bare repository, without a working tree. `merge-tree --write-tree` needs git 2.38."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

ZERO = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_FORMAT = "%x1e%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00"
_SAFE = ("PATH", "LANG", "TMPDIR", "SYSTEMROOT")


class GitError(RuntimeError):
    """git refused; the message is what it said."""


def environment() -> dict[str, str]:
    """What git may know of this machine: no configuration, no credentials, no prompts."""
    kept = {name: os.environ[name] for name in _SAFE if name in os.environ}
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    return {**kept, **quiet, "HOME": os.devnull, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    code: int
    out: bytes
    err: bytes


async def execute(args: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes = b"") -> Finished:
    """Run git to its end; if nobody waits any more it is killed."""
    process = await asyncio.create_subprocess_exec(
        "git", *args, cwd=cwd, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate(stdin)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    assert process.returncode is not None, "communicate() waits for the end"
    return Finished(process.returncode, out, err)


async def git(*args: str, cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """Run git and return its output; raise GitError if it fails."""
    done = await execute(args, cwd=cwd, env={**environment(), **(env or {})}, stdin=stdin)
    if done.code:
        raise GitError((done.err or done.out).decode(errors="replace").strip())
    return done.out


async def export(bare: Path, sha: str, folder: Path) -> None:
    """Write the files of a commit into a new folder.

    Not `git archive`: a branch could leave files out of it by `export-ignore`, and be tested without them.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    with tempfile.TemporaryDirectory() as place:
        env = {"GIT_INDEX_FILE": str(Path(place, "index"))}
        await git("read-tree", sha, cwd=bare, env=env)
        await git(f"--work-tree={folder}", "checkout-index", "--all", cwd=bare, env=env)


@dataclass(frozen=True)
class Person:
    """An author or committer."""

    name: str
    email: str
    at: datetime

    def environment(self, role: str) -> dict[str, str]:
        """The variables by which git takes this person over."""
        return {
            f"GIT_{role}_NAME": self.name,
            f"GIT_{role}_EMAIL": self.email,
            f"GIT_{role}_DATE": self.at.isoformat(timespec="seconds"),
        }


@dataclass
class Commit:
    """A commit, with the files it changed."""

    sha: str
    tree: str
    parents: list[str]
    author: Person
    committer: Person
    message: str
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)


class GitRepository:
    """One bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def run(self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Run git here; its output without the last line end."""
        return (await git(*args, cwd=self.path, stdin=stdin, env=env)).decode(errors="replace").rstrip("\n")

    async def create(self, default_branch: str) -> None:
        """Make the repository, with the push rules of a server."""
        self.path.mkdir(parents=True)
        await self.run("init", "--quiet", "--bare", f"--initial-branch={default_branch}", ".")
        await self.run("config", "http.receivepack", "true")
        await self.run("config", "uploadpack.allowAnySHA1InWant", "true")
        await self.run("config", "gc.auto", "0")

    async def refs(self) -> dict[str, str]:
        """Every branch and tag with its object."""
        text = await self.run("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
        return dict(line.split(" ") for line in text.splitlines())

    async def branches(self) -> dict[str, str]:
        """Every branch by its short name."""
        prefix = "refs/heads/"
        return {ref.removeprefix(prefix): sha for ref, sha in (await self.refs()).items() if ref.startswith(prefix)}

    async def resolve(self, name: str) -> str | None:
        """The commit behind a branch, tag, or sha; a branch wins over a tag."""
        for candidate in (f"refs/heads/{name}", f"refs/tags/{name}", name):
            try:
                options = ("--verify", "--quiet", "--end-of-options")
                return await self.run("rev-parse", *options, f"{candidate}^{{commit}}")
            except GitError:
                continue
        return None

    async def log(self, *revisions: str, limit: int | None = None) -> list[Commit]:
        """Commits newest first, with their changed files (a merge against its first parent)."""
        count = [f"--max-count={limit}"] if limit is not None else []
        text = await self.run(
            "log", *count, f"--format={_FORMAT}", "--name-status", "--no-renames",
            "--diff-merges=first-parent", "-z",
            *revisions, "--",
        )  # fmt: skip
        return [_parse(chunk) for chunk in text.split("\x1e")[1:]]

    async def commit(self, sha: str) -> Commit:
        """One commit."""
        return (await self.log(sha, limit=1))[0]

    async def last_change(self, revision: str, path: str) -> Commit:
        """The newest commit that touched a path."""
        return await self.commit(await self.run("rev-list", "--max-count=1", revision, "--", path))

    async def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `old` is contained in `new`."""
        try:
            await self.run("merge-base", "--is-ancestor", old, new)
        except GitError:
            return False
        return True

    async def merge_base(self, one: str, other: str) -> str | None:
        """The common ancestor, if there is one."""
        try:
            return await self.run("merge-base", one, other)
        except GitError:
            return None

    async def merge_tree(self, base: str, head: str) -> tuple[str | None, str]:
        """The tree of a clean merge and git's words; None is a conflict."""
        args = ("merge-tree", "--write-tree", "--messages", base, head)
        done = await execute(args, cwd=self.path, env=environment())
        words = (done.out or done.err).decode(errors="replace")
        return (words.split("\n", 1)[0] if done.code == 0 else None), words

    async def commit_tree(self, tree: str, parents: list[str], message: str, author: Person, committer: Person) -> str:
        """Write a commit object; no ref moves."""
        args = [part for parent in parents for part in ("-p", parent)]
        people = {**author.environment("AUTHOR"), **committer.environment("COMMITTER")}
        return await self.run("commit-tree", tree, *args, stdin=message.encode(), env=people)

    async def update_ref(self, ref: str, new: str, old: str | None = None) -> None:
        """Move or create a ref; `old` is what it must be now (ZERO: must not exist)."""
        await self.run("update-ref", ref, new, *([old] if old is not None else []))

    async def delete_ref(self, ref: str) -> None:
        """Delete a ref."""
        await self.run("update-ref", "-d", ref)

    async def read(self, ref: str, path: str) -> bytes | None:
        """A file's content, or None."""
        try:
            return await git("cat-file", "blob", f"{ref}:{path}", cwd=self.path)
        except GitError:
            return None

    async def write_tree(self, base: str | None, files: Mapping[str, bytes | None]) -> str:
        """The tree of `base` with these files written, or removed where None."""
        lines = []
        for path, content in files.items():
            if content is None:
                lines.append(f"0 {ZERO}\t{path}")
                continue
            blob = await self.run("hash-object", "-w", "--stdin", stdin=content)
            lines.append(f"{'100755' if content.startswith(b'#!') else '100644'} {blob}\t{path}")
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            await self.run("read-tree", base or "--empty", env=env)
            await self.run(
                "update-index",
                "-z",
                "--index-info",
                stdin="".join(f"{line}\0" for line in lines).encode(),
                env=env,
            )
            return await self.run("write-tree", env=env)


def _parse(chunk: str) -> Commit:
    sha, tree, parents, an, ae, at, cn, ce, ct, message, *names = chunk.split("\x00")
    commit = Commit(
        sha, tree, parents.split(), Person(an, ae, datetime.fromisoformat(at)),
        Person(cn, ce, datetime.fromisoformat(ct)), message,
    )  # fmt: skip
    words = [name.lstrip("\n") for name in names if name.strip("\n")]
    for change, path in zip(words[::2], words[1::2], strict=True):
        {"A": commit.added, "D": commit.removed}.get(change[0], commit.modified).append(path)
    return commit
