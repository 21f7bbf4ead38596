"""The `command` runner: any program that reads its task from standard input and leaves a verdict file."""

from activities.adapters.process import ProcessResult
from activities.runners.base import Command, EndWatch, Job, Reading
from activities.runners.prompt import Prompts
from workflows.verdicts import RunOutcome

_TERMINATED = frozenset({-15, -1, 143, 129})
_KILLED = frozenset({-9, 137})


class CommandRunner:
    """Runs the program of `ORCH_AGENT_COMMAND`; its tokens and its cost stay unknown."""

    name = "command"
    resumes = False

    def __init__(self, argv: tuple[str, ...], prompts: Prompts) -> None:
        self._argv = argv
        self._prompts = prompts

    def problem(self) -> str:
        """It has to be named."""
        return "" if self._argv else "the runner command needs a program; set ORCH_AGENT_COMMAND"

    def has_session(self, job: Job) -> bool:  # noqa: ARG002 - the protocol's signature
        """It starts anew."""
        return False

    def command(self, job: Job) -> Command:
        """The words of the setting as they are; what belongs to this run is in the environment."""
        return Command(
            argv=self._argv,
            env={
                "AGENT_VERDICT_FILE": str(job.verdict_file),
                "AGENT_NONCE": job.nonce,
                "AGENT_INPUTS": str(job.inputs),
                "AGENT_ROLE": job.role,
                "AGENT_TASK": job.key,
                "AGENT_ROUND": str(job.round),
            },
            stdin=self._prompts.render(job, by_file=True).encode(),
            network=True,
        )

    def watch(self, job: Job) -> "CommandWatch":  # noqa: ARG002 - the protocol's signature
        """Only its end says anything."""
        return CommandWatch()


class CommandWatch(EndWatch):
    """Reads the end. What a program prints means nothing, and many print nothing while they work."""

    def read(self, result: ProcessResult | None) -> Reading:
        """Exit code 0 means that it ran to its end; the verdict is in its file."""
        if result is None or result.exit_code in _TERMINATED:
            return Reading(outcome=RunOutcome.CANCELLED, problem="it was told to stop")
        if result.timed_out:
            return Reading(outcome=RunOutcome.KILLED, cause="deadline", problem="it ran for longer than any run may")
        if result.exit_code in _KILLED:
            return Reading(outcome=RunOutcome.KILLED, problem="its process was killed")
        if result.exit_code != 0:
            problem = f"exit {result.exit_code}: {result.output_tail[-500:]}"
            return Reading(outcome=RunOutcome.FAILED, problem=problem)
        return Reading()
