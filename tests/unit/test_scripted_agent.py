"""The scripted agent: a real process that edits, commits and answers by a playbook, the same when played again."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from activities.adapters.process import ProcessResult
from activities.runners import scripted_agent
from activities.runners.base import Job
from activities.runners.scripted import ScriptedRunner
from workflows.model import Role
from workflows.verdicts import Verdict

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@dataclass
class Stage:
    """A repository, and a playbook played in it."""

    root: Path

    @property
    def repo(self) -> Path:
        """The workspace."""
        return self.root / "repo"

    @property
    def verdict(self) -> Path:
        """Where the agent leaves its verdict."""
        return self.root / "verdict.json"

    def git(self, *arguments: str) -> str:
        """Ask git."""
        environment = {**os.environ, **IDENTITY}
        done = subprocess.run(
            ["git", *arguments], cwd=self.repo, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def play(self, *rounds: list[dict[str, Any]], number: int = 1) -> subprocess.CompletedProcess[str]:
        """Run the agent as its runner does."""
        playbook = self.root / "playbook.json"
        playbook.write_text(json.dumps({"developer": rounds}))
        words = ["--role", "developer", "--key", "DEMO-1", "--title", "Totals", "--round", str(number)]
        files = ["--playbook", str(playbook), "--verdict", str(self.verdict), "--nonce", "n-1"]
        return subprocess.run(
            [sys.executable, "-I", scripted_agent.__file__, *words, *files],
            cwd=self.repo,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), **IDENTITY},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A repository with one commit."""
    stage = Stage(tmp_path)
    stage.repo.mkdir()
    stage.git("init", "-q", "-b", "main")
    (stage.repo / "a.py").write_text("total = 1\n")
    stage.git("add", "-A")
    stage.git("commit", "-q", "-m", "start")
    return stage


WHOLE: list[dict[str, Any]] = [
    {"write": "docs/tasks/{key}/spec.md", "text": "# {title}, round {round}\n"},
    {"replace": "a.py", "old": "total = 1", "new": "total = 2"},
    {"commit": "{key}: {title}"},
    {"sleep": 0},
    {"usage": {"input": 10, "cache_read": 5}, "cost": 0.25},
    {"usage": {"input": 1, "output": 7}, "cost": 0.5},
    {"verdict": "pass", "summary": "did {title}", "findings": [{"text": "fine"}]},
]


def test_a_round_is_really_played(stage: Stage) -> None:
    """Files are written and replaced, a commit is made, usage is summed, the verdict carries the nonce."""
    done = stage.play(WHOLE)
    assert done.returncode == 0, done.stderr
    assert stage.git("show", "HEAD:docs/tasks/DEMO-1/spec.md") == "# Totals, round 1"
    assert stage.git("show", "HEAD:a.py") == "total = 2"
    assert stage.git("log", "-1", "--format=%s") == "DEMO-1: Totals"
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["usage"], last["total_cost_usd"]) == ({"input": 11, "cache_read": 5, "output": 7}, 0.75)
    verdict = Verdict.model_validate_json(stage.verdict.read_text())
    assert (verdict.nonce, verdict.outcome, verdict.summary) == ("n-1", "pass", "did Totals")


def test_playing_again_changes_nothing(stage: Stage) -> None:
    """A round played a second time, after a kill, finds its work done and makes no second commit."""
    assert stage.play(WHOLE).returncode == 0
    before = stage.git("rev-parse", "HEAD")
    again = stage.play(WHOLE)
    assert again.returncode == 0, again.stderr
    assert stage.git("rev-parse", "HEAD") == before
    assert stage.git("status", "--porcelain") == ""


def test_a_round_killed_halfway_is_finished(stage: Stage) -> None:
    """What a killed attempt left uncommitted is committed by the next one, once."""
    assert stage.play(WHOLE[:2]).returncode == 0
    assert stage.git("status", "--porcelain") != ""
    assert stage.play(WHOLE).returncode == 0
    assert stage.git("rev-list", "--count", "HEAD") == "2"
    assert stage.git("status", "--porcelain") == ""


def test_the_last_round_repeats(stage: Stage) -> None:
    """A round beyond the playbook's last plays the last one."""
    first, second = [[{"write": "round", "text": text}] for text in ("one", "two")]
    for number, text in ((1, "one"), (2, "two"), (9, "two")):
        assert stage.play(first, second, number=number).returncode == 0
        assert (stage.repo / "round").read_text() == text


def test_an_unknown_step_fails_and_leaves_no_verdict(stage: Stage) -> None:
    """A misspelt step ends the run with the known ones named; nothing passes by accident."""
    done = stage.play([{"comit": "x"}, {"verdict": "pass"}])
    assert done.returncode != 0
    assert "unknown step 'comit'; known: write, replace, commit" in done.stderr
    assert not stage.verdict.exists()


def a_job(stage: Stage) -> Job:
    """What the runner is given."""
    data = stage.root / "data"
    data.mkdir()
    return Job(
        role=Role.DEVELOPER,
        key="DEMO-1",
        title="$(touch pwned) --role x",
        round=1,
        workspace=stage.repo,
        data=data,
        verdict_file=data / "verdict.json",
        nonce="n-1",
        session_id="s",
    )


def test_the_runner_builds_a_command_that_plays(stage: Stage) -> None:
    """The runner's argv plays the playbook in the workspace; a title is one argument, whatever is in it."""
    playbook = stage.root / "book.json"
    playbook.write_text(json.dumps({"developer": [[{"commit": "x"}, {"verdict": "pass", "summary": "{title}"}]]}))
    runner, job = ScriptedRunner(playbook), a_job(stage)
    command = runner.command(job)
    assert (dict(command.env), command.stdin, command.network) == ({}, None, False)
    done = subprocess.run(
        command.argv, cwd=stage.repo, env={**os.environ, **IDENTITY}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(job.verdict_file.read_text())["summary"] == job.title


def result(exit_code: int, stdout: str, stderr: str = "") -> ProcessResult:
    """An ended process."""
    return ProcessResult(
        exit_code=exit_code,
        stdout=stdout.encode(),
        stderr=stderr.encode(),
        truncated=False,
        duration=0.1,
        timed_out=False,
    )


def test_a_warning_is_no_result(stage: Stage) -> None:
    """What git says on standard error does not hide the result line."""
    line = '{"type": "result", "usage": {"input": 3}, "total_cost_usd": 0.1}\n'
    ended = result(0, line, "warning: LF will be replaced by CRLF\n")
    reading = ScriptedRunner(stage.root / "book.json").watch(a_job(stage)).read(ended)
    assert (reading.problem, reading.spent.cost_usd) == ("", 0.1)


@pytest.mark.parametrize(
    ("exit_code", "output", "problem"),
    [
        (0, '{"type": "result", "usage": {"input": 3}, "total_cost_usd": 0.1}\n', ""),
        (1, '{"type": "result", "usage": {"input": 3}, "total_cost_usd": 0.1}\n', "exit 1"),
        (0, "hello\n", "exit 0: hello\n"),
        (137, "", "exit 137: "),
        (0, "[1]\n", "exit 0: [1]\n"),
    ],
)
def test_the_runner_reads_an_end(stage: Stage, exit_code: int, output: str, problem: str) -> None:
    """A result line gives usage and a reported cost; without one the run is a failure of unknown cost."""
    reading = ScriptedRunner(stage.root / "book.json").watch(a_job(stage)).read(result(exit_code, output))
    assert reading.problem == problem
    known = output.startswith("{")
    assert (reading.spent.cost_usd, reading.spent.cost_source) == ((0.1, "reported") if known else (None, "unknown"))
