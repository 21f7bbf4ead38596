"""What must be true of every task after every fault, read from the outside world and not from our own word."""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowExecutionStatus

from deploy.demo import seed
from deploy.demo.shop import TEST_COMMAND
from tests.e2e.harness import Orch, Row
from workflows.names import task_workflow_id

STRAIGHT = {
    "status-comment",
    "analysis/r1/finish-*",
    "analysis/r1/ask-1-comment",
    "analysis/r1/decision-comment",
    "architecture/r1/finish-*",
    "development/r1/finish-*",
    "review/r1/finish-*",
    "testing/r1/finish-*",
    "deploy-staging/r1/finish-*",
    "deploy/r1/finish-*",
    "done/r1/closing-comment",
}
"""The comments of a task that nothing sent back; a finish comment is named after the commit it speaks of."""
_COMMIT = re.compile(r"(?<=-)[0-9a-f]{10}$")
_TASK_FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
_SIGNAL_CAME = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
_GREEN: set[str] = set()
"""Landed commits whose tests we ran already."""


class Auditor:
    """Collects everything that is wrong, then says it at once."""

    def __init__(self, orch: Orch) -> None:
        self._orch = orch
        self._wrong: list[str] = []

    async def check(self, *keys: str) -> None:
        """Every invariant, for tasks that are done.

        Raises:
            AssertionError: something is wrong; says all of it, and the first task's timeline.
        """
        client = await self._orch.temporal()
        for key in keys:
            await self._workflow(client, key)
            await self._comments(key)
            await self._pull_request(key)
            await self._runs(key)
            await self._messages(key)
            await self._settled(key)
            left = self._orch.agent_processes(f"{key}/")
            self._expect(not left, f"{key}: processes of its runs live on: {left}")
        await self._main()
        await self._waiting()
        await self._inbox()
        self._logs()
        assert not self._wrong, "\n".join([*self._wrong, await self._orch.report(keys[0])])

    def _expect(self, good: bool, otherwise: str) -> None:
        if not good:
            self._wrong.append(otherwise)

    async def _workflow(self, client: Client, key: str) -> None:
        """One chain of runs, none of them open, none failed; no secret in any history."""

        async def all_closed() -> list[Any]:
            # Visibility lags behind: the runs are complete once the newest is there and closed.
            found = [e async for e in client.list_workflows(f'WorkflowId = "{task_workflow_id(key)}"')]
            newest = await client.get_workflow_handle(task_workflow_id(key)).describe()
            closed = all(e.status is not WorkflowExecutionStatus.RUNNING for e in found)
            return found if closed and newest.run_id in {e.run_id for e in found} else []

        executions = await self._orch.until(f"every run of {key} is closed", all_closed, key)
        chains = set()
        for execution in executions:
            handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
            history = await handle.fetch_history()
            first = history.events[0].workflow_execution_started_event_attributes
            chains.add(first.first_execution_run_id)
            failed = [e.workflow_task_failed_event_attributes for e in history.events if e.event_type == _TASK_FAILED]
            # A signal that arrives while a run closes makes the server ask once more; that is no failure.
            ours = [attributes for attributes in failed if attributes.cause != _SIGNAL_CAME]
            self._expect(not ours, f"{key}: {len(ours)} workflow task(s) failed: {ours[:1]}")
            raw = b"".join(event.SerializeToString() for event in history.events)
            self._no_secret(raw, f"the history of {execution.id} {execution.run_id}")
        self._expect(len(chains) == 1, f"{key}: {len(chains)} chains of runs, not one")

    async def _comments(self, key: str) -> None:
        comments = await self._orch.comments(key)
        ours = [str(comment["external_id"]) for comment in comments if comment.get("external_id")]
        twice = [name for name, count in Counter(ours).items() if count > 1]
        self._expect(not twice, f"{key}: comments that are there twice: {twice}")
        kinds = {kind_of(comment) for comment in comments if comment.get("external_id")}
        expected = {f"{key}/g1/{name}" for name in STRAIGHT}
        rounds = await self._orch.rows(
            "SELECT stage, max(round) AS last FROM transitions WHERE task = $1 GROUP BY stage", key
        )
        if all(row["last"] == 1 for row in rounds):
            self._expect(kinds == expected, f"{key}: comments differ: {sorted(kinds ^ expected)}")
        self._expect(expected <= kinds, f"{key}: comments are missing: {sorted(expected - kinds)}")
        strangers = [comment for comment in comments if not comment.get("external_id")]
        self._expect(not strangers, f"{key}: comments without an intent key: {strangers}")
        self._no_secret(str(comments).encode(), f"the comments on {key}")

    async def _pull_request(self, key: str) -> None:
        """One merged PR with one review for each round and at most one renewed approval for each candidate."""
        pulls = await self._orch.gitea("/pulls?state=all&limit=50")
        mine = [pull for pull in pulls if pull["head"]["ref"] == f"task/{key}"]
        self._expect([pull["merged"] for pull in mine] == [True], f"{key}: pull requests {mine}")
        for pull in mine:
            reviews = await self._orch.gitea(f"/pulls/{pull['number']}/reviews?limit=50")
            marked = Counter(re.findall(rf"`({key}/[^`]*)`", " ".join(r["body"] for r in reviews)))
            rounds = await self._orch.rows(
                "SELECT DISTINCT round FROM agent_runs WHERE task = $1 AND stage = 'review'", key
            )
            marked = Counter({_COMMIT.sub("*", name): count for name, count in marked.items()})
            wanted = {f"{key}/g1/review/r{row['round']}/review-*": 1 for row in rounds}
            self._expect(marked == wanted, f"{key}: reviews {dict(marked)}, expected {wanted}")
            rest = Counter(r["commit_id"] for r in reviews if f"`{key}/" not in r["body"])
            self._expect(all(count == 1 for count in rest.values()), f"{key}: approved again twice: {rest}")

    async def _runs(self, key: str) -> None:
        """Every attempt has ended, and each round has exactly one that counted."""
        runs = await self._orch.rows("SELECT * FROM agent_runs WHERE task = $1", key)
        left = [(run["stage"], run["round"], run["attempt"]) for run in runs if run["outcome"] == "running"]
        self._expect(not left, f"{key}: runs that never ended: {left}")
        unexplained = [run for run in runs if run["outcome"] != "ok" and not run["reason"]]
        self._expect(not unexplained, f"{key}: runs that failed without a reason: {unexplained}")
        good = Counter((run["stage"], run["round"]) for run in runs if run["outcome"] == "ok")
        self._expect(set(good.values()) == {1}, f"{key}: rounds with several good runs: {good}")

    async def _messages(self, key: str) -> None:
        """Every notification reached Telegram; twice only where the answer to the first try was lost."""

        async def all_sent() -> list[Row]:
            told = await self._orch.rows("SELECT * FROM notifications WHERE task = $1", key)
            return told if all(row["sent_at"] for row in told) else []

        told = await self._orch.until(f"all notifications of {key} are sent", all_sent, key)
        messages = (await self._orch.request("GET", "telegram", "/_sandbox/messages"))["messages"]
        texts = Counter(message["text"] for message in messages)
        for row in told:
            there = texts[row["text"]]
            self._expect(1 <= there <= row["attempts"], f"{key}: {there} times in Telegram: {row['text']!r}")
        self._no_secret(str(messages).encode(), "the Telegram messages")

    async def _settled(self, key: str) -> None:
        """No intent is left open; one landing, one successful deployment in each environment."""
        open_effects = await self._orch.rows(
            "SELECT intent_key FROM effects WHERE status = 'open' AND starts_with(intent_key, $1)", f"{key}/"
        )
        self._expect(not open_effects, f"{key}: effects left open: {open_effects}")
        landings = await self._orch.rows("SELECT status FROM merge_landings WHERE task = $1", key)
        states = Counter(row["status"] for row in landings)
        self._expect(states["landed"] == 1 and not states["open"], f"{key}: landings {dict(states)}")
        deployed = await self._orch.rows("SELECT environment, status FROM deployments WHERE task = $1", key)
        served = [(row["environment"], row["status"]) for row in deployed]
        self._expect(("production", "succeeded") in served, f"{key}: deployments {served}")
        unsettled = [one for one in served if one[1] == "started"]
        self._expect(not unsettled, f"{key}: deployments left open: {unsettled}")
        held = await self._orch.rows(
            "SELECT queue FROM leases WHERE holder = $1 AND released_at IS NULL", task_workflow_id(key)
        )
        self._expect(not held, f"{key}: leases never released: {held}")

    async def _main(self) -> None:
        """Main was only ever moved to landed candidates, one on top of the other, and each passes its tests."""
        repo = f"{seed.OWNER}/shop"
        landed = await self._orch.rows(
            "SELECT candidate, base_sha FROM merge_landings WHERE repo = $1 AND status = 'landed'", repo
        )
        on = {row["candidate"]: row["base_sha"] for row in landed}
        log = (await self._orch.request("GET", "gitea", "/_sandbox/deliveries"))["deliveries"]
        moves = [d["payload"] for d in log if d["event"] == "push" and d["payload"].get("ref") == "refs/heads/main"]
        for move in moves:
            before, after = move["before"], move["after"]
            if after in self._orch.pushed_by_people:
                continue
            if set(before) != {"0"}:
                self._expect(on.get(after) == before, f"main went {before[:10]} -> {after[:10]}, which nobody landed")
        bare = next(path for path in self._orch.stack.home.sandbox.rglob("shop.git") if (path / "HEAD").exists())
        for sha in on:
            if sha not in _GREEN:
                problem = _tests(bare, sha)
                self._expect(not problem, f"main was red at {sha[:10]}: {problem}")
                _GREEN.add(sha)

    async def _waiting(self) -> None:
        """Who waits says for what, since when, and when it looks again."""
        waiting = await self._orch.rows("SELECT * FROM tasks WHERE ended_at IS NULL AND status = 'waiting'")
        silent = [
            row["task"]
            for row in waiting
            if not (row["waiting_reason"] and row["waiting_since"] and row["next_check_at"])
        ]
        self._expect(not silent, f"tasks that wait and do not say for what: {silent}")

    async def _inbox(self) -> None:
        """Whatever was acknowledged has been acted on or put aside with a reason."""

        async def settled() -> bool:
            return not await self._orch.rows("SELECT id FROM webhook_deliveries WHERE status = 'new'")

        await self._orch.until("every webhook is settled", settled)
        odd = await self._orch.rows(
            "SELECT id, status FROM webhook_deliveries WHERE status = 'dead' OR (status = 'ignored' AND reason = '')"
        )
        self._expect(not odd, f"webhooks that died or were ignored without a reason: {odd}")

    def _logs(self) -> None:
        for log in self._orch.stack.home.logs.iterdir():
            self._no_secret(log.read_bytes(), log.name)

    def _no_secret(self, raw: bytes, where: str) -> None:
        for name, value in self._orch.stack.home.secrets().items():
            self._expect(value.encode() not in raw, f"{name} can be read in {where}")


def kind_of(comment: Row) -> str:
    """A comment's intent key, whatever commit it speaks of."""
    return _COMMIT.sub("*", str(comment["external_id"]))


def _tests(bare: Path, sha: str) -> str:
    """What is wrong with a fresh clone at a commit; nothing if its tests pass."""
    with tempfile.TemporaryDirectory(prefix="orch-audit-") as folder:
        clone = ["git", "clone", "--quiet", "--no-local", str(bare), folder]
        checkout = ["git", "-C", folder, "checkout", "--quiet", sha]
        for command in (clone, checkout, ["sh", "-c", TEST_COMMAND]):
            ended = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
            if ended.returncode:
                return f"{command}: {ended.stdout[-500:]}{ended.stderr[-500:]}"
    return ""
