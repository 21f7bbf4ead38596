"""Where the verifier reads: a fresh clone, and JSON over HTTP. Standard library and git only."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT = 20
_TAIL = 400


class UnreadableError(Exception):
    """A fact could not be read, which never counts as true; says what and where."""


@dataclass(frozen=True)
class Rest:
    """A JSON API."""

    root: str
    headers: dict[str, str]

    def read_object(self, path: str) -> dict[str, Any]:
        """An object.

        Raises:
            UnreadableError: there is none.
        """
        value = self._get(path)
        if not isinstance(value, dict):
            raise UnreadableError(f"{self.root}{path} answers something else than an object")
        return value

    def read_list(self, path: str) -> list[dict[str, Any]]:
        """A list of objects.

        Raises:
            UnreadableError: there is none.
        """
        value = self._get(path)
        if not isinstance(value, list):
            raise UnreadableError(f"{self.root}{path} answers something else than a list")
        return value

    def _get(self, path: str) -> object:
        url = self.root.rstrip("/") + path
        # The servers are on this machine: a proxy of the user's could not reach them.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            request = urllib.request.Request(url, headers=self.headers)  # noqa: S310 - an address we were given
            with opener.open(request, timeout=_TIMEOUT) as answer:
                value: object = json.load(answer)
        except urllib.error.HTTPError as error:
            raise UnreadableError(f"{url} answers {error.code}") from error
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{url} cannot be read: {error}") from error
        return value


class Clone:
    """A clone made for looking, and the tests run in it."""

    def __init__(self, folder: Path, base: str, env: dict[str, str]) -> None:
        self._folder = folder
        self._base = base
        self._env = env

    @classmethod
    def make(cls, url: str, base: str, token: str, folder: Path) -> "Clone":
        """Clone over HTTP.

        Raises:
            UnreadableError: the repository or its branch cannot be cloned.
        """
        secret = base64.b64encode(f"verify:{token}".encode()).decode()
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            # In the environment, not in the arguments: those can be read by everyone on the machine.
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {secret}",
            "GIT_CONFIG_KEY_1": "core.hooksPath",
            "GIT_CONFIG_VALUE_1": os.devnull,
        }
        clone = cls(folder / "clone", base, env)
        argv = ["clone", "--quiet", "--no-checkout", "--branch", base, "--", url, str(clone._folder)]
        try:
            clone._git(argv, folder)
        except UnreadableError as error:
            raise UnreadableError(f"{url} cannot be cloned: {error}") from error
        return clone

    def tip(self) -> str:
        """Where the branch is now."""
        return self._out("rev-parse", f"refs/remotes/origin/{self._base}")

    def first_commit(self) -> str:
        """Where the branch began."""
        return self._out("rev-list", "--first-parent", self.tip()).splitlines()[-1]

    def first_parents(self, after: str, upto: str) -> list[str]:
        """The commits the branch went through, oldest first."""
        return self._out("rev-list", "--first-parent", "--reverse", f"{after}..{upto}").splitlines()

    def contains(self, tip: str, sha: str) -> bool:
        """Whether a commit is part of another's history; one that is not in the clone is not."""
        argv = ["git", "merge-base", "--is-ancestor", sha, tip]
        return subprocess.run(argv, cwd=self._folder, env=self._env, check=False, capture_output=True).returncode == 0

    def log(self, count: int) -> list[str]:
        """The newest commits, one line each."""
        return self._out("log", "--oneline", f"-{count}", self.tip()).splitlines()

    def test(self, sha: str, command: str, timeout: float) -> str:
        """Run the tests in a clean checkout; why they fail, or nothing."""
        checkout = self._folder.with_name(f"at-{sha[:12]}")
        self._git(["worktree", "add", "--quiet", "--detach", str(checkout), sha], self._folder)
        code, tail = run_tests(command, checkout, self._folder.with_name("home"), timeout)
        return "" if code == 0 else f"exit code {code}: {tail}" if tail else f"exit code {code}"

    def _out(self, *arguments: str) -> str:
        return self._git(list(arguments), self._folder).strip()

    def _git(self, arguments: list[str], cwd: Path) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=cwd, env=self._env, check=False, capture_output=True, timeout=_TIMEOUT * 3
            )
        except subprocess.TimeoutExpired as error:
            raise UnreadableError(f"git {arguments[0]} takes longer than {_TIMEOUT * 3} s") from error
        if done.returncode:
            raise UnreadableError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace")


def test_environment(home: Path) -> dict[str, str]:
    """What a test command gets: made from nothing, with our own interpreter first, as in the sandbox's CI."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "CI": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_tests(command: str, checkout: Path, home: Path, timeout: float) -> tuple[int, str]:
    """Run a test command and end whatever it leaves running.

    Returns:
        The exit code (-1: took too long) and the end of the output on one line.
    """
    home.mkdir(exist_ok=True)
    log = home / "tests.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=checkout,
            env=test_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            # The whole group: a server that a test left running must not outlive the look at it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, " ".join(log.read_bytes()[-_TAIL:].decode(errors="replace").split())
