"""Which session an attempt uses: a new one, or the one that an earlier attempt was cut off in."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from activities.runners.base import Before

RESUMES = 2
"""How often a session is taken up again in vain before the work begins anew."""
_CUT_OFF = frozenset({"running", "lost", "killed"})


@dataclass(frozen=True, slots=True)
class Session:
    """What an attempt is begun with."""

    id: str
    turn: Literal["start", "resume"] = "start"
    before: Before = field(default_factory=Before)


def choose(first: str, attempts: Sequence[Mapping[str, Any]], exists: Callable[[str], bool]) -> Session:
    """The session after these attempts (rows of `agent_runs`, oldest first); `first` is the workflow's.

    A session is taken up again while its transcript exists. After two resumes that were cut off too, or where there
    is nothing to resume, a fresh one begins; an id that was used is never given as new.
    """
    if not attempts:
        return Session(first, "resume", Before(exact=False)) if exists(first) else Session(first)
    last = attempts[-1]
    same = [row for row in attempts if row["session_id"] == last["session_id"]]
    vain = sum(1 for row in same if row["resumed"] and row["outcome"] in _CUT_OFF)
    if last["cause"] != "session" and vain < RESUMES and exists(last["session_id"]):
        return Session(last["session_id"], "resume", _before(same))
    return Session(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{first}/{len(attempts)}")))


def _before(same: Sequence[Mapping[str, Any]]) -> Before:
    told = [row["session_cost_usd"] for row in same if row["session_cost_usd"] is not None]
    return Before(cost=float(told[-1]) if told else 0.0, exact=same[-1]["session_cost_usd"] is not None)
