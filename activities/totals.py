"""The table of a closing comment: what a task took, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from workflows.model import Stage

_HEAD = (
    "| stage | rounds | agent runs | tokens in (cached) | tokens out | cost | working | waiting |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Took:
    """What a stage, or all of them, took. Times are in seconds, cost in USD."""

    rounds: int
    runs: int
    tokens_in: int
    cached: int
    tokens_out: int
    cost: Decimal
    unknown: int
    """Runs whose cost is not known."""
    cut: int
    """Runs that were cut off: they may have used more than was noted."""
    working: float
    waiting: float


def table(rows: Sequence[Mapping[str, Any]], waited: Mapping[Stage, float], stage: Stage) -> str:
    """Markdown with a line for each stage and a total.

    Args:
        rows: from `Runs.totals`.
        waited: seconds waited in each stage.
        stage: the stage the task is in; the time since its last line is spent there.
    """
    took = {str(row["stage"]): _took(row, waited, stage) for row in rows if row["stage"] != Stage.DONE}
    if not took:
        return ""
    lines = [_line(name, each) for name, each in took.items()]
    return "\n".join([*_HEAD, *lines, _line("**total**", _total(list(took.values())))])


def _took(row: Mapping[str, Any], waited: Mapping[Stage, float], now_in: Stage) -> Took:
    stage = Stage(row["stage"])
    seconds = float(row["seconds"]) + (float(row["since_last"]) if stage is now_in else 0.0)
    waiting = min(waited.get(stage, 0.0), seconds)
    return Took(
        rounds=row["rounds"],
        runs=row["runs"],
        tokens_in=row["tokens_in"],
        cached=row["cached"],
        tokens_out=row["tokens_out"],
        cost=Decimal(row["cost_usd"] or 0),
        unknown=row["unknown"],
        cut=row["cut"],
        working=seconds - waiting,
        waiting=waiting,
    )


def _total(took: list[Took]) -> Took:
    return Took(
        rounds=sum(each.rounds for each in took),
        runs=sum(each.runs for each in took),
        tokens_in=sum(each.tokens_in for each in took),
        cached=sum(each.cached for each in took),
        tokens_out=sum(each.tokens_out for each in took),
        cost=sum((each.cost for each in took), Decimal(0)),
        unknown=sum(each.unknown for each in took),
        cut=sum(each.cut for each in took),
        working=sum(each.working for each in took),
        waiting=sum(each.waiting for each in took),
    )


def _line(name: str, took: Took) -> str:
    cells = (name, str(took.rounds), str(took.runs), *_tokens(took), _cost(took), age(took.working), age(took.waiting))
    return f"| {' | '.join(cells)} |"


def _tokens(took: Took) -> tuple[str, str]:
    if not took.runs:
        return "none", "none"
    known = "at least " if took.cut else ""
    if took.cut and not took.tokens_in + took.tokens_out:
        return "unknown", "unknown"
    share = round(100 * took.cached / took.tokens_in) if took.tokens_in else 0
    return f"{known}{took.tokens_in} ({share}%)", f"{known}{took.tokens_out}"


def _cost(took: Took) -> str:
    """What is not known is never shown as nothing."""
    if not took.runs:
        return "none"
    if not took.unknown:
        return f"${took.cost:.4f}"
    return f"at least ${took.cost:.4f}" if took.cost else "unknown"


def age(seconds: float) -> str:
    """A time in its two largest units."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
