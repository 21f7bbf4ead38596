"""Where a task stands in a lease queue, in words a person understands. No Temporal import."""

from workflows.lease_state import Phase, QueueState
from workflows.model import Freeze, FreezeCause, Frozen

WHO_LIFTS = {
    FreezeCause.BASE_RED: "the queue, once the base passes its tests; or a person",
    FreezeCause.BASE_REWOUND: "a person",
    FreezeCause.WRONG_TREE: "a person",
    FreezeCause.DEPLOY_FAILED: "the next green production; or a person",
    FreezeCause.OPERATOR: "a person",
}


class Standing(Frozen):
    """What a task that waits wants to know; without a position where the queue could not be asked."""

    position: int = 0
    of: int = 0
    behind: str = ""
    """The task that holds the lease."""
    phase: Phase | None = None
    """What that one does with it."""
    freezes: tuple[Freeze, ...] = ()


def standing_of(state: QueueState, task: str) -> Standing:
    """Where a task stands."""
    waiting = [request.task for request in state.waiting]
    holding = state.holding
    return Standing(
        position=waiting.index(task) + 1 if task in waiting else 0,
        of=len(waiting),
        behind=holding.request.task if holding and holding.request.task != task else "",
        phase=holding.phase if holding else None,
        freezes=state.freezes,
    )


def waits_for(lease: str, standing: Standing) -> str:
    """Why a task waits for a kind of lease, for instance `queued for the merge lease, 3rd of 4, behind DEMO-1`."""
    place = f", {ordinal(standing.position)} of {standing.of}" if standing.position else ""
    behind = f", behind {standing.behind} ({standing.phase})" if standing.behind else ""
    queued = f"queued for the {lease} lease{place}{behind}"
    if not standing.freezes:
        return queued
    return f"the {lease} queue is frozen: {frozen_for(standing.freezes)}; {queued}"


def frozen_for(freezes: tuple[Freeze, ...]) -> str:
    """The standing causes, for instance `base red since 2026-01-01 10:00Z (2 tests fail)`."""
    return "; ".join(f"{freeze.cause} since {freeze.since:%Y-%m-%d %H:%M}Z ({freeze.reason})" for freeze in freezes)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`."""
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in {11, 12, 13} else suffix}"
