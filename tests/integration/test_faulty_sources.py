"""Plane and Gitea misbehave around one write: whatever they answer, a repeat makes the effect exactly once."""

import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import forge as forge_module
from activities.adapters.http import HttpClient
from activities.adapters.plane import PlaneClient
from activities.adapters.store import Store
from activities.adapters.store import open_pool as open_store
from activities.candidates import Candidates
from activities.errors import translating
from activities.forge import Forge
from activities.items import Items
from activities.landing import Landing
from activities.mirrors import Mirrors
from activities.projects import Projects
from activities.pull_requests import PullRequests
from activities.settings import WorkerSettings
from tests.contract.sandbox_harness import GITEA_TOKENS, Harness, eventually, harness
from tests.integration.conftest import Postgres
from workflows.contracts.items import Moved, MoveItem, PostComment
from workflows.contracts.landing import Land, LandOutcome
from workflows.contracts.pull_requests import EnsurePullRequest, PostReview
from workflows.model import Candidate, Item, ItemState, Lease, PullRequest, Repository, Stage, TaskRef
from workflows.projects import OrchConfig

BRANCH = "task/PAY-1"
REPOSITORY = Repository(owner="acme", name="payments")
TIMEOUT = 0.5
"""Seconds our clients wait for an answer."""
LIMIT = 4
"""Attempts after which an activity that does not succeed has failed."""
HTML = {"headers": {"Content-Type": "text/html"}, "body": "<html><h1>Bad gateway</h1></html>", "status": 200}

FAULTS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "headers": {"Retry-After": "7"}, "body": '{"error_message": "RATE_LIMIT_EXCEEDED"}'},
    "500 before": {"status": 500},
    "500 after": {"status": 500, "effect": "after"},
    "502 twice": {"status": 502, "times": 2},
    "cut before": {"status": None},
    "cut after": {"status": None, "effect": "after"},
    "html before": HTML,
    "html after": {**HTML, "effect": "after"},
    "half body before": {"status": 200, "body": '{"id": "7"}', "half_body": True},
    "half body after": {"half_body": True, "effect": "after"},
    "half json after": {"status": 201, "body": '{"id": "', "effect": "after"},
    "timeout before": {"status": 504, "delay_seconds": 2 * TIMEOUT},
    "timeout after": {"status": 504, "delay_seconds": 2 * TIMEOUT, "effect": "after"},
}
"""What the source does to the write, once where nothing else is said."""


class World:
    """The activities over a running sandbox and PostgreSQL."""

    def __init__(self, sandbox: Harness, store: Store, session: aiohttp.ClientSession, home: Path) -> None:
        ids = sandbox.plane_ids
        project = ids["projects"]["PAY"]
        self.sandbox, self.store = sandbox, store
        states = ("Awaiting approval", "Approved", "Rejected")
        self.extra_states = [{"name": name, "group": "started"} for name in states]
        config = OrchConfig.model_validate(
            {
                "plane_workspace": "acme",
                "plane_public_url": "http://plane.example.com",
                "gitea_public_url": "http://git.example.com",
                "projects": {
                    "PAY": {
                        "plane_project_id": project["id"],
                        "repository": {"owner": "acme", "name": "payments"},
                        "bots": [ids["users"]["delivery-bot"]],
                        "approvers": [ids["users"]["olga"]],
                    }
                },
            }
        )
        file = home / "orch.toml"
        file.touch()
        settings = WorkerSettings(
            database_url=SecretStr("unused"),
            config=file,
            home=home,
            plane_url=sandbox.sandbox.plane_url,
            plane_token=SecretStr("p-bot"),
            gitea_url=sandbox.sandbox.gitea_url,
            gitea_token=SecretStr(GITEA_TOKENS["author-bot"]),
            gitea_reviewer_token=SecretStr(GITEA_TOKENS["review-bot"]),
        )
        http = HttpClient(
            session,
            f"{sandbox.sandbox.plane_url}/api/v1/",
            service="plane",
            headers={"X-API-Key": "p-bot"},
            timeout=TIMEOUT,
        )
        plane = PlaneClient(http, "acme")
        self.project = config.projects["PAY"]
        forge = Forge(session, settings, config.gitea_public_url)
        projects = Projects(file, config)
        self.plane = plane
        self.items = Items(plane, forge, store, projects, "")
        self.pulls = PullRequests(forge, store)
        self.forge, self.settings = forge, settings
        self.use(settings)
        self.ref = TaskRef(key="PAY-1", generation=1, stage=Stage.DEVELOPMENT, round=1, step=1)
        self.item = Item(id="", project_id=project["id"], key="PAY-1", title="Add retry")
        self.delays: list[timedelta | None] = []

    def use(self, settings: WorkerSettings) -> None:
        """Build and land under these settings from now on."""
        mirrors = Mirrors(settings)
        self.candidates = Candidates(mirrors, self.forge, self.store, settings)
        self.landing = Landing(mirrors, self.forge, self.store, settings)

    async def begin(self) -> None:
        """An item of olga's, in a project with the states that decisions need."""
        for state in self.extra_states:
            made = await self.sandbox.plane("POST", "states/", {**state, "color": "#000000"})
            assert made.status in {200, 201}, made.body
        made = await self.sandbox.control(
            "plane", "POST", "ui/items", {"actor": "olga", "project": "PAY", "name": "Add retry", "state": "Todo"}
        )
        self.item = self.item.model_copy(update={"id": made.body["id"]})

    async def fault(self, server: str, method: str, path: str, fault: dict[str, Any]) -> None:
        """Put one fault in force."""
        plan = {"routes": [{"method": method, "path": path, **fault}]}
        done = await self.sandbox.control(server, "PUT", "faults", plan)
        assert done.status == 200, done.body

    async def until_done(self, function: Callable[[Any], Awaitable[Any]], arg: Any) -> tuple[Any, int]:
        """Run an activity as Temporal would: again after each failure that may be repeated. Answer and attempts."""
        for attempt in range(1, LIMIT + 1):
            environment = ActivityEnvironment()
            environment.info = dataclasses.replace(environment.info, attempt=attempt)
            try:
                return await environment.run(_translated(function), arg), attempt
            except ApplicationError as error:
                if error.non_retryable:
                    raise
                self.delays.append(error.next_retry_delay)
        raise AssertionError(f"{function} did not succeed in {LIMIT} attempts")

    async def intents(self) -> list[tuple[str, str]]:
        """Every intent and where it stands."""
        rows = await self.store.pool.fetch("SELECT kind, status FROM effects ORDER BY intent_key")
        return [(row["kind"], row["status"]) for row in rows]


def _translated(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(function)
    async def run(arg: Any) -> Any:
        with translating():
            return await function(arg)

    return run


@pytest.fixture
async def world(
    tmp_path: Path, postgres: Postgres, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A fresh sandbox, empty tables."""
    monkeypatch.setattr(forge_module, "HttpClient", functools.partial(HttpClient, timeout=TIMEOUT))
    await pool.execute("TRUNCATE fences, leases, merge_landings")
    store_pool = await open_store(postgres.url)
    try:
        async with harness(tmp_path / "sandbox") as sandbox, aiohttp.ClientSession() as session:
            await sandbox.seed(allow_fast_forward_only_merge=True)
            world = World(sandbox, Store(store_pool), session, tmp_path)
            await world.begin()
            yield world
    finally:
        await store_pool.close()


def expect_waited(world: World, kind: str, attempts: int) -> None:
    """The write was tried again after the fault, and not before the source said."""
    assert attempts >= 2
    if kind == "429":
        assert world.delays == [timedelta(seconds=7)]


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_comment_is_written_once(world: World, kind: str) -> None:
    """Whatever Plane answers to a comment, the item ends with that one comment."""
    await world.fault("plane", "POST", "/comments/$", FAULTS[kind])
    arg = PostComment(ref=world.ref, effect="finish", item=world.item, repository=REPOSITORY, title="done", body="ok")
    done, attempts = await world.until_done(world.items.post_comment, arg)
    expect_waited(world, kind, attempts)
    comments = await world.plane.list_comments(world.item.project_id, world.item.id)
    assert [comment.external_id for comment in comments] == [world.ref.intent("finish")]
    assert done.reference == comments[0].id
    assert await world.intents() == [("plane comment", "done")]


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_state_is_written_once(world: World, kind: str) -> None:
    """Whatever Plane answers to a state write, the item is moved once and the intent is settled."""
    await world.fault("plane", "PATCH", "/(work-items|issues)/", FAULTS[kind])
    arg = MoveItem(ref=world.ref, effect="done", item=world.item, to=ItemState.DONE)
    moved, attempts = await world.until_done(world.items.move_item, arg)
    expect_waited(world, kind, attempts)
    assert moved.outcome is Moved.MOVED

    async def recorded() -> list[str | None]:
        changes = await world.plane.state_changes(world.item.project_id, world.item.id)
        return [change.new_state for change in changes]

    assert len(await eventually(recorded)) == 1
    assert await world.intents() == [("plane state", "done")]
    repeated = arg.model_copy(update={"ref": arg.ref.model_copy(update={"step": 2})})
    again, _ = await world.until_done(world.items.move_item, repeated)
    assert again.outcome is Moved.ALREADY_THERE


async def branch(world: World, folder: Path) -> tuple[str, str]:
    """A pushed task branch: its head and the base it stands on."""
    clone = await world.sandbox.clone(folder / "clone")
    base = await world.sandbox.git("rev-parse", "HEAD", cwd=clone)
    return await world.sandbox.push(clone, BRANCH, {"retry.py": "x = 1\n"}), base


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_pull_request_is_opened_once(world: World, kind: str, tmp_path: Path) -> None:
    """Whatever Gitea answers to a new pull request, the branch ends with that one pull request."""
    await branch(world, tmp_path)
    await world.fault("gitea", "POST", "/pulls$", FAULTS[kind])
    arg = EnsurePullRequest(ref=world.ref, repository=REPOSITORY, branch=BRANCH, title="PAY-1: Add retry", body="b")
    pull, attempts = await world.until_done(world.pulls.ensure_pull_request, arg)
    expect_waited(world, kind, attempts)
    pulls = (await world.sandbox.gitea("GET", "pulls?state=all")).body
    assert [one["number"] for one in pulls] == [pull.number]


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_review_is_posted_once(world: World, kind: str, tmp_path: Path) -> None:
    """Whatever Gitea answers to a review, the pull request ends with that one review."""
    sha, _ = await branch(world, tmp_path)
    number = (await world.sandbox.open_pull())["number"]
    await world.fault("gitea", "POST", "/reviews$", FAULTS[kind])
    arg = PostReview(
        ref=world.ref, effect="review", repository=REPOSITORY, number=number, sha=sha, approve=True, body="Good."
    )
    done, attempts = await world.until_done(world.pulls.post_review, arg)
    expect_waited(world, kind, attempts)
    reviews = (await world.sandbox.gitea("GET", f"pulls/{number}/reviews")).body
    assert [(str(review["id"]), review["state"]) for review in reviews] == [(done.reference, "APPROVED")]


@pytest.mark.parametrize("kind", sorted(FAULTS.keys() - {"half json after"}))  # a merge is answered without a body
async def test_a_candidate_lands_once(world: World, kind: str, tmp_path: Path) -> None:
    """Whatever Gitea answers to a merge, main has the candidate once, and the landing is read back from it."""
    sha, base = await branch(world, tmp_path)
    clone = tmp_path / "clone"
    tree = await world.sandbox.git("rev-parse", "HEAD^{tree}", cwd=clone)
    number = (await world.sandbox.open_pull())["number"]
    row = await world.store.landings.open_lease("merge/acme/payments/main", "task/PAY-1", 1)
    lease = Lease(queue="merge/acme/payments/main", epoch=row.epoch, ticket=1, granted_at=datetime.now(UTC))
    await world.fault("gitea", "POST", "/merge$", FAULTS[kind])
    arg = Land(
        ref=world.ref,
        repository=REPOSITORY,
        pull=PullRequest(number=number, head_sha=sha, url=""),
        branch=BRANCH,
        candidate=Candidate(sha=sha, tree=tree, base_sha=base, replaces=sha),
        lease=lease,
        title="PAY-1",
    )
    landed, attempts = await world.until_done(world.landing.land, arg)
    if kind != "html after":  # nothing is read from the answer to a merge: main is
        expect_waited(world, kind, attempts)
    assert (landed.outcome, landed.sha) == (LandOutcome.LANDED, sha)
    assert (await world.sandbox.gitea("GET", "branches/main")).body["commit"]["id"] == sha
    assert (await world.sandbox.gitea("GET", f"pulls/{number}")).body["merged"]
    rows = await world.store.pool.fetch("SELECT candidate, status FROM merge_landings")
    assert [tuple(row) for row in rows] == [(sha, "landed")]


async def test_the_first_answer_found_stands(world: World, pool: asyncpg.Pool) -> None:
    """An answer that carries an earlier time but turns up after another was acted on came too late."""
    columns = "act_id, task, act, actor, digest, via, at"
    add = f"INSERT INTO operator_acts ({columns}) VALUES ($1, 'PAY-1', $1, $2, 'd', 'cli', $3)"
    now = datetime.now(UTC)
    await pool.execute(add, "approve", "first", now)
    read = functools.partial(world.items._decisions.read, world.ref, "ask-1", world.item, world.project, "d")
    assert [answer.by for answer in (await read()).all] == ["first"]
    await pool.execute(add, "reject", "second", now - timedelta(seconds=1))
    assert [answer.by for answer in (await read()).all] == ["first", "second"]
    rows = await pool.fetch("SELECT actor, outcome FROM operator_acts ORDER BY actor")
    assert [tuple(row) for row in rows] == [("first", "counted"), ("second", "too late")]
