"""The stage registry: one table says who works, what must be true, and where each answer leads."""

from datetime import timedelta
from enum import StrEnum
from hashlib import sha256

from workflows.model import Frozen, Role, Stage, TaskRef


class Gate(StrEnum):
    """What must be true before a stage is left, read by us."""

    SPEC_DECIDED = "spec decided"
    DESIGN_PRESENT = "design present"
    CI_GREEN = "ci green"
    REVIEW_PASSED = "review passed"
    TESTS_PASSED = "tests passed"
    CANDIDATE_TESTED = "candidate tested"
    DEPLOYED = "deployed"


class StageSpec(Frozen):
    """One row of the registry."""

    stage: Stage
    role: Role
    gate: Gate
    green: Stage
    red: Stage | None
    """None: red never loops by itself, a person is asked."""
    grace: timedelta
    """How long a quiet wait lasts before the gate is looked at again without an event."""
    artifact: str | None = None
    """A file the role must leave on the branch, below `docs/tasks/<KEY>/`."""
    headings: tuple[str, ...] = ()
    person_decides: bool = False


REGISTRY: dict[Stage, StageSpec] = {
    spec.stage: spec
    for spec in (
        StageSpec(
            stage=Stage.ANALYSIS,
            role=Role.ANALYST,
            gate=Gate.SPEC_DECIDED,
            green=Stage.ARCHITECTURE,
            red=Stage.ANALYSIS,
            grace=timedelta(minutes=15),
            artifact="spec.md",
            headings=("Problem", "Acceptance"),
            person_decides=True,
        ),
        StageSpec(
            stage=Stage.ARCHITECTURE,
            role=Role.ARCHITECT,
            gate=Gate.DESIGN_PRESENT,
            green=Stage.DEVELOPMENT,
            red=Stage.ARCHITECTURE,
            grace=timedelta(minutes=10),
            artifact="design.md",
            headings=("Decision", "Consequences"),
        ),
        StageSpec(
            stage=Stage.DEVELOPMENT,
            role=Role.DEVELOPER,
            gate=Gate.CI_GREEN,
            green=Stage.REVIEW,
            red=Stage.DEVELOPMENT,
            grace=timedelta(minutes=5),
        ),
        StageSpec(
            stage=Stage.REVIEW,
            role=Role.REVIEWER,
            gate=Gate.REVIEW_PASSED,
            green=Stage.TESTING,
            red=Stage.DEVELOPMENT,
            grace=timedelta(minutes=10),
        ),
        StageSpec(
            stage=Stage.TESTING,
            role=Role.TESTER,
            gate=Gate.TESTS_PASSED,
            green=Stage.DEPLOY_STAGING,
            red=Stage.DEVELOPMENT,
            grace=timedelta(minutes=10),
        ),
        StageSpec(
            stage=Stage.DEPLOY_STAGING,
            role=Role.DEPLOYER,
            gate=Gate.CANDIDATE_TESTED,
            green=Stage.DEPLOY,
            red=Stage.DEVELOPMENT,
            grace=timedelta(minutes=5),
        ),
        StageSpec(
            stage=Stage.DEPLOY,
            role=Role.DEPLOYER,
            gate=Gate.DEPLOYED,
            green=Stage.DONE,
            red=None,
            grace=timedelta(minutes=10),
        ),
    )
}
"""`done` has no row: nothing works there and nothing leads out of it."""


def artifact_path(key: str, spec: StageSpec) -> str | None:
    """Where a stage's artifact lives on the task branch, for instance `docs/tasks/DEMO-1/spec.md`."""
    return f"docs/tasks/{key}/{spec.artifact}" if spec.artifact else None


def missing_headings(text: str, headings: tuple[str, ...]) -> tuple[str, ...]:
    """The required Markdown headings that `text` lacks, compared without case."""
    present = {line.lstrip("#").strip().casefold() for line in text.splitlines() if line.startswith("#")}
    return tuple(heading for heading in headings if heading.casefold() not in present)


def decision_digest(ref: TaskRef, content: bytes) -> str:
    """Name exactly this spec of this round, so that an answer to an older one never counts."""
    asked = f"{ref.key}/{ref.generation}/{ref.round}/".encode()
    return sha256(asked + content).hexdigest()[:12]
