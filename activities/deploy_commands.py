"""Running the commands of a base branch's policy against an environment, in a cage of their own."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from activities.adapters.git import Mirror, checkout_clean
from activities.adapters.process import run
from activities.deploy_secrets import DeploySecrets, Taken
from activities.runners.isolation import Isolation
from workflows.model import Environment, Policy, Repository
from workflows.policy import PATH, read_policy

COMMAND_LIMIT = 45 * 60
PROBE_LIMIT = 60
TAIL = 8_000
_POLICY_LIMIT = 1024 * 1024
_SHA = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")


@dataclass(frozen=True, slots=True)
class Target:
    """Which commit is to be served where, and under which intent key that is done once."""

    intent: str
    repository: Repository
    environment: Environment
    sha: str
    failed_sha: str = ""
    """What a rollback undoes; empty for a deployment."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is run where: a command and its probe, with the secrets that only the command is given."""

    target: Target
    command: str
    probe: str | None
    taken: Taken
    repeatable: bool
    folder: Path
    run_id: str

    @property
    def variables(self) -> dict[str, str]:
        """What both find in their environment."""
        target = self.target
        known = {
            "ORCH_SHA": target.sha,
            "ORCH_ENVIRONMENT": target.environment,
            "ORCH_REPOSITORY": str(target.repository),
        }
        return {**known, "ORCH_FAILED_SHA": target.failed_sha} if target.failed_sha else known

    @property
    def checkout(self) -> Path:
        """Where both are run: the files of the commit, and nothing else."""
        return self.folder / "checkout"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended; `problem` is empty if it ended well."""

    problem: str
    output: str


class DeployCommands:
    """Reads the policy of a commit and runs its commands."""

    def __init__(self, isolation: Isolation, secrets: DeploySecrets) -> None:
        self._isolation = isolation
        self._secrets = secrets

    async def policy(self, mirror: Mirror, sha: str, where: str) -> Policy | str:
        """The policy at a commit, or what is wrong with it."""
        content = await mirror.read_file(sha, PATH, _POLICY_LIMIT)
        found = read_policy(content, f"{PATH} at {sha[:10]} of {where}")
        return found.policy or found.problem

    def secrets(self, policy: Policy, environment: Environment) -> Taken:
        """What the policy names for an environment's commands."""
        return self._secrets.take(policy.staging_secrets if environment is Environment.STAGING else policy.secrets)

    @asynccontextmanager
    async def checked_out(self, mirror: Mirror, job: Job) -> AsyncIterator[None]:
        """The files of the commit are there while the block runs."""
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        try:
            await checkout_clean(mirror, job.checkout, job.target.sha)
            yield
        finally:
            await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def run(self, job: Job) -> Ran:
        """Run the command; what it says comes back without its secrets."""
        exit_code, output = await self._shell(job, job.command, COMMAND_LIMIT, job.taken.values)
        problem = f"the command ended with exit {exit_code}" if exit_code else ""
        # Hidden before it is cut: half a secret is not found any more.
        return Ran(problem, job.taken.scrubbed(output)[-TAIL:])

    async def probe(self, job: Job) -> str:
        """The sha that the probe reports, or nothing if there is no probe or it reports none."""
        if not job.probe:
            return ""
        exit_code, output = await self._shell(job, job.probe, PROBE_LIMIT, {})
        found = _SHA.search(output) if exit_code == 0 else None
        return found.group() if found else ""

    async def _shell(self, job: Job, command: str, limit: float, secrets: dict[str, str]) -> tuple[int, str]:
        home = job.folder / "home"
        home.mkdir(exist_ok=True)
        cage = await self._isolation.cage(job.checkout, (home,), {**secrets, **job.variables}, network=True)
        result = await run(
            [*cage.argv, "sh", "-c", command],
            cwd=job.checkout,
            env=cage.env,
            timeout=limit,
            run_id=job.run_id,
        )
        return result.exit_code, result.output_tail
