"""Signatures and parsing, against every recorded webhook."""

import ast
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import pytest

from api.webhooks import gitea, plane, reading
from api.webhooks.gitea import BranchEvent, CommitEvent, Subject
from api.webhooks.plane import Change, CommentEvent, ItemEvent
from tests.recorded import gitea_bytes, names, plane_bytes, recorded

VECTOR = recorded("plane/webhook_signature_vector.json")
BODY: bytes = VECTOR["raw_body"].encode()
SECRET: bytes = VECTOR["secret"].encode()
SIGNATURE: str = VECTOR["x_plane_signature"]

ITEM = UUID("5f0f2044-5dba-4cc8-b5dd-8a7ca85bcf3e")
PROJECT = UUID("486a6d94-3d3f-477a-9f3d-e37fd22a196d")
HEAD = "9ab6cc1b9a9bfd145eb95bc1b2925aa6374b4c7b"


def signed(signature: str) -> Mapping[str, str]:
    """Headers with this signature."""
    return {"X-Plane-Signature": signature}


def test_plane_signature_of_captured_bytes_is_valid() -> None:
    """The bytes that a real Plane signed are accepted under its secret."""
    assert plane.verify(BODY, signed(SIGNATURE), [SECRET])


@pytest.mark.parametrize("name", names("gitea"))
def test_gitea_signature_of_every_recorded_delivery_is_valid(name: str) -> None:
    """Each recorded Gitea delivery is accepted under its secret and refused under another."""
    file = recorded(name)
    body, headers = gitea_bytes(file["body"]), file["headers"]
    assert gitea.verify(body, headers, [file["secret"].encode()])
    assert not gitea.verify(body, headers, [b"another secret"])


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0" * 64,
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE.upper(),
        f"sha256={SIGNATURE}",
        f" {SIGNATURE}",
        "é" * 64,
        "\udcff" * 64,
        "\x00",
    ],
)
def test_any_other_signature_is_invalid(signature: str) -> None:
    """A missing, wrong, cut, upper-case, prefixed or non-ASCII signature is refused without an error."""
    assert not plane.verify(BODY, signed(signature), [SECRET])


def test_no_signature_header_is_invalid() -> None:
    """A request without the header is refused."""
    assert not plane.verify(BODY, {}, [SECRET])
    assert not gitea.verify(BODY, {"X-Hub-Signature-256": f"sha256={SIGNATURE}"}, [SECRET])


def test_reserialised_body_is_invalid() -> None:
    """The same JSON with other spacing is refused: only the raw bytes count."""
    other = json.dumps(json.loads(BODY), separators=(",", ":")).encode()
    assert json.loads(other) == json.loads(BODY)
    assert not plane.verify(other, signed(SIGNATURE), [SECRET])


def test_previous_secret_still_counts() -> None:
    """While a secret is rotated, deliveries signed with either are accepted, in either order."""
    assert plane.verify(BODY, signed(SIGNATURE), [b"new", SECRET])
    assert plane.verify(BODY, signed(SIGNATURE), [SECRET, b"new"])


def test_every_secret_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A match with the first secret does not end the comparison, so timing does not tell which one it was."""
    tried: list[bytes] = []
    compare = hmac.compare_digest

    def counting(ours: bytes, theirs: bytes) -> bool:
        tried.append(ours)
        return compare(ours, theirs)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    assert plane.verify(BODY, signed(SIGNATURE), [SECRET, b"previous", b"third"])
    assert len(tried) == 3


def test_an_empty_secret_never_matches() -> None:
    """A signature made with an empty secret, or checked against none, is refused."""
    forged = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    assert not plane.verify(BODY, signed(forged), [b""])
    assert not plane.verify(BODY, signed(forged), [])


def test_digests_are_never_compared_with_equals() -> None:
    """The function that checks signatures uses no comparison operator at all."""
    module = ast.parse(Path(reading.__file__).read_text(encoding="utf-8"))
    function = next(
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "signature_matches"
    )
    assert not [node for node in ast.walk(function) if isinstance(node, ast.Compare)]


BOT = UUID("68033053-876e-447a-8f45-420c79888946")
OLGA = UUID("ab28899a-c6fb-4cf8-8e1d-5f1de917b7d2")
IN_PROGRESS = UUID("3d25c9bf-e37d-48a6-84af-531092266ac0")
DONE = UUID("87cd1423-fbc6-4496-ad2e-345a06b8af03")


def item(change: Change, state: str | None, actor: UUID | None = None, moved_to: UUID | None = None) -> ItemEvent:
    """The recorded item."""
    return ItemEvent(
        change=change,
        item_id=ITEM,
        project_id=PROJECT,
        sequence_id=1,
        state_name=state,
        actor=actor,
        moved_to=moved_to,
    )


def comment(change: Change) -> CommentEvent:
    """The recorded comment."""
    return CommentEvent(change=change, item_id=ITEM, actor=BOT, external_source="delivery-app", external_id="c-1")


PLANE_EVENTS = {
    "issue_comment_created": comment(Change.CREATED),
    "issue_comment_updated": comment(Change.UPDATED),
    "issue_created": item(Change.CREATED, "Todo", BOT),
    "issue_updated_assignees_via_ui": item(Change.UPDATED, "Done", OLGA),
    "issue_updated_description_via_ui": item(Change.UPDATED, "Done", OLGA),
    "issue_updated_labels_via_api": item(Change.UPDATED, "In Progress", OLGA),
    "issue_updated_labels_via_ui": item(Change.UPDATED, "Done", OLGA),
    "issue_updated_priority": item(Change.UPDATED, "In Progress", BOT),
    "issue_updated_state_via_api": item(Change.UPDATED, "In Progress", BOT, IN_PROGRESS),
    "issue_updated_state_via_ui": item(Change.UPDATED, "Done", OLGA, DONE),
    "project_created": plane.OtherEvent(what="project created"),
    "project_deleted_from_source": plane.OtherEvent(what="project deleted"),
    "v2_workitem_updated_from_docs": item(Change.UPDATED, None),
}


@pytest.mark.parametrize("name", names("plane"))
def test_every_recorded_plane_delivery_is_read_by_value(name: str) -> None:
    """Each recorded Plane delivery names the right item, project, number and state."""
    file = recorded(name)
    expected = PLANE_EVENTS[name.removeprefix("plane/webhook_").removesuffix(".json")]
    assert plane.parse(plane_bytes(file["body"]), file["headers"]) == expected


def test_every_recorded_plane_delivery_has_an_expectation() -> None:
    """No expectation is left over from a payload that is gone."""
    assert set(PLANE_EVENTS) == {name[len("plane/webhook_") : -len(".json")] for name in names("plane")}


def test_a_backlog_out_of_order_reads_as_the_same_item_three_times() -> None:
    """Deliveries that come out of order all show the item's latest state and read as the same hint."""
    bodies = [d["body"] for d in recorded("plane/webhook_backlog_three_state_changes_out_of_order.json")["deliveries"]]
    hints = [plane.parse(plane_bytes(body), {}) for body in bodies]
    shown = item(Change.UPDATED, "In Progress", OLGA)
    assert hints == [shown.model_copy(update={"moved_to": IN_PROGRESS}), shown, shown]


def test_the_signature_vector_is_read() -> None:
    """The captured raw bytes are read as they are."""
    assert plane.parse(BODY, {}) == item(Change.UPDATED, "In Progress", BOT, IN_PROGRESS)


def test_a_deleted_item_needs_no_more_than_its_id() -> None:
    """Plane's delete events carry only the id, in both envelopes."""
    expected = ItemEvent(change=Change.DELETED, item_id=ITEM)
    v1 = {"event": "issue", "action": "deleted", "data": {"id": str(ITEM)}}
    v2 = {
        "version": "v2",
        "event": "workitem.deleted",
        "entity_type": "issue",
        "entity_id": str(ITEM),
        "data": "None",
    }
    assert plane.parse(plane_bytes(v1), {}) == expected
    assert plane.parse(plane_bytes(v2), {}) == expected


def test_a_v2_comment_is_no_item() -> None:
    """A v2 comment event is told from an item event, whatever it calls the item's id."""
    body = {
        "version": "v2",
        "event": "workitem.comment.created",
        "entity_type": "issue_comment",
        "data": {"issue_id": str(ITEM)},
    }
    assert plane.parse(plane_bytes(body), {}) == CommentEvent(change=Change.CREATED, item_id=ITEM)
    body["data"] = {"id": str(ITEM)}
    assert plane.parse(plane_bytes(body), {}) == CommentEvent(change=Change.CREATED)


@pytest.mark.parametrize(
    ("event", "entity", "expected"),
    [
        ("WORKITEM_UPDATED", "issue", ItemEvent),
        ("WebhookEvent.WORKITEM_UPDATED", "issue", ItemEvent),
        ("workitem.updated", "None", ItemEvent),
        ("cycle.updated", "cycle", plane.OtherEvent),
        ("workitem.link.created", "issue_link", plane.OtherEvent),
        ("workitem.exploded", "issue", plane.OtherEvent),
    ],
)
def test_v2_event_names_are_read_in_every_spelling_of_the_docs(event: str, entity: str, expected: type) -> None:
    """Dotted names and enum names mean the same; what is not about an item is told apart."""
    body = recorded("plane/webhook_v2_workitem_updated_from_docs.json")["body"]
    assert isinstance(plane.parse(plane_bytes({**body, "event": event, "entity_type": entity}), {}), expected)


@pytest.mark.parametrize("field", ["archived_at", "deleted_at", "is_draft"])
def test_a_shelved_item_says_so(field: str) -> None:
    """An archived, deleted or draft item is marked, and the text `None` of the v2 docs is null."""
    body = recorded("plane/webhook_v2_workitem_updated_from_docs.json")["body"]
    shelved = plane.parse(plane_bytes({**body, "data": {**body["data"], field: "true"}}), {})
    kept = plane.parse(plane_bytes({**body, "data": {**body["data"], field: "None"}}), {})
    assert isinstance(shelved, ItemEvent)
    assert isinstance(kept, ItemEvent)
    assert (shelved.shelved, kept.shelved) == (True, False)


def branch(what: str, name: str = "task/PAY-1-retry", sha: str = "") -> BranchEvent:
    """An event of the recorded branch."""
    return BranchEvent(subject=Subject.BRANCH, repo="acme/payments", branch=name, sha=sha, what=what)


def pull_request(action: str) -> BranchEvent:
    """An event of the recorded pull request."""
    return BranchEvent(
        subject=Subject.PULL_REQUEST,
        repo="acme/payments",
        branch="task/PAY-1-retry",
        what=f"pull request 7 {action}",
    )


def commit(what: str, on: str = "") -> CommitEvent:
    """An event of the recorded head."""
    return CommitEvent(repo="acme/payments", sha=HEAD, branch=on, what=what)


GITEA_EVENTS = {
    "create_branch": branch("branch created"),
    "delete_branch": branch("branch deleted"),
    "issue_comment_on_pull_request": pull_request("created"),
    "pull_request_closed_merged": pull_request("closed"),
    "pull_request_closed_unmerged": pull_request("closed"),
    "pull_request_edited_base": pull_request("edited"),
    "pull_request_edited_title": pull_request("edited"),
    "pull_request_opened": pull_request("opened"),
    "pull_request_reopened": pull_request("reopened"),
    "pull_request_review_approved": pull_request("reviewed"),
    "pull_request_review_comment": pull_request("reviewed"),
    "pull_request_review_rejected": pull_request("reviewed"),
    "pull_request_review_requested": pull_request("review_requested"),
    "pull_request_synchronized": pull_request("synchronized"),
    "pull_request_synchronized_force_push": pull_request("synchronized"),
    "push_branch_deleted_tag_only": gitea.OtherEvent(what="pushes to refs/tags/v1.0.0, which is not a branch"),
    "push_force": branch("branch pushed", sha=HEAD),
    "push_main_after_merge": branch("branch pushed", "main", "6d2c5229887b99ea9ba12eb121e2502c3681c7d2"),
    "push_new_branch": branch("branch pushed", sha="2805ea5050b0705743c3582957c18b81dd8e96b8"),
    "push_update": branch("branch pushed", sha="1a0033d12baaf3c9be28dd88454dac58200850f9"),
    "status_failure_external": commit("status failure"),
    "status_pending": commit("status pending"),
    "status_success": commit("status success"),
    "workflow_job_completed": commit("workflow job completed", "task/PAY-1-retry"),
    "workflow_run_completed_failure": commit("workflow run completed", "task/PAY-1-retry"),
    "workflow_run_completed_success": commit("workflow run completed", "task/PAY-1-retry"),
    "workflow_run_in_progress": commit("workflow run in_progress", "task/PAY-1-retry"),
    "workflow_run_requested": commit("workflow run queued", "task/PAY-1-retry"),
}


@pytest.mark.parametrize("name", names("gitea"))
def test_every_recorded_gitea_delivery_is_read_by_value(name: str) -> None:
    """Each recorded Gitea delivery names the right repository and branch or commit."""
    file = recorded(name)
    expected = GITEA_EVENTS[name.removeprefix("gitea/webhook_").removesuffix(".json")]
    assert gitea.parse(gitea_bytes(file["body"]), file["headers"]) == expected


def test_gitea_dispatches_on_the_event_type() -> None:
    """A comment on a pull request and one on an issue differ only in the event type header."""
    file = recorded("gitea/webhook_issue_comment_on_pull_request.json")
    headers = {**file["headers"], "X-Gitea-Event-Type": "issue_comment"}
    event = gitea.parse(gitea_bytes(file["body"]), headers)
    assert event == gitea.OtherEvent(what="'issue_comment' events")


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_header_names_are_read_in_any_case(spelling: Callable[[str], str]) -> None:
    """A delivery reads the same with its headers as they came and as the inbox keeps them."""
    file = recorded("gitea/webhook_push_update.json")
    headers = {spelling(name): value for name, value in file["headers"].items()}
    body = gitea_bytes(file["body"])
    assert gitea.parse(body, headers) == GITEA_EVENTS["push_update"]
    assert gitea.verify(body, headers, [file["secret"].encode()])


def test_gitea_without_any_event_header_is_a_payload_error() -> None:
    """A delivery that does not say what it is is refused with the header's name."""
    with pytest.raises(reading.PayloadError, match="X-Gitea-Event-Type"):
        gitea.parse(b"{}", {})
