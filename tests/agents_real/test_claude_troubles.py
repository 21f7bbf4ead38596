"""What can go wrong with the real claude: its API, its process, its leftovers."""

import asyncio
import os
import signal
import socket
import time
import uuid
from pathlib import Path

import psutil
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.runners.claude import Patience
from tests.agents_real.conftest import CLAUDE, Real
from tests.agents_real.test_claude_whole import CACHED, equals_the_ledger, work
from tests.fake_messages_api import Fault, Turn, bash, say, use, verdict
from workflows.verdicts import RunOutcome


def agent(real: Real) -> psutil.Process | None:
    """The agent's process."""
    marker = f"CLAUDE_CONFIG_DIR={real.root}/agents/DEMO-1/claude/".encode()
    for process in psutil.process_iter(["exe"]):
        try:
            ours = marker in Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if ours and process.info["exe"] == str(CLAUDE.resolve()):
            return process
    return None


async def written(path: Path) -> str:
    """Wait until a file says something."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} stays empty"
        await asyncio.sleep(0.05)
    return path.read_text().strip()


def gone(pid: int) -> bool:
    """Whether a process runs no more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_refused_key_is_fatal_and_ends_at_once(real: Real) -> None:
    """The command line would ask for minutes; the run ends with the first refusal and names the key."""
    real.api.always = Fault(401, "authentication_error")
    real.retries = 10
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[0]["cause"]) == (RunOutcome.FATAL, "api-401")
    assert "key" in ended.reason
    assert len(real.api.requests) <= 3


async def test_an_unknown_model_is_fatal(real: Real) -> None:
    """What asking again does not mend is a value with its reason."""
    real.api.always = Fault(404, "not_found_error")
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[0]["cause"]) == (RunOutcome.FATAL, "api-404")


@pytest.mark.parametrize(
    ("fault", "cause", "seconds"),
    [
        (Fault(429, "rate_limit_error", 3600), "api-429", 900),
        (Fault(529, "overloaded_error"), "api-529", 60),
        (Fault(500, "api_error"), "api-500", 30),
    ],
)
async def test_a_passing_trouble_is_tried_again_later(real: Real, fault: Fault, cause: str, seconds: float) -> None:
    """The attempt ends with the delay of the next one, and costs nothing."""
    real.api.always = fault
    with pytest.raises(ApplicationError) as raised:
        await real.run()
    assert raised.value.next_retry_delay is not None
    assert raised.value.next_retry_delay.total_seconds() == seconds
    assert not raised.value.non_retryable
    (row,) = real.runs.rows
    assert (row["outcome"], row["cause"], row["output_tokens"]) == ("retryable", cause, 0)


async def test_a_short_quota_is_waited_for_by_claude_itself(real: Real) -> None:
    """A 429 with a short retry-after costs a moment and no attempt."""
    real.api.faults.append(Fault(429, "rate_limit_error", 1))
    real.api.turns = [verdict()]
    assert (await real.run()).outcome is RunOutcome.OK


async def test_a_refused_connection_is_tried_again_and_then_told(real: Real) -> None:
    """An API that is not there ends the attempt; the last allowed attempt is a value with its reason."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    real.base_url = f"http://127.0.0.1:{port}"
    real.terms = real.terms.model_copy(update={"attempts": 2})
    with pytest.raises(ApplicationError, match="cannot be reached"):
        await real.run()
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[1]["cause"]) == (RunOutcome.RETRYABLE, "network")
    assert "cannot be reached" in ended.reason


async def test_a_stalled_answer_is_cut_off_and_its_session_goes_on(real: Real) -> None:
    """A stream that says nothing more is ended as a stall; the next attempt takes the session up."""
    real.patience = Patience(tool=30, request=4, after_result=5)
    real.api.turns = [*work(real), Turn((say("thinking"),), stall=True)]
    with pytest.raises(ApplicationError, match="said nothing") as raised:
        await real.run()
    assert raised.value.type == "AgentRetryable"
    assert real.runs.rows[0]["cause"] == "stall"
    real.patience = Patience()
    real.api.turns += [verdict()]
    ended = await real.run()
    assert (ended.outcome, ended.session_id) == (RunOutcome.OK, real.session)
    assert [row["resumed"] for row in real.runs.rows] == [False, True]


async def test_a_tool_that_never_ends_is_a_stall(real: Real) -> None:
    """A command that hangs silently is ended with its agent, and is named."""
    real.patience = Patience(tool=3, request=60, after_result=5)
    pid = real.root / "pid"
    real.api.turns = [Turn((bash(f"echo $$ > {pid}; tail -f /dev/null"),))]
    with pytest.raises(ApplicationError, match="while Bash ran"):
        await real.run()
    assert gone(int(await written(pid)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_run_that_is_killed_is_taken_up_again(real: Real, number: signal.Signals) -> None:
    """The killed attempt's tokens are kept, its session goes on, its child is gone, and nothing is paid twice."""
    pid = real.root / "pid"
    real.api.turns = [
        Turn((use("Write", file_path=str(real.repo / "b.py"), content="b = 1\n"),), CACHED),
        Turn((bash(f"echo $$ > {pid}; tail -f /dev/null"),)),
        Turn((bash("git add -A && git commit -q -m 'add b'"),)),
        verdict(),
    ]
    running = asyncio.ensure_future(real.run())
    child = int(await written(pid))
    process = agent(real)
    assert process is not None
    process.send_signal(number)
    with pytest.raises(ApplicationError):
        await running
    assert gone(child)
    assert real.runs.rows[0]["outcome"] == ("killed" if number is signal.SIGKILL else "cancelled")
    assert real.runs.rows[0]["cost_source"] == "computed"
    ended = await real.run()
    assert (ended.outcome, ended.session_id) == (RunOutcome.OK, real.session)
    assert real.api.heard("You were interrupted while you worked on task DEMO-1, round 1.")
    assert real.git("log", "-1", "--format=%s") == "add b"
    assert equals_the_ledger(real)
    assert ended.earlier.usage.cache_read == 5000
    costs = [row["cost_usd"] for row in real.runs.rows]
    assert all(cost > 0 for cost in costs)
    assert ended.earlier.cost_usd == costs[0]


async def test_a_killed_workers_run_is_counted_from_its_log(real: Real) -> None:
    """What an attempt used is known although nobody was left to write it down."""
    real.api.turns = [*work(real), verdict()]
    await real.run()
    (row,) = real.runs.rows
    whole = row["output_tokens"]
    row |= {"outcome": "running", "verdict": None, "output_tokens": 0, "cost_source": "unknown", "cost_usd": None}
    row |= {"ended_at": None, "session_cost_usd": None}
    real.api.turns += [verdict()]
    ended = await real.run()
    assert ended.outcome is RunOutcome.OK
    assert (real.runs.rows[0]["outcome"], real.runs.rows[0]["output_tokens"]) == ("lost", whole)
    assert ended.earlier.usage.output == whole
    assert ended.earlier.complete


@pytest.mark.parametrize(("cost", "requests"), [(5.5, 0), (4.9999, 1)])
async def test_attempts_share_one_budget(real: Real, cost: float, requests: int) -> None:
    """What earlier attempts have cost is taken from the budget; without any left no model is asked."""
    begun = {"attempt": 4001, "session_id": str(uuid.uuid4()), "resumed": False, "log": ""}
    await real.runs.started(begun)
    await real.runs.used((4001,), {"cost_usd": cost, "cost_source": "reported"})
    await real.runs.ended((4001,), {"outcome": "killed"})
    real.attempt = 1
    real.api.turns = work(real)
    ended = await real.run()
    assert (ended.outcome, real.runs.rows[1]["cause"]) == (RunOutcome.LIMIT, "budget")
    assert "max_budget_usd" in ended.reason
    assert len(real.api.requests) == requests
    assert ended.earlier.cost_usd == cost


async def test_cancelling_ends_everything_and_keeps_the_cost(real: Real) -> None:
    """A cancelled run leaves no process, also none that left its session, and its tokens are written down."""
    pid, far = real.root / "pid", real.root / "far"
    command = f"setsid nohup sh -c 'echo $$ > {far}; sleep 600' > /dev/null 2>&1 & echo $$ > {pid}; tail -f /dev/null"
    real.api.turns = [Turn((bash(command),), CACHED)]
    real.attempt = 1
    environment = ActivityEnvironment()
    running = asyncio.ensure_future(environment.run(real.agents().run_agent, real.arg()))
    children = [int(await written(path)) for path in (pid, far)]
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(gone(child) for child in children)
    assert agent(real) is None
    (row,) = real.runs.rows
    assert (row["outcome"], row["output_tokens"]) == ("cancelled", 60)
    assert row["cost_usd"] > 0


async def test_what_an_agent_leaves_in_the_background_is_ended(real: Real) -> None:
    """A daemon that an agent started does not outlive the run that went well."""
    far = real.root / "far"
    command = f"setsid nohup sh -c 'echo $$ > {far}; sleep 600' > /dev/null 2>&1 & sleep 0.5"
    real.api.turns = [Turn((bash(command),)), verdict()]
    assert (await real.run()).outcome is RunOutcome.OK
    assert gone(int(await written(far)))


async def test_an_answer_that_was_lost_is_not_paid_for_again(real: Real) -> None:
    """An attempt after one that had written its verdict down asks no model."""
    real.api.turns = [verdict()]
    first = await real.run()
    before = len(real.api.requests)
    again = await real.run()
    assert (again.verdict, again.cost_usd) == (first.verdict, first.cost_usd)
    assert len(real.api.requests) == before


async def test_after_two_resumes_in_vain_the_work_begins_anew(real: Real) -> None:
    """A session that is cut off again and again is left, and its id is not used a second time."""
    real.terms = real.terms.model_copy(update={"attempts": 9})
    real.api.turns = [Turn((bash("kill -9 $PPID; sleep 5"),))]
    for _ in range(3):
        with pytest.raises(ApplicationError):
            await real.run()
    real.api.turns = [verdict()]
    ended = await real.run()
    assert ended.outcome is RunOutcome.OK
    used = [(row["session_id"], row["resumed"]) for row in real.runs.rows]
    assert used[:3] == [(real.session, False), (real.session, True), (real.session, True)]
    assert used[3] == (ended.session_id, False)
    assert uuid.UUID(ended.session_id) != uuid.UUID(real.session)


async def test_without_a_key_nothing_is_started(real: Real) -> None:
    """A worker that has no key says how to give it one."""
    real.key = ""
    with pytest.raises(ApplicationError, match="ORCH_ANTHROPIC_API_KEY") as raised:
        await real.run()
    assert raised.value.non_retryable
    assert not real.api.requests


async def test_the_agent_sees_no_variable_of_ours(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's commands find exactly the variables that are listed, and nothing of the worker's."""
    monkeypatch.setitem(os.environ, "ORCH_PLANE_TOKEN", "secret")
    out = real.root / "environment"
    real.api.turns = [Turn((bash(f"env > {out}"),)), verdict()]
    assert (await real.run()).outcome is RunOutcome.OK
    assert "ORCH_PLANE_TOKEN" not in out.read_text()
    assert "secret" not in out.read_text()
