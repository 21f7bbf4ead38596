"""The Gitea client against recorded answers, by value, with the traps of the contract."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from rest_replay import Answer, Request, Server, client, payload, recorded, serve

from activities.adapters.errors import Conflict, NotFound, Rejected, Unauthorized, Unavailable
from activities.adapters.gitea import GiteaClient
from activities.adapters.gitea_merge import (
    BaseMoved,
    HeadMoved,
    MergeConflict,
    Merged,
    MergeOutcome,
    NotAllowed,
)
from activities.adapters.gitea_models import (
    Branch,
    ContextStatus,
    Hook,
    Permissions,
    PublicUrls,
    Pull,
    PullRef,
    Repo,
    Run,
    User,
    overall_state,
)
from activities.adapters.http import HttpClient

ROOT = "/api/v1/repos/acme/payments"
HEAD = "9ab6cc1b9a9bfd145eb95bc1b2925aa6374b4c7b"
MAIN = "3a26d1c7a2f2db3d8051c152fe8646fdd8fd4580"
MERGED = "6d2c5229887b99ea9ba12eb121e2502c3681c7d2"
BRANCH = "task/PAY-1-retry"
HEADERS = {"Authorization": "token s3cret"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A replay server for one test."""
    async with serve() as running:
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncIterator[HttpClient]:
    """An HTTP client with our token."""
    async with client(server, "gitea", HEADERS) as made:
        yield made


@pytest.fixture
def gitea(http: HttpClient) -> GiteaClient:
    """The client under test."""
    return GiteaClient(http, "acme", "payments")


Call = Callable[[GiteaClient, HttpClient], Awaitable[object]]


def raw(name: str) -> Call:
    """Replay a request that the client has no method for; the answer's JSON is the value."""

    async def call(_: GiteaClient, http: HttpClient) -> object:
        request = payload(f"gitea/{name}")["request"]
        answer = await http.request(request["method"], request["path"].removeprefix("/api/v1/"), json=request["body"])
        return answer.json()

    return call


def merge(gitea: GiteaClient) -> Awaitable[MergeOutcome]:
    """The recorded merge call."""
    return gitea.merge_pull(7, style="squash", head_commit_id=HEAD, title="PAY-1: Add retry to payments client (#7)")


BOT = User(id=11, login="delivery-bot", full_name="Delivery Bot")
PULL = Pull(
    number=7,
    title="PAY-1: Add retry to payments client",
    body="Plane: PAY-1",
    state="open",
    user=BOT,
    head=PullRef(ref=BRANCH, sha=HEAD, repo_id=42),
    base=PullRef(ref="main", sha=MAIN, repo_id=42),
    html_url="https://gitea.example.com/acme/payments/pulls/7",
    created_at=datetime.fromisoformat("2026-11-22T10:14:20Z"),
    updated_at=datetime.fromisoformat("2026-11-22T10:14:20Z"),
)


async def _created_pull(gitea: GiteaClient, _: HttpClient) -> object:
    body = payload("gitea/rest_pull_create")["request"]["body"]
    pull = await gitea.create_pull(head=body["head"], base=body["base"], title=body["title"], body=body["body"])
    return pull.number, pull.head.sha, pull.base.ref, pull.state


async def _merged_pull(gitea: GiteaClient, _: HttpClient) -> object:
    pull = await gitea.find_pull_by_merge_commit(MERGED)
    assert pull is not None
    return pull.number, pull.state, pull.merged, pull.merge_commit_sha, pull.merged_by, pull.head.sha


async def _statuses(gitea: GiteaClient, _: HttpClient) -> object:
    combined = await gitea.combined_status(HEAD)
    return combined.sha, combined.state, [(row.context, row.state) for row in combined.statuses]


async def _reviews(gitea: GiteaClient, _: HttpClient) -> object:
    return [
        (row.id, row.user and row.user.login, row.state, row.commit_id, row.stale)
        for row in await gitea.list_reviews(7)
    ]


async def _review(gitea: GiteaClient, _: HttpClient) -> object:
    review = await gitea.create_review(7, event="APPROVED", body="ok", commit_id=HEAD)
    return review.id, review.state, review.commit_id, review.official, review.dismissed


async def _status(gitea: GiteaClient, _: HttpClient) -> object:
    return await gitea.post_status(
        HEAD,
        state="success",
        context="delivery/review",
        description="Agent review passed",
        target_url="https://ci.example.com/x",
    )


async def _history(gitea: GiteaClient, http: HttpClient) -> object:
    rows = await raw("rest_statuses_list")(gitea, http)
    assert isinstance(rows, list)
    return [(row.id, row.context, row.state) for row in map(ContextStatus.model_validate, rows)]


async def _hook(gitea: GiteaClient, _: HttpClient) -> object:
    wanted = payload("gitea/rest_hook_create")["request"]["body"]
    hook = await gitea.create_hook("https://hooks.example.com/gitea", "***", wanted["events"])
    return hook.id, hook.type, hook.url, hook.content_type, hook.active, hook.events


# The value each recorded good answer must give.
GOOD: dict[str, tuple[Call, object]] = {
    "rest_actions_runs_by_sha": (
        lambda gitea, _: gitea.list_runs(HEAD),
        (
            Run(
                id=88,
                head_sha=HEAD,
                event="push",
                status="completed",
                conclusion="success",
                html_url="https://gitea.example.com/acme/payments/actions/runs/88",
            ),
        ),
    ),
    "rest_branch_create": (raw("rest_branch_create"), payload("gitea/rest_branch_create")["body"]),
    "rest_branch_get": (lambda gitea, _: gitea.get_branch(BRANCH), Branch(name=BRANCH, commit={"id": HEAD})),
    "rest_branch_protection_create": (
        raw("rest_branch_protection_create"),
        payload("gitea/rest_branch_protection_create")["body"],
    ),
    "rest_combined_status_failure": (
        _statuses,
        (HEAD, "failure", [("CI / test (push)", "success"), ("jenkins/build", "failure")]),
    ),
    "rest_combined_status_none": (_statuses, (HEAD, "pending", [])),
    "rest_combined_status_success": (
        _statuses,
        (HEAD, "success", [("CI / lint (push)", "skipped"), ("CI / test (push)", "success")]),
    ),
    "rest_commit_pull": (
        _merged_pull,
        (7, "closed", True, MERGED, BOT, payload("gitea/rest_commit_pull")["body"]["head"]["sha"]),
    ),
    "rest_compare": (raw("rest_compare"), payload("gitea/rest_compare")["body"]),
    "rest_contents_get": (
        lambda gitea, _: gitea.get_file("payments/retry.py", BRANCH),
        b"def retry():\n    pass\n",
    ),
    "rest_hook_create": (
        _hook,
        (
            9,
            "gitea",
            "https://hooks.example.com/gitea",
            "json",
            True,
            tuple(payload("gitea/rest_hook_create")["body"]["events"]),
        ),
    ),
    "rest_merge_ok": (lambda gitea, _: merge(gitea), Merged()),
    "rest_merge_already_merged_405": (
        lambda gitea, _: merge(gitea),
        NotAllowed("already_merged", "The PR is already merged"),
    ),
    "rest_merge_checking_405": (
        lambda gitea, _: merge(gitea),
        NotAllowed("checking", "Please try again later"),
    ),
    "rest_merge_checks_405": (
        lambda gitea, _: merge(gitea),
        NotAllowed("checks", "Not all required status checks successful"),
    ),
    "rest_merge_closed_404": (lambda gitea, _: merge(gitea), NotAllowed("closed", "not found")),
    "rest_merge_conflict_409": (
        lambda gitea, _: merge(gitea),
        MergeConflict("Auto-merging payments/client.py\nCONFLICT (content): Merge conflict in payments/client.py\n"),
    ),
    "rest_merge_head_moved_409": (lambda gitea, _: merge(gitea), HeadMoved()),
    "rest_merge_push_out_of_date_409": (lambda gitea, _: merge(gitea), BaseMoved()),
    "rest_pull_create": (_created_pull, (7, "2805ea5050b0705743c3582957c18b81dd8e96b8", "main", "open")),
    "rest_pull_get": (lambda gitea, _: gitea.get_pull(7), PULL),
    "rest_pull_get_by_base_head": (lambda gitea, _: gitea.find_pull("main", BRANCH), PULL),
    "rest_pulls_list": (lambda gitea, _: gitea.list_pulls(base="main"), (PULL,)),
    "rest_review_create": (_review, (203, "APPROVED", HEAD, True, False)),
    "rest_reviews_list": (
        _reviews,
        [
            (201, "anna", "APPROVED", "1a0033d12baaf3c9be28dd88454dac58200850f9", True),
            (202, "anna", "REQUEST_CHANGES", HEAD, False),
        ],
    ),
    "rest_status_create": (
        _status,
        ContextStatus(
            id=6,
            context="delivery/review",
            status="success",
            description="Agent review passed",
            target_url="https://ci.example.com/job/payments/91/",
            created_at=datetime.fromisoformat("2026-11-22T10:45:00Z"),
        ),
    ),
    "rest_statuses_list": (
        _history,
        [
            (3, "CI / test (push)", "success"),
            (2, "CI / test (push)", "pending"),
            (1, "CI / test (push)", "pending"),
        ],
    ),
}
BAD: dict[str, tuple[type[Exception], int, str]] = {
    "rest_branch_create_exists_409": (Conflict, 409, "The branch already exists."),
    "rest_error_401": (Unauthorized, 401, "token is required"),
    "rest_error_403_scope": (Unauthorized, 403, "required scope"),
    "rest_error_404": (NotFound, 404, "not found"),
    "rest_pull_create_no_changes_422": (Rejected, 422, "There are no changes between the head and the base"),
}
ELSEWHERE = {"rest_merge_scheduled_201", "rest_pull_create_conflict_409"}
# Recorded without paging parameters or with a wish of that time; what we send is checked by other tests.
OTHER_BODY = {"rest_hook_create"}


def test_every_recorded_exchange_is_used() -> None:
    """A new recording must be given an expectation here."""
    assert set(recorded("gitea")) == set(GOOD) | set(BAD) | ELSEWHERE


@pytest.mark.parametrize("name", GOOD)
async def test_recorded_answers_are_read_by_value(
    name: str, server: Server, gitea: GiteaClient, http: HttpClient
) -> None:
    """Each recorded answer gives exactly the values that Gitea sent, to the request we really send."""
    server.record(f"gitea/{name}")
    call, expected = GOOD[name]
    assert await call(gitea, http) == expected
    sent, request = server.requests[0], payload(f"gitea/{name}")["request"]
    assert (sent.method, sent.headers["Authorization"]) == (request["method"], "token s3cret")
    if name not in OTHER_BODY and not name.startswith("rest_merge"):
        assert sent.body == request["body"]


@pytest.mark.parametrize("name", BAD)
async def test_recorded_errors_are_typed(name: str, server: Server, gitea: GiteaClient, http: HttpClient) -> None:
    """Each recorded error raises its type, with the status and the server's words, without the token."""
    server.record(f"gitea/{name}")
    kind, status, text = BAD[name]
    with pytest.raises(kind) as caught:
        await raw(name)(gitea, http)
    assert getattr(caught.value, "status", None) == status
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


# Pull requests.


async def test_an_existing_pull_request_is_returned_instead_of_a_second(server: Server, gitea: GiteaClient) -> None:
    """On 409 the open pull request for the branches comes back, so a retry opens nothing twice."""
    server.record("gitea/rest_pull_create_conflict_409", "gitea/rest_pull_get_by_base_head")
    assert await gitea.create_pull(head=BRANCH, base="main", title="x", body="") == PULL


async def test_a_closed_pull_request_is_not_found(server: Server, gitea: GiteaClient) -> None:
    """Looking up by branches gives an open pull request or None, and a 409 without one stays a conflict."""
    server.record("gitea/rest_pull_create_conflict_409")
    closed = payload("gitea/rest_pull_get_by_base_head")["body"] | {"state": "closed"}
    server.on("GET", f"{ROOT}/pulls/main/{BRANCH}", Answer(200, closed))
    assert await gitea.find_pull("main", BRANCH) is None
    with pytest.raises(Conflict):
        await gitea.create_pull(head=BRANCH, base="main", title="x", body="")
    assert await gitea.find_pull("main", "task/none") is None


async def test_pulls_of_other_bases_are_left_out_by_us(server: Server, gitea: GiteaClient) -> None:
    """A server that ignores the base filter (Forgejo) does not put foreign pull requests into the answer."""
    server.record("gitea/rest_pulls_list")
    assert await gitea.list_pulls(base="release") == ()


async def test_merge_sends_old_names_and_always_the_head(server: Server, gitea: GiteaClient) -> None:
    """The merge request has the names every version knows and the tested head, and no auto-merge."""
    server.record("gitea/rest_merge_ok")
    await merge(gitea)
    assert server.requests[0].body == {
        "Do": "squash",
        "MergeTitleField": "PAY-1: Add retry to payments client (#7)",
        "MergeMessageField": "",
        "head_commit_id": HEAD,
        "delete_branch_after_merge": False,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "already_merged"),
        ("Does not have enough approvals", "checks"),
        ("There are requested changes", "checks"),
        ("The head branch is behind the base branch", "checks"),
        ("squash is not allowed an allowed merge style for this repository", "style"),
        ("Work in progress PRs cannot be merged", "other"),
        ("User not allowed to merge PR", "other"),
    ],
)
async def test_merge_refusals_have_reasons(server: Server, gitea: GiteaClient, text: str, reason: str) -> None:
    """The other texts of a 405 are told apart as far as they can be."""
    server.on("POST", f"{ROOT}/pulls/7/merge", Answer(405, {"message": text, "url": ""}))
    assert await merge(gitea) == NotAllowed(reason, text)  # type: ignore[arg-type]


async def test_a_push_rejected_by_the_server_is_not_a_conflict(server: Server, gitea: GiteaClient) -> None:
    """A 409 of a server hook is a refusal with its words, not a moved base and not a conflict."""
    server.on("POST", f"{ROOT}/pulls/7/merge", Answer(409, {"message": "PushRejected with remote message: frozen"}))
    assert await merge(gitea) == NotAllowed("other", "PushRejected with remote message: frozen")


async def test_a_scheduled_merge_is_an_error_and_a_crash_is_ambiguous(server: Server, gitea: GiteaClient) -> None:
    """201 was never asked for; after a 500 the merge may have happened and must be looked up."""
    server.record("gitea/rest_merge_scheduled_201")
    with pytest.raises(Rejected):
        await merge(gitea)
    server.on("POST", f"{ROOT}/pulls/7/merge", Answer(500, {"message": "", "url": ""}))
    with pytest.raises(Unavailable) as caught:
        await merge(gitea)
    assert caught.value.ambiguous
    server.on("POST", f"{ROOT}/pulls/7/merge", Answer(401, {"message": "token is required"}))
    with pytest.raises(Unauthorized):
        await merge(gitea)


# Statuses.


def statuses(rows: list[tuple[int, str, str]], size: int) -> Callable[[Request], Answer]:
    """A combined status in pages of `size`, whatever limit was asked for, with that page's state."""

    def answer(request: Request) -> Answer:
        page = int(request.query["page"]) - 1
        found = [
            {"id": number, "context": context, "status": state}
            for number, context, state in rows[page * size : (page + 1) * size]
        ]
        return Answer(200, {"state": "success", "sha": HEAD, "total_count": len(found), "statuses": found or None})

    return answer


async def test_a_failure_on_the_last_page_is_seen(server: Server, gitea: GiteaClient) -> None:
    """All pages count, however small the server makes them, and its own state is not believed."""
    rows = [(number, f"ci/{number}", "success") for number in range(1, 8)] + [(8, "ci/8", "failure")]
    server.on("GET", f"{ROOT}/commits/{HEAD}/status", statuses(rows, 3))
    combined = await gitea.combined_status(HEAD)
    assert (combined.state, len(combined.statuses)) == ("failure", 8)


async def test_only_the_latest_word_of_a_context_counts(server: Server, gitea: GiteaClient) -> None:
    """If a context is there twice, the higher id wins, whatever the order."""
    server.on("GET", f"{ROOT}/commits/{HEAD}/status", statuses([(4, "ci", "success"), (2, "ci", "failure")], 1))
    combined = await gitea.combined_status(HEAD)
    assert [(row.id, row.state) for row in combined.statuses] == [(4, "success")]


async def test_a_server_that_ignores_the_page_ends_the_walk(server: Server, gitea: GiteaClient) -> None:
    """The same page again means the end, not an endless loop."""
    same = Answer(200, {"statuses": [{"id": 1, "context": "ci", "status": "success"}]})
    server.on("GET", f"{ROOT}/commits/{HEAD}/status", same)
    assert (await gitea.combined_status(HEAD)).state == "success"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("states", "overall"),
    [
        ([], "pending"),
        (["success"], "success"),
        (["skipped"], "success"),
        (["success", "skipped"], "success"),
        (["success", "pending"], "pending"),
        (["pending", "failure"], "failure"),
        (["success", "warning"], "failure"),
        (["success", "error"], "failure"),
        (["success", "invented"], "pending"),
    ],
)
def test_overall_state_follows_gitea(states: list[str], overall: str) -> None:
    """None is pending, warning fails, skipped passes, and an unknown state neither passes nor blames."""
    rows = tuple(ContextStatus(id=n, context=str(n), status=state) for n, state in enumerate(states))
    assert overall_state(rows) == overall


async def test_runs_are_none_where_the_server_has_no_such_api(server: Server, gitea: GiteaClient) -> None:
    """An older server is told apart from a commit without runs; Forgejo's field names are read too."""
    assert await gitea.list_runs(HEAD) is None
    server.on("GET", f"{ROOT}/actions/runs", Answer(200, {"workflow_runs": [], "total_count": 0}))
    assert await gitea.list_runs(HEAD) == ()
    forgejo = {
        "workflow_runs": [
            {"id": 1, "commit_sha": HEAD, "status": "cancelled"},
            {"id": 2, "commit_sha": MAIN, "status": "success"},
        ]
    }
    server.on("GET", f"{ROOT}/actions/runs", Answer(200, forgejo))
    assert await gitea.list_runs(HEAD) == (Run(id=1, commit_sha=HEAD, status="cancelled"),)


# The rest.


async def test_me_and_repo_are_read(server: Server, gitea: GiteaClient) -> None:
    """The token's user, and what the repository allows, come back by value."""
    repo: dict[str, Any] = payload("gitea/rest_combined_status_none")["body"]["repository"]
    server.on("GET", "/api/v1/user", Answer(200, {"id": 11, "login": "delivery-bot", "full_name": "Delivery Bot"}))
    server.on("GET", ROOT, Answer(200, repo))
    assert await gitea.me() == BOT
    found = await gitea.get_repo()
    assert isinstance(found, Repo)
    assert (found.full_name, found.default_branch, found.allow_fast_forward_only_merge) == (
        "acme/payments",
        "main",
        True,
    )
    assert found.permissions == Permissions.model_validate(repo["permissions"])


async def test_missing_branches_are_values(server: Server, gitea: GiteaClient) -> None:
    """A missing branch is None to read and False to delete; a slash in a name stays inside the name."""
    assert await gitea.get_branch("task/none") is None
    assert await gitea.delete_branch("task/none") is False
    server.on("DELETE", f"{ROOT}/branches/{BRANCH}", Answer(204))
    assert await gitea.delete_branch(BRANCH) is True


async def test_hooks_are_listed_over_all_pages(server: Server, gitea: GiteaClient) -> None:
    """A list is read to its end: until the total is reached, or an empty page where no total is told."""
    hook = payload("gitea/rest_hook_create")["body"]

    def pages(request: Request) -> Answer:
        page = int(request.query["page"])
        return Answer(200, [hook | {"id": page}] if page < 4 else [])

    server.on("GET", f"{ROOT}/hooks", pages)
    hooks = await gitea.list_hooks()
    assert all(isinstance(found, Hook) for found in hooks)
    assert [found.id for found in hooks] == [1, 2, 3]
    server.on("GET", f"{ROOT}/hooks", Answer(200, [hook], {"X-Total-Count": "1"}))
    assert len(await gitea.list_hooks()) == 1
    assert len(server.requests) == 5


async def test_files_are_regular_small_and_whole(server: Server, gitea: GiteaClient) -> None:
    """A missing path and a directory are None; a file over the limit, or not base64, is an error."""
    file = payload("gitea/rest_contents_get")["body"]
    server.on("GET", f"{ROOT}/contents/dir", Answer(200, [file]))
    assert await gitea.get_file("none", "main") is None
    assert await gitea.get_file("dir", "main") is None
    server.on("GET", f"{ROOT}/contents/файл.txt", Answer(200, file))
    assert await gitea.get_file("файл.txt", "main") == b"def retry():\n    pass\n"
    with pytest.raises(Rejected):
        await gitea.get_file("файл.txt", "main", max_bytes=5)
    server.on("GET", f"{ROOT}/contents/x", Answer(200, file | {"content": "abc"}))
    with pytest.raises(Unavailable):
        await gitea.get_file("x", "main")


def test_public_links_use_the_public_base() -> None:
    """Links for people are built from the public address, with paths and branches quoted."""
    urls = PublicUrls("https://git.example.com/", "acme", "payments")
    root = "https://git.example.com/acme/payments"
    assert urls.pull(7) == f"{root}/pulls/7"
    assert urls.commit(HEAD) == f"{root}/commit/{HEAD}"
    assert urls.file("docs/файл 1.md", HEAD) == f"{root}/src/commit/{HEAD}/docs/%D1%84%D0%B0%D0%B9%D0%BB%201.md"
    assert urls.branch(BRANCH) == f"{root}/src/branch/{BRANCH}"
