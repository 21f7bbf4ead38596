"""Hints: what may have changed, from whom we heard it. They carry no facts and decide nothing."""

from datetime import datetime
from enum import StrEnum

from workflows.model import Frozen


class Topic(StrEnum):
    """What to look at again."""

    ITEM = "item"
    DECISION = "decision"
    PULL_REQUEST = "pull request"
    CI = "ci"
    BRANCH = "branch"
    LEASE = "lease"
    OPERATOR = "operator"
    """An act on record that the task has not taken yet."""


class Source(StrEnum):
    """Who told us; recorded with every transition so that heals can be counted."""

    PLANE = "plane webhook"
    GITEA = "gitea webhook"
    TIMER = "timer"
    RECONCILE = "reconcile"
    OPERATOR = "operator"
    WORKFLOW = "workflow"


class Hint(Frozen):
    """Look at `topic` of a task now. Losing, doubling or reordering hints changes when, never what."""

    topic: Topic
    source: Source
    note: str = ""


class PendingHint(Frozen):
    """A coalesced hint a workflow has not acted on yet."""

    source: Source
    since: datetime
    count: int = 1


Pending = dict[Topic, PendingHint]


def note_hint(pending: Pending, hint: Hint, now: datetime) -> Pending:
    """Mark a topic: the first source and time are kept, repeats only counted."""
    known = pending.get(hint.topic)
    fresh = known.model_copy(update={"count": known.count + 1}) if known else PendingHint(source=hint.source, since=now)
    return {**pending, hint.topic: fresh}
