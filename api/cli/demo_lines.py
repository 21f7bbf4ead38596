"""What the demo says, as pure functions: the story, a line of the timeline, the end."""

import re
import textwrap
from collections.abc import Mapping

from api.cli import wording

_MOVE = re.compile(r"[a-z-]+ -> [a-z-]+: ")
_GATE = re.compile(r"(?P<gate>[a-z ]+): (?P<outcome>green|red), (?P<why>.+)", re.DOTALL)
_SIGNS = {"green": "✓", "red": "✗"}
_WIDTH = 100

STORY = (
    "One item, from Plane to production. PostgreSQL, Temporal and git are real; Plane, Gitea, Telegram and production "
    "are small servers on this machine, and a script plays the agents."
)

SHOP_STORY = (
    "A shop charges 10.014999999999999 for an order and a test says it must not: Olga asks for a fix and decides on "
    "the spec, and the fix lands only after exactly that commit passed."
)
COPY_STORY = (
    "Olga asks for “{title}” in a copy of {repository}; the script only adds a note, but it goes the whole way: spec, "
    "Olga's decision, design, change, review, tests, landing, deployment."
)


def story(home: str, title: str, repository: str | None) -> str:
    """What will happen, before it does."""
    told = SHOP_STORY if repository is None else COPY_STORY.format(title=wording.clean(title), repository=repository)
    paragraphs = (textwrap.fill(text, _WIDTH) for text in (STORY, told))
    return "\n".join([*paragraphs, f"Everything is in {home}."])


def line(elapsed: float, who: str, text: str, sha: str = "") -> str:
    """One line of the live timeline."""
    commit = f"  {wording.short(sha)}" if sha else ""
    return f"{max(0.0, elapsed):6.1f} s  {who:<16}{text}{commit}"


def happened(text: str, summary: str = "") -> str | None:
    """A line of a task's timeline for a newcomer, or None for one that only repeats the one before."""
    text = wording.clean(text)
    if _MOVE.match(text):
        return None
    if gate := _GATE.fullmatch(text):
        return f"{_SIGNS[gate['outcome']]} {gate['gate']}: {gate['why']}"
    if summary:
        return f"{text}, “{wording.clean(summary)}”"
    return text


def mentions(text: str, sha: str) -> bool:
    """Whether a line names its commit already."""
    return bool(sha) and wording.short(sha) in text


def ending(log: list[str], links: Mapping[str, str], messages: list[str], *, repository: str, alive: bool) -> list[str]:
    """What there is to see at the end."""
    width = max((len(name) for name in links), default=0) + 2
    quoted = "; ".join(f"“{wording.clean(text)}”" for text in messages)
    return [
        "",
        f"main of {repository}:",
        *(f"  {wording.clean(entry)}" for entry in log),
        f"links{'' if alive else ' (alive while the demo runs; KEEP=1 keeps it up)'}:",
        *(f"  {name:<{width}}{link}" for name, link in links.items()),
        f"Telegram recorded {len(messages)} message{'' if len(messages) == 1 else 's'}{': ' if quoted else ''}{quoted}",
    ]


def kept(home: str, *, temporary: bool) -> list[str]:
    """How to look around in a stack that was left up, and how to stop it."""
    return [
        "",
        "The stack is still up. Look around:",
        f"  export ORCH_HOME={home}",
        "  orch task list --all; orch task show DEMO-1; orch task why DEMO-1",
        f"Stop it: orch down{f'; then rm -r {home}' if temporary else ''}",
        "",
    ]
