"""Deliveries that own tables cannot name: a real Temporal and PostgreSQL, Gitea as a tiny recorded server."""

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import asyncpg
import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.adapters.gitea import GiteaClient
from activities.adapters.store import Store, open_pool
from activities.forge import Forge
from activities.interceptor import WorkerInterceptor
from activities.resolving import Resolving
from api.inbox import Inbox, Settlement, Status
from api.signalling import TemporalDownError
from deploy.temporal_server import find_binary
from tests.contract.rest_replay import Answer, Server, client, serve
from tests.fake_temporal import FakeTemporal, rpc_error
from tests.integration.conftest import Postgres
from tests.integration.test_forwarder import HEAD, make_due, make_forwarder, open_task, push, rows, store
from tests.recorded import recorded
from tests.tiny_task import TinyTask
from workflows.hints import Hint, Source, Topic
from workflows.model import Repository
from workflows.names import SHARED_QUEUE
from workflows.plugin import data_converter
from workflows.resolve import ResolveWorkflow
from workflows.state import TaskInput

PULLS = "/api/v1/repos/acme/Payments/pulls"
STATUS = "gitea/webhook_status_success.json"
PUSH = "gitea/webhook_push_update.json"
UNKNOWN = "c" * 40
SCRATCH = "scratch"


@dataclass
class FakeForge:
    """Hands out the one client there is."""

    gitea: GiteaClient

    def client(self, repository: Repository) -> GiteaClient:
        """The repository's client."""
        assert str(repository) == "acme/Payments"
        return self.gitea


@dataclass
class World:
    """Everything a test says to and asks of."""

    temporal: Client
    gitea: Server
    pool: asyncpg.Pool
    inbox: Inbox
    worker: Worker

    async def forward(self) -> None:
        """The forwarder takes what there is."""
        await make_forwarder(self.pool, self.temporal).forward_batch()

    async def resolved(self, sha: str = UNKNOWN) -> list[tuple[str, str, str | None]]:
        """Wait until resolving has ended; how the rows stand."""
        await self.temporal.get_workflow_handle(f"resolve/acme/Payments/{sha}").result()
        return await rows(self.pool)

    @asynccontextmanager
    async def running(self, task: str) -> AsyncIterator["WorkflowHandle[Any, Any]"]:
        """A task that takes two hints."""
        handle = await self.temporal.start_workflow(
            "TaskWorkflow", TaskInput(key=task), id=f"task/{task}", task_queue=SHARED_QUEUE
        )
        try:
            yield handle
        finally:
            if (await handle.describe()).close_time is None:
                await handle.terminate()

    def open_pull(self, sha: str, branch: str) -> None:
        """Gitea has one open pull request with this head."""
        answer = copy.deepcopy(recorded("gitea/rest_pulls_list.json"))
        answer["body"][0]["head"] |= {"sha": sha, "ref": branch}
        self.gitea.on("GET", PULLS, Answer(200, answer["body"][:1], {"X-Total-Count": "1"}))


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    """A real Temporal."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(find_binary()), data_converter=data_converter()
    ) as environment:
        yield environment.client


@pytest.fixture
async def resting(temporal: Client, postgres: Postgres, pool: asyncpg.Pool, inbox: Inbox) -> AsyncIterator[World]:
    """Nobody works yet; Gitea has no open pull request."""
    activities_pool = await open_pool(postgres.url, size=2)
    async with serve() as server, client(server, "gitea", {"Authorization": "token t"}) as http:
        server.on("GET", PULLS, Answer(200, []))
        forge = FakeForge(GiteaClient(http, "acme", "Payments"))
        resolving = Resolving(temporal, cast("Forge", forge), Store(activities_pool))
        worker = Worker(
            temporal,
            task_queue=SHARED_QUEUE,
            workflows=[TinyTask, ResolveWorkflow],
            activities=[resolving.resolve_rows, resolving.settle_rows],
            interceptors=[WorkerInterceptor()],
            graceful_shutdown_timeout=timedelta(seconds=1),
        )
        yield World(temporal, server, pool, inbox, worker)
    await activities_pool.close()


@pytest.fixture
async def world(resting: World) -> AsyncIterator[World]:
    """A worker that resolves."""
    async with resting.worker:
        yield resting


async def test_a_commit_is_found_among_the_heads_of_open_pull_requests(world: World) -> None:
    """A status of a commit we have never seen wakes the task whose pull request has it as its head."""
    await open_task(world.pool)
    await open_task(world.pool, "PAY-2", "task/PAY-2")
    world.open_pull(UNKNOWN, "task/PAY-1-retry")
    async with world.running("PAY-1") as task:
        await store(world.inbox, STATUS, sha=UNKNOWN)
        await world.forward()
        assert await world.resolved() == [("forwarded", "resolved: the head of pull request 7", "PAY-1")]
        await task.signal("hint", Hint(topic=Topic.ITEM, source=Source.TIMER))
        assert (await task.result())["topics"] == ["ci", "item"]
    assert [request.path for request in world.gitea.requests] == [PULLS]


async def test_a_push_of_a_renamed_branch_is_found_by_the_commit_we_pushed(world: World) -> None:
    """A branch nobody knows wakes the task whose commit is the head of its pull request."""
    await open_task(world.pool)
    await push(world.pool, "PAY-1", "d" * 40)
    world.open_pull("d" * 40, SCRATCH)
    async with world.running("PAY-1"):
        await store(world.inbox, PUSH, ref=f"refs/heads/{SCRATCH}")
        await world.forward()
        assert await world.resolved(str(recorded(PUSH)["body"]["after"])) == [
            ("forwarded", "resolved: the head of pull request 7", "PAY-1")
        ]


async def test_else_the_only_task_in_development_is_woken(world: World) -> None:
    """With no such head the repository's only task in development is told, which costs it one look."""
    await open_task(world.pool)
    await open_task(world.pool, "PAY-2", "task/PAY-2")
    await world.pool.execute("UPDATE tasks SET stage = 'review' WHERE task = 'PAY-2'")
    async with world.running("PAY-1"):
        await store(world.inbox, STATUS, sha=UNKNOWN)
        await world.forward()
        reason = "resolved: the repository's only task in development"
        assert await world.resolved() == [("forwarded", reason, "PAY-1")]


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        (["development", "development"], "2 tasks are in development (PAY-1, PAY-2)"),
        (["review", "analysis"], "none is in development"),
    ],
)
async def test_what_is_ambiguous_or_nobodys_is_not_guessed(world: World, stages: list[str], why: str) -> None:
    """Two candidates, or none, wake nobody; the row says what was looked at."""
    for number, stage in enumerate(stages, start=1):
        await open_task(world.pool, f"PAY-{number}", f"task/PAY-{number}")
        await world.pool.execute("UPDATE tasks SET stage = $1 WHERE task = $2", stage, f"PAY-{number}")
    world.open_pull("e" * 40, "somebody/else")
    await store(world.inbox, STATUS, sha=UNKNOWN)
    await world.forward()
    nobody = f"no open pull request of a task has the commit cccccccccc of acme/Payments, and {why}: not guessed"
    assert await world.resolved() == [("ignored", nobody, None)]


async def test_a_resolved_task_that_does_not_run_is_said_so(world: World) -> None:
    """A task that the tables hold open but Temporal does not run is named in an ignored row."""
    await open_task(world.pool)
    await store(world.inbox, STATUS, sha=UNKNOWN)
    await world.forward()
    reason = "resolved: the repository's only task in development: not running"
    assert await world.resolved() == [("ignored", reason, "PAY-1")]


async def test_a_refusing_gitea_makes_a_dead_row(world: World) -> None:
    """What Gitea refuses to tell cannot be resolved: the row is dead with the cause, and may be replayed."""
    await open_task(world.pool)
    world.gitea.on("GET", PULLS, Answer(401, {"message": "token is required"}))
    await store(world.inbox, STATUS, sha=UNKNOWN)
    await world.forward()
    ((status, reason, _),) = await world.resolved()
    assert (status, reason.startswith("can not be resolved: "), "401" in reason) == ("dead", True, True)


async def test_a_failing_gitea_is_asked_again(world: World) -> None:
    """An outage of Gitea delays resolving and changes nothing else."""
    await open_task(world.pool)
    world.gitea.on("GET", PULLS, Answer(502, {}), Answer(200, []))
    async with world.running("PAY-1"):
        await store(world.inbox, STATUS, sha=UNKNOWN)
        await world.forward()
        assert [row[0] for row in await world.resolved()] == ["forwarded"]
    assert len(world.gitea.requests) == 2


async def test_a_repeated_delivery_is_resolved_again(world: World) -> None:
    """The same bytes again are looked at again, also while the first look goes on."""
    await open_task(world.pool)
    for _ in range(2):
        await store(world.inbox, STATUS, sha=UNKNOWN)
        await world.forward()
    assert [row[0] for row in await world.resolved()] == ["ignored"]
    await store(world.inbox, STATUS, sha=UNKNOWN)
    await world.forward()
    assert (await rows(world.pool))[0][1].startswith("handed to resolve/acme/Payments/cccc")
    assert [row[0] for row in await world.resolved()] == ["ignored"]


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_many_deliveries_about_one_unknown_commit_are_one_look(resting: World, one_by_one: bool) -> None:
    """Fifty rows about one commit, in one batch or many, cost one list of pull requests, and all are settled."""
    world = resting
    await open_task(world.pool)
    world.open_pull(UNKNOWN, "task/PAY-1-retry")
    async with world.running("PAY-1") as task:
        for number in range(50):
            await store(world.inbox, STATUS, sha=UNKNOWN, context=f"check {number}")
            if one_by_one:
                await world.forward()
        await world.forward()
        async with world.worker:
            expected = ("forwarded", "resolved: the head of pull request 7", "PAY-1")
            assert await world.resolved() == [expected] * 50
            await task.signal("hint", Hint(topic=Topic.ITEM, source=Source.TIMER))
            assert (await task.result())["topics"] == ["ci", "item"]
    assert [request.path for request in world.gitea.requests] == [PULLS]


async def test_one_signal_hands_over_all_rows_of_a_commit(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A batch sends one signal for each unknown commit, with all of its rows."""
    temporal = FakeTemporal()
    await open_task(pool)
    for sha in (UNKNOWN, "d" * 40, UNKNOWN):
        await store(inbox, STATUS, sha=sha, context=f"check {await pool.fetchval('SELECT random()')}")
    await make_forwarder(pool, temporal.client).forward_batch()
    assert [(asked.sha[0], [row.row for row in asked.rows]) for _, asked in temporal.resolving] == [
        ("c", [1, 3]),
        ("d", [2]),
    ]


async def test_rows_of_one_commit_end_each_by_what_it_names(world: World) -> None:
    """Rows of one commit share a look, but a branch that only one of them names finds a task for that one only."""
    await open_task(world.pool)
    await open_task(world.pool, "PAY-2", "task/PAY-2")
    world.open_pull("e" * 40, SCRATCH)
    await push(world.pool, "PAY-1", "e" * 40)
    async with world.running("PAY-1"):
        await store(world.inbox, STATUS, sha=UNKNOWN)
        await store(world.inbox, PUSH, ref=f"refs/heads/{SCRATCH}", after=UNKNOWN)
        await world.forward()
        (status, _, nobody), pushed = await world.resolved()
    assert (status, nobody) == ("ignored", None)
    assert pushed == ("forwarded", "resolved: the head of pull request 7", "PAY-1")
    assert len(world.gitea.requests) == 1


@pytest.mark.parametrize("pushed", [True, False])
async def test_nothing_is_asked_where_nothing_can_be_found(inbox: Inbox, pool: asyncpg.Pool, pushed: bool) -> None:
    """A commit of a task that has ended, or a repository without open tasks, is ignored without resolving."""
    temporal = FakeTemporal()
    await open_task(pool, ended=True)
    if pushed:
        await push(pool, "PAY-1")
        await open_task(pool, "PAY-2", "task/PAY-2")
    await store(inbox, STATUS)
    await make_forwarder(pool, temporal.client).forward_batch()
    assert temporal.resolving == []
    assert await rows(pool) == [("ignored", "no open task is known for commit 9ab6cc1b9a of acme/payments", None)]


@pytest.mark.parametrize("resolved_first", [True, False])
async def test_the_end_of_resolving_stands_whoever_writes_first(
    postgres: Postgres, inbox: Inbox, pool: asyncpg.Pool, resolved_first: bool
) -> None:
    """The forwarder's note that it handed a row over never hides what came of it."""
    await store(inbox, STATUS)
    (row,) = await inbox.claim(1, timedelta(minutes=1))
    activities_pool = await open_pool(postgres.url, size=1)
    deliveries = Store(activities_pool).deliveries
    noted = Settlement(delivery=row, status=Status.FORWARDED, reason="handed to resolve/acme/Payments/x")
    if not resolved_first:
        await inbox.settle(noted)
    await deliveries.settle(row.id, row.times_received, "ignored", "nobody's", "")
    if resolved_first:
        await inbox.settle(noted)
    assert await rows(pool) == [("ignored", "nobody's", None)]
    await store(inbox, STATUS)
    await deliveries.settle(row.id, row.times_received, "ignored", "too late", "")
    assert (await rows(pool))[0][0] == "new"
    await activities_pool.close()


async def test_while_temporal_is_down_a_row_waits_to_be_handed_over(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A row that needs resolving stays new, without counting attempts, until Temporal takes it."""
    temporal = FakeTemporal(error=lambda _: rpc_error(RPCStatusCode.UNAVAILABLE))
    forwarder = make_forwarder(pool, temporal.client)
    await open_task(pool)
    await store(inbox, STATUS)
    with pytest.raises(TemporalDownError):
        await forwarder.forward_batch()
    assert (await rows(pool))[0][:2] == ("new", "Temporal is down: made up")
    assert await pool.fetchval("SELECT attempts FROM webhook_deliveries") == 0
    temporal.error = lambda _: None
    await make_due(pool)
    await forwarder.forward_batch()
    assert await rows(pool) == [("forwarded", f"handed to resolve/acme/Payments/{HEAD}", None)]
    ((workflow_id, asked),) = temporal.resolving
    assert (workflow_id, asked.sha) == (f"resolve/acme/Payments/{HEAD}", HEAD)
    assert [(row.row, row.hint.topic) for row in asked.rows] == [(1, Topic.CI)]
