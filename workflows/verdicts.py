"""Agents' claims: their schema, and what binds one to the work it speaks of. A claim is never proof."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from workflows.model import Frozen, TaskRef
from workflows.usage import Usage

Text = Annotated[str, StringConstraints(max_length=20_000)]
Line = Annotated[str, StringConstraints(max_length=2_000)]


class VerdictOutcome(StrEnum):
    """What an agent says of its own work."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    CHANGES_REQUESTED = "changes_requested"
    BLOCKED_ON_INPUT = "blocked_on_input"
    NO_CHANGE_NEEDED = "no_change_needed"
    FAILED = "failed"


class Finding(BaseModel):
    """One thing a reviewer or tester points at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Line = ""
    line: int | None = None
    severity: Literal["info", "minor", "major", "blocker"] = "minor"
    text: Line


class Verdict(BaseModel):
    """What an agent leaves as a file or structured answer. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nonce: Line
    outcome: VerdictOutcome
    summary: Text
    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
    evidence: tuple[Line, ...] = Field(default=(), max_length=200)
    artifacts: tuple[Line, ...] = Field(default=(), max_length=50)
    questions: tuple[Line, ...] = Field(default=(), max_length=20)


class Binding(Frozen):
    """What a verdict must speak of to count: this round, this commit, this run."""

    ref: TaskRef
    head_sha: str
    nonce: str


class RunOutcome(StrEnum):
    """How an agent run ended, in one typed word for every runner."""

    OK = "ok"
    NO_VERDICT = "no-verdict"
    """It ran to its end and left nothing that counts as a verdict."""
    LIMIT = "limit"
    """It used up its turns or its budget."""
    REFUSED = "refused"
    """The model refused the task."""
    RETRYABLE = "retryable"
    """A passing trouble, such as an overloaded API; the same run may be begun again."""
    FATAL = "fatal"
    """What asking again does not mend: a wrong key, an unknown model, a prompt that is too long."""
    FAILED = "failed"
    """Its process failed and did not say why in words that its runner knows."""
    CANCELLED = "cancelled"
    KILLED = "killed"
    """It was cut off; its session may be taken up again."""


class Earlier(Frozen):
    """What earlier attempts of a run used, which ended in a passing trouble or were cut off."""

    usage: Usage = Usage()
    cost_usd: float = 0.0
    """Of those whose cost is known."""
    complete: bool = True


class AgentRun(Frozen):
    """An agent run that has ended: a bound verdict or the reason why there is none."""

    binding: Binding
    runner: str
    session_id: str
    outcome: RunOutcome
    verdict: Verdict | None = None
    reason: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    """None means unknown; an unknown cost is never written as 0."""
    cost_source: Literal["reported", "computed", "unknown"] = "unknown"
    seconds: float = 0.0
    earlier: Earlier = Earlier()


class Claim(Frozen):
    """An accepted verdict: what was claimed, of which commit."""

    outcome: VerdictOutcome
    sha: str
    summary: str = ""


def refusal(run: AgentRun, expected: Binding) -> str | None:
    """Why this run's verdict may not be used, or None if it may.

    A verdict counts only for the task, generation, stage, round, head sha and nonce it was asked for;
    anything else is stale or forged and is refused with the reason.
    """
    bound = run.binding
    if bound.ref.model_copy(update={"step": 0}) != expected.ref.model_copy(update={"step": 0}):
        return f"the verdict is for {bound.ref.intent('verdict')}, not {expected.ref.intent('verdict')}"
    if bound.head_sha != expected.head_sha:
        return f"the verdict is for {bound.head_sha[:10]}, but the head is {expected.head_sha[:10]}"
    if bound.nonce != expected.nonce:
        return "the verdict belongs to another run of this round"
    if run.outcome is not RunOutcome.OK or run.verdict is None:
        return run.reason or f"the run ended as {run.outcome} without a verdict"
    if run.verdict.nonce != expected.nonce:
        return "the verdict file carries another run's nonce"
    return None
