"""The `scripted` runner: a real process that really edits and commits, by a playbook; for demo and tests."""

import json
import sys
from pathlib import Path

from activities.adapters.process import ProcessResult
from activities.runners.base import Command, EndWatch, Job, Reading, Spending
from workflows.usage import Usage
from workflows.verdicts import RunOutcome


class ScriptedRunner:
    """Plays what a JSON playbook says for each role and round (see scripted_agent.py for its words)."""

    name = "scripted"
    resumes = False

    def __init__(self, playbook: Path) -> None:
        self._playbook = playbook

    def problem(self) -> str:
        """Nothing can be missing: it is made only where there is a playbook."""
        return ""

    def has_session(self, job: Job) -> bool:  # noqa: ARG002 - the protocol's signature
        """It starts anew and finds its work done."""
        return False

    def command(self, job: Job) -> Command:
        """The playbook is copied beside the data, so that the process needs nothing else of the host.

        The title is one word with its option: it may itself look like one.
        """
        copy = job.data / "playbook.json"
        copy.write_bytes(self._playbook.read_bytes())
        words = ["--role", job.role, "--key", job.key, "--round", str(job.round), f"--title={job.title}"]
        files = ["--playbook", str(copy), "--verdict", str(job.verdict_file), "--nonce", job.nonce]
        program = [sys.executable, "-I", str(Path(__file__).with_name("scripted_agent.py"))]
        return Command(argv=(*program, *words, *files))

    def watch(self, job: Job) -> "ScriptedWatch":  # noqa: ARG002 - the protocol's signature
        """It sleeps as long as its playbook says."""
        return ScriptedWatch()


class ScriptedWatch(EndWatch):
    """Reads the end."""

    def read(self, result: ProcessResult | None) -> Reading:
        """The last line of standard output is a result in the manner of the real command lines."""
        if result is None:
            return Reading(outcome=RunOutcome.CANCELLED, problem="it was told to stop")
        try:
            last = json.loads(result.stdout.decode(errors="replace").strip().splitlines()[-1])
            usage = Usage.model_validate(last["usage"])
            cost = float(last["total_cost_usd"])
        except (IndexError, KeyError, TypeError, ValueError):
            return Reading(outcome=RunOutcome.FAILED, problem=f"exit {result.exit_code}: {result.output_tail[-500:]}")
        failed = result.exit_code != 0
        return Reading(
            outcome=RunOutcome.FAILED if failed else RunOutcome.OK,
            problem=f"exit {result.exit_code}" if failed else "",
            spent=Spending(usage, cost, "reported"),
        )
