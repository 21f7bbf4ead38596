"""What Gitea's answer to a merge call means (contracts/gitea.md, 3 "Merge").

A refusal is an expected negative and so a value. Only `Merged` says that main changed, and even that is read
back by the caller; after an exception the pull request must be read before anything is repeated.
"""

from dataclasses import dataclass
from typing import Literal

from activities.adapters.http import Response, message_of, parse_body

MergeStyle = Literal["merge", "rebase", "rebase-merge", "squash", "fast-forward-only"]
NotAllowedReason = Literal["checking", "checks", "closed", "already_merged", "style", "other"]

_CHECKS = (
    "status check",
    "approval",
    "requested changes",
    "review request",
    "behind",
    "outdated",
    "protected file",
)


@dataclass(frozen=True, slots=True)
class Merged:
    """The merge happened."""


@dataclass(frozen=True, slots=True)
class HeadMoved:
    """The branch is no longer at the commit we tested; nothing was merged."""


@dataclass(frozen=True, slots=True)
class BaseMoved:
    """The base moved during the merge; nothing was merged."""


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """The branches conflict; `output` is what git said."""

    output: str


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """Gitea refuses: `reason` is our reading of its `message`, whose wording is no contract.

    `checking` also means a conflict (same text); `checks` is any unmet protection rule; `closed` may also be
    a pull request we cannot see.
    """

    reason: NotAllowedReason
    message: str


MergeOutcome = Merged | HeadMoved | BaseMoved | MergeConflict | NotAllowed


def merge_outcome(answer: Response) -> MergeOutcome | None:
    """The outcome, or None if the answer is not one of the merge call's own (the caller raises by status)."""
    data = parse_body(answer.body)
    message = message_of(data)
    if answer.status == 200:
        return Merged()
    if answer.status == 404:
        return NotAllowed("closed", message)
    if answer.status == 405:
        return NotAllowed(_reason(message), message)
    if answer.status == 409:
        return _conflict(data, message)
    return None


def _reason(message: str) -> NotAllowedReason:
    text = message.lower()
    # The handler of Gitea 1.25 answers an empty message for a merged pull request, others say it in words.
    if not text or "already merged" in text:
        return "already_merged"
    if "try again later" in text:
        return "checking"
    if "merge style" in text or "merge strategy" in text:
        return "style"
    return "checks" if any(word in text for word in _CHECKS) else "other"


def _conflict(data: object, message: str) -> MergeOutcome:
    if isinstance(data, dict) and "Style" in data:
        # A serialised Go error, with other keys than every other answer.
        return MergeConflict(f"{data.get('StdOut') or ''}{data.get('StdErr') or ''}"[:4000])
    text = message.lower()
    if "head out of date" in text:
        return HeadMoved()
    if "push out of date" in text:
        return BaseMoved()
    return NotAllowed("other", message)
