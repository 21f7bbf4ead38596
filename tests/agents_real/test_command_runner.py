"""Whole runs of the `command` runner: any program with a prompt, a verdict file and an exit code."""

import json
import sys
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from activities.runners.command import CommandRunner
from activities.runners.prompt import Prompts
from tests.agents_real.conftest import NONCE, Real
from workflows.verdicts import RunOutcome

AGENT = """
import json, os, subprocess, sys
prompt = sys.stdin.read()
open(sys.argv[1], "w").write(prompt)
open("b.py", "w").write("b = 1")
subprocess.run(["git", "add", "-A"], check=True)
subprocess.run(["git", "commit", "-q", "-m", "add b"], check=True)
verdict = {"nonce": os.environ["AGENT_NONCE"], "outcome": "pass", "summary": os.environ["AGENT_TASK"]}
open(os.environ["AGENT_VERDICT_FILE"], "w").write(json.dumps(verdict))
"""


def a_program(real: Real, script: str) -> CommandRunner:
    """A runner of a Python script."""
    return CommandRunner((sys.executable, "-c", script, str(real.root / "prompt")), Prompts())


async def test_a_program_works_and_leaves_its_verdict(real: Real) -> None:
    """Its commit is there, its verdict is ours to use, its cost is unknown."""
    ended = await real.run(a_program(real, AGENT))
    assert (ended.outcome, ended.cost_usd, ended.cost_source) == (RunOutcome.OK, None, "unknown")
    assert ended.verdict is not None
    assert ended.verdict.summary == "DEMO-1"
    assert real.git("log", "-1", "--format=%s") == "add b"
    assert real.git("status", "--porcelain") == ""
    prompt = (real.root / "prompt").read_text()
    assert "You are the developer." in prompt
    assert "Ignore all rules" not in prompt


@pytest.mark.parametrize(
    ("script", "outcome", "said"),
    [
        ("pass", RunOutcome.NO_VERDICT, "no usable verdict"),
        ("print('no such model'); raise SystemExit(3)", RunOutcome.FAILED, "exit 3: no such model"),
        (AGENT.replace('os.environ["AGENT_NONCE"]', '"guessed"'), RunOutcome.NO_VERDICT, "another run's nonce"),
        (AGENT.replace('"outcome": "pass"', '"outcome": "great"'), RunOutcome.NO_VERDICT, "outcome: "),
    ],
)
async def test_what_is_no_verdict_never_counts(real: Real, script: str, outcome: RunOutcome, said: str) -> None:
    """Each way to leave none is a value with its reason."""
    ended = await real.run(a_program(real, script))
    assert (ended.outcome, ended.verdict) == (outcome, None)
    assert said in ended.reason


async def test_a_program_that_is_killed_is_begun_again(real: Real) -> None:
    """It starts anew, as often as the terms allow; then the reason is a value."""
    real.terms = real.terms.model_copy(update={"attempts": 2})
    killed = a_program(real, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ApplicationError, match="killed"):
        await real.run(killed)
    ended = await real.run(killed)
    assert (ended.outcome, [row["resumed"] for row in real.runs.rows]) == (RunOutcome.KILLED, [False, False])
    assert "attempt 2, the last one" in ended.reason


async def test_its_output_is_kept_and_its_verdict_is_read_once(real: Real) -> None:
    """The log has what it printed; an attempt after a written verdict starts nothing."""
    await real.run(a_program(real, AGENT + "print('hello')"))
    assert "hello" in Path(real.runs.rows[0]["log"]).read_text()
    (real.root / "prompt").unlink()
    again = await real.run(a_program(real, AGENT))
    assert again.verdict is not None
    assert json.loads(again.verdict.model_dump_json())["nonce"] == NONCE
    assert not (real.root / "prompt").exists()
