"""What people do to a task: the rules, held together with the table people read."""

from pathlib import Path

import pytest

from workflows.model import Stage
from workflows.situation import (
    Effect,
    ItemStanding,
    PauseCause,
    PersonMove,
    PullStanding,
    Situation,
    StateKind,
    still_paused,
    verdict_on,
)

PAGE = Path(__file__).parents[2] / "docs/reference/human-acts.md"
WORKING = [stage for stage in Stage if stage is not Stage.DONE]


def documented() -> dict[str, str]:
    """The first table of the page: state kind -> effect before landing."""
    rows = [line.split("|")[1:-1] for line in PAGE.read_text().split("## In Gitea")[0].splitlines() if "|" in line]
    return {cells[0].strip(): cells[1].strip() for cells in rows[2:]}


def moved(to: StateKind, **more: object) -> Situation:
    """A person moved the item."""
    return Situation.model_validate({"move": PersonMove(to=to, state=to.title(), by="olga"), **more})


WORDS = {
    "nothing": Effect.NONE,
    "pause": Effect.PAUSE,
    "cancelled": Effect.CANCEL,
    "the answer to analysis' question, else nothing": Effect.NONE,
}


@pytest.mark.parametrize("stage", WORKING)
@pytest.mark.parametrize("kind", StateKind)
def test_a_move_in_plane_does_what_the_page_says(kind: StateKind, stage: Stage) -> None:
    """At every stage, a person's move to each kind of state has the documented effect."""
    effect = verdict_on(moved(kind), stage).effect
    # A move to in progress is a resume, which is nothing for a task that is not paused.
    assert WORDS[documented()[kind]] == (Effect.NONE if effect is Effect.RESUME else effect)


def test_every_kind_of_state_has_a_row() -> None:
    """The page leaves no state out and invents none."""
    assert set(documented()) == {str(kind) for kind in StateKind}


@pytest.mark.parametrize("stage", WORKING)
@pytest.mark.parametrize(
    ("situation", "effect", "cause"),
    [
        (Situation(item=ItemStanding.MISSING), Effect.PAUSE, PauseCause.MISSING),
        (Situation(pull=PullStanding.CLOSED), Effect.PAUSE, PauseCause.PULL_REQUEST),
        (Situation(branch_gone=True), Effect.PAUSE, PauseCause.BRANCH),
        (Situation(pull=PullStanding.MERGED_BY_HAND, merged_sha="abc"), Effect.DONE_BY_HAND, PauseCause.OPERATOR),
        (Situation(pull=PullStanding.LANDED), Effect.NONE, PauseCause.OPERATOR),
        (Situation(pull=PullStanding.OPEN), Effect.NONE, PauseCause.OPERATOR),
    ],
)
def test_what_is_gone_closed_or_merged_interrupts_at_every_stage(
    situation: Situation, effect: Effect, cause: PauseCause, stage: Stage
) -> None:
    """What people did in Gitea, or to the item itself, has one meaning at every stage."""
    judged = verdict_on(situation, stage)
    assert (judged.effect, judged.cause) == (effect, cause)
    assert judged.reason or effect is Effect.NONE


def test_a_merge_by_hand_outweighs_a_missing_item_and_a_move() -> None:
    """What is on main is a fact that nothing else can undo."""
    situation = moved(StateKind.CANCELLED, item=ItemStanding.MISSING, pull=PullStanding.MERGED_BY_HAND)
    assert verdict_on(situation, Stage.REVIEW).effect is Effect.DONE_BY_HAND


@pytest.mark.parametrize("stage", WORKING)
def test_nothing_follows_from_what_could_not_be_read(stage: Stage) -> None:
    """A source that is down or refuses us is never taken for a person's act."""
    situation = moved(StateKind.CANCELLED, problem="plane answers 503", item=ItemStanding.MISSING, branch_gone=True)
    assert verdict_on(situation, stage).effect is Effect.NONE
    assert all(still_paused(cause, situation) for cause in PauseCause)


def test_a_pause_ends_when_its_cause_is_undone_and_only_then() -> None:
    """What is back resumes the task by itself; a pause by an operator or a move waits for the contrary act."""
    fine = Situation(pull=PullStanding.OPEN)
    assert [cause for cause in PauseCause if still_paused(cause, fine)] == [PauseCause.OPERATOR, PauseCause.ITEM]
    assert still_paused(PauseCause.PULL_REQUEST, Situation(pull=PullStanding.CLOSED))
    assert still_paused(PauseCause.MISSING, Situation(item=ItemStanding.MISSING))
    assert still_paused(PauseCause.BRANCH, Situation(branch_gone=True))
