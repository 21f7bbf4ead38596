"""Which session an attempt uses."""

import uuid
from typing import Any

import pytest

from activities.sessions import Session, choose

FIRST = str(uuid.UUID(int=1))
Row = dict[str, Any]


def row(
    outcome: str, *, session: str = FIRST, resumed: bool = False, cost: float | None = None, cause: str = ""
) -> Row:
    """An earlier attempt."""
    return {
        "session_id": session,
        "outcome": outcome,
        "resumed": resumed,
        "session_cost_usd": cost,
        "cause": cause,
    }


def after(*attempts: Row, exists: bool = True) -> Session:
    """The session that follows these attempts."""
    return choose(FIRST, attempts, lambda _: exists)


def test_the_first_attempt_begins_the_workflows_session() -> None:
    """A session that nobody used is begun."""
    assert after(exists=False) == Session(FIRST)


def test_a_transcript_without_a_row_is_taken_up() -> None:
    """A used id is never given as new, also if what used it was forgotten; what it had cost is then not known."""
    found = after()
    assert (found.id, found.turn, found.before.exact) == (FIRST, "resume", False)


@pytest.mark.parametrize("outcome", ["running", "lost", "killed", "cancelled", "retryable"])
def test_a_run_that_was_cut_off_is_taken_up(outcome: str) -> None:
    """Whatever cut it off, its session goes on."""
    assert (after(row(outcome)).id, after(row(outcome)).turn) == (FIRST, "resume")


def test_the_next_run_knows_what_the_session_had_cost() -> None:
    """The last cumulative cost counts; it is not exact if a later attempt could not tell one."""
    told = after(row("retryable", cost=0.5))
    assert (told.before.cost, told.before.exact) == (0.5, True)
    cut = after(row("retryable", cost=0.5), row("killed", resumed=True))
    assert (cut.before.cost, cut.before.exact) == (0.5, False)


def fresh(session: Session) -> bool:
    """Whether it begins anew under an id of its own."""
    return session.turn == "start" and session.id != FIRST and bool(uuid.UUID(session.id))


def test_two_resumes_in_vain_end_a_session() -> None:
    """A session that is cut off twice after having been taken up is left."""
    vain = row("killed", resumed=True)
    assert after(row("killed"), vain).turn == "resume"
    assert fresh(after(row("killed"), vain, vain))


def test_an_api_that_is_down_ends_no_session() -> None:
    """Resumes that failed because of the API were not in vain."""
    down = row("retryable", resumed=True, cause="api-529")
    assert after(row("killed"), *[down] * 9).turn == "resume"


def test_what_cannot_be_resumed_begins_anew() -> None:
    """Without a transcript, or where claude does not find it, a fresh id is used."""
    assert fresh(after(row("killed"), exists=False))
    assert fresh(after(row("killed"), row("retryable", resumed=True, cause="session")))


def test_each_fresh_session_has_its_own_id() -> None:
    """A second new beginning does not reuse the first one's id, and both are always the same."""
    second = after(row("killed"), exists=False)
    third = after(row("killed"), row("killed", session=second.id), exists=False)
    assert len({FIRST, second.id, third.id}) == 3
    assert after(row("killed"), exists=False).id == second.id
