"""A copy of somebody's repository for the demo. Theirs is only read."""

import asyncio
import contextlib
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from deploy.demo import shop
from deploy.demo.evidence import test_environment
from deploy.errors import StackError

_PERSON = ("-c", "user.name=Orch demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false")
_NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.autocrlf=false")
_GIT_SECONDS = 120
_TAIL = 600


@dataclass(frozen=True)
class Copy:
    """The copy, ready to be imported."""

    folder: Path
    name: str
    head: str
    """The commit of theirs that it stands on."""
    uncommitted: bool
    """Whether their working tree has changes, which are not in the copy."""


async def check(repository: Path) -> None:
    """Refuse what cannot be copied, before anything is started.

    Raises:
        StackError: says what is wrong with it.
    """
    if not repository.is_dir():  # noqa: ASYNC240 - nothing else runs yet
        raise StackError(f"{repository} is not a folder; --repo wants a git repository")
    try:
        await _git("rev-parse", "--git-dir", cwd=repository)
    except StackError as error:
        raise StackError(f"{repository} is not a git repository that can be read: {error}") from error
    try:
        await _git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", cwd=repository)
    except StackError as error:
        raise StackError(f"{repository} has no commit yet; commit something and try again") from error
    if await _git("rev-parse", "--is-shallow-repository", cwd=repository) == "true":
        raise StackError(f"{repository} is a shallow clone; `git fetch --unshallow` completes it")


async def prepare(repository: Path, folder: Path, production_url: str, test_command: str) -> Copy:
    """Clone the repository's HEAD and add what Orch needs, on a branch `main`.

    Raises:
        StackError: git does not do it.
    """
    # Without this, `status` would write the index of a repository that is not ours.
    status = "" if await _is_bare(repository) else await _git("status", "--porcelain", cwd=repository)
    head = await _git("rev-parse", "HEAD", cwd=repository)
    await _git(*_NO_HOOKS, "clone", "--quiet", "--no-hardlinks", "--", str(repository), str(folder), cwd=folder.parent)
    await _git(*_NO_HOOKS, "checkout", "--quiet", "--force", "-B", "main", head, cwd=folder)
    (folder / ".orch").mkdir(exist_ok=True)
    (folder / ".orch" / "pipeline.toml").write_text(shop.policy(production_url, test_command), encoding="utf-8")
    (folder / ".orch" / "deploy.py").write_text(shop.DEPLOY_SCRIPT, encoding="utf-8")
    await _git("add", "--force", "--", ".orch/pipeline.toml", ".orch/deploy.py", cwd=folder)
    message = "Let Orch work on this copy"
    await _git(*_PERSON, *_NO_HOOKS, "commit", "--quiet", "--no-verify", "-m", message, cwd=folder)
    return Copy(folder, repository_name(repository), head, bool(status))


def repository_name(repository: Path) -> str:
    """What the forge calls it: the folder's name as far as a forge takes it."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", repository.resolve().name.removesuffix(".git")).strip("-._")
    return name[:60] or "project"


async def failing_tests(folder: Path, command: str, home: Path, timeout: float) -> str:  # noqa: ASYNC109
    """Run the tests on the copy; why they fail, or nothing."""
    home.mkdir(exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        command,
        cwd=folder,
        env=test_environment(home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"they take longer than {timeout:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode == 0:
        return ""
    return f"exit code {process.returncode}: {' '.join(output[-_TAIL:].decode(errors='replace').split())}"


async def clean(folder: Path) -> None:
    """Remove what the tests left in the copy."""
    await _git("clean", "--quiet", "-ffdx", cwd=folder)
    await _git(*_NO_HOOKS, "checkout", "--quiet", "--force", "HEAD", "--", ".", cwd=folder)


async def _is_bare(repository: Path) -> bool:
    return await _git("rev-parse", "--is-bare-repository", cwd=repository) == "true"


async def _git(*arguments: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        cwd=cwd,
        env=env | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_GIT_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        raise StackError(f"git takes longer than {_GIT_SECONDS} s in {cwd}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = [word for word in arguments if not word.startswith("-")]
        raise StackError(err.decode(errors="replace").strip() or f"git {' '.join(words)} failed")
    return out.decode(errors="replace").strip()
