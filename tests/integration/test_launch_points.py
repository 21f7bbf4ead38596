"""Every launch point, by its recorded payload: exactly which wake it becomes, or which reason it is given."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api.inbox import Inbox, Source
from tests.fake_temporal import FakeTemporal
from tests.integration.test_forwarder import HEAD, ITEM, PROJECT, WORKFLOW, make_forwarder, open_task, push, rows
from tests.recorded import names, recorded
from workflows.hints import Topic

ITEM_HINT, PULL, BRANCH, CI = Topic.ITEM, Topic.PULL_REQUEST, Topic.BRANCH, Topic.CI


@dataclass(frozen=True)
class Point:
    """A launch point and what must come of it."""

    what: str
    payload: str
    becomes: Topic | str
    """The topic PAY-1 is woken for, or why nobody is."""
    starts: bool = False
    event_type: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The recorded payload's path."""
        sender, _, name = self.payload.partition(":")
        return f"{sender}/webhook_{name}.json"

    def body(self) -> dict[str, Any]:
        """The recorded body with this point's changes."""
        body = copy.deepcopy(recorded(self.file)["body"])
        for path, value in self.changes.items():
            *way, last = path.split(".")
            target = body
            for step in way:
                target = target[step]
            target[last] = value
        return body

    def headers(self) -> dict[str, str]:
        """The recorded headers as the inbox keeps them."""
        headers = {key.lower(): value for key, value in recorded(self.file)["headers"].items()}
        return headers | ({"x-gitea-event-type": self.event_type} if self.event_type else {})


def moved(state: str) -> dict[str, Any]:
    """A person moved the item to a state."""
    return {"data.state.name": state}


V2 = "plane:v2_workitem_updated_from_docs"
DELETED_V1 = {"action": "deleted", "data": {"id": ITEM}}
COMMENT_V2 = {"event": "workitem.comment.created", "entity_type": "comment", "data": {"issue": ITEM}}

POINTS = [
    Point("item created in Todo", "plane:issue_created", ITEM_HINT),
    Point("item created in In Progress", "plane:issue_created", ITEM_HINT, True, changes=moved("In Progress")),
    Point("item moved to In Progress by API", "plane:issue_updated_state_via_api", ITEM_HINT, True),
    Point(
        "item moved to In Progress in the browser",
        "plane:issue_updated_state_via_ui",
        ITEM_HINT,
        True,
        changes=moved("In Progress"),
    ),
    Point("item moved to Done", "plane:issue_updated_state_via_ui", ITEM_HINT),
    Point("item approved", "plane:issue_updated_state_via_ui", ITEM_HINT, changes=moved("Approved")),
    Point("item rejected", "plane:issue_updated_state_via_ui", ITEM_HINT, changes=moved("Rejected")),
    Point("item cancelled", "plane:issue_updated_state_via_ui", ITEM_HINT, changes=moved("Cancelled")),
    Point("item edited in In Progress", "plane:issue_updated_priority", ITEM_HINT, True),
    Point("item relabelled in In Progress", "plane:issue_updated_labels_via_api", ITEM_HINT, True),
    Point("item relabelled", "plane:issue_updated_labels_via_ui", ITEM_HINT),
    Point("item reassigned", "plane:issue_updated_assignees_via_ui", ITEM_HINT),
    Point("item described", "plane:issue_updated_description_via_ui", ITEM_HINT),
    Point("item deleted", "plane:issue_updated_priority", ITEM_HINT, changes=DELETED_V1),
    Point("comment", "plane:issue_comment_created", ITEM_HINT),
    Point("comment edited", "plane:issue_comment_updated", ITEM_HINT),
    Point("item created (v2)", V2, ITEM_HINT, True, changes={"event": "workitem.created"}),
    Point("item updated (v2)", V2, ITEM_HINT, True),
    Point("item deleted (v2)", V2, ITEM_HINT, changes={"event": "workitem.deleted", "entity_id": ITEM, "data": "None"}),
    Point("comment (v2)", V2, ITEM_HINT, changes=COMMENT_V2),
    Point("project created", "plane:project_created", "no task waits for Plane's 'project created' events"),
    Point("project deleted", "plane:project_deleted_from_source", "no task waits for Plane's 'project deleted' events"),
    Point("push", "gitea:push_update", BRANCH),
    Point("force push", "gitea:push_force", BRANCH),
    Point("first push", "gitea:push_new_branch", BRANCH),
    Point("branch created", "gitea:create_branch", BRANCH),
    Point("branch deleted", "gitea:delete_branch", BRANCH),
    Point(
        "push to main",
        "gitea:push_main_after_merge",
        "main is the branch tasks land on; landings read it themselves",
    ),
    Point(
        "tag pushed",
        "gitea:push_branch_deleted_tag_only",
        "no task waits for Gitea's pushes to refs/tags/v1.0.0, which is not a branch",
    ),
    Point("PR opened", "gitea:pull_request_opened", PULL),
    Point("PR reopened", "gitea:pull_request_reopened", PULL),
    Point("PR synchronized", "gitea:pull_request_synchronized", PULL),
    Point("PR synchronized by force", "gitea:pull_request_synchronized_force_push", PULL),
    Point("PR closed", "gitea:pull_request_closed_unmerged", PULL),
    Point("PR merged", "gitea:pull_request_closed_merged", PULL),
    Point("PR retitled", "gitea:pull_request_edited_title", PULL),
    Point("PR retargeted", "gitea:pull_request_edited_base", PULL),
    Point("review asked", "gitea:pull_request_review_requested", PULL),
    Point("review approves", "gitea:pull_request_review_approved", PULL),
    Point("review rejects", "gitea:pull_request_review_rejected", PULL),
    Point("review comments", "gitea:pull_request_review_comment", PULL),
    Point("comment on PR", "gitea:issue_comment_on_pull_request", PULL),
    Point(
        "comment on issue",
        "gitea:issue_comment_on_pull_request",
        "no task waits for Gitea's 'issue_comment' events",
        event_type="issue_comment",
    ),
    Point("status pending", "gitea:status_pending", CI),
    Point("status success", "gitea:status_success", CI),
    Point("status failure", "gitea:status_failure_external", CI),
    Point("workflow requested", "gitea:workflow_run_requested", CI),
    Point("workflow runs", "gitea:workflow_run_in_progress", CI),
    Point("workflow succeeded", "gitea:workflow_run_completed_success", CI),
    Point("workflow failed", "gitea:workflow_run_completed_failure", CI),
    Point("workflow job", "gitea:workflow_job_completed", CI),
]
WAKING = [point for point in POINTS if isinstance(point.becomes, Topic)]


def named(points: list[Point]) -> Any:
    """One test for each point, by its name."""
    return pytest.mark.parametrize("point", points, ids=[point.what for point in points])


@pytest.fixture
async def temporal(pool: asyncpg.Pool) -> FakeTemporal:
    """PAY-1 and another task of the same repository are known; what runs is up to the test."""
    await open_task(pool)
    await open_task(pool, "PAY-2", "task/PAY-2")
    await push(pool, "PAY-1", str(recorded("gitea/webhook_status_failure_external.json")["body"]["sha"]))
    await pool.execute("INSERT INTO pushed_shas VALUES ('acme/Payments', $1, 'b', 'PAY-1', 1, 1, 1)", HEAD)
    await pool.execute("INSERT INTO items VALUES ($1, $2, 'PAY-1')", UUID(ITEM), UUID(PROJECT))
    return FakeTemporal()


async def deliver(inbox: Inbox, point: Point, **headers: str) -> None:
    """It comes in."""
    source = Source(point.payload.partition(":")[0])
    kept = headers or point.headers()
    await inbox.receive(source, json.dumps(point.body()).encode(), headers=kept, event="", delivery_id="")


@named(POINTS)
async def test_each_launch_point_wakes_its_running_task_or_says_why_not(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, point: Point
) -> None:
    """A delivery becomes exactly one hint of its topic for exactly its task, or is ignored for its reason."""
    temporal.running = {WORKFLOW, "task/PAY-2"}
    await deliver(inbox, point)
    assert await make_forwarder(pool, temporal.client).forward_batch() == 1
    told = [(id_, hint.topic) for id_, hint in temporal.signals]
    assert (temporal.starts, temporal.resolving) == ([], [])
    if isinstance(point.becomes, Topic):
        assert told == [(WORKFLOW, point.becomes)]
        assert await rows(pool) == [("forwarded", "", "PAY-1")]
    else:
        assert told == []
        assert await rows(pool) == [("ignored", point.becomes, None)]


@named(WAKING)
async def test_only_an_item_that_may_be_in_progress_starts_a_task(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, point: Point
) -> None:
    """Where no task runs, a delivery starts it if it shows In Progress, and else is ignored for that reason."""
    await deliver(inbox, point)
    await make_forwarder(pool, temporal.client).forward_batch()
    assert [start["id"] for start in temporal.starts] == ([WORKFLOW] if point.starts else [])
    expected = ("forwarded", "") if point.starts else ("ignored", "no such task is running")
    assert await rows(pool) == [(*expected, "PAY-1")]


@named([point for point in POINTS if point.payload.startswith("gitea:")])
async def test_forgejo_names_its_headers_after_itself(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal, point: Point
) -> None:
    """The same delivery with Forgejo's twins of the headers alone comes to the same end."""
    temporal.running = {WORKFLOW}
    headers = {name.replace("gitea", "forgejo"): value for name, value in point.headers().items()}
    await deliver(inbox, point, **headers)
    await make_forwarder(pool, temporal.client).forward_batch()
    told = [(id_, hint.topic) for id_, hint in temporal.signals]
    assert told == ([(WORKFLOW, point.becomes)] if isinstance(point.becomes, Topic) else [])


async def test_forgejos_actions_events_are_left_to_polling(
    inbox: Inbox, pool: asyncpg.Pool, temporal: FakeTemporal
) -> None:
    """Forgejo has no status webhook, and its own event of a finished run is ignored with a reason."""
    headers = {"x-forgejo-event-type": "action_run_failure"}
    await inbox.receive(Source.GITEA, b'{"action": "failure"}', headers=headers, event="", delivery_id="")
    await make_forwarder(pool, temporal.client).forward_batch()
    assert await rows(pool) == [("ignored", "no task waits for Gitea's 'action_run_failure' events", None)]


def test_every_recorded_webhook_is_a_launch_point_of_the_table() -> None:
    """No recorded delivery is left without an expectation."""
    assert {point.file for point in POINTS} == {*names("plane"), *names("gitea")}
