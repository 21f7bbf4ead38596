"""Rows as rich tables. No I/O."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.cli import wording

Row = Mapping[str, Any]

_OUTCOMES = {"green": "green", "red": "red", "pending": "yellow", "unknown": "yellow", "ok": "green"}


def _table(*columns: str, right: tuple[str, ...] = (), fold: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column not in fold,
        )
    return table


def _cell(value: object, style: str = "") -> Text:
    return Text(wording.clean(str(value)), style=style)


def task_list(rows: Sequence[Row], now: datetime) -> RenderableType:
    """What `orch task list` shows."""
    if not rows:
        return Text("No task is under way. (--all shows the ended ones too.)")
    table = _table("task", "stage", "waits", "since", "cost", "title", right=("cost",), fold=("waits", "title"))
    for row in rows:
        since = row["ended_at"] or row["paused_since"] or row["waiting_since"] or row["updated_at"]
        table.add_row(
            _cell(row["task"], "bold"),
            _cell(row["stage"]),
            _cell(wording.waiting_for(row), "red" if row["needs_human"] else ""),
            _cell(wording.age(since, now)),
            _cell(wording.money(row["cost_usd"])),
            _cell(row["title"]),
        )
    return table


def task_details(
    row: Row,
    timeline: Sequence[Row],
    gates: Sequence[Row],
    runs: Sequence[Row],
    links: Mapping[str, str],
    *,
    acts: Sequence[Row] = (),
    gitea: str = "",
) -> RenderableType:
    """What `orch task show` shows."""
    head = Text.assemble((row["task"], "bold"), "  ", wording.clean(row["title"]))
    facts = Text("\n".join(_facts(row)))
    shown: list[RenderableType] = [head, Text(wording.why(row)), Text(wording.next_step(row), style="bold"), facts]
    if links:
        shown.append(Text("\n".join(f"{name:<13}{link}" for name, link in links.items())))
    told = [_acts(acts)] if acts else []
    return Group(*shown, _timeline(timeline), _gates(gates, gitea), _runs(runs), *told)


def _facts(row: Row) -> list[str]:
    facts = {
        "repository": f"{row['repo']}, branch {row['branch']}",
        "generation": f"{row['generation']}, started {row['started_at']:%Y-%m-%d %H:%M:%S}Z",
        "cost": wording.money(row["cost_usd"]),
        "spec": row["spec_digest"] and f"digest {row['spec_digest']}, a decision is asked for",
        "head": wording.short(row["head_sha"]),
        "landed": wording.short(row["landed_sha"]),
        "deployed": wording.short(row["deployed_sha"]),
    }
    return [f"{name:<13}{wording.clean(value)}" for name, value in facts.items() if value]


def _timeline(lines: Sequence[Row]) -> RenderableType:
    table = _table("at", "stage", "what happened", "commit", "woken by", fold=("what happened",))
    for line in lines:
        stage = line["stage"] if line["round"] == 1 else f"{line['stage']} ({line['round']})"
        table.add_row(
            _cell(f"{line['at']:%H:%M:%S}"),
            _cell(stage),
            _cell(line["text"]),
            _cell(wording.short(line["sha"])),
            _cell(line["source"]),
        )
    return table


def _gates(rows: Sequence[Row], gitea: str) -> RenderableType:
    table = _table("gate", "answer", "why", "commit", "looks", "evidence", right=("looks",), fold=("why",))
    for row in rows:
        links = " ".join(wording.absolute(str(link), gitea) for link in row["links"])
        table.add_row(
            _cell(row["gate"]),
            _cell(row["outcome"], _OUTCOMES.get(row["outcome"], "")),
            _cell(row["reason"]),
            _cell(wording.short(row["sha"])),
            _cell(row["looks"]),
            _cell(links),
        )
    return table if rows else Text("No gate has been asked yet.")


def _runs(rows: Sequence[Row]) -> RenderableType:
    table = _table("agent", "runner", "result", "said", "tokens in", "cached", "out", "cost",
                   right=("tokens in", "cached", "out", "cost"), fold=("said",))  # fmt: skip
    for row in rows:
        verdict = row["verdict"] if isinstance(row["verdict"], dict) else {}
        cached = row["cache_read_tokens"]
        table.add_row(
            _cell(f"{row['role']} ({row['round']})"),
            _cell(row["runner"]),
            _cell(row["outcome"], _OUTCOMES.get(row["outcome"], "")),
            _cell(f"{verdict['outcome']}: {verdict.get('summary', '')}" if verdict else row["reason"]),
            _cell(row["input_tokens"] + cached + row["cache_creation_tokens"]),
            _cell(cached),
            _cell(row["output_tokens"]),
            _cell(wording.money(row["cost_usd"])),
        )
    return table if rows else Text("No agent has run yet.")


def _acts(rows: Sequence[Row]) -> RenderableType:
    table = _table("said at", "act", "by", "via", "why", "what became of it", fold=("why", "what became of it"))
    for row in rows:
        table.add_row(
            _cell(f"{row['at']:%H:%M:%S}"),
            _cell(row["act"], "bold"),
            _cell(row["actor"]),
            _cell(row["via"]),
            _cell(row["reason"]),
            _cell(wording.became(row), "" if row["outcome"] in {"taken", "counted"} else "yellow"),
        )
    return table


_STATUSES = {"forwarded": "green", "new": "yellow", "dead": "red"}
_DELIVERY = ("id", "source", "event", "status", "reason", "task", "delivery_id", "times_received", "attempts",
             "received_at", "last_received_at", "next_attempt_at", "settled_at", "bytes")  # fmt: skip


def webhook_list(rows: Sequence[Row]) -> RenderableType:
    """What `orch webhooks list` shows."""
    if not rows:
        return Text("No delivery matches.")
    table = _table("row", "received", "from", "status", "event", "task", "why", right=("row",), fold=("task", "why"))
    for row in rows:
        table.add_row(
            _cell(row["id"], "bold"),
            _cell(f"{row['last_received_at']:%Y-%m-%d %H:%M:%S}Z"),
            _cell(row["source"]),
            _cell(row["status"], _STATUSES.get(row["status"], "")),
            _cell(row["event"]),
            _cell(row["task"] or ""),
            _cell(row["reason"]),
        )
    return table


def webhook_details(row: Row) -> list[str]:
    """What `orch webhooks show` shows, line by line: a body is not broken where the terminal ends."""
    lines = []
    for name in _DELIVERY:
        value = row[name]
        text = f"{value:%Y-%m-%d %H:%M:%S}Z" if isinstance(value, datetime) else "" if value is None else str(value)
        lines.append(f"{name:<17}{text}")
    for name in ("headers", "body"):
        value = row[name]
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        lines += ["", f"{name}:", *text.split("\n")]
    return [wording.harmless(line) for line in lines]


def merge_queue(found: Mapping[str, Any]) -> RenderableType:
    """What `orch merge-queue show` shows."""
    shown: list[RenderableType] = [Text.assemble((wording.clean(found["queue"]), "bold"))]
    if found["gate"]:
        shown.append(_cell(found["gate"], "yellow"))
    for row in found["freezes"]:
        said = f"frozen: {row['cause']} since {_at(row['since'])} by {row['by']}: {row['reason']}"
        shown += [_cell(said, "red"), _cell(f"  lifted by: {row['who_may_lift']}")]
    if found["base_test_at"]:
        shown.append(_cell(f"  the base is tested again at {_at(found['base_test_at'])}"))
    shown += [_cell(f"{given['task']} may pass, says {given['by']}") for given in found["passes"]]
    shown.append(_cell(_held(found["holder"])))
    if not found["waiting"]:
        return Group(*shown, Text("nobody waits"))
    table = _table("place", "task", "priority", "since", right=("place",))
    for row in found["waiting"]:
        table.add_row(
            _cell(row["position"] or "?"),
            _cell(row["task"], "bold"),
            _cell(row.get("priority") or "?"),
            _cell(_at(row["since"])),
        )
    return Group(*shown, table)


def _held(holder: Mapping[str, Any] | None) -> str:
    if holder is None:
        return "nobody holds the lease"
    held = f"{holder['task']} holds the lease, epoch {holder['epoch']}, since {_at(holder['since'])}"
    phase = f": {holder['phase']} since {_at(holder['phase_since'])}" if holder["phase"] else ""
    return held + phase


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else "?"
