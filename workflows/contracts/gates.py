"""What the workflows ask to be judged: policy and gates."""

from temporalio import activity

from workflows.model import (
    Candidate,
    Frozen,
    GateResult,
    Item,
    Policy,
    PullRequest,
    Repository,
    TaskRef,
    TestRun,
)
from workflows.projects import ProjectFacts
from workflows.stages import Gate
from workflows.verdicts import Claim


class ReadPolicy(Frozen):
    """Read `.orch/pipeline.toml` from the base branch."""

    repository: Repository


class PolicyReading(Frozen):
    """A policy, or why there is none; a broken file is never "no file"."""

    policy: Policy | None = None
    problem: str = ""
    gate_off: str = ""
    """Why the merge gate is off for this repository; empty where it is on."""


class GateQuestion(Frozen):
    """Everything a gate may need besides what it reads itself."""

    ref: TaskRef
    gate: Gate
    project: ProjectFacts
    item: Item
    policy: Policy
    branch: str
    head_sha: str
    baseline_sha: str = ""
    pull: PullRequest | None = None
    digest: str = ""
    ask_effect: str = ""
    artifact_path: str = ""
    headings: tuple[str, ...] = ()
    claim: Claim | None = None
    test_run: TestRun | None = None
    failed_runs: int = 0
    """How often the tests failed on the very commit of `test_run` before."""
    candidate: Candidate | None = None
    landed_sha: str = ""
    deployed_sha: str = ""


@activity.defn
async def read_policy(arg: ReadPolicy) -> PolicyReading:
    """Read and validate the policy."""
    raise NotImplementedError


@activity.defn
async def evaluate_gate(arg: GateQuestion) -> GateResult:
    """Read the sources and judge; a source that cannot be reached is `unknown`, never red."""
    raise NotImplementedError
