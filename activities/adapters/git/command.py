"""One git command: complete environment, configuration that no repository can override, typed failures."""

import base64
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from activities.adapters.errors import (
    AdapterError,
    GitError,
    GitErrorKind,
    NotFound,
    Unauthorized,
    Unavailable,
)
from activities.adapters.locks import WorkspaceLock
from activities.adapters.process import run

MAX_OUTPUT = 64 * 1024 * 1024
_SCHEMES = frozenset({"https", "http", "file"})

# Given through the environment (GIT_CONFIG_COUNT), which wins over every configuration file.
HARDENED: tuple[tuple[str, str], ...] = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.sshCommand", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.commitGraph", "false"),
    ("core.multiPackIndex", "false"),
    ("core.pager", "cat"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("push.default", "nothing"),
    ("push.recurseSubmodules", "no"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("filter.lfs.smudge", ""),
    ("filter.lfs.process", ""),
    ("filter.lfs.required", "false"),
    ("commit.gpgSign", "false"),
    ("rerere.enabled", "false"),
    ("rebase.autoStash", "false"),
    ("rebase.autoSquash", "false"),
    ("rebase.updateRefs", "false"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("init.defaultBranch", "main"),
    ("user.useConfigOnly", "true"),
)

_FAILURES: tuple[tuple[re.Pattern[str], GitErrorKind], ...] = (
    (re.compile(r"No space left on device|Disk quota exceeded"), "disk"),
    (re.compile(r"\.lock': File exists|[Uu]nable to create '.*\.lock'|cannot lock ref"), "locked"),
    (
        re.compile(
            r"is corrupt|bad object refs/|[Nn]ot a git repository|unable to read (tree|sha1 file)"
            r"|missing (blob|tree|commit)|packfile .* (cannot|does not|is far)"
            r"|index file .* (is too small|corrupt)|inflate|garbage at end|object file .* is empty"
            r"|did not send all necessary objects|bad signature|unknown index entry"
        ),
        "corrupt",
    ),
)
_UNAUTHORIZED = re.compile(r"Authentication failed|could not read Username|returned error: (401|403)")
_NOT_FOUND = re.compile(r"[Rr]epository .*not found|returned error: 404|does not appear to be a git repository")
_UNREACHABLE = re.compile(
    r"Could not resolve|Failed to connect|Connection (refused|reset|timed out)|timed out|RPC failed|early EOF"
    r"|unable to access|remote end hung up|returned error: 5\d\d|Empty reply|too slow"
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")


@dataclass(frozen=True, slots=True)
class GitAuth:
    """A token for one server: sent to `base_url` only, as a header, and never part of a URL or an argv."""

    base_url: str
    token: str = field(repr=False)
    username: str = "orch"

    def config(self) -> tuple[tuple[str, str], ...]:
        """The configuration that sends the token."""
        secret = base64.b64encode(f"{self.username}:{self.token}".encode()).decode()
        return ((f"http.{self.base_url.rstrip('/')}/.extraHeader", f"Authorization: Basic {secret}"),)


@dataclass(frozen=True, slots=True)
class Identity:
    """The author or committer of commits."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Output:
    """What a git command that was allowed to end this way has said."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output without the last line end."""
        return self.stdout.decode("utf-8", "replace").rstrip("\n")

    def fields(self) -> list[str]:
        """Standard output of a `-z` command, cut at the NULs."""
        return self.stdout.decode("utf-8", "replace").split("\0")[:-1]


def transport_of(url: str) -> str:
    """The transport of a configured remote URL: https, http or file (a local path).

    Raises:
        GitError: `unsafe`: another transport, or credentials in the URL.
    """
    if url.startswith("/"):
        return "file"
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or "@" in parts.netloc:
        raise GitError("a remote URL must be https, http or file, without a user name in it", kind="unsafe")
    return parts.scheme


async def git(
    args: Sequence[str],
    *,
    git_dir: Path,
    work_tree: Path | None = None,
    ok: Sequence[int] = (0,),
    transport: str = "",
    auth: GitAuth | None = None,
    env: Mapping[str, str] | None = None,
    config: Sequence[tuple[str, str]] = (),
    stdin: bytes | None = None,
    on_output: Callable[[bytes], None] | None = None,
    lock: WorkspaceLock | None = None,
    timeout: float = 600.0,  # noqa: ASYNC109 - given to the process, whose end it is
    max_output: int = MAX_OUTPUT,
) -> Output:
    """Run one git command on exactly this repository. `transport` is the only protocol it may speak, if any.

    Raises:
        GitError: it ended with a code not in `ok`, ran out of time, or said more than `max_output` bytes.
    """
    place = {"GIT_DIR": str(git_dir)} | ({"GIT_WORK_TREE": str(work_tree)} if work_tree else {})
    result = await run(
        ["git", *args],
        cwd=work_tree or Path("/"),
        env=environment(transport, auth, config) | place | dict(env or {}),
        timeout=timeout,
        stdin=stdin,
        on_output=on_output,
        max_output_bytes=max_output if on_output is None else 4096,
        merge_stderr=False,
        lock=lock,
        sweep=False,
    )
    said = _USERINFO.sub("***@", result.stderr.decode("utf-8", "replace"))
    if result.timed_out:
        raise GitError(f"git {args[0]}: not finished after {timeout:.0f} s", kind="timeout")
    if result.exit_code not in ok:
        raise failure(args[0], result.exit_code, said)
    if on_output is None and result.truncated:
        raise GitError(f"git {args[0]}: more than {max_output} bytes of output", kind="too_large")
    return Output(result.exit_code, result.stdout, said)


def environment(transport: str, auth: GitAuth | None = None, extra: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """The whole environment of a git command: nothing inherited, no user configuration, no prompts."""
    secret = auth.config() if auth is not None and transport != "file" else ()
    config = (*HARDENED, *extra, *secret)
    pairs = {
        f"GIT_CONFIG_{part}_{number}": text
        for number, pair in enumerate(config)
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    program = shutil.which("git") or "/usr/bin/git"
    return pairs | {
        "PATH": f"{Path(program).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": transport or "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_EDITOR": "true",
        "GIT_SEQUENCE_EDITOR": "true",
    }


def failure(command: str, exit_code: int, said: str) -> GitError:
    """What a failed local command means."""
    kind: GitErrorKind = next((kind for pattern, kind in _FAILURES if pattern.search(said)), "failed")
    return GitError(f"git {command}: exit {exit_code}: {_short(said)}", kind=kind, exit_code=exit_code)


def remote_failure(error: GitError, *, ambiguous: bool = False) -> AdapterError:
    """What a failed command that talked to a server means; `ambiguous` where it wrote there."""
    text = str(error)
    if _UNAUTHORIZED.search(text):
        return Unauthorized(text)
    if _NOT_FOUND.search(text):
        return NotFound(text)
    if error.kind == "timeout" or (error.kind == "failed" and _UNREACHABLE.search(text)):
        return Unavailable(text, ambiguous=ambiguous)
    return error


def _short(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("hint:")]
    return " | ".join(lines[-6:])[:600]
