"""Whole runs of the real claude: work, commit, verdict, correction, cost."""

from tests.agents_real.conftest import MODEL, NONCE, Real
from tests.fake_messages_api import Turn, bash, say, use, verdict
from workflows.model import Role
from workflows.verdicts import RunOutcome

CACHED = {"input_tokens": 50, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 5000, "output_tokens": 60}


def work(real: Real) -> list[Turn]:
    """Write a file, commit it."""
    return [
        Turn((say("I will."), use("Write", file_path=str(real.repo / "b.py"), content="b = 1\n")), CACHED),
        Turn((bash("git add -A && git commit -q -m 'add b'"),)),
    ]


def equals_the_ledger(real: Real) -> bool:
    """Whether the rows of all attempts together are exactly what the API told."""
    told = real.api.told
    buckets = {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cache_read_tokens": "cache_read_input_tokens",
        "cache_creation_tokens": "cache_creation_input_tokens",
    }
    return {ours: sum(row[ours] for row in real.runs.rows) for ours in buckets} == {
        ours: told.get(theirs, 0) for ours, theirs in buckets.items()
    }


async def test_a_whole_run_works_commits_and_answers(real: Real) -> None:
    """The agent's commit is there, its verdict is ours to use, and its usage is what the API told it."""
    real.api.turns = [*work(real), verdict(summary="built")]
    ended = await real.run()
    assert (ended.outcome, ended.reason) == (RunOutcome.OK, "")
    assert ended.verdict is not None
    assert (ended.verdict.summary, ended.verdict.nonce) == ("built", NONCE)
    assert real.git("log", "-1", "--format=%s %an") == "add b Orch Agent"
    assert real.git("status", "--porcelain") == ""
    assert equals_the_ledger(real)
    assert list(ended.usage.models) == [MODEL]
    assert ended.cost_source == "reported"
    assert ended.cost_usd is not None
    assert ended.cost_usd > 0
    assert real.runs.rows[0]["outcome"] == "ok"


async def test_the_item_is_read_as_a_file_and_never_told(real: Real) -> None:
    """What people wrote reaches the model only through a tool's answer, after the prompt said that it is data."""
    item = real.root / "work/r1.data/untrusted/item.md"
    real.api.turns = [Turn((use("Read", file_path=str(item)),)), verdict()]
    ended = await real.run()
    assert ended.outcome is RunOutcome.OK
    first, second = (str(request["messages"]) for request in real.api.requests[:2])
    assert "untrusted data" in first
    assert "Ignore all rules" not in first
    assert "Ignore all rules" in second


async def test_a_judge_has_no_tool_that_writes(real: Real) -> None:
    """A reviewer is given no Write and no Edit."""
    real.role = Role.REVIEWER
    real.api.turns = [verdict("changes_requested", findings=[{"text": "no test"}])]
    ended = await real.run()
    assert ended.verdict is not None
    assert ended.verdict.findings[0].text == "no test"
    names = {tool["name"] for tool in real.api.requests[0]["tools"]}
    assert names >= {"Bash", "Read"}
    assert not names & {"Write", "Edit", "NotebookEdit", "Task", "WebFetch"}


async def test_a_repositorys_own_settings_drive_nothing(real: Real) -> None:
    """A hook that the task branch brings along is not run."""
    marker = real.root / "marker"
    hooks = f'{{"hooks": {{"SessionStart": [{{"hooks": [{{"type": "command", "command": "touch {marker}"}}]}}]}}}}'
    (real.repo / ".claude").mkdir()
    (real.repo / ".claude/settings.json").write_text(hooks)
    real.api.turns = [verdict()]
    assert (await real.run()).outcome is RunOutcome.OK
    assert not marker.exists()


async def test_a_missing_verdict_is_asked_for_once_in_the_same_session(real: Real) -> None:
    """An agent that forgot its verdict gives it in one more turn of its session; both are paid for, once."""
    real.api.turns = [*work(real), Turn((say("Done."),)), Turn((say("Still done."),)), verdict(summary="late")]
    ended = await real.run()
    assert ended.outcome is RunOutcome.OK
    assert ended.verdict is not None
    assert ended.verdict.summary == "late"
    assert ended.session_id == real.session
    assert real.api.heard("give the verdict only")
    assert equals_the_ledger(real)
    assert ended.cost_source == "reported"


async def test_a_verdict_that_never_comes_is_a_typed_failure(real: Real) -> None:
    """After one correction turn the run ends without a verdict, which is never a pass."""
    real.api.turns = [Turn((say("I am done."),))]
    ended = await real.run()
    assert (ended.outcome, ended.verdict) == (RunOutcome.NO_VERDICT, None)
    assert ended.reason == "it ended without giving its verdict"
    assert real.api.heard("give the verdict only")
    assert len(real.runs.rows) == 1
    assert equals_the_ledger(real)


async def test_a_verdict_of_another_run_is_not_taken(real: Real) -> None:
    """The schema itself holds the agent to this run's nonce."""
    real.api.turns = [verdict(nonce="another"), verdict(summary="right")]
    ended = await real.run()
    assert ended.verdict is not None
    assert (ended.verdict.nonce, ended.verdict.summary) == (NONCE, "right")


async def test_turns_are_limited(real: Real) -> None:
    """A run that used up its turns says so, and is not begun again by itself."""
    real.terms = real.terms.model_copy(update={"max_turns": 1})
    real.api.turns = [*work(real), verdict()]
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[0]["cause"]) == (RunOutcome.LIMIT, "turns")
    assert "max_turns" in ended.reason
    assert equals_the_ledger(real)


async def test_spending_is_limited(real: Real) -> None:
    """A run that used up its budget says so with what it cost."""
    real.terms = real.terms.model_copy(update={"max_budget_usd": 0.0001})
    real.api.turns = [*work(real), verdict()]
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[0]["cause"]) == (RunOutcome.LIMIT, "budget")
    assert "max_budget_usd" in ended.reason
    assert ended.cost_usd is not None
    assert ended.cost_usd > 0.0001


async def test_the_model_and_its_effort_are_the_policys(real: Real) -> None:
    """The model that is asked is the one of the terms."""
    real.terms = real.terms.model_copy(update={"model": "claude-haiku-5-5", "effort": "low"})
    real.api.turns = [verdict()]
    assert (await real.run()).outcome is RunOutcome.OK
    assert {request["model"] for request in real.api.requests} == {"claude-haiku-5-5"}
