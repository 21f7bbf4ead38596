"""The sandbox's Plane against what was recorded from the real one."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.contract.sandbox_harness import PLANE_SECRET, Harness, eventually, harness
from tests.contract.shapes import assert_same_shape, recorded


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Harness]:
    """One project with two people and a webhook."""
    async with harness(tmp_path) as running:
        await running.seed()
        yield running


async def create(sandbox: Harness, **fields: Any) -> Any:
    """A new item in Todo."""
    states = sandbox.plane_ids["projects"]["PAY"]["states"]
    answer = await sandbox.plane("POST", "work-items/", {"name": "Add retry", "state": states["Todo"], **fields})
    assert answer.status == 201, answer.body
    return answer.body


def events(sandbox: Harness, field: str | None = None) -> list[Any]:
    """The issue webhooks about one changed key; None means created."""
    bodies = [hook.body for hook in sandbox.receiver.of("X-Plane-Event", "issue")]
    return [body for body in bodies if body["activity"]["field"] == field]


async def test_every_read_has_the_recorded_shape(sandbox: Harness) -> None:
    """Each list and object of the API has the keys and types that Plane answered with."""
    ids = sandbox.plane_ids["projects"]["PAY"]
    item = await create(sandbox, labels=[ids["labels"]["agent"]], assignees=[sandbox.plane_ids["users"]["olga"]])
    await sandbox.plane("POST", f"work-items/{item['id']}/comments/", {"comment_html": "<p>hi</p>"})
    await sandbox.plane("POST", f"work-items/{item['id']}/links/", {"url": "https://example.com/1", "title": "one"})
    await sandbox.plane("PATCH", f"work-items/{item['id']}/", {"state": ids["states"]["In Progress"]})

    async def written() -> bool:
        return (await sandbox.plane("GET", f"work-items/{item['id']}/activities/")).body["count"] == 3

    await eventually(written)
    fields = "id,name,sequence_id,state,labels,assignees,project,updated_at"
    expanded = f"work-items/{item['id']}/?expand=state,labels,assignees,project&fields={fields}"
    reads = {
        expanded: "rest_issue_get_expand_fields",
        "/api/v1/workspaces/acme/projects/": "rest_projects_list",
        "/api/v1/workspaces/acme/members/": "rest_workspace_members",
        "/api/v1/workspaces/acme/work-items/PAY-1/": "rest_issue_by_identifier",
        "/api/v1/workspaces/acme/work-items/search/?search=retry": "rest_search",
        "members/": "rest_project_members",
        "states/": "rest_states_list",
        "labels/": "rest_labels_list",
        f"work-items/{item['id']}/": "rest_issue_get",
        f"issues/{item['id']}/": "rest_issue_get",
        f"work-items/{item['id']}/comments/": "rest_comments_list",
        f"work-items/{item['id']}/activities/": "rest_activities_list",
        "work-items/?per_page=2&fields=id,sequence_id,name,state,updated_at": "rest_issues_list_page1",
    }
    for path, name in reads.items():
        expected, answer = recorded("plane", name), await sandbox.plane("GET", path)
        assert answer.status == expected["status"], path
        assert_same_shape(answer.body, expected["body"])
    links = (await sandbox.plane("GET", f"work-items/{item['id']}/links/")).body["results"]
    assert_same_shape(links[0], recorded("plane", "rest_link_create")["body"])


async def test_writes_have_the_recorded_shape_and_status(sandbox: Harness) -> None:
    """Creating, changing and deleting answer as Plane did, also with the 200 of a new state."""
    pair = {"external_id": "x-1", "external_source": "tests"}
    item = await create(sandbox, **pair)
    at = f"work-items/{item['id']}/"
    todo = sandbox.plane_ids["projects"]["PAY"]["states"]["Todo"]
    steps = [
        ("POST", "work-items/", {"name": "x", **pair}, "rest_issue_create_conflict_409"),
        ("GET", "work-items/?external_id=x-1&external_source=tests", None, "rest_issue_by_external_id"),
        ("PATCH", at, {"state": todo}, "rest_issue_patch_state"),
        ("PATCH", at, {"state": "11111111-1111-4111-8111-111111111111"}, "rest_issue_patch_bad_state_400"),
        ("POST", f"{at}comments/", {"comment_html": "<p>a</p>", **pair}, "rest_comment_create"),
        ("POST", f"{at}comments/", {"comment_html": "<p>b</p>", **pair}, "rest_comment_create_conflict_409"),
        ("POST", f"{at}links/", {"url": "https://example.com/1", "title": "one"}, "rest_link_create"),
        ("POST", f"{at}links/", {"url": "https://example.com/1"}, "rest_link_create_duplicate_400"),
        (
            "POST",
            "states/",
            {"name": "Ready", "group": "unstarted", "color": "#fff"},
            "rest_state_create_200",
        ),
        ("POST", "labels/", {"name": "bug", "color": "#f00"}, "rest_label_create"),
        ("GET", "work-items/11111111-1111-4111-8111-111111111111/", None, "rest_not_found_404"),
        ("GET", "work-items/?cursor=zzz", None, "rest_issues_list_bad_cursor_400"),
        ("GET", "work-items/?order_by=nonsense", None, "rest_issues_list_bad_order_by_500"),
        ("GET", f"work-items/?state={todo}&fields=id,name", None, "rest_issues_list_state_param_ignored"),
        ("DELETE", at, None, "rest_issue_delete_204"),
    ]
    for method, path, body, name in steps:
        expected, answer = recorded("plane", name), await sandbox.plane(method, path, body)
        assert answer.status == expected["status"], (name, answer.body)
        assert_same_shape(answer.body, expected["body"])


async def test_a_key_is_needed_and_must_be_known(sandbox: Harness) -> None:
    """No key is 401 and an unknown key is 403, with the recorded words."""
    url = f"{sandbox.sandbox.plane_url}/api/v1/users/me/"
    without, wrong = await sandbox.call("GET", url), await sandbox.call("GET", url, **{"X-API-Key": "nobody"})
    assert (without.status, without.body) == (401, recorded("plane", "rest_no_auth_401")["body"])
    assert (wrong.status, wrong.body) == (403, recorded("plane", "rest_bad_token_403")["body"])
    assert (await sandbox.plane("GET", "/api/v1/users/me/")).body["display_name"] == "delivery-bot"
    assert (await sandbox.plane("GET", "/api/v1/users/me")).status == 404


async def test_the_rate_limit_counts_and_refuses(sandbox: Harness) -> None:
    """Good answers tell what is left; the one too many is 429 with Retry-After and without those headers."""
    await sandbox.control("plane", "PUT", "rate-limit", {"per_minute": 2})
    first = await sandbox.plane("GET", "labels/", token="p-olga")
    await sandbox.plane("GET", "labels/", token="p-olga")
    refused = await sandbox.plane("GET", "labels/", token="p-olga")
    assert first.headers["X-RateLimit-Remaining"] == "1"
    assert (refused.status, refused.body) == (429, recorded("plane", "rest_rate_limited_429")["body"])
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "X-RateLimit-Remaining" not in refused.headers


async def test_pages_are_cut_by_offset_and_newest_change_first(sandbox: Harness) -> None:
    """Three items in pages of two: the cursor leads on, and a filter by state is ignored."""
    made = [await create(sandbox, name=f"item {number}") for number in range(3)]
    await sandbox.plane("PATCH", f"work-items/{made[0]['id']}/", {"priority": "high"})
    path = "work-items/?per_page=2&order_by=-updated_at"

    async def settled() -> Any:
        page = (await sandbox.plane("GET", path)).body
        return page if page["results"][0]["id"] == made[0]["id"] else None

    page = await eventually(settled)
    rest = (await sandbox.plane("GET", f"{path}&cursor={page['next_cursor']}")).body
    assert (page["next_page_results"], rest["next_page_results"], rest["prev_page_results"]) == (
        True,
        False,
        True,
    )
    assert len({row["id"] for row in page["results"] + rest["results"]}) == 3


async def test_history_is_written_after_the_answer_and_moves_updated_at(tmp_path: Path) -> None:
    """A state change shows in the history only later, and by then updated_at has moved too."""
    async with harness(tmp_path, plane_activity_delay=0.3) as sandbox:
        await sandbox.seed()
        states = sandbox.plane_ids["projects"]["PAY"]["states"]
        item = await create(sandbox)
        path = f"work-items/{item['id']}/"
        answered = (await sandbox.plane("PATCH", path, {"state": states["Done"]}, token="p-olga")).body
        assert (await sandbox.plane("GET", f"{path}activities/")).body["count"] == 0

        async def last() -> Any:
            rows = (await sandbox.plane("GET", f"{path}activities/")).body["results"]
            return rows[-1] if len(rows) == 2 else None

        row = await eventually(last)
        assert (row["field"], row["old_value"], row["new_value"]) == ("state", "Todo", "Done")
        assert (row["old_identifier"], row["new_identifier"]) == (states["Todo"], states["Done"])
        assert row["actor"] == sandbox.plane_ids["users"]["olga"]
        assert (await sandbox.plane("GET", path)).body["updated_at"] > answered["updated_at"]


async def test_each_changed_key_is_one_signed_delivery(sandbox: Harness) -> None:
    """A PATCH of two keys makes two deliveries, signed over their bytes; the same again makes none."""
    states = sandbox.plane_ids["projects"]["PAY"]["states"]
    item = await create(sandbox)
    change = {"state": states["In Progress"], "priority": "high"}
    await sandbox.plane("PATCH", f"work-items/{item['id']}/", change)
    await eventually(lambda: events(sandbox, "state") and events(sandbox, "priority"))
    await sandbox.plane("PATCH", f"work-items/{item['id']}/", change)
    await sandbox.plane("PATCH", f"work-items/{item['id']}/", {"name": "last"})
    await eventually(lambda: events(sandbox, "name"))
    assert (len(events(sandbox, "state")), len(events(sandbox, "priority"))) == (1, 1)
    assert_same_shape(events(sandbox, "state")[0], recorded("plane", "webhook_issue_updated_state_via_api")["body"])
    assert_same_shape(events(sandbox)[0], recorded("plane", "webhook_issue_created")["body"])
    for hook in sandbox.receiver.got:
        signature = hmac.new(PLANE_SECRET.encode(), hook.raw, hashlib.sha256).hexdigest()
        assert hook.headers["X-Plane-Signature"] == signature
        assert hook.headers["User-Agent"] == "Autopilot"


async def test_the_ui_signs_as_the_person_and_uses_its_own_names(sandbox: Harness) -> None:
    """A person's move arrives as state_id with that person as actor, a comment as issue_comment."""
    item = await create(sandbox)
    body = {"actor": "olga", "state": "Done", "labels": ["agent"]}
    assert (await sandbox.control("plane", "PATCH", "ui/items/PAY-1", body)).status == 200
    await sandbox.control("plane", "POST", "ui/items/PAY-1/comments", {"actor": "olga", "comment_html": "<p>go</p>"})
    moved = (await eventually(lambda: events(sandbox, "state_id")))[0]
    assert_same_shape(moved, recorded("plane", "webhook_issue_updated_state_via_ui")["body"])
    assert moved["activity"]["actor"]["display_name"] == "olga"
    assert moved["data"]["completed_at"] is not None
    await eventually(lambda: events(sandbox, "label_ids"))
    comment = (await eventually(lambda: sandbox.receiver.of("X-Plane-Event", "issue_comment")))[0].body
    assert_same_shape(comment, recorded("plane", "webhook_issue_comment_created")["body"])
    assert comment["data"]["issue"] == item["id"]


async def test_data_is_a_snapshot_read_later(tmp_path: Path) -> None:
    """Three quick changes make three deliveries that show the last state; a deleted item makes none."""
    async with harness(tmp_path, plane_activity_delay=0.3) as sandbox:
        await sandbox.seed()
        states = sandbox.plane_ids["projects"]["PAY"]["states"]
        item, doomed = await create(sandbox), await create(sandbox)
        await sandbox.plane("DELETE", f"work-items/{doomed['id']}/")
        for name in ("Done", "Backlog", "In Progress"):
            await sandbox.plane("PATCH", f"work-items/{item['id']}/", {"state": states[name]})
        await eventually(lambda: len(events(sandbox, "state")) == 3)
        assert {body["data"]["state"]["name"] for body in events(sandbox, "state")} == {"In Progress"}
        assert doomed["id"] not in {body["data"]["id"] for body in events(sandbox)}


async def test_an_error_answer_counts_as_delivered(sandbox: Harness) -> None:
    """A 500 of the receiver is not retried."""
    sandbox.receiver.status = 500
    await create(sandbox)
    await eventually(lambda: events(sandbox))

    async def logged() -> Any:
        rows = (await sandbox.control("plane", "GET", "deliveries")).body["deliveries"]
        return [row for row in rows if row["event"] == "issue" and row["state"] == "failed"]

    assert len((await eventually(logged))[0]["attempts"]) == 1


async def test_an_unreachable_receiver_is_retried_then_switched_off(sandbox: Harness) -> None:
    """Six attempts without an answer, each under a new id, end the webhook for good."""
    seed = {"workspace": {"slug": "acme"}, "webhooks": [{"url": "http://127.0.0.1:9/", "secret": "s"}]}
    await sandbox.control("plane", "POST", "seed", seed)
    await create(sandbox)

    async def dead() -> Any:
        hooks = (await sandbox.control("plane", "GET", "webhooks")).body["webhooks"]
        return [hook for hook in hooks if not hook["is_active"]]

    hook = (await eventually(dead))[0]
    rows = (await sandbox.control("plane", "GET", "deliveries")).body["deliveries"]
    attempts = next(row["attempts"] for row in rows if row["hook"] == hook["id"])
    assert len(attempts) == 6
    assert len({attempt["delivery_id"] for attempt in attempts}) == 6


async def test_faults_lose_and_double_webhooks_and_falsify_answers(sandbox: Harness) -> None:
    """A plan drops one delivery, doubles another, and answers 500 after the work was done."""
    plan: dict[str, Any] = {"webhooks": {"drop_next": 1}}
    await sandbox.control("plane", "PUT", "faults", plan)
    lost = await create(sandbox, name="lost")
    plan = {"webhooks": {"double_next": 1}, "routes": [{"method": "POST", "status": 500, "effect": "after"}]}
    await sandbox.control("plane", "PUT", "faults", plan)
    answer = await sandbox.plane("POST", "work-items/", {"name": "twice"})
    assert answer.status == 500
    await eventually(lambda: len(events(sandbox)) == 2)
    assert {body["data"]["name"] for body in events(sandbox)} == {"twice"}
    assert (await sandbox.plane("GET", f"work-items/{lost['id']}/")).status == 200


async def test_route_faults_refuse_before_the_work_or_cut_the_line_after_it(sandbox: Harness) -> None:
    """A 429 with Retry-After changes nothing; a cut connection hides a change; then all is well."""
    item = await create(sandbox)
    path = f"work-items/{item['id']}/"
    busy = {"method": "PATCH", "status": 429, "headers": {"Retry-After": "3"}}
    cut = {"method": "PATCH", "status": None, "effect": "after"}
    await sandbox.control("plane", "PUT", "faults", {"routes": [busy, cut]})
    refused = await sandbox.plane("PATCH", path, {"priority": "high"})
    assert (refused.status, refused.headers["Retry-After"]) == (429, "3")
    assert (await sandbox.plane("GET", path)).body["priority"] == "none"
    with pytest.raises(aiohttp.ClientError):
        await sandbox.plane("PATCH", path, {"priority": "high"})
    assert (await sandbox.plane("GET", path)).body["priority"] == "high"
    assert (await sandbox.plane("PATCH", path, {"priority": "low"})).status == 200


async def test_an_item_page_shows_text_and_runs_nothing(sandbox: Harness) -> None:
    """The page behind an item's link escapes what people and agents wrote."""
    await create(sandbox, name="<script>alert(1)</script>")
    page = await sandbox.call("GET", f"{sandbox.sandbox.plane_public_url}/acme/browse/PAY-1/")
    assert page.status == 200
    assert "<script>" not in page.body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
