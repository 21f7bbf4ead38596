"""`orch demo` as a person runs it, and the verifier that is hard to please."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
TITLE = 'Поздороваться «по-русски» 👋 it\'s "so" {title}'
TEST_COMMAND = 'python3 -m unittest -q && test -n "$PATH"'
LAST = re.compile(r"demo: (DEMO-\d+) done in \d+ s; main green; landed ([0-9a-f]{40})")


def environment() -> dict[str, str]:
    """Ours, without a stack."""
    ours = ("ORCH_", "TEMPORAL_", "KEEP", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def demo(*arguments: str) -> subprocess.Popen[str]:
    """Start the demo as its own session, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", "demo", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def home_in(output: str) -> Path:
    """The home that the demo has named."""
    found = re.search(r"Everything is in (\S+)\.\n", output)
    assert found, output
    return Path(found[1])


def processes_of(home: Path) -> list[str]:
    """Every process that has this home in its command line or in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(home) in word for word in words) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(f"{process.pid} {process.cmdline()}")
    return found


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody."""
    person = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, git's own ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def small_repository(folder: Path) -> Path:
    """A repository with a passing test and a change that is not committed."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    (folder / "test_it.py").write_text(
        "import unittest\nclass It(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(1, 1)\n"
    )
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "Begin")
    (folder / "unfinished.txt").write_text("not for anybody yet\n")
    return folder


def test_the_demo_gets_to_its_last_line_and_leaves_nothing() -> None:
    """One command takes an item to production, says so last, and leaves no process and no folder behind."""
    process = demo()
    output, _ = process.communicate()
    home = home_in(output)
    assert process.returncode == 0, output
    assert LAST.fullmatch(output.rstrip("\n").rpartition("\n")[2]), output
    for expected in ("olga:", "Awaiting approval", "to Approved", "landed on main", "Telegram recorded 4 messages"):
        assert expected in output
    assert "\x1b" not in output
    assert processes_of(home) == []
    assert not home.exists()


def test_an_interrupted_demo_cleans_up() -> None:
    """Ctrl-C in the middle ends with 130 and leaves no process and no folder behind."""
    process = demo()
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if "starting sandbox" in line:
            os.killpg(process.pid, signal.SIGINT)
    home = home_in(output)
    assert process.wait() == 130, output
    assert processes_of(home) == []
    assert not home.exists()


@dataclass
class Kept:
    """A demo on somebody's repository whose stack was left up."""

    output: str
    exit_code: int
    home: Path
    repository: Path
    before: dict[str, str]

    @property
    def values(self) -> dict[str, str]:
        """How to reach the stack."""
        lines = (self.home / "orch.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    @property
    def landed(self) -> str:
        """What the demo says has landed."""
        found = LAST.search(self.output)
        assert found, self.output
        return found[2]

    @property
    def production(self) -> str:
        """Production's address."""
        return f"http://127.0.0.1:{json.loads((self.home / 'stack.json').read_text())['ports']['production']}"

    def verify(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the verifier by itself."""
        values = self.values
        arguments = {
            "gitea": values["ORCH_GITEA_URL"], "repository": "acme/small", "pull": "1", "test-command": TEST_COMMAND,
            "plane": values["ORCH_PLANE_URL"], "workspace": "acme", "item": "DEMO-1", "production": self.production,
            "seed": git(self.home / "import", "rev-parse", "HEAD"), **changes,
        }  # fmt: skip
        argv = [sys.executable, "-m", "deploy.demo.verify", *(f"--{name}={value}" for name, value in arguments.items())]
        tokens = {name: values[name] for name in ("ORCH_GITEA_TOKEN", "ORCH_PLANE_TOKEN")}
        return subprocess.run(
            argv, cwd=ROOT, env=environment() | tokens, capture_output=True, text=True, check=False, timeout=100
        )

    def refused(self, fact: str, **changes: str) -> None:
        """The verifier ends with 1 and a last line that names this fact."""
        done = self.verify(**changes)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stdout.rstrip().splitlines()[-1].startswith("demo: FAILED: "), done.stdout
        assert fact in done.stdout

    def send(self, method: str, url: str, body: dict[str, Any], token: str = "") -> None:
        """Change something in the sandbox."""
        headers = {"Content-Type": "application/json", **({"Authorization": f"token {token}"} if token else {})}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        urllib.request.urlopen(request, timeout=20).close()

    def orch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the stack."""
        argv = [sys.executable, "-m", "api.cli", *arguments]
        env = environment() | {"ORCH_HOME": str(self.home)}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """The demo on a small repository, with --keep."""
    repository = small_repository(tmp_path_factory.mktemp("их") / "small")
    before = contents(repository)
    process = demo("--keep", "--repo", str(repository), "--title", TITLE, "--test-command", TEST_COMMAND)
    output, _ = process.communicate()
    made = Kept(output, process.returncode, home_in(output), repository, before)
    try:
        yield made
    finally:
        assert made.orch("down").returncode == 0
        assert processes_of(made.home) == []
        shutil.rmtree(made.home)


def test_the_demo_works_on_a_copy_of_a_repository(kept: Kept) -> None:
    """A repository with another branch name and a title in any letters goes the same way, and is itself untouched."""
    assert kept.exit_code == 0, kept.output
    assert "pass in your repository as it is" in kept.output
    assert "not committed is not in it" in kept.output
    assert TITLE in kept.output
    assert contents(kept.repository) == kept.before


def test_a_kept_stack_can_be_looked_at(kept: Kept) -> None:
    """With --keep the stack stays up, the demo says how to reach and to stop it, and `orch task` reads it."""
    assert f"export ORCH_HOME={kept.home}" in kept.output
    (task,) = json.loads(kept.orch("task", "list", "--all", "--json").stdout)
    assert (task["task"], task["outcome"], task["title"]) == ("DEMO-1", "done", TITLE)
    shown = json.loads(kept.orch("task", "show", "demo", "--json").stdout)
    assert shown["landed_sha"] == kept.landed
    assert shown["timeline"]
    assert {run["role"] for run in shown["agent_runs"]} >= {"analyst", "developer", "deployer"}
    assert kept.orch("task", "why", "DEMO-1").stdout.startswith("DEMO-1 has ended: done.")
    assert kept.orch("task", "approve", "DEMO-1").returncode == 6


def test_the_verifier_agrees_by_itself(kept: Kept) -> None:
    """Run again, the verifier finds the same sha landed and exits with 0."""
    done = kept.verify()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"demo: DEMO-1 done; main green; landed {kept.landed}"


def test_the_verifier_sees_failing_tests(kept: Kept) -> None:
    """A tip of main on which the tests fail, or take too long, is a false fact."""
    kept.refused("the tests fail on", **{"test-command": "exit 3"})
    kept.refused("exit code -1", **{"test-command": "sleep 60", "test-timeout": "0.5"})


def test_the_verifier_sees_that_nothing_landed(kept: Kept) -> None:
    """Where main stands on its seed nothing landed; a seed that is not below main means a rewritten main."""
    kept.refused("nothing landed on main", seed=kept.landed)
    kept.refused("main was rewritten", seed="1" * 40)


def test_the_verifier_sees_another_state_of_the_item(kept: Kept) -> None:
    """An item that is not in Done is a false fact."""
    item = f"{kept.values['ORCH_PLANE_URL']}/_sandbox/ui/items/DEMO-1"
    kept.send("PATCH", item, {"actor": "olga", "state": "Backlog"})
    try:
        kept.refused("DEMO-1 is in the state Backlog")
    finally:
        kept.send("PATCH", item, {"actor": "olga", "state": "Done"})


def test_the_verifier_sees_what_production_serves(kept: Kept) -> None:
    """Production on another commit than main's tip is a false fact."""
    deploy = f"{kept.production}/production/deploy"
    place = {"owner": "acme", "repo": "small"}
    kept.send("POST", deploy, {**place, "sha": git(kept.home / "import", "rev-parse", "HEAD")})
    try:
        kept.refused("production serves")
    finally:
        kept.send("POST", deploy, {**place, "sha": kept.landed})


def test_the_verifier_sees_what_it_cannot_read(kept: Kept) -> None:
    """A server that does not answer, an unknown repository or pull request is never taken for a true fact."""
    kept.refused("cannot be read", production="http://127.0.0.1:1")
    kept.refused("cannot be cloned", repository="acme/nothing")
    kept.refused("answers 404", pull="99")


def test_the_verifier_sees_an_unmerged_pull_request(kept: Kept) -> None:
    """A pull request that is open is a false fact."""
    values = kept.values
    gitea = values["ORCH_GITEA_URL"]
    commit = {"actor": "olga", "branch": "other", "message": "Other", "files": {"other.txt": "x\n"}}
    kept.send("POST", f"{gitea}/_sandbox/ui/repos/acme/small/commits", commit)
    pull = {"base": "main", "head": "other", "title": "Other"}
    kept.send("POST", f"{gitea}/api/v1/repos/acme/small/pulls", pull, values["ORCH_GITEA_TOKEN"])
    kept.refused("pull request #2 is not merged", pull="2")


def test_the_verifier_sees_a_push_past_the_gates(kept: Kept) -> None:
    """A commit on main that no pull request landed is a false fact, and its tests are run too; keep this test last."""
    broken = {
        "actor": "olga",
        "branch": "main",
        "message": "Break it",
        "files": {"test_it.py": "raise SystemExit(4)\n"},
    }
    kept.send("POST", f"{kept.values['ORCH_GITEA_URL']}/_sandbox/ui/repos/acme/small/commits", broken)
    kept.refused("was not landed by a pull request")
    kept.refused("the tests fail on")
    kept.refused("but main is at")
