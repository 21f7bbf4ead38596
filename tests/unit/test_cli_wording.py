"""What the command line says: pure formatting of tasks, ages, costs, links and the demo's timeline."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from api.cli import demo_lines, tables, wording
from api.cli.outcome import CliError, Exit
from api.cli.records import pick
from workflows.model import Item, Policy, Repository, Waiting, WaitingOn
from workflows.projects import ProjectFacts
from workflows.state import TaskState, why

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    """A task that waits for a decision, or something else."""
    return {
        "task": "PAY-7", "generation": 1, "project": "PAY", "title": "Round totals", "repo": "acme/payments",
        "branch": "task/PAY-7", "stage": "analysis", "round": 1, "status": "waiting", "waiting_on": "person",
        "waiting_reason": "an approver decides", "waiting_since": NOW - timedelta(hours=2, minutes=5),
        "next_check_at": NOW + timedelta(minutes=10), "needs_human": True, "spec_digest": "3f2a",
        "head_sha": "a" * 40, "pull_request_url": "", "item_url": "", "landed_sha": "", "deployed_sha": "",
        "paused_since": None, "paused_reason": "", "cost_usd": Decimal("0.031"),
        "started_at": NOW - timedelta(days=1), "updated_at": NOW, "ended_at": None,
        "outcome": "", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7500, "2 h 5 min"), (86400 * 3, "3 d"), (86400 + 3600, "1 d 1 h")],
)
def test_an_age_has_its_two_largest_units(seconds: int, said: str) -> None:
    """An age is told in at most two units, without zeros."""
    assert wording.age(NOW - timedelta(seconds=seconds), NOW) == said


def test_a_clock_that_runs_behind_shows_no_negative_age() -> None:
    """A moment in the future counts as now."""
    assert wording.age(NOW + timedelta(seconds=5), NOW) == "0 s"


@pytest.mark.parametrize(
    ("cost", "said"), [(None, "unknown"), (0, "$0.00"), (Decimal("0.031"), "$0.031"), (12, "$12.00")]
)
def test_an_unknown_cost_is_never_nothing(cost: object, said: str) -> None:
    """A cost that is not known is called unknown; a known one keeps its cents."""
    assert wording.money(cost) == said


def test_why_names_stage_person_reason_and_next_look() -> None:
    """One sentence says where a task is, for whom it waits since when, why, and when it looks again."""
    assert wording.why(row()) == (
        "PAY-7 is in analysis (round 1) and waits for a person, since 2026-03-01 09:55Z: an approver decides. "
        "It looks again at 2026-03-01 12:10:00Z."
    )


@pytest.mark.parametrize("on", WaitingOn)
@pytest.mark.parametrize("needs_human", [True, False])
def test_the_workflow_and_the_command_line_say_the_same(on: WaitingOn, needs_human: bool) -> None:
    """For each kind of wait, the workflow's own sentence and the one made from its row are one."""
    wait = Waiting(on=on, reason="r", since=NOW, next_check=NOW + timedelta(minutes=10), needs_human=needs_human)
    of_row = row(waiting_on=on.value, waiting_reason="r", waiting_since=NOW, needs_human=needs_human)
    state = TaskState(
        key="PAY-7", generation=1, start_activity="a", item=Item(id="i", project_id="p", key="PAY-7", title="T"),
        project=ProjectFacts(key="PAY", repository=Repository(owner="acme", name="payments")), policy=Policy(test="t"),
        started_at=NOW, waiting=wait,
    )  # fmt: skip
    assert wording.why(of_row) == why(state)


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("person", "for a person"),
        ("ci", "for CI"),
        ("merge queue", "in the merge queue"),
        ("source", "until Plane or Gitea can be read"),
        ("moon", "for moon"),
    ],
)
def test_each_wait_is_said_in_words(on: str, said: str) -> None:
    """Sentence and table name what moves a task on in plain words, even a word that only newer workers know."""
    waiting = row(waiting_on=on, needs_human=False)
    assert f" and waits {said}, since 2026-03-01 09:55Z: an approver decides." in wording.why(waiting)
    assert wording.waiting_for(waiting) == f"{said}: an approver decides"


def test_why_of_a_working_and_of_an_ended_task() -> None:
    """Working and ended tasks do not claim to wait."""
    assert wording.why(row(status="working")) == "PAY-7 is in analysis (round 1) and working."
    ended = row(ended_at=NOW, outcome="done", landed_sha="b" * 40)
    assert wording.why(ended) == "PAY-7 has ended: done. It landed as bbbbbbbbbb."


def test_the_next_step_is_a_command_that_can_be_taken() -> None:
    """Who is asked is told the command: decide where a spec is asked about, retry elsewhere."""
    assert "orch task approve PAY-7" in wording.next_step(row())
    assert "orch task retry PAY-7" in wording.next_step(row(spec_digest=""))
    paused = row(paused_since=NOW, paused_reason="ann said pause")
    assert wording.next_step(paused) == "go on: orch task resume PAY-7"
    assert wording.why(paused) == ("PAY-7 is in analysis (round 1) and paused since 2026-03-01 12:00Z: ann said pause.")
    assert wording.waiting_for(paused) == "paused: ann said pause"
    assert wording.next_step(row(needs_human=False)) == ""


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    """Escape sequences, line breaks and marks that reorder text are taken out of titles and reasons."""
    assert wording.clean("a\x1b[31mb\r\nc\u202ed") == "a [31mb c d"
    assert wording.clean("half \ud83d\ufeff") == "half"
    assert wording.harmless('  "a": "\x1b["\n') == '  "a": " ["'
    assert wording.clean("Округлить “итог” 👋") == "Округлить “итог” 👋"


def test_links_are_quoted() -> None:
    """The workflow's id keeps its slash in Temporal's address; without a Web UI there is no link."""
    assert wording.temporal_link("http://t:1/", "orch", "PAY-7").endswith("/namespaces/orch/workflows/task%2FPAY-7")
    assert wording.temporal_link("", "orch", "PAY-7") == ""
    assert wording.absolute("/acme/x", "http://g/") == "http://g/acme/x"


def test_the_list_shows_titles_as_they_are() -> None:
    """Brackets in a title are text, not markup, and a wait names its person and its age."""
    console = Console(width=160, record=True, markup=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(tables.task_list([row(title="[red]alarm[/red]")], NOW))
    text = console.export_text()
    assert "[red]alarm[/red]" in text
    assert "a person: an approver decides" in text
    assert "2 h 5 min" in text


def test_a_key_is_found_by_its_beginning_if_that_is_unique() -> None:
    """A beginning that only one task has is enough, in any case of letters."""
    assert pick("pay", ["PAY-7", "WEB-1"]) == "PAY-7"
    assert pick("pay-7", ["PAY-7", "PAY-70"]) == "PAY-7"


def test_a_whole_key_never_means_a_longer_one() -> None:
    """PAY-7 is not found where only PAY-70 exists; nobody approves the wrong task by a typing error."""
    with pytest.raises(CliError) as caught:
        pick("PAY-7", ["PAY-70"])
    assert caught.value.exit_code is Exit.NOT_FOUND
    assert "PAY-70" in caught.value.hint


def test_an_ambiguous_beginning_names_the_candidates_in_order() -> None:
    """A beginning of several tasks is refused, and the candidates are told in the order of their numbers."""
    with pytest.raises(CliError) as caught:
        pick("PAY-", ["PAY-10", "PAY-9", "PAY-1"])
    assert caught.value.exit_code is Exit.USAGE
    assert "PAY-1, PAY-9, PAY-10" in caught.value.message


def test_the_demo_drops_lines_that_only_repeat() -> None:
    """A move repeats its gate and is not shown; gates get a sign; a verdict gets its summary."""
    assert demo_lines.happened("development -> review: CI is green") is None
    assert demo_lines.happened("ci green: green, CI is green") == "✓ ci green: CI is green"
    assert demo_lines.happened("spec decided: red, rejected") == "✗ spec decided: rejected"
    assert demo_lines.happened("analyst: pass", "It is clear.") == "analyst: pass, “It is clear.”"
    assert demo_lines.happened("needs a person: a -> b: c") == "needs a person: a -> b: c"


def test_a_line_of_the_demo_has_time_stage_text_and_short_sha() -> None:
    """Each line starts with the seconds since the start and ends with the short commit."""
    assert (
        demo_lines.line(1.26, "deploy", "landed on main", "c" * 40)
        == "   1.3 s  deploy          landed on main  cccccccccc"
    )


@pytest.mark.parametrize(
    ("changes", "ends_as"),
    [
        ({}, "cancelled"),
        ({"landed_sha": "a" * 40}, "landed, not deployed"),
        ({"landed_sha": "a" * 40, "deployed_sha": "a" * 40, "needs_human": False}, "deployed, not judged"),
        ({"landed_sha": "a" * 40, "deployed_sha": "a" * 40}, "deployed, not passed"),
    ],
)
def test_cancelling_is_called_by_how_far_it_has_come(changes: dict[str, Any], ends_as: str) -> None:
    """Who cancels is told what the task ends as, and what production serves then."""
    assert wording.cancelled_as(row(**changes)) == ends_as
    assert f"“{ends_as}”" in wording.cancelling(row(**changes))
    assert ("production serves" in wording.cancelling(row(**changes))) == ("deployed_sha" in changes)


def test_the_ways_out_of_a_failed_deployment_are_named() -> None:
    """The next step of a task whose deployment failed names the acts its reason speaks of."""
    failed = row(stage="deploy", spec_digest="", waiting_reason="production: exit 1; say retry or accept")
    assert wording.next_step(failed).endswith("orch task retry|rollback|accept PAY-7")
