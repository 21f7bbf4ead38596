"""How things are said to people: pure functions of data, no I/O."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from workflows.model import waits

Row = Mapping[str, Any]

_SHORT = 10
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+")
"""Control characters, marks that reorder or hide text, halves of letters: titles come from outside."""


def harmless(line: str) -> str:
    """A line that cannot steer a terminal, with its indentation."""
    return _UNSAFE.sub(" ", line).rstrip()


def clean(text: str) -> str:
    """A text on one line that cannot steer a terminal."""
    return harmless(text).strip()


def short(sha: str) -> str:
    """A commit as people name it."""
    return sha[:_SHORT]


def money(cost: object) -> str:
    """A cost; what is not known is never shown as nothing."""
    if cost is None:
        return "unknown"
    whole, _, cents = f"{float(str(cost)):.4f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, in the two largest units."""
    if since is None:
        return ""
    seconds = max(0, int((now - since) / timedelta(seconds=1)))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for index, (size, unit) in enumerate(units):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            if index + 1 < len(units) and (more := rest // units[index + 1][0]):
                return f"{whole} {unit} {more} {units[index + 1][1]}"
            return f"{whole} {unit}"
    return "0 s"


def waiting_for(row: Row) -> str:
    """How a task waits and why, or that it works."""
    if row["ended_at"] is not None:
        return clean(row["outcome"])
    if row["paused_since"] is not None:
        return clean(f"paused: {row['paused_reason']}")
    if row["status"] != "waiting":
        return "(working)"
    how = waits(row["waiting_on"], needs_human=row["needs_human"])
    return clean(f"{how}: {row['waiting_reason']}" if row["waiting_reason"] else how)


def why(row: Row) -> str:
    """One sentence: what the task does or waits for."""
    if row["ended_at"] is not None:
        landed = f" It landed as {short(row['landed_sha'])}." if row["landed_sha"] else ""
        return f"{row['task']} has ended: {clean(row['outcome'])}.{landed}"
    gate = f"; {clean(row['merge_gate'])}" if row.get("merge_gate") else ""
    head = f"{row['task']} is in {row['stage']} (round {row['round']}{gate})"
    if row["paused_since"] is not None:
        return f"{head} and paused since {row['paused_since']:%Y-%m-%d %H:%M}Z: {clean(row['paused_reason'])}."
    if row["status"] != "waiting":
        return f"{head} and working."
    how = waits(row["waiting_on"], needs_human=row["needs_human"])
    since = f", since {row['waiting_since']:%Y-%m-%d %H:%M}Z" if row["waiting_since"] else ""
    look = f" It looks again at {row['next_check_at']:%Y-%m-%d %H:%M:%S}Z." if row["next_check_at"] else ""
    return f"{head} and waits {how}{since}: {clean(row['waiting_reason'])}.{look}"


def next_step(row: Row) -> str:
    """What a person can do about it, or nothing."""
    if row["ended_at"] is not None or not row["needs_human"]:
        return ""
    if row["paused_since"] is not None:
        return f"go on: orch task resume {row['task']}"
    if row["spec_digest"]:
        return f"decide: orch task approve {row['task']}, or orch task reject {row['task']} --reason …"
    if row["stage"] == "deploy" and row["waiting_reason"].startswith("production:"):
        return f"mend what it says, then say what it offers: orch task retry|rollback|accept {row['task']}"
    return f"mend what it says, then: orch task retry {row['task']}"


def shows(act: str, before: Row, now: Row) -> bool:
    """Whether a task's row shows that an act has had its effect."""
    if now["ended_at"] is not None:
        return True
    if act in {"pause", "resume"}:
        return (now["paused_since"] is not None) == (act == "pause")
    return act != "cancel" and bool(now["updated_at"] > before["updated_at"])


def afterwards(act: str, task: str) -> str:
    """What a person may want to do after an act, or nothing."""
    return {
        "approve": f"follow it: orch task show {task}",
        "reject": f"the next spec is asked about when it is written: orch task why {task}",
        "retry": f"see what becomes of it: orch task why {task}",
        "pause": f"go on: orch task resume {task}",
        "resume": f"follow it: orch task show {task}",
        "cancel": "to start anew, move its item to In Progress",
    }.get(act, "")


def became(row: Row) -> str:
    """What became of an act."""
    return clean(row["outcome"]) or "open: not taken yet"


def cancelled_as(row: Row) -> str:
    """What a task becomes that is cancelled as it stands."""
    if row["deployed_sha"]:
        # Who is asked after a deployment is asked because it did not pass.
        return "deployed, not passed" if row["needs_human"] else "deployed, not judged"
    return "landed, not deployed" if row["landed_sha"] else "cancelled"


def cancelling(row: Row) -> str:
    """What cancelling would do to a task, for who is asked whether to."""
    if row["deployed_sha"]:
        done = f"production serves {short(row['deployed_sha'])}, and nobody answers for it any more"
    elif row["landed_sha"]:
        done = f"{short(row['landed_sha'])} stays on the base branch of {row['repo']}; the next deployment contains it"
    else:
        done = f"branch {row['branch']} and its pull request are left as they are"
    return (
        f"{row['task']} “{clean(row['title'])}” is in {row['stage']} (round {row['round']}). "
        f"Cancelling ends it as “{cancelled_as(row)}”: {clean(done)}. "
        "A landing or deployment that runs is seen through first."
    )


def temporal_link(ui: str, namespace: str, task: str) -> str:
    """The newest run of the task's workflow in Temporal's Web UI."""
    if not ui:
        return ""
    return f"{ui.rstrip('/')}/namespaces/{quote(namespace, safe='')}/workflows/{quote(f'task/{task}', safe='')}"


def spec_link(gitea: str, row: Row) -> str:
    """The spec exactly as a person is asked about it."""
    if not (gitea and row["head_sha"]):
        return ""
    return f"{gitea.rstrip('/')}/{row['repo']}/src/commit/{row['head_sha']}/docs/tasks/{row['task']}/spec.md"


def absolute(link: str, gitea: str) -> str:
    """A link of a gate: Gitea answers some without its own address."""
    return f"{gitea.rstrip('/')}{link}" if link.startswith("/") and gitea else link
