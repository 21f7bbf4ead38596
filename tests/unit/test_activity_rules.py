"""What activities decide from data alone: policies, starts, decisions, text for people, verdict files."""

import os
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.adapters.plane_models import Item, StateChange
from activities.adapters.store import GenerationRow
from activities.decisions import since_asked
from activities.items import started_by_person
from activities.markup import inline, to_html
from activities.plane_states import PlaneStates, after
from activities.verdict_files import VERDICT_LIMIT, read_verdict
from workflows.model import Repository, Role
from workflows.policy import read_policy
from workflows.projects import ProjectConfig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TODO, WORK, AWAIT, OK = "s-todo", "s-in-progress", "s-awaiting", "s-approved"
PERSON, BOT = "u-olga", "u-bot"
BOTS = frozenset({BOT})
DONE, CANCELLED = "s-done", "s-cancelled"
STATES = PlaneStates(
    ProjectConfig(plane_project_id="p", repository=Repository(owner="acme", name="shop")),
    {"in progress": WORK, "done": DONE, "cancelled": CANCELLED},
)


def change(number: int, actor: str | None, new: str, old: str = TODO) -> StateChange:
    """A state activity."""
    at = NOW + timedelta(minutes=number)
    return StateChange(id=f"a{number}", actor=actor, old_state=old, new_state=new, created_at=at)


def item(created_by: str | None = None) -> Item:
    """An item in progress."""
    return Item(
        id="i", sequence_id=1, name="T", state=WORK, updated_at=NOW, project="p", created_at=NOW, created_by=created_by
    )


def generation(start: str, *, ended: bool = True, seen: str = "") -> GenerationRow:
    """An earlier life of the task."""
    return GenerationRow(generation=1, start_activity=start, seen_activity=seen, ended_at=NOW if ended else None)


# -- policy -------------------------------------------------------------------------------------------------

GOOD = """
[commands]
test = "make test"
production = "make deploy"
"""


def test_a_missing_policy_is_a_problem() -> None:
    """A missing file is never taken for defaults; the text says what to add."""
    reading = read_policy(None, "pipeline.toml on main")
    assert reading.policy is None
    assert reading.problem.startswith("pipeline.toml on main is missing; add it with at least commands.test")


def test_a_minimal_policy() -> None:
    """A test and a production command are enough; the rest has defaults."""
    policy = read_policy(GOOD.encode(), "f").policy
    assert policy is not None
    assert (policy.test, policy.production, policy.staging) == ("make test", "make deploy", None)
    assert (policy.ci, policy.runner, policy.cap("ci_rounds")) == ("required", "claude", 3)
    assert len(policy.digest) == 12


def test_a_whole_policy() -> None:
    """Every table of the file reaches the policy."""
    text = (
        GOOD
        + """staging = "make staging"
[probes]
staging = "curl s"
production = "curl p"
[agents]
runner = "codex"
roles = { reviewer = "claude" }
[limits]
ci_rounds = 5
"""
    )
    policy = read_policy(('ci = "none"\n' + text).encode(), "f").policy
    assert policy is not None
    assert (policy.staging, policy.probe_staging, policy.probe_production) == ("make staging", "curl s", "curl p")
    assert (policy.ci, policy.cap("ci_rounds"), policy.cap("failures")) == ("none", 5, 3)
    assert (policy.runner_for(Role.REVIEWER), policy.runner_for(Role.TESTER)) == ("claude", "codex")


def test_nothing_is_deployed_only_where_it_is_said() -> None:
    """`production = "none"` is the explicit way; leaving it out is a problem."""
    none = read_policy(GOOD.replace("make deploy", "none").encode(), "f")
    assert none.policy is not None
    assert none.policy.production is None
    left_out = read_policy(b'[commands]\ntest = "t"\n', "f")
    assert left_out.policy is None
    assert "commands.production" in left_out.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[commands\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"", "commands"),
        (b'[commands]\ntest = ""\nproduction = "p"\n', "commands.test"),
        (GOOD.encode() + b'skip_gates = "yes"\n', "commands.skip_gates"),
        (b'gate = "off"\n' + GOOD.encode(), "gate"),
        (b'ci = "optional"\n' + GOOD.encode(), "ci"),
        (GOOD.encode() + b"[limits]\nci_rounds = -1\n", "limits.ci_rounds"),
        (GOOD.encode() + b"[limits]\nrounds = 9\n", "limits.rounds"),
        (GOOD.encode() + b'[agents.roles]\nhacker = "x"\n', "agents.roles"),
    ],
)
def test_a_broken_policy_is_a_problem(content: bytes, problem: str) -> None:
    """A file that is broken or says something unknown is refused whole, and names the place."""
    reading = read_policy(content, "f")
    assert reading.policy is None
    assert problem in reading.problem


# -- who started it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "created_by", "changes", "last", "start"),
    [
        ("a person moved it", None, (change(1, PERSON, WORK),), None, "a1"),
        ("the last such move counts", None, (change(1, PERSON, WORK), change(2, PERSON, WORK)), None, "a2"),
        ("a bot moved it", None, (change(1, BOT, WORK),), None, None),
        ("nobody is known to have", None, (change(1, None, WORK),), None, None),
        ("a person, then a bot", None, (change(1, PERSON, WORK), change(2, BOT, WORK, AWAIT)), None, "a1"),
        ("elsewhere", None, (change(1, PERSON, OK),), None, None),
        ("created in progress by a person", PERSON, (), None, "created:i"),
        ("created in progress by a bot", BOT, (), None, None),
        ("created in progress, moved on by a bot", PERSON, (change(1, BOT, AWAIT, WORK),), None, "created:i"),
        ("created elsewhere, moved by a bot", PERSON, (change(1, BOT, WORK),), None, None),
        ("not moved since it ended", PERSON, (change(1, PERSON, WORK),), generation("a1"), None),
        ("moved anew", None, (change(1, PERSON, WORK), change(2, PERSON, WORK)), generation("a1"), "a2"),
        ("moved anew by a bot", None, (change(1, PERSON, WORK), change(2, BOT, WORK)), generation("a1"), None),
        ("created once is started once", PERSON, (), generation("created:i"), None),
        ("created, ended, moved", PERSON, (change(1, PERSON, WORK),), generation("created:i"), "a1"),
        (
            "what a person did before our closing move is history",
            None,
            (change(1, PERSON, WORK), change(2, PERSON, WORK), change(3, BOT, DONE)),
            generation("a1"),
            None,
        ),
        (
            "moved anew after our closing move",
            None,
            (change(1, PERSON, WORK), change(2, BOT, DONE), change(3, PERSON, WORK)),
            generation("a1"),
            "a3",
        ),
        (
            "what the last generation has seen is history",
            None,
            (change(1, PERSON, WORK), change(2, PERSON, TODO), change(3, PERSON, WORK)),
            generation("a1", seen="a3"),
            None,
        ),
        ("still open: a retry", None, (change(1, PERSON, WORK),), generation("a1", ended=False), "a1"),
        ("still open, moved by a bot", None, (change(2, BOT, WORK),), generation("a1", ended=False), "a1"),
    ],
)
def test_who_started_it(
    why: str,
    created_by: str | None,
    changes: tuple[StateChange, ...],
    last: GenerationRow | None,
    start: str | None,
) -> None:
    """Only a person's move to In Progress since the last generation starts a task, or their creating it there."""
    assert started_by_person(item(created_by), changes, STATES, BOTS, last) == start, why


@given(st.integers(0, 6), st.integers(0, 8))
def test_what_follows_an_activity(length: int, mark: int) -> None:
    """`after` gives what came later; everything where the mark is unknown."""
    changes = tuple(change(number, PERSON, WORK) for number in range(length))
    assert after(changes, f"a{mark}") == (changes[mark + 1 :] if mark < length else changes)


# -- decisions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "changes", "answers"),
    [
        ("nothing recorded", (), None),
        ("only a person moved it there", (change(1, PERSON, AWAIT),), None),
        ("asked, no answer", (change(1, BOT, AWAIT),), ()),
        ("answered", (change(1, BOT, AWAIT), change(2, PERSON, OK)), ("a2",)),
        ("answered before", (change(1, PERSON, OK), change(2, BOT, AWAIT)), ()),
        ("asked twice", (change(1, BOT, AWAIT), change(2, PERSON, OK), change(3, BOT, AWAIT)), ()),
    ],
)
def test_what_was_answered_since_we_asked(
    why: str, changes: tuple[StateChange, ...], answers: tuple[str, ...] | None
) -> None:
    """Only what follows our own last move to awaiting approval answers; without that nothing has been asked."""
    found = since_asked(changes, AWAIT, BOTS)
    assert (None if found is None else tuple(one.id for one in found)) == answers, why


# -- text for people ----------------------------------------------------------------------------------------


def parsed(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every tag as a browser would see it, with its attributes."""
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(html)
    return tags


def test_markdown_that_stays() -> None:
    """Headings, lists, code, emphasis and web links are rendered; links give nothing away."""
    html = to_html("### T\n\n- **a** `b`\n\n[c](https://x.example/y)")
    assert "<h3>T</h3>" in html
    assert "<li><strong>a</strong> <code>b</code></li>" in html
    assert '<a href="https://x.example/y" rel="noopener noreferrer nofollow">c</a>' in html


@pytest.mark.parametrize(
    "markdown",
    [
        "![x](https://evil.example/track.png)",
        "<img src=https://evil.example/track.png>",
        "<script>alert(1)</script>",
        '<a href="javascript:alert(1)" onclick="x()">a</a>',
        "[a](javascript:alert(1))",
        "[a](data:text/html,x)",
        "[a](JaVaScRiPt:alert(1))",
        "<mention-component id='u'></mention-component>",
        "<iframe src='https://evil.example'></iframe>",
        "<style>body{}</style>",
    ],
)
def test_markdown_that_does_not(markdown: str) -> None:
    """No image, raw HTML, script or foreign address of an agent's text becomes one in Plane."""
    tags = parsed(to_html(markdown))
    assert {name for name, _ in tags} <= {"p", "a"}
    assert all((attributes.get("href") or "https://").startswith("https://") for _, attributes in tags)
    assert all("onclick" not in attributes for _, attributes in tags)


def test_an_agent_calls_nobody() -> None:
    """A mention is broken up, an address within a word and code are left alone."""
    assert "@\u200bolga" in to_html("ask @olga")
    assert "olga@example.com" in to_html("write olga@example.com")


@given(st.text(max_size=200))
def test_any_text_becomes_only_allowed_tags(text: str) -> None:
    """Whatever an agent writes, only our few tags come out."""
    allowed = {"p", "strong", "em", "code", "pre", "ul", "ol", "li", "a", "h3", "h4", "blockquote", "br",
               "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip
    assert {name for name, _ in parsed(to_html(text))} <= allowed


def test_a_line_of_untrusted_text_is_one_line() -> None:
    """`inline` makes one short line in which nothing is Markdown any more."""
    assert inline("a\nb  [c](d) *e* <f> `g` #h |i") == r"a b \[c\](d) \*e\* \<f\> \`g\` \#h \|i"
    assert len(inline("x" * 1000)) == 300


# -- verdict files ------------------------------------------------------------------------------------------


def test_a_verdict_file_is_read(tmp_path: Path) -> None:
    """A regular file up to the limit is read whole."""
    path = tmp_path / "verdict.json"
    path.write_text("x" * VERDICT_LIMIT)
    assert len(read_verdict(path)) == VERDICT_LIMIT


def test_a_verdict_too_large_is_refused(tmp_path: Path) -> None:
    """One byte more than the limit is refused."""
    path = tmp_path / "verdict.json"
    path.write_text("x" * (VERDICT_LIMIT + 1))
    with pytest.raises(ValueError, match="larger than"):
        read_verdict(path)


def test_a_missing_verdict_is_an_error(tmp_path: Path) -> None:
    """Missing is said, never read as empty."""
    with pytest.raises(FileNotFoundError):
        read_verdict(tmp_path / "verdict.json")


def test_a_link_is_no_verdict(tmp_path: Path) -> None:
    """A symbolic link is not followed: it could name any file of the host."""
    (tmp_path / "secret").write_text("{}")
    path = tmp_path / "verdict.json"
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        read_verdict(path)


def test_a_pipe_is_no_verdict_and_blocks_nobody(tmp_path: Path) -> None:
    """A FIFO nobody writes to is refused at once; reading it would never end."""
    path = tmp_path / "verdict.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        read_verdict(path)


def test_a_folder_is_no_verdict(tmp_path: Path) -> None:
    """A directory is refused."""
    path = tmp_path / "verdict.json"
    path.mkdir()
    with pytest.raises((OSError, ValueError)):
        read_verdict(path)


def test_bytes_that_are_no_text_are_no_verdict(tmp_path: Path) -> None:
    """What is not UTF-8 is refused."""
    path = tmp_path / "verdict.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="utf-8"):
        read_verdict(path)
