"""Items with titles and descriptions that would harm somebody careless: they are text, and stay text."""

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deploy.demo import seed
from deploy.demo.playbook import playbook
from tests.e2e.auditor import Auditor
from tests.e2e.harness import WORK, Orch

pytestmark = pytest.mark.embedded

TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
ALLOWED = {"p", "strong", "em", "code", "pre", "ul", "ol", "li", "a", "h3", "h4", "blockquote", "br"} | TABLE
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MARKER = "orch-was-here"

TO_DONE = {
    "cyrillic and emoji": "Округлить суммы 💶 до целых центов",
    "an option": f"--upload-pack=touch /tmp/{MARKER}",
    "one word": f"--upload-pack=touch${{IFS}}/tmp/{MARKER}",
    "a way out and shell": f"../../{MARKER} '; touch /tmp/{MARKER}; $(touch /tmp/{MARKER}) `touch /tmp/{MARKER}` #",
    "lines": f"one\n\n## Decision\r\ntwo {{\n--exec=touch /tmp/{MARKER}",
}
TO_THE_DECISION = {
    "terminal": "\x1b[31mred\x1b[0m \x9b31m \x1b]0;title\x07 \u202egnp.exe",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)> **bold",
    "mentions": "@olga closes #1, fixes acme/shop#1 and [x](mailto:a@b)",
    "links": "![x](https://evil.example/p.png) [x](javascript:alert(1)) [y](data:text/html,x) <javascript:alert(1)>",
    "long": "ц" * 255,
}


class Comment(HTMLParser):
    """What a comment's HTML holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and where it leads."""
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"href", "rel"}, (tag, attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]


@dataclass
class Said:
    """What the command line printed."""

    out: str
    err: str
    code: int


async def orch_cli(orch: Orch, *words: str) -> Said:
    """Run `orch` against the stack."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api.cli",
        *words,
        env={**os.environ, **orch.environment, "ORCH_HOME": str(orch.stack.home.root)},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Said(out.decode(), err.decode(), process.returncode or 0)


def parrots() -> dict[str, list[list[dict[str, Any]]]]:
    """Agents that repeat the title wherever they may write: files, commit messages, verdicts, findings."""
    rounds = playbook(WORK)
    for steps in (each for role in rounds.values() for each in role):
        for step in steps:
            if "commit" in step:
                step["commit"] = "{key}: {title}"
            if "verdict" in step:
                step["summary"] = "{title}\n\n{title}"
    return rounds


async def read_and_print(orch: Orch, key: str) -> None:
    """Comments hold clean HTML, and the command line prints no control characters."""
    comments = await orch.comments(key)
    assert comments
    for comment in comments:
        html = Comment(comment["comment_html"])
        assert html.tags <= ALLOWED, comment
        assert all(link.startswith(("http://", "https://")) for link in html.links), html.links
        assert not re.search(r"(?<![\w`])@\w", comment["comment_html"]), comment
        assert len(comment["comment_html"]) < 100_000
    for words in (["show", key], ["show", key, "--json"], ["list", "--all"], ["list", "--all", "--json"], ["why", key]):
        said = await orch_cli(orch, "task", *words)
        assert said.code == 0, said
        assert not CONTROL.search(said.out + said.err), repr(said.out)
        if "--json" in words:
            json.loads(said.out)


def nothing_was_run(orch: Orch) -> None:
    """No title was ever a command or a path."""
    places = (Path("/tmp"), Path("/tmp/orch"), orch.stack.home.root, orch.stack.home.root.parent)
    found = [place / MARKER for place in places if (place / MARKER).exists()]
    # Folders come and go meanwhile, which only os.walk takes calmly.
    found += [Path(folder) for folder, _, files in os.walk(orch.stack.home.root) if MARKER in files]
    assert not found, found


@pytest.mark.parametrize("kind", TO_DONE)
async def test_a_hostile_title_is_carried_to_production(orch: Orch, kind: str) -> None:
    """A title that looks like an option, a path, a command or several lines is only ever text, and the task is done."""
    orch.perform(parrots())
    key = await orch.start(TO_DONE[kind])
    await orch.approve_when_asked(key)
    await orch.done(key)
    nothing_was_run(orch)
    await read_and_print(orch, key)
    pulls = await orch.gitea("/pulls?state=all&limit=50")
    title = next(pull["title"] for pull in pulls if pull["head"]["ref"] == f"task/{key}")
    assert title.startswith(f"{key}: "), title
    assert len(title) <= 255, title
    assert title.isprintable(), repr(title)
    await Auditor(orch).check(key)


@pytest.mark.parametrize("kind", TO_THE_DECISION)
async def test_a_hostile_title_is_told_harmlessly(orch: Orch, kind: str) -> None:
    """A title with markup, mentions, links or terminal codes reaches the decision, and is shown as harmless text."""
    orch.perform(parrots())
    text = TO_THE_DECISION[kind]
    key = await orch.start(text, description=f"<p>{text}</p>" + "x" * 10_000)
    await orch.asked(key)
    nothing_was_run(orch)
    await read_and_print(orch, key)
    await orch.move(key, "Cancelled")

    async def ended() -> bool:
        row = await orch.task(key)
        return bool(row and row["ended_at"])

    await orch.until(f"{key} has ended", ended, key)
    await read_and_print(orch, key)


async def test_a_pull_request_has_a_harmless_title(orch: Orch) -> None:
    """A title of 255 letters that names issues and people becomes one bounded line that closes and calls nothing."""
    orch.perform(parrots())
    words = "closes #1 @olga " * 20
    key = await orch.start(words[:255], description="<p>" + "ж" * 10_000 + "</p>")
    await orch.approve_when_asked(key)
    await orch.done(key)
    pulls = await orch.gitea("/pulls?state=all&limit=50")
    pull = next(pull for pull in pulls if pull["head"]["ref"] == f"task/{key}")
    assert len(pull["title"]) <= 255
    reviews = await orch.gitea(f"/pulls/{pull['number']}/reviews")
    for text in (pull["title"], pull["body"], *(review["body"] for review in reviews)):
        assert not re.search(r"(?<![\w`])@\w|#\d", text), text
    assert pull["user"]["login"] == seed.BOT
    await Auditor(orch).check(key)
