"""The `scripted` runner: a real process that really edits and commits, by a playbook; for demo and tests."""

import json
import sys
from pathlib import Path

from activities.adapters.process import ProcessResult
from activities.runners.base import Job, Reading
from workflows.model import Usage


class ScriptedRunner:
    """Plays what a JSON playbook says for each role and round (see scripted_agent.py for its words)."""

    name = "scripted"

    def __init__(self, playbook: Path) -> None:
        self._playbook = playbook

    def command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        """The playbook is copied beside the data, so that the process needs nothing else of the host.

        The title is one word with its option: it may itself look like one.
        """
        copy = job.data / "playbook.json"
        copy.write_bytes(self._playbook.read_bytes())
        words = ["--role", job.role, "--key", job.key, "--round", str(job.round), f"--title={job.title}"]
        files = ["--playbook", str(copy), "--verdict", str(job.verdict_file), "--nonce", job.nonce]
        return [sys.executable, "-I", str(Path(__file__).with_name("scripted_agent.py")), *words, *files], {}

    def read(self, job: Job, result: ProcessResult) -> Reading:  # noqa: ARG002 - the protocol's signature
        """The last line of standard output is a result in the manner of the real command lines."""
        try:
            last = json.loads(result.stdout.decode(errors="replace").strip().splitlines()[-1])
            usage = Usage.model_validate(last["usage"])
            cost = float(last["total_cost_usd"])
        except (IndexError, KeyError, TypeError, ValueError):
            return Reading(problem=f"exit {result.exit_code}: {result.output_tail[-500:]}")
        problem = "" if result.exit_code == 0 else f"exit {result.exit_code}"
        return Reading(problem=problem, usage=usage, cost_usd=cost, cost_source="reported")
