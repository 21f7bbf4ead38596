"""Whole runs of the real claude: work, commit, verdict, correction, cost."""

from tests.agents_real.conftest import NONCE, Real, verdict
from tests.fake_messages_api import Turn, bash, say, use
from workflows.verdicts import RunOutcome

CACHED = {"input_tokens": 50, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 5000, "output_tokens": 60}


def work(real: Real) -> list[Turn]:
    """Write a file, commit it."""
    return [
        Turn((say("I will."), use("Write", file_path=str(real.repo / "b.py"), content="b = 1\n")), CACHED),
        Turn((bash("git add -A && git commit -q -m 'add b'"),)),
    ]


async def test_a_whole_run_works_commits_and_answers(real: Real) -> None:
    """The agent's commit is there, its verdict is ours to use, and its usage is what the API told it."""
    real.api.turns = [*work(real), verdict(summary="built"), Turn((say("Done."),))]
    ended = await real.run()
    assert (ended.outcome, ended.reason) == (RunOutcome.OK, "")
    assert ended.verdict is not None
    assert (ended.verdict.summary, ended.verdict.nonce) == ("built", NONCE)
    assert real.git("log", "-1", "--format=%s %an") == "add b Orch Agent"
    assert real.git("status", "--porcelain") == ""
    told = real.api.told
    assert ended.usage.input == told["input_tokens"]
    assert ended.usage.output == told["output_tokens"]
    assert ended.usage.cache_read == told["cache_read_input_tokens"]
    assert ended.usage.cache_creation == told["cache_creation_input_tokens"]
    assert ended.cost_source == "reported"
    assert ended.cost_usd is not None
    assert ended.cost_usd > 0
    (row,) = real.runs.rows
    assert (row["outcome"], row["output_tokens"]) == ("ok", ended.usage.output)
