"""The words of the gate's model: what is wrong, where a task is, what is on record, what is on its way."""

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.proof.model_git import Sha

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
QUEUE = "merge/acme/payments/main"
NEVER = 10**9
DEVELOPER_RETRIES, MERGE_ROUNDS, REVIEW_ROUNDS = 3, 5, 5
ROUNDS_TO_REST = 250
"""For each task."""
HEAL_TICK = 25

Steps = Generator[None, None, Any]


class Violation(AssertionError):  # noqa: N818 - what it is called in the proof
    """An invariant does not hold; `invariant` is its number."""

    def __init__(self, invariant: str, said: str) -> None:
        super().__init__(f"{invariant}: {said}")
        self.invariant = invariant


class Switch(StrEnum):
    """Ways to build a gate that looks right and is wrong."""

    NO_RETEST = "no re-test"
    EARLY_RELEASE = "release before landing"
    UNFENCED_RELEASE = "unfenced release"
    FORCE_PUSH = "plain force on the task push"
    SPECULATIVE_EVICTION = "eviction on speculative evidence"
    NO_RECHECK = "nothing read again before landing"
    WRONG_BASE = "squash with a wrong base"


class Stage(StrEnum):
    """Where a task is."""

    REVIEW = "review"
    GATE = "gate"
    DEVELOPMENT = "development"
    PARKED = "parked"
    LANDED = "landed"
    CANCELLED = "cancelled"


ENDED = {Stage.LANDED, Stage.CANCELLED}


class Cancelled(Exception):  # noqa: N818 - a person's word, not an error
    """A person cancelled the task."""


class Stale(Exception):  # noqa: N818 - a fact about us
    """A newer attempt has begun."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """As the product's, in the model's words."""

    sha: Sha
    base: Sha
    replaces: Sha


@dataclass(slots=True)
class Row:
    """The row of `leases`."""

    epoch: int
    holder: str
    generation: int
    granted_at: datetime
    open: bool = True


@dataclass(slots=True)
class Message:
    """A signal on its way. What is not `lasting` may be lost for good; Temporal repeats the rest."""

    to: str
    kind: str
    body: Any
    lasting: bool = True


@dataclass(slots=True)
class Signals:
    """What is on its way, and what was dropped."""

    flying: list[Message] = field(default_factory=list)
    late: list[Message] = field(default_factory=list)

    def send(self, to: str, kind: str, body: Any, *, lasting: bool = True) -> None:
        """Send."""
        self.flying.append(Message(to, kind, body, lasting))

    def drop(self, index: int) -> None:
        """Lose one."""
        message = self.flying.pop(index)
        if message.lasting:
            self.late.append(message)

    def heal(self) -> None:
        """What Temporal repeats arrives after all."""
        self.flying += self.late
        self.late = []
