"""Bodies made to break a reader: a typed error or an event, never anything else."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.webhooks import gitea, plane
from api.webhooks.reading import PayloadError, read_json
from tests.recorded import plane_bytes, recorded

ISSUE = recorded("plane/webhook_issue_created.json")["body"]
PUSH = recorded("gitea/webhook_push_update.json")["body"]
PUSH_HEADERS = {"X-Gitea-Event-Type": "push"}

NOT_JSON = {
    "empty": b"",
    "bad utf-8": b'{"event": "\xff"}',
    "utf-16": '{"event": "issue"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"event": "issue"}',
    "raw control character": b'{"event": "is\x00sue"}',
    "deep nesting": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "huge integer": b'{"event": ' + b"9" * 5000 + b"}",
    "NaN": plane_bytes({**ISSUE, **PUSH, "unread": float("nan")}),
    "Infinity": plane_bytes({**ISSUE, **PUSH, "unread": -float("inf")}),
    "truncated": b'{"event": "issue", "data": {"id": ',
    "two documents": b"{}{}",
    "array": b"[]",
    "text": b'"issue"',
    "null": b"null",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_strict_json_is_a_payload_error(body: bytes) -> None:
    """Each poisoned body is refused by both parsers with a reason of one line that does not quote it."""
    for parse, headers in ((plane.parse, {}), (gitea.parse, PUSH_HEADERS)):
        with pytest.raises(PayloadError) as refusal:
            parse(body, headers)
        assert len(str(refusal.value)) < 500
        assert str(refusal.value).isprintable()


def changed(body: Mapping[str, Any], path: str, value: object) -> bytes:
    """The body with one value replaced, as JSON (lone surrogates and NUL are escaped)."""
    copy = json.loads(json.dumps(body))
    *parents, last = path.split(".")
    target = copy
    for name in parents:
        target = target[name]
    target[last] = value
    return plane_bytes(copy)


BAD_TEXT = ["\x00", "a\x00b", "\ud800", "line\nbreak", "\x1b[31mred", "\u202egnp", "x" * 501]


@pytest.mark.parametrize("text", BAD_TEXT)
def test_unprintable_text_in_a_field_we_use_is_a_payload_error(text: str) -> None:
    """NUL, lone surrogates, control and direction characters never reach a query, a log or a note."""
    with pytest.raises(PayloadError):
        plane.parse(changed(ISSUE, "data.state.name", text), {})
    with pytest.raises(PayloadError):
        plane.parse(changed(ISSUE, "event", text), {})
    with pytest.raises(PayloadError):
        gitea.parse(changed(PUSH, "ref", f"refs/heads/{text}"), PUSH_HEADERS)


@pytest.mark.parametrize("text", BAD_TEXT)
def test_unprintable_text_elsewhere_does_not_lose_the_hint(text: str) -> None:
    """A title or commit message may hold anything: nobody reads it here, so the event still counts."""
    assert plane.parse(changed(ISSUE, "data.name", text), {}) == plane.parse(plane_bytes(ISSUE), {})
    assert gitea.parse(changed(PUSH, "compare_url", text), PUSH_HEADERS) == gitea.parse(plane_bytes(PUSH), PUSH_HEADERS)


@pytest.mark.parametrize("number", [0, -1, 1.5, 1 << 31, int("9" * 4000), "x", None, [1]])
def test_an_impossible_item_number_is_a_payload_error(number: object) -> None:
    """An item's number must be one that a task key can carry."""
    with pytest.raises(PayloadError, match="sequence_id"):
        plane.parse(changed(ISSUE, "data.sequence_id", number), {})


@pytest.mark.parametrize("sha", ["", "abc", "g" * 40, "A" * 40, "a" * 41, "a" * 40 + "\n", "--output=/etc/passwd"])
def test_an_impossible_sha_is_a_payload_error(sha: str) -> None:
    """A commit is a full lower-case hexadecimal name or nothing."""
    body = changed(recorded("gitea/webhook_status_success.json")["body"], "sha", sha)
    with pytest.raises(PayloadError, match="sha"):
        gitea.parse(body, {"X-Gitea-Event-Type": "status"})


def test_a_duplicate_key_is_read_as_its_last_value() -> None:
    """Duplicate keys follow the usual reading and are no error."""
    body = plane_bytes(ISSUE).replace(b'"action": "created"', b'"action": "deleted", "action": "created"')
    assert plane.parse(body, {}) == plane.parse(plane_bytes(ISSUE), {})


def test_the_reason_never_quotes_the_payload() -> None:
    """A faulty value does not get into logs and reasons by way of its own error message."""
    with pytest.raises(PayloadError) as refusal:
        plane.parse(changed(ISSUE, "data.id", "sensitive-value"), {})
    assert "sensitive-value" not in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["event", "action", "data", "version", "entity_type", "ref", "ref_type", "repository"])
KINDS = st.sampled_from(["push", "create", "pull_request", "status", "workflow_run", "workflow_job", "issues", "é"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(body=st.dictionaries(FIELDS, JSON | st.sampled_from(["issue", "updated", "v2"])), kind=KINDS)
def test_any_object_is_an_event_or_a_payload_error(body: dict[str, Any], kind: str) -> None:
    """No JSON object, however shaped, makes a parser fail in another way."""
    for parse, headers in ((plane.parse, {}), (gitea.parse, {"X-Gitea-Event-Type": kind})):
        try:
            parse(plane_bytes(body), headers)
        except PayloadError:
            continue


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_payload_error(body: bytes) -> None:
    """No bytes, however chosen, make the reader fail in another way."""
    try:
        value = read_json(body)
    except PayloadError:
        return
    assert isinstance(value, dict)
