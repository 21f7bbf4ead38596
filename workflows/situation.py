"""What people have done to a task in Plane and Gitea, and what that means at each stage. No Temporal import.

`verdict_on` is the table of docs/reference/human-acts.md as code; a test holds them together.
"""

from enum import StrEnum

from workflows.model import Frozen, Stage


class StateKind(StrEnum):
    """What a Plane state means to us: one of ours by name, else its group (contracts/plane.md, 2)."""

    IN_PROGRESS = "in progress"
    AWAITING = "awaiting approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    DONE = "done"
    CANCELLED = "cancelled"
    NOT_STARTED = "not started"
    """Any other state of the groups backlog and unstarted."""
    STARTED = "started"
    """Any other state of the group started."""


class ItemStanding(StrEnum):
    """Whether the item is there. Missing counts only if its project answers in the same breath."""

    THERE = "there"
    MISSING = "missing"
    """Deleted or archived: Plane answers both alike (contracts/plane.md, 2)."""


class PullStanding(StrEnum):
    """What became of the pull request."""

    NONE = "none"
    OPEN = "open"
    CLOSED = "closed"
    LANDED = "landed"
    """Merged, with a landing intent of ours for that head."""
    MERGED_BY_HAND = "merged by hand"


class PersonMove(Frozen):
    """The newest state change by a person that we had not seen before."""

    to: StateKind
    state: str
    """Plane's own name of the state."""
    by: str


class Situation(Frozen):
    """What was read, all in one evaluation. `problem` says what could not be found out; then nothing follows."""

    item: ItemStanding = ItemStanding.THERE
    move: PersonMove | None = None
    pull: PullStanding = PullStanding.NONE
    branch_gone: bool = False
    merged_sha: str = ""
    seen_activity: str = ""
    problem: str = ""


class Effect(StrEnum):
    """What a human act does to a task."""

    NONE = "none"
    PAUSE = "pause"
    CANCEL = "cancel"
    RESUME = "resume"
    DONE_BY_HAND = "done by hand"


class PauseCause(StrEnum):
    """Why a task stands still; it is resumed by whoever undoes the cause, or by `resume`."""

    OPERATOR = "operator"
    ITEM = "item"
    MISSING = "missing item"
    PULL_REQUEST = "pull request"
    BRANCH = "branch"


class Judgement(Frozen):
    """What a situation asks for, in words."""

    effect: Effect = Effect.NONE
    cause: PauseCause = PauseCause.OPERATOR
    reason: str = ""
    by: str = ""


_MOVES: dict[StateKind, Effect] = {
    StateKind.IN_PROGRESS: Effect.RESUME,
    StateKind.AWAITING: Effect.NONE,
    StateKind.APPROVED: Effect.NONE,
    StateKind.REJECTED: Effect.NONE,
    StateKind.DONE: Effect.PAUSE,
    StateKind.CANCELLED: Effect.CANCEL,
    StateKind.NOT_STARTED: Effect.PAUSE,
    StateKind.STARTED: Effect.NONE,
}
"""A person's move to a state of each kind. Approved and rejected answer the analysis stage's question, by its gate."""


def verdict_on(situation: Situation, stage: Stage) -> Judgement:
    """What people's acts mean for a task in `stage`. The strongest act wins: gone, merged, closed, moved."""
    if situation.problem:
        return Judgement()
    if situation.pull is PullStanding.MERGED_BY_HAND and stage is not Stage.DONE:
        merged = f"a person merged the pull request as {situation.merged_sha[:10]}"
        return Judgement(effect=Effect.DONE_BY_HAND, reason=merged)
    move = situation.move
    if move is not None and _MOVES[move.to] is not Effect.NONE:
        said = f"{move.by} moved the item to {move.state}"
        return Judgement(effect=_MOVES[move.to], cause=PauseCause.ITEM, reason=said, by=move.by)
    causes = {
        PauseCause.MISSING: "the Plane item was deleted or archived; restore it to go on, or cancel the task",
        PauseCause.PULL_REQUEST: "the pull request was closed; reopen it to go on",
        PauseCause.BRANCH: "the task branch was deleted; restore it to go on",
    }
    for cause, reason in causes.items():
        if _stands(cause, situation):
            return Judgement(effect=Effect.PAUSE, cause=cause, reason=reason)
    return Judgement()


def still_paused(cause: PauseCause, situation: Situation) -> bool:
    """Whether what paused a task still stands. A pause by an operator or by a move ends only by the contrary act."""
    if situation.problem or cause in {PauseCause.OPERATOR, PauseCause.ITEM}:
        return True
    return _stands(cause, situation)


def _stands(cause: PauseCause, situation: Situation) -> bool:
    return {
        PauseCause.OPERATOR: False,
        PauseCause.ITEM: False,
        PauseCause.MISSING: situation.item is ItemStanding.MISSING,
        PauseCause.PULL_REQUEST: situation.pull is PullStanding.CLOSED,
        PauseCause.BRANCH: situation.branch_gone,
    }[cause]
