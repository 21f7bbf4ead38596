"""From stored deliveries to hints, on a real PostgreSQL; Temporal is a fake except in the last tests."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from api import forwarder as forwarder_module
from api.breaker import Breaker
from api.forwarder import ATTEMPTS, Forwarder
from api.inbox import Delivery, Inbox, Source
from api.naming import Ignored, Naming, Wake
from api.signalling import Tasks, TemporalDownError
from deploy.temporal_server import find_binary
from tests.fake_temporal import FakeTemporal, rpc_error
from tests.recorded import recorded
from tests.tiny_task import TinyTask
from workflows.hints import Topic
from workflows.model import Repository
from workflows.names import SHARED_QUEUE
from workflows.plugin import data_converter, orch_plugin
from workflows.projects import OrchConfig, ProjectConfig
from workflows.state import TaskInput

PROJECT = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
ITEM = "5f0f2044-5dba-4cc8-b5dd-8a7ca85bcf3e"
HEAD = "9ab6cc1b9a9bfd145eb95bc1b2925aa6374b4c7b"
WORKFLOW = "task/PAY-1"
CONFIG = OrchConfig(
    plane_workspace="acme",
    plane_public_url="https://plane.example.com",
    gitea_public_url="https://gitea.example.com",
    projects={"PAY": ProjectConfig(plane_project_id=PROJECT, repository=Repository(owner="acme", name="Payments"))},
)


def make_forwarder(pool: asyncpg.Pool, client: Client, **options: Any) -> Forwarder:
    """A forwarder as the composition root builds it."""
    breaker = options.pop("breaker", None) or Breaker(pool)
    inbox = options.pop("inbox", None) or Inbox(pool)
    return Forwarder(inbox, Naming(pool, CONFIG), Tasks(client), breaker, **options)


@pytest.fixture
def temporal() -> FakeTemporal:
    """Nothing runs yet."""
    return FakeTemporal()


@pytest.fixture
def forwarder(pool: asyncpg.Pool, temporal: FakeTemporal) -> Forwarder:
    """On the fake Temporal."""
    return make_forwarder(pool, temporal.client)


async def store(inbox: Inbox, name: str, /, **changes: object) -> None:
    """A recorded delivery comes in, with some of its data changed."""
    file = recorded(name)
    body = json.loads(json.dumps(file["body"]))
    target = body["data"] if name.startswith("plane/") else body
    target.update(changes)
    headers = {key.lower(): value for key, value in file["headers"].items()}
    source = Source.PLANE if name.startswith("plane/") else Source.GITEA
    await inbox.receive(source, json.dumps(body).encode(), headers=headers, event="", delivery_id="")


async def rows(pool: asyncpg.Pool) -> list[tuple[str, str, str | None]]:
    """How each delivery stands."""
    found = await pool.fetch("SELECT status, reason, task FROM webhook_deliveries ORDER BY id")
    return [(row["status"], row["reason"], row["task"]) for row in found]


async def open_task(pool: asyncpg.Pool, task: str = "PAY-1", branch: str = "task/PAY-1-retry", **more: object) -> None:
    """A generation of a task that has not ended, unless `ended` says so."""
    await pool.execute(
        """
        INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity, stage,
                           round, status, started_at, updated_at, head_sha, ended_at)
        VALUES ($1, 1, 'PAY', $2, 't', 'acme/Payments', $3, $4, 'development', 1, 'waiting', now(), now(), $5,
                CASE WHEN $6 THEN now() END)
        """,
        task,
        UUID(ITEM),
        branch,
        f"activity of {task}",
        more.get("head", ""),
        more.get("ended", False),
    )


IN_PROGRESS = "plane/webhook_issue_updated_state_via_api.json"
DONE = "plane/webhook_issue_updated_state_via_ui.json"
COMMENT = "plane/webhook_issue_comment_created.json"
V2 = "plane/webhook_v2_workitem_updated_from_docs.json"


async def test_an_item_in_progress_starts_its_task(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A delivery that shows In Progress is a signal-with-start by the task's id; the item is remembered."""
    await store(inbox, IN_PROGRESS)
    assert await forwarder.forward_batch() == 1
    (start,) = temporal.starts
    assert (start["workflow"], start["arg"], start["id"]) == (
        "TaskWorkflow",
        TaskInput(key="PAY-1"),
        WORKFLOW,
    )
    assert start["task_queue"] == SHARED_QUEUE
    assert start["id_conflict_policy"] is WorkflowIDConflictPolicy.USE_EXISTING
    assert start["id_reuse_policy"] is WorkflowIDReusePolicy.ALLOW_DUPLICATE
    ((_, hint),) = temporal.signals
    assert (hint.topic, hint.source) == (Topic.ITEM, "plane webhook")
    assert await rows(pool) == [("forwarded", "", "PAY-1")]
    remembered = await pool.fetchrow("SELECT item_id, project_id, task FROM items")
    assert tuple(remembered or ()) == (UUID(ITEM), UUID(PROJECT), "PAY-1")


@pytest.mark.parametrize("name", [DONE, COMMENT, "plane/webhook_issue_created.json"])
async def test_other_hints_start_nothing(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, name: str
) -> None:
    """An item in another state and a comment do not start a task, and the row says why nothing happened."""
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    await store(inbox, name)
    await forwarder.forward_batch()
    assert temporal.signals == []
    assert await rows(pool) == [("ignored", "no such task is running", "PAY-1")]


@pytest.mark.parametrize("name", [DONE, COMMENT, IN_PROGRESS, V2])
async def test_a_running_task_hears_of_its_item(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, name: str
) -> None:
    """Item and comment deliveries wake the task that runs, without starting it again."""
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    temporal.running.add(WORKFLOW)
    await store(inbox, name)
    await forwarder.forward_batch()
    assert [(id_, hint.topic) for id_, hint in temporal.signals] == [(WORKFLOW, Topic.ITEM)]
    assert temporal.starts == []
    assert await rows(pool) == [("forwarded", "", "PAY-1")]


@pytest.mark.parametrize(("changes", "started"), [({}, 1), ({"archived_at": "2026-11-22"}, 0), ({"is_draft": True}, 0)])
async def test_an_item_of_unknown_state_starts_unless_something_contradicts(
    forwarder: Forwarder, inbox: Inbox, temporal: FakeTemporal, changes: dict[str, object], started: int
) -> None:
    """A v2 delivery, which does not name the state, starts a task unless the item is archived or a draft."""
    await store(inbox, V2, **changes)
    await forwarder.forward_batch()
    assert len(temporal.starts) == started


@pytest.mark.parametrize(
    "body",
    [
        {"event": "issue", "action": "deleted", "data": {"id": ITEM}},
        {"version": "v2", "event": "workitem.deleted", "entity_id": ITEM, "entity_type": "issue"},
        {
            "version": "v2",
            "event": "workitem.comment.created",
            "entity_type": "comment",
            "data": {"issue": ITEM},
        },
    ],
)
@pytest.mark.parametrize("running", [True, False])
async def test_a_deleted_item_or_v2_comment_is_found_by_its_id_and_starts_nothing(
    forwarder: Forwarder,
    inbox: Inbox,
    pool: asyncpg.Pool,
    temporal: FakeTemporal,
    body: dict[str, object],
    running: bool,
) -> None:
    """What carries only an item's id wakes the task we know it by, if that runs, and never starts it."""
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    temporal.running = {WORKFLOW} if running else set()
    await inbox.receive(Source.PLANE, json.dumps(body).encode(), headers={}, event="", delivery_id="")
    await forwarder.forward_batch()
    assert temporal.starts == []
    assert len(temporal.signals) == running


GITEA_TOPICS = [
    ("push_update", Topic.BRANCH),
    ("create_branch", Topic.BRANCH),
    ("delete_branch", Topic.BRANCH),
    ("pull_request_opened", Topic.PULL_REQUEST),
    ("pull_request_closed_merged", Topic.PULL_REQUEST),
    ("pull_request_review_rejected", Topic.PULL_REQUEST),
    ("issue_comment_on_pull_request", Topic.PULL_REQUEST),
    ("status_success", Topic.CI),
    ("workflow_run_completed_failure", Topic.CI),
    ("workflow_job_completed", Topic.CI),
]


@pytest.mark.parametrize(("name", "topic"), GITEA_TOPICS)
async def test_gitea_deliveries_wake_the_task_of_the_branch_or_commit(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, name: str, topic: Topic
) -> None:
    """Gitea's deliveries wake the open task of that branch or pushed commit, in any case of names."""
    await open_task(pool)
    await open_task(pool, "PAY-2", "task/PAY-2")
    await push(pool, "PAY-1")
    temporal.running = {WORKFLOW, "task/PAY-2"}
    await store(inbox, f"gitea/webhook_{name}.json")
    await forwarder.forward_batch()
    assert [(id_, hint.topic, hint.source) for id_, hint in temporal.signals] == [(WORKFLOW, topic, "gitea webhook")]
    assert await rows(pool) == [("forwarded", "", "PAY-1")]


async def push(pool: asyncpg.Pool, task: str, sha: str = HEAD, branch: str = "task/PAY-1-retry") -> None:
    """We pushed a commit for a task."""
    await pool.execute("INSERT INTO pushed_shas VALUES ('acme/Payments', $1, $2, $3, 1, 1, 1)", sha, branch, task)


async def test_a_status_of_the_known_head_wakes_without_a_push_of_ours(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """CI on a commit that a person pushed reaches the task whose head it is."""
    await open_task(pool, head=HEAD)
    temporal.running = {WORKFLOW}
    await store(inbox, "gitea/webhook_status_success.json")
    await forwarder.forward_batch()
    assert [hint.topic for _, hint in temporal.signals] == [Topic.CI]


async def test_a_commit_on_two_branches_wakes_both_tasks(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """One commit pushed for two tasks wakes both, and the row names both."""
    await open_task(pool)
    await open_task(pool, "PAY-2", "task/PAY-2")
    await push(pool, "PAY-1")
    await push(pool, "PAY-2", branch="task/PAY-2")
    temporal.running = {WORKFLOW, "task/PAY-2"}
    await store(inbox, "gitea/webhook_status_success.json")
    await forwarder.forward_batch()
    assert {id_ for id_, _ in temporal.signals} == temporal.running
    assert await rows(pool) == [("forwarded", "", "PAY-1, PAY-2")]


async def test_no_hint_is_lost_when_temporal_fails_between_two_tasks_of_one_row(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A row that concerns two tasks stays new until both were woken."""
    await open_task(pool)
    await open_task(pool, "PAY-2", "task/PAY-2")
    await push(pool, "PAY-1")
    await push(pool, "PAY-2", branch="task/PAY-2")
    temporal.running = {WORKFLOW, "task/PAY-2"}
    temporal.error = lambda id_: rpc_error(RPCStatusCode.UNAVAILABLE) if id_ == "task/PAY-2" else None
    await store(inbox, "gitea/webhook_status_success.json")
    await forwarder.forward_batch()
    assert (await rows(pool))[0][0] == "new"
    temporal.error = lambda _: None
    await make_due(pool)
    await forwarder.forward_batch()
    assert [id_ for id_, _ in temporal.signals] == [WORKFLOW, WORKFLOW, "task/PAY-2"]
    assert (await rows(pool))[0][0] == "forwarded"


async def make_due(pool: asyncpg.Pool) -> None:
    """As if the back-off had passed."""
    await pool.execute("UPDATE webhook_deliveries SET next_attempt_at = now()")


async def test_an_ended_generation_is_not_woken(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Deliveries about the branch and commits of a task that ended are ignored."""
    await open_task(pool, ended=True, head=HEAD)
    await push(pool, "PAY-1")
    temporal.running = {WORKFLOW}
    await store(inbox, "gitea/webhook_status_success.json")
    await store(inbox, "gitea/webhook_push_update.json")
    await forwarder.forward_batch()
    assert temporal.signals == []
    assert [row[0] for row in await rows(pool)] == ["ignored", "ignored"]


IGNORED = [
    (
        "gitea/webhook_push_main_after_merge.json",
        {},
        "main is the branch tasks land on; landings read it themselves",
    ),
    (
        "gitea/webhook_push_update.json",
        {},
        "no open task works on the branch task/PAY-1-retry of acme/payments",
    ),
    (
        "gitea/webhook_push_branch_deleted_tag_only.json",
        {},
        "no task waits for Gitea's pushes to refs/tags/v1.0.0, which is not a branch",
    ),
    (
        "gitea/webhook_push_update.json",
        {"repository": {"full_name": "o/r"}},
        "the repository o/r is not in orch.toml",
    ),
    ("gitea/webhook_status_success.json", {}, "no open task is known for commit 9ab6cc1b9a of acme/payments"),
    ("plane/webhook_project_created.json", {}, "no task waits for Plane's 'project created' events"),
    (IN_PROGRESS, {"project": ITEM}, f"Plane's project {ITEM} is not in orch.toml"),
    (COMMENT, {}, f"no task is known for Plane's item {ITEM}"),
    (COMMENT, {"issue": None}, "the comment does not say which item it belongs to"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), IGNORED)
async def test_what_concerns_no_task_is_ignored_with_a_reason(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, name: str, changes: dict[str, object], reason: str
) -> None:
    """Each delivery that wakes nobody says in plain words why."""
    await store(inbox, name, **changes)
    assert await forwarder.forward_batch() == 1
    assert await rows(pool) == [("ignored", reason, None)]


async def test_a_batch_wakes_each_task_once_for_each_topic(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Many deliveries for one task become one start and one signal for each other topic."""
    await open_task(pool)
    for number in range(5):
        await store(inbox, DONE, name=f"title {number}")
        await store(inbox, IN_PROGRESS, name=f"title {number}")
        await store(inbox, "gitea/webhook_push_update.json", compare_url=str(number))
    assert await forwarder.forward_batch() == 15
    assert len(temporal.starts) == 1
    assert [hint.topic for _, hint in temporal.signals] == [Topic.ITEM, Topic.BRANCH]
    assert {row[0] for row in await rows(pool)} == {"forwarded"}


async def test_poison_is_dead_and_the_others_go_on(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A body that can not be read ends as dead with its reason, and the rows after it are forwarded."""
    for body in (b"\xff", b"[" * 200_000, b'{"event": NaN}'):
        await inbox.receive(Source.PLANE, body, headers={}, event="", delivery_id="")
    await store(inbox, IN_PROGRESS)
    assert await forwarder.forward_batch() == 4
    assert [row[0] for row in await rows(pool)] == ["dead", "dead", "dead", "forwarded"]
    assert all(row[1] for row in (await rows(pool))[:3])
    assert len(temporal.starts) == 1


@pytest.mark.parametrize(
    "error",
    [
        rpc_error(RPCStatusCode.UNAVAILABLE),
        rpc_error(RPCStatusCode.DEADLINE_EXCEEDED),
        rpc_error(RPCStatusCode.PERMISSION_DENIED),
        RuntimeError("Failed client connect: connection refused"),
    ],
)
async def test_while_temporal_is_down_rows_wait(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, error: Exception
) -> None:
    """Rows stay new however often Temporal does not answer, and are forwarded when it is back."""
    temporal.error = lambda _: error
    await store(inbox, IN_PROGRESS)
    for _ in range(ATTEMPTS + 2):
        with pytest.raises(TemporalDownError):
            await forwarder.forward_batch()
        ((status, reason, _),) = await rows(pool)
        assert (status, reason.startswith("Temporal is down")) == ("new", True)
        assert await pool.fetchval("SELECT attempts FROM webhook_deliveries") == 0
        assert await forwarder.forward_batch() == 0
        await make_due(pool)
    temporal.error = lambda _: None
    assert await forwarder.forward_batch() == 1
    assert await rows(pool) == [("forwarded", "", "PAY-1")]


async def test_an_outage_is_noticed_after_a_few_tasks(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """While Temporal is down a batch does not wait for every one of its tasks."""
    asked: list[str] = []

    def down(workflow_id: str) -> Exception:
        asked.append(workflow_id)
        return rpc_error(RPCStatusCode.UNAVAILABLE)

    temporal.error = down
    for number in range(1, 9):
        await store(inbox, IN_PROGRESS, sequence_id=number)
    with pytest.raises(TemporalDownError):
        await forwarder.forward_batch()
    assert len(asked) == forwarder_module.DOWN_AFTER
    assert {row[0] for row in await rows(pool)} == {"new"}


async def test_one_task_that_temporal_does_not_answer_for_stops_no_other(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A failing task's row waits while the rest of its batch is forwarded."""
    temporal.error = lambda id_: rpc_error(RPCStatusCode.INTERNAL) if id_ == WORKFLOW else None
    for number in range(1, 5):
        await store(inbox, IN_PROGRESS, sequence_id=number)
    assert await forwarder.forward_batch() == 4
    assert [row[0] for row in await rows(pool)] == ["new", "forwarded", "forwarded", "forwarded"]


@pytest.mark.parametrize("error", [rpc_error(RPCStatusCode.INVALID_ARGUMENT), ValueError("a\x00bug")])
async def test_a_row_that_always_fails_dies_with_a_reason(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, error: Exception
) -> None:
    """A fault of our own is tried again a few times and then kept as dead, without stopping other rows."""
    temporal.error = lambda id_: error if id_ == WORKFLOW else None
    await store(inbox, IN_PROGRESS)
    await store(inbox, IN_PROGRESS, sequence_id=2)
    for _ in range(ATTEMPTS):
        assert (await rows(pool))[0][0] == "new"
        await forwarder.forward_batch()
        await make_due(pool)
    (bad, good) = await rows(pool)
    assert (bad[0], good[0]) == ("dead", "forwarded")
    assert bad[1].startswith(f"can not be forwarded: {type(error).__name__}")
    assert await forwarder.forward_batch() == 0


async def test_values_that_postgresql_refuses_stop_no_other_row(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row whose values can not be used in a query waits on its own; that is not taken for an outage."""
    naming = Naming.wakes

    async def refuse(self: Naming, delivery: Delivery) -> list[Wake] | Ignored:
        if delivery.source is Source.GITEA:
            raise asyncpg.CharacterNotInRepertoireError("invalid byte sequence")
        return await naming(self, delivery)

    monkeypatch.setattr(Naming, "wakes", refuse)
    await store(inbox, "gitea/webhook_push_update.json")
    await store(inbox, IN_PROGRESS)
    assert await forwarder.forward_batch() == 2
    assert [row[0] for row in await rows(pool)] == ["new", "forwarded"]


async def test_a_crash_between_signal_and_settling_repeats_the_signal(
    forwarder: Forwarder,
    inbox: Inbox,
    pool: asyncpg.Pool,
    temporal: FakeTemporal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A forwarder that dies after signalling leaves the row leased; another one signals again and settles."""
    await store(inbox, IN_PROGRESS)

    async def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "settle", die)
        assert await _killed_in_batch(forwarder)
    assert len(temporal.signals) == 1
    other = make_forwarder(pool, temporal.client)
    assert await other.forward_batch() == 0
    await pool.execute("UPDATE webhook_deliveries SET leased_until = now() - interval '1 second'")
    assert await other.forward_batch() == 1
    assert len(temporal.signals) == 2
    assert len(temporal.starts) == 1
    assert await rows(pool) == [("forwarded", "", "PAY-1")]


async def _killed_in_batch(forwarder: Forwarder) -> bool:
    try:
        await forwarder.forward_batch()
    except Killed:
        return True
    return False


class Killed(BaseException):
    """The end of a process, as far as its code can see it."""


async def test_a_redelivery_during_forwarding_is_forwarded_again(
    forwarder: Forwarder, inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """The same bytes that come while their row is being forwarded wake the task once more."""
    await store(inbox, IN_PROGRESS)

    async def again() -> None:
        temporal.before = None
        await store(inbox, IN_PROGRESS)

    temporal.before = again
    await forwarder.forward_batch()
    assert (await rows(pool))[0][0] == "new"
    await forwarder.forward_batch()
    assert len(temporal.signals) == 2
    assert (await rows(pool))[0][0] == "forwarded"


async def test_two_forwarders_share_the_rows(inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal) -> None:
    """Two forwarders working at once wake every task exactly once."""
    for number in range(1, 121):
        await store(inbox, IN_PROGRESS, sequence_id=number)
    both = [make_forwarder(pool, temporal.client) for _ in range(2)]

    async def drain(forwarder: Forwarder) -> None:
        while await forwarder.forward_batch():
            pass

    await asyncio.gather(*map(drain, both))
    woken = [id_ for id_, _ in temporal.signals]
    assert sorted(woken) == sorted(f"task/PAY-{number}" for number in range(1, 121))


async def settled(pool: asyncpg.Pool, count: int) -> None:
    """Wait until so many rows are no longer new."""
    query = "SELECT count(*) FROM webhook_deliveries WHERE status <> 'new'"
    async with asyncio.timeout(20):
        while True:
            if await pool.fetchval(query) >= count:
                return
            await asyncio.sleep(0.02)


async def test_the_loop_is_woken_by_a_delivery_and_stops_when_asked(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A delivery is forwarded long before the next poll, and the loop ends without waiting for it either."""
    stop = asyncio.Event()
    loop = asyncio.create_task(make_forwarder(pool, temporal.client, inbox=inbox, poll=timedelta(hours=1)).run(stop))
    for number in range(1, 4):
        await store(inbox, IN_PROGRESS, sequence_id=number)
        await settled(pool, number)
    stop.set()
    await asyncio.wait_for(loop, 5)


async def test_the_loop_finishes_its_batch_before_it_stops(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """A stop that is asked for in the middle of a batch lets the batch be settled."""
    stop = asyncio.Event()

    async def ask() -> None:
        stop.set()

    temporal.before = ask
    for number in range(1, 4):
        await store(inbox, IN_PROGRESS, sequence_id=number)
    await asyncio.wait_for(make_forwarder(pool, temporal.client).run(stop), 10)
    assert {row[0] for row in await rows(pool)} == {"forwarded"}


async def test_a_real_server_starts_and_signals_the_task(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """On a real Temporal an item starts its task, a push signals it, and what does not run is ignored."""
    await open_task(pool)
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-9')", UUID(PROJECT), UUID(PROJECT))
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(find_binary()), data_converter=data_converter()
    ) as environment:
        forwarder = make_forwarder(pool, environment.client)
        await store(inbox, IN_PROGRESS)
        assert await forwarder.forward_batch() == 1
        await store(inbox, "gitea/webhook_push_update.json")
        await store(inbox, COMMENT, issue=PROJECT)
        assert await forwarder.forward_batch() == 2
        async with Worker(environment.client, task_queue=SHARED_QUEUE, workflows=[TinyTask]):
            result = await environment.client.get_workflow_handle(WORKFLOW).result()
    assert result == {"argument": {"key": "PAY-1", "state": None}, "topics": ["item", "branch"]}
    assert await rows(pool) == [
        ("forwarded", "", "PAY-1"),
        ("forwarded", "", "PAY-1"),
        ("ignored", "no such task is running", "PAY-9"),
    ]


async def test_a_missing_namespace_is_an_outage_and_loses_nothing(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """Temporal's NOT_FOUND for the namespace is not taken for a task that does not run."""
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    await store(inbox, COMMENT)
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(find_binary())) as environment:
        address = environment.client.service_client.config.target_host
        client = await Client.connect(address, namespace="missing", lazy=True, plugins=[orch_plugin()])
        with pytest.raises(TemporalDownError, match="missing"):
            await make_forwarder(pool, client).forward_batch()
    assert (await rows(pool))[0][0] == "new"


async def test_an_unreachable_temporal_is_an_outage(inbox: Inbox, pool: asyncpg.Pool) -> None:
    """A lazy client that can not connect keeps the rows, as any other outage."""
    await store(inbox, IN_PROGRESS)
    client = await Client.connect("127.0.0.1:1", namespace="orch", lazy=True, plugins=[orch_plugin()])
    with pytest.raises(TemporalDownError):
        await make_forwarder(pool, client).forward_batch()
    assert (await rows(pool))[0][0] == "new"
