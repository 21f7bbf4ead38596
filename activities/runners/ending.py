"""How a claude run ended, in one typed word with its reason and cost. The exit code alone is never believed."""

import functools
from dataclasses import dataclass

from activities.runners.base import Before, Spending
from activities.runners.prices import price
from activities.runners.stream import Picture, Result
from workflows.usage import Tokens, Usage, plus, total
from workflows.verdicts import RunOutcome

_LIMITS = {
    "error_max_turns": ("turns", "it used up its turns (max_turns in .orch/pipeline.toml)"),
    "error_max_budget_usd": ("budget", "it used up its budget (max_budget_usd in .orch/pipeline.toml)"),
}
_FATAL_REASONS = frozenset({"prompt_too_long", "image_error"})
_TERMINATED = frozenset({-15, -1, 143, 129})
_KILLED = frozenset({-9, 137})
_DELAYS = {429: 120.0, 529: 60.0}
"""Seconds until the next attempt by the API's status, after the command line's own retries."""
_LONG_QUOTA = 900.0
"""After a 429 that the command line did not even try to wait for: it asks for longer than a run can wait."""
_DELAY = 30.0


@dataclass(frozen=True, slots=True)
class Ending:
    """One typed outcome."""

    outcome: RunOutcome
    cause: str = ""
    """Finer than the outcome, such as `api-529`; for tables and tests."""
    reason: str = ""
    """For a person; empty where nothing went wrong."""
    delay: float | None = None
    """Seconds to wait before the next attempt."""


def classify(picture: Picture, exit_code: int | None, *, wants_verdict: bool, stderr: str = "") -> Ending:
    """Judge an ended run; `exit_code` is None if we gave up on it without its having ended by itself."""
    result = picture.result
    if result is None:
        return _without_result(picture, exit_code, stderr)
    if result.subtype != "success":
        return _by_subtype(result)
    if result.is_error:
        return _by_error(picture, result)
    if wants_verdict and result.verdict is None:
        return Ending(RunOutcome.NO_VERDICT, "unanswered", "it ended without giving its verdict")
    return Ending(RunOutcome.OK, "with-denials" if result.denials else "")


def _without_result(picture: Picture, exit_code: int | None, stderr: str) -> Ending:
    if exit_code in _TERMINATED:
        return Ending(RunOutcome.CANCELLED, "", "it was told to stop")
    if exit_code in _KILLED:
        return Ending(RunOutcome.KILLED, "", "its process was killed")
    if exit_code and not picture.session_id:
        said = stderr.strip().splitlines()
        return Ending(RunOutcome.FATAL, "invocation", f"it did not start: {said[-1][:300] if said else exit_code}")
    if exit_code:
        return Ending(RunOutcome.KILLED, "crash", f"it ended with exit code {exit_code} in the middle of its work")
    return Ending(RunOutcome.KILLED, "interrupted", "it was interrupted in the middle of its work")


def _by_subtype(result: Result) -> Ending:
    if limit := _LIMITS.get(result.subtype):
        return Ending(RunOutcome.LIMIT, *limit)
    if result.subtype == "error_max_structured_output_retries":
        return Ending(RunOutcome.NO_VERDICT, "invalid", "it never gave a verdict that fits the schema")
    if result.subtype == "error_during_execution" and result.turns == 0 and not result.terminal_reason:
        return Ending(RunOutcome.RETRYABLE, "session", f"its session cannot be resumed: {result.text[:200]}", 0)
    if result.terminal_reason.startswith("aborted"):
        return Ending(RunOutcome.KILLED, "interrupted", "it was interrupted in the middle of its work")
    return Ending(RunOutcome.FAILED, result.subtype, f"{result.subtype}: {result.text[:300]}")


def _by_error(picture: Picture, result: Result) -> Ending:
    said = result.text[:300] or result.terminal_reason
    if result.stop_reason == "refusal":
        return Ending(RunOutcome.REFUSED, "", f"the model refused: {said}")
    if result.terminal_reason in _FATAL_REASONS:
        return Ending(RunOutcome.FATAL, result.terminal_reason, said)
    status = result.status
    if status is None:
        return _without_status(picture, said)
    if status == 429 or status >= 500:
        waits = _LONG_QUOTA if status == 429 and not picture.retries else _DELAYS.get(status, _DELAY)
        return Ending(RunOutcome.RETRYABLE, f"api-{status}", f"the model API answers {status}: {said}", waits)
    return Ending(RunOutcome.FATAL, f"api-{status}", f"the model API answers {status}: {said}")


def _without_status(picture: Picture, said: str) -> Ending:
    # The API was well; no name but this text tells that answer from a broken connection.
    if "output token maximum" in said:
        return Ending(RunOutcome.FATAL, "max-output", said)
    if picture.refused_key or said.startswith("Not logged in"):
        return Ending(RunOutcome.FATAL, "login", f"the model API takes no key of ours: {said}")
    return Ending(RunOutcome.RETRYABLE, "network", f"the model API cannot be reached: {said}", _DELAY)


def spending(picture: Picture, before: Before) -> Spending:
    """Tokens and cost of exactly this run.

    The command line's cost is of the whole session. Where the share of this run cannot be told from it, or there
    is no result at all, the price of the run's own messages counts; a price that is not known is None, never 0.
    """
    result = picture.results[-1] if picture.results else None
    usage = _usage(picture)
    session = result.session_cost if result else None
    reported = None
    if result is not None and picture.result is not None and not result.guessed:
        reported = _share(picture, before)
    if reported is not None and (reported > 0 or usage.full_input + usage.output == 0):
        return Spending(usage, reported, "reported", session)
    computed = price(usage)
    return Spending(usage, computed, "unknown" if computed is None else "computed", session)


def _share(picture: Picture, before: Before) -> float | None:
    session = picture.results[-1].session_cost
    if session is None:
        return None
    if before.exact:
        return round(session - before.cost, 9) if session >= before.cost else None
    deltas = [result.delta for result in picture.results]
    known = [delta for delta in deltas if delta is not None]
    return sum(known) if len(known) == len(deltas) else None


def _usage(picture: Picture) -> Usage:
    """What the results say of this run, or more if its own messages came to more: a killed one has no result."""
    seen = picture.seen
    said = functools.reduce(plus, (result.usage for result in picture.results), Tokens())
    if said.full_input + said.output <= seen.full_input + seen.output:
        return seen
    models = picture.results[-1].models
    name = next(iter(models)) if len(models) == 1 else picture.model
    return total({name: said})
