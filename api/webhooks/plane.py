"""Plane's webhooks: is it really Plane, and which item does it speak of? Pure functions of bytes.

Two envelopes are read: the community edition's (v1) and the documented one with a `version` key (v2).
What an event says about states is a hint only; `contracts` of Plane: `data` is a snapshot taken later.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AliasChoices, BeforeValidator, Field

from api.webhooks.reading import Headers, Text, fit, header, read_json, signature_matches
from workflows.model import Frozen

EVENT_HEADER = "X-Plane-Event"
DELIVERY_HEADER = "X-Plane-Delivery"
SIGNATURE_HEADER = "X-Plane-Signature"


class Change(StrEnum):
    """What happened to an item or a comment."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class ItemEvent(Frozen):
    """An item may have changed. A deleted one carries only its id."""

    change: Change
    item_id: UUID
    project_id: UUID | None = None
    sequence_id: int | None = None
    state_name: str | None = None
    """The state's name, where the envelope tells it (v1)."""
    shelved: bool = False
    """Archived, deleted or a draft: nothing that work could start on."""
    actor: UUID | None = None
    """Who changed it (v1)."""
    moved_to: UUID | None = None
    """The state it was moved to, if that is what changed, and if it is still there in the snapshot (v1)."""


class CommentEvent(Frozen):
    """A comment on an item was written, changed or removed."""

    change: Change
    item_id: UUID | None = None
    """None where the delivery does not say which item it was."""
    actor: UUID | None = None
    """Who wrote or changed it (v1)."""
    external_source: str = ""
    external_id: str = ""
    """What its writer calls it: our own comments carry their intent key."""


class OtherEvent(Frozen):
    """A delivery about something no task waits for."""

    what: str


Event = ItemEvent | CommentEvent | OtherEvent


def verify(body: bytes, headers: Headers, secrets: Sequence[bytes]) -> bool:
    """Whether Plane signed exactly these bytes with one of our secrets."""
    return signature_matches(body, header(headers, SIGNATURE_HEADER), secrets)


def parse(body: bytes, headers: Headers) -> Event:  # noqa: ARG001 - Gitea's twin needs the headers
    """Name what a delivery speaks of. Only the signed body counts; the event header is not signed.

    Raises:
        PayloadError: the body can not be read.
    """
    payload = read_json(body)
    return _parse_v2(payload) if "version" in payload else _parse_v1(payload)


def _none_of_text(value: object) -> object:
    """The v2 documentation shows the text `None` where it means null."""
    return None if value in ("None", "") else value


_Optional = BeforeValidator(_none_of_text)
_Sequence = Annotated[int, Field(ge=1, lt=1 << 31)]


class _EnvelopeV1(Frozen):
    event: Text
    action: Text = ""
    activity: Any = None
    """Only tells our own echoes apart, so whatever its shape, the delivery can be read."""
    data: dict[str, Any]


class _EnvelopeV2(Frozen):
    event: Text
    entity_type: Text = ""
    entity_id: Annotated[UUID | None, _Optional] = None
    data: Annotated[dict[str, Any] | None, _Optional] = None


class _Id(Frozen):
    id: UUID


class _State(Frozen):
    id: Any = None
    name: Text


class _Item(Frozen):
    id: UUID
    project: UUID = Field(validation_alias=AliasChoices("project", "project_id"))
    sequence_id: _Sequence
    archived_at: Annotated[Text | None, _Optional] = None
    deleted_at: Annotated[Text | None, _Optional] = None
    is_draft: Annotated[bool | None, _Optional] = None

    @property
    def shelved(self) -> bool:
        return bool(self.archived_at or self.deleted_at or self.is_draft)


class _ItemV1(_Item):
    state: _State | Text | None = None


class _Comment(Frozen):
    external_source: Any = None
    external_id: Any = None
    issue: Annotated[UUID | None, _Optional] = Field(
        default=None, validation_alias=AliasChoices("issue", "issue_id", "work_item", "work_item_id")
    )


def _parse_v1(payload: dict[str, Any]) -> Event:
    envelope = fit(_EnvelopeV1, payload)
    change = _change(envelope.action)
    if change is None:
        return OtherEvent(what=f"{envelope.event} {envelope.action}".strip())
    if envelope.event == "issue_comment":
        comment = fit(_Comment, envelope.data)
        return CommentEvent(
            change=change,
            item_id=comment.issue,
            actor=_actor(envelope.activity),
            external_source=_text(comment.external_source),
            external_id=_text(comment.external_id),
        )
    if envelope.event != "issue":
        return OtherEvent(what=f"{envelope.event} {change}")
    if change is Change.DELETED:
        return ItemEvent(change=change, item_id=fit(_Id, envelope.data).id)
    item = fit(_ItemV1, envelope.data)
    state = item.state if isinstance(item.state, _State) else None
    event = _item_event(change, item, state.name if state else None)
    moved_to = _moved_to(envelope.activity)
    seen = _uuid(state.id) if state else None
    return event.model_copy(
        update={"actor": _actor(envelope.activity), "moved_to": moved_to if seen in (None, moved_to) else None}
    )


def _parse_v2(payload: dict[str, Any]) -> Event:
    envelope = fit(_EnvelopeV2, payload)
    words = envelope.event.lower().replace("_", ".").split(".")
    change = _change(words[-1])
    if change is None:
        return OtherEvent(what=envelope.event)
    data = envelope.data or {}
    about = {*words[:-1], *envelope.entity_type.lower().replace("_", ".").split(".")}
    if "comment" in about:
        return CommentEvent(change=change, item_id=fit(_Comment, data).issue)
    if not about & {"workitem", "issue"} or about & {"link", "attachment", "relation", "cycle", "module"}:
        return OtherEvent(what=envelope.event)
    if change is Change.DELETED:
        return ItemEvent(change=change, item_id=fit(_Id, {"id": envelope.entity_id or data.get("id")}).id)
    return _item_event(change, fit(_Item, data), None)


def _item_event(change: Change, item: _Item, state_name: str | None) -> ItemEvent:
    return ItemEvent(
        change=change,
        item_id=item.id,
        project_id=item.project,
        sequence_id=item.sequence_id,
        state_name=state_name,
        shelved=item.shelved,
    )


def _actor(activity: object) -> UUID | None:
    actor = activity.get("actor") if isinstance(activity, dict) else None
    return _uuid(actor.get("id")) if isinstance(actor, dict) else None


def _moved_to(activity: object) -> UUID | None:
    """API keys call the field `state`, the web UI `state_id`."""
    if not isinstance(activity, dict) or activity.get("field") not in ("state", "state_id"):
        return None
    return _uuid(activity.get("new_value"))


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 500 else ""


def _change(word: str) -> Change | None:
    """Plane sends `created`, its older documentation says `create`."""
    word = word.lower()
    return next((change for change in Change if word in (change.value, change.value[:-1])), None)
