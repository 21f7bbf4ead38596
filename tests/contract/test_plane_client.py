"""The Plane client against the recorded answers of a real Plane v1.3.1."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_replay import Answer, Request, Server, client, payload, recorded, serve

from activities.adapters.errors import (
    Conflict,
    NotFound,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from activities.adapters.http import HttpClient
from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import Item, ItemRow, Label, Project, State, StateChange, User

PROJECT = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
ITEM = "5f0f2044-5dba-4cc8-b5dd-8a7ca85bcf3e"
BOT = "68033053-876e-447a-8f45-420c79888946"
TODO, IN_PROGRESS = "45d3870b-df28-4866-9fe1-c34cdd2b505d", "3d25c9bf-e37d-48a6-84af-531092266ac0"
LABEL = "589f3583-a487-4cd1-8852-341d3d53042a"
COMMENT = "99202620-f048-4370-b721-1d7a53444e92"
ROOT = f"/api/v1/workspaces/acme/projects/{PROJECT}"
HEADERS = {"X-API-Key": "plane_api_secret"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A replay server for one test."""
    async with serve() as running:
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncIterator[HttpClient]:
    """An HTTP client with our key."""
    async with client(server, "plane", HEADERS) as made:
        yield made


@pytest.fixture
def plane(http: HttpClient) -> PlaneClient:
    """The client under test."""
    return PlaneClient(http, "acme")


def at(text: str) -> datetime:
    """A time of the recording."""
    return datetime.fromisoformat(text)


# Every recorded exchange: what we call, and what must come back, by value.

Call = Callable[[PlaneClient, HttpClient], Awaitable[object]]


def raw(name: str, model: type[Any] | None = None, many: bool = False) -> Call:
    """Replay a request that the client has no method for, and read it with a model of ours."""

    async def call(_: PlaneClient, http: HttpClient) -> object:
        request = payload(name)["request"]
        path = request["path"].removeprefix("/api/v1/")
        answer = await http.request(request["method"], path, json=request["body"])
        if model is None:
            return answer.status
        return answer.models(model) if many else answer.model(model)

    return call


FULL = Item(
    id=ITEM,
    sequence_id=1,
    name="Add retry to payment client",
    state=TODO,
    updated_at=at("2026-11-22T13:51:12.275267Z"),
    labels=(LABEL,),
    assignees=(BOT,),
    description_html="<p>Add <strong>retry</strong> with backoff.</p>",
    priority="high",
    project=PROJECT,
    created_at=at("2026-11-22T13:51:12.165792Z"),
    created_by=BOT,
    external_id="ext-1",
    external_source="delivery-app",
)
PEOPLE = (
    User(id=BOT, display_name="delivery-bot", first_name="Delivery", last_name="Bot", email="bot@example.com"),
    User(
        id="ab28899a-c6fb-4cf8-8e1d-5f1de917b7d2",
        display_name="olga",
        first_name="Olga",
        last_name="Owner",
        email="owner@example.com",
    ),
)
PAYMENTS = Project(id=PROJECT, identifier="PAY", name="Payments")


async def _expanded(plane: PlaneClient, http: HttpClient) -> object:
    found = await raw("plane/rest_issue_get_expand_fields", Item)(plane, http)
    assert isinstance(found, Item)
    return found.id, found.state, found.labels, found.assignees, found.project


async def _all_rows(plane: PlaneClient, _: HttpClient) -> object:
    pages = [page async for page in plane.list_items_changed(PROJECT, None, per_page=2)]
    return [[(row.sequence_id, row.name) for row in page] for page in pages]


async def _states(plane: PlaneClient, _: HttpClient) -> object:
    return [(state.name, state.group, state.default) for state in await plane.list_states(PROJECT)]


async def _activities(plane: PlaneClient, _: HttpClient) -> object:
    return [(row.verb, row.field, row.new_value) for row in await plane.list_activities(PROJECT, ITEM)]


async def _comments(plane: PlaneClient, _: HttpClient) -> object:
    return [(row.id, row.external_id, row.actor, row.issue) for row in await plane.list_comments(PROJECT, ITEM)]


async def _created(plane: PlaneClient, _: HttpClient) -> object:
    made = await plane.create_comment(
        PROJECT, ITEM, "<p>Started work on <code>abc123</code></p>", "c-1", "delivery-app"
    )
    return made.id, made.comment_html, made.external_source


async def _edited(plane: PlaneClient, _: HttpClient) -> object:
    return (await plane.update_comment(PROJECT, ITEM, COMMENT, "<p>edited</p>")).comment_html


async def _moved(plane: PlaneClient, _: HttpClient) -> object:
    return (await plane.patch_item_state(PROJECT, ITEM, IN_PROGRESS)).state


async def _labels(plane: PlaneClient, _: HttpClient) -> object:
    return [(label.id, label.name) for label in await plane.list_labels(PROJECT)]


GOOD: dict[str, tuple[Call, object]] = {
    "rest_activities_list": (
        _activities,
        [
            (row["verb"], row["field"], row["new_value"])
            for row in payload("plane/rest_activities_list")["body"]["results"]
        ],
    ),
    "rest_comment_create": (
        _created,
        (COMMENT, "<p>Started work on <code>abc123</code></p>", "delivery-app"),
    ),
    "rest_comment_delete_204": (raw("plane/rest_comment_delete_204"), 204),
    "rest_comment_patch": (_edited, "<p>edited</p>"),
    "rest_comments_list": (_comments, [(COMMENT, "c-1", BOT, ITEM)]),
    "rest_issue_by_external_id": (lambda plane, _: plane.find_item(PROJECT, "ext-1", "delivery-app"), FULL),
    "rest_issue_by_identifier": (lambda plane, _: plane.get_item_by_key("PAY", 1), FULL),
    "rest_issue_create": (
        raw("plane/rest_issue_create", Item),
        FULL.model_copy(
            update={
                "updated_at": at("2026-11-22T13:51:12.138064Z"),
                "created_at": at("2026-11-22T13:51:12.138041Z"),
            }
        ),
    ),
    "rest_issue_delete_204": (raw("plane/rest_issue_delete_204"), 204),
    "rest_issue_get": (lambda plane, _: plane.get_item(PROJECT, ITEM), FULL),
    "rest_issue_get_expand_fields": (_expanded, (ITEM, TODO, (LABEL,), (BOT,), PROJECT)),
    "rest_issue_patch_state": (_moved, IN_PROGRESS),
    "rest_issues_list_page1": (
        _all_rows,
        [[(4, "Task 2"), (3, "Task 1")], [(2, "Task 0"), (1, "Add retry to payments client")]],
    ),
    "rest_label_create": (
        raw("plane/rest_label_create", Label),
        Label(id=LABEL, name="agent", color="#ff0000"),
    ),
    "rest_labels_list": (_labels, [(LABEL, "agent")]),
    "rest_link_create": (
        lambda plane, _: plane.create_link(PROJECT, ITEM, "https://gitea.example.com/acme/payments/pulls/7", "PR #7"),
        True,
    ),
    "rest_link_create_duplicate_400": (
        lambda plane, _: plane.create_link(PROJECT, ITEM, "https://gitea.example.com/acme/payments/pulls/7", "PR #7"),
        False,
    ),
    "rest_links_list": (raw("plane/rest_links_list"), 200),
    "rest_project_create": (raw("plane/rest_project_create", Project), PAYMENTS),
    "rest_project_member_add": (raw("plane/rest_project_member_add"), 201),
    "rest_project_members": (lambda plane, _: plane.list_members(PROJECT), PEOPLE),
    "rest_projects_list": (lambda plane, _: plane.list_projects(), (PAYMENTS,)),
    "rest_search": (raw("plane/rest_search"), 200),
    "rest_state_create_200": (
        lambda plane, _: plane.create_state(PROJECT, "Ready for agent", "unstarted", "#3f76ff"),
        State(
            id="84aee9ce-4cdc-4168-9506-3a23ddb88d30",
            name="Ready for agent",
            group="unstarted",
            color="#3f76ff",
            sequence=70000.0,
        ),
    ),
    "rest_states_list": (
        _states,
        [
            ("Backlog", "backlog", True),
            ("Todo", "unstarted", False),
            ("In Progress", "started", False),
            ("Done", "completed", False),
            ("Cancelled", "cancelled", False),
        ],
    ),
    "rest_workspace_members": (
        lambda plane, _: plane.list_members(),
        tuple(person.model_copy(update={"role": 20}) for person in PEOPLE),
    ),
}
BAD: dict[str, tuple[type[Exception], int, str]] = {
    "rest_bad_token_403": (Unauthorized, 403, "Given API token is not valid"),
    "rest_no_auth_401": (Unauthorized, 401, "Authentication credentials were not provided."),
    "rest_not_found_404": (NotFound, 404, "The requested resource does not exist."),
    "rest_rate_limited_429": (RateLimited, 429, "RATE_LIMIT_EXCEEDED"),
    "rest_issue_create_conflict_409": (Conflict, 409, "Issue with the same external id"),
    "rest_issue_patch_bad_state_400": (Rejected, 400, "Invalid pk"),
    "rest_issues_list_bad_cursor_400": (Rejected, 400, "Invalid cursor parameter."),
    "rest_issues_list_bad_order_by_500": (Unavailable, 500, "Something went wrong please try again later"),
}
# Pages 2 and an ignored filter are read by tests of their own below, and so is the conflict of a comment.
ELSEWHERE = {
    "rest_issues_list_page2",
    "rest_issues_list_state_param_ignored",
    "rest_comment_create_conflict_409",
}


def test_every_recorded_exchange_is_used() -> None:
    """A new recording must be given an expectation here."""
    assert set(recorded("plane")) == set(GOOD) | set(BAD) | ELSEWHERE


@pytest.mark.parametrize("name", GOOD)
async def test_recorded_answers_are_read_by_value(
    name: str, server: Server, plane: PlaneClient, http: HttpClient
) -> None:
    """Each recorded answer gives exactly the values Plane sent; the request we send is the recorded one."""
    server.record(f"plane/{name}", *(["plane/rest_issues_list_page2"] if name.endswith("page1") else []))
    call, expected = GOOD[name]
    assert await call(plane, http) == expected
    sent, request = server.requests[0], payload(f"plane/{name}")["request"]
    assert (sent.method, sent.body) == (request["method"], request["body"])
    assert sent.path == request["path"].partition("?")[0]
    assert sent.headers["X-API-Key"] == "plane_api_secret"


@pytest.mark.parametrize("name", BAD)
async def test_recorded_errors_are_typed(name: str, server: Server, plane: PlaneClient, http: HttpClient) -> None:
    """Each recorded error raises its type, with the status and the server's words, without the key."""
    server.record(f"plane/{name}")
    kind, status, text = BAD[name]
    with pytest.raises(kind) as caught:
        await raw(f"plane/{name}")(plane, http)
    error = caught.value
    assert getattr(error, "status", None) == status
    assert text in str(error)
    assert "plane_api_secret" not in str(error)
    if isinstance(error, RateLimited):
        assert error.retry_after == 56.0


async def test_state_changes_are_only_the_moves_with_actor_and_ids(server: Server, plane: PlaneClient) -> None:
    """Of an item's history only the state lines remain, each with actor, old and new state and time."""
    server.record("plane/rest_activities_list")
    assert await plane.state_changes(PROJECT, ITEM) == (
        StateChange(
            id="be1df217-ea24-4deb-a067-081464f5736b",
            actor=BOT,
            old_state=TODO,
            new_state=IN_PROGRESS,
            created_at=at("2026-11-22T13:51:13.145664Z"),
        ),
    )


async def test_a_repeated_comment_is_the_first_one(server: Server, plane: PlaneClient) -> None:
    """On 409 the comment named in the answer is read and returned, so a retry writes nothing twice."""
    server.record("plane/rest_comment_create_conflict_409")
    existing = payload("plane/rest_comments_list")["body"]["results"][0]
    server.on("GET", f"{ROOT}/work-items/{ITEM}/comments/{COMMENT}/", Answer(200, existing))
    comment = await plane.create_comment(PROJECT, ITEM, "<p>again</p>", "c-1", "delivery-app")
    assert (comment.id, comment.comment_html) == (COMMENT, "<p>Started work on <code>abc123</code></p>")


async def test_a_comment_key_used_on_another_item_is_a_conflict(server: Server, plane: PlaneClient) -> None:
    """The pair is unique in the project: if the existing comment is elsewhere, nothing is returned."""
    server.record("plane/rest_comment_create_conflict_409")
    with pytest.raises(Conflict):
        await plane.create_comment(PROJECT, ITEM, "<p>again</p>", "c-1", "delivery-app")


async def test_find_comment_compares_both_parts_of_the_key(server: Server, plane: PlaneClient) -> None:
    """A comment is found by id and source together, and a missing one is None."""
    server.record("plane/rest_comments_list")
    assert (found := await plane.find_comment(PROJECT, ITEM, "c-1", "delivery-app")) is not None
    assert found.id == COMMENT
    assert await plane.find_comment(PROJECT, ITEM, "c-1") is None


async def test_an_ignored_state_filter_does_not_fool_us(server: Server, plane: PlaneClient) -> None:
    """The client asks for no filter that the community edition ignores, and sorts by a column it knows."""
    server.record("plane/rest_issues_list_state_param_ignored")
    answer = server.routes["GET", f"{ROOT}/work-items/"][0]
    assert isinstance(answer, Answer)
    answer.body["results"] = []
    assert [page async for page in plane.list_items_changed(PROJECT, None)] == []
    assert server.requests[0].query == {
        "order_by": "-updated_at",
        "fields": "id,sequence_id,name,state,updated_at,labels,assignees",
        "per_page": "100",
    }


NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def listing(minutes: list[int], size: int = 2) -> Callable[[Request], Answer]:
    """A list of items changed so many minutes before noon, in pages as Plane makes them."""
    rows = [
        {
            "id": f"item-{minute}",
            "sequence_id": minute,
            "name": "x",
            "state": TODO,
            "updated_at": (NOON - timedelta(minutes=minute)).isoformat(),
        }
        for minute in minutes
    ]

    def answer(request: Request) -> Answer:
        page = int(request.query.get("cursor", "0:0:0").split(":")[1])
        body = {
            "results": rows[page * size : (page + 1) * size],
            "next_page_results": (page + 1) * size < len(rows),
            "next_cursor": f"{size}:{page + 1}:0",
        }
        return Answer(200, body)

    return answer


async def test_the_walk_stops_at_the_watermark(server: Server, plane: PlaneClient) -> None:
    """Pages are read only until a row is older than the watermark, and older rows are not given out."""
    server.on("GET", f"{ROOT}/work-items/", listing([1, 2, 3, 4, 5, 6, 7, 8]))
    since = NOON - timedelta(minutes=3)
    pages = [[row.sequence_id for row in page] async for page in plane.list_items_changed(PROJECT, since)]
    assert pages == [[1, 2], [3]]
    assert len(server.requests) == 2


async def test_rows_that_shift_to_the_next_page_are_given_once(server: Server, plane: PlaneClient) -> None:
    """Offset paging repeats rows when something changes meanwhile; the repeat is dropped."""
    server.on("GET", f"{ROOT}/work-items/", listing([1, 2, 2, 3]))
    rows = [row.sequence_id async for page in plane.list_items_changed(PROJECT, None) for row in page]
    assert rows == [1, 2, 3]


async def test_paging_that_does_not_advance_is_an_error(server: Server, plane: PlaneClient) -> None:
    """A server that sends the same cursor for ever cannot hold us for ever."""
    page = {"results": [], "next_page_results": True, "next_cursor": "100:1:0"}
    server.on("GET", f"{ROOT}/states/", Answer(200, page))
    with pytest.raises(Unavailable):
        await plane.list_states(PROJECT)
    assert len(server.requests) == 2


async def test_an_old_server_is_served_under_its_old_paths(server: Server, plane: PlaneClient) -> None:
    """Where `work-items` does not exist, `issues` is used, also for writes, and remembered."""
    item = payload("plane/rest_issue_get")["body"]
    server.on("GET", f"{ROOT}/issues/", Answer(200, {"results": [], "next_page_results": False}))
    server.on("PATCH", f"{ROOT}/issues/{ITEM}/", Answer(200, item))
    server.on("GET", f"{ROOT}/issues/{ITEM}/", Answer(200, item))
    assert (await plane.patch_item_state(PROJECT, ITEM, TODO)).id == ITEM
    before = len(server.requests)
    assert (await plane.get_item(PROJECT, ITEM)).id == ITEM
    assert len(server.requests) == before + 1


async def test_an_old_server_is_recognised_by_key_too(server: Server, plane: PlaneClient) -> None:
    """The lookup by key falls back as well, without a project to probe."""
    server.on("GET", "/api/v1/workspaces/acme/issues/PAY-1/", Answer(200, payload("plane/rest_issue_get")["body"]))
    assert await plane.get_item_by_key("PAY", 1) == FULL
    with pytest.raises(NotFound):
        await plane.get_item_by_key("PAY", 2)


async def test_a_missing_item_on_a_new_server_is_probed_for_once(server: Server, plane: PlaneClient) -> None:
    """A 404 costs one probe of the list, then the answer is believed without another."""
    server.on("GET", f"{ROOT}/work-items/", Answer(200, {"results": [], "next_page_results": False}))
    for expected in (2, 3):
        with pytest.raises(NotFound):
            await plane.get_item(PROJECT, ITEM)
        assert len(server.requests) == expected


async def test_get_me_reads_our_own_user(server: Server, plane: PlaneClient) -> None:
    """The token's owner is read, so that our own writes can be told from a person's."""
    server.on("GET", "/api/v1/users/me/", Answer(200, payload("plane/rest_project_members")["body"][0]))
    assert await plane.get_me() == PEOPLE[0]


async def test_get_project_and_an_empty_lookup(server: Server, plane: PlaneClient) -> None:
    """A project is read alone, and an external pair that nothing carries is None."""
    server.on("GET", f"{ROOT}/", Answer(200, payload("plane/rest_project_create")["body"]))
    server.on("GET", f"{ROOT}/work-items/", lambda sent: Answer(404 if "external_id" in sent.query else 200, {}))
    assert await plane.get_project(PROJECT) == PAYMENTS
    assert await plane.find_item(PROJECT, "nothing") is None


def test_models_are_immutable_and_tolerant() -> None:
    """A newer Plane's extra fields are ignored, and nobody changes an answer."""
    row = ItemRow.model_validate({"id": "i", "sequence_id": 1, "name": "n", "state": "s", "updated_at": NOON, "new": 1})
    with pytest.raises(ValueError, match="frozen"):
        row.name = "other"  # type: ignore[misc]
