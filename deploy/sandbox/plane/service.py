"""What happens to items, whoever asks: the API under a token, or a person in the UI."""

import time
import uuid
from typing import Literal

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.plane.records import (
    PRIORITIES,
    Activity,
    Comment,
    Item,
    Link,
    Project,
    State,
    Tables,
    User,
)
from deploy.sandbox.plane.webhooks import Emitter
from deploy.sandbox.store import Store
from deploy.sandbox.web import Json, RefusalError

Via = Literal["api", "ui"]

# The web UI sends other names than the API key routes do; activity.field repeats what was sent (plane.md).
UI_NAMES = {"state": "state_id", "labels": "label_ids", "assignees": "assignee_ids"}
PLAIN = (
    "name",
    "description_html",
    "priority",
    "parent",
    "start_date",
    "target_date",
    "external_id",
    "external_source",
)
REQUIRED = ("name", "description_html", "priority", "state")
LISTS = ("labels", "assignees")
WRITABLE = (*PLAIN, "state", *LISTS)


class PlaneService:
    """The rules of items, comments, links, history and events."""

    def __init__(self, store: Store, config: SandboxConfig) -> None:
        self.store = store
        self.tables = Tables(store)
        self.emitter = Emitter(store, self.tables, config)
        self._delay = config.plane_activity_delay

    def create_item(self, actor: User, project: Project, body: Json) -> Item:
        """A new item, with its first line of history."""
        if not isinstance(body.get("name"), str) or not body["name"].strip():
            raise RefusalError(400, {"name": ["This field is required."]})
        pair = (body.get("external_source"), body.get("external_id"))
        if all(pair) and (twin := self.tables.external(self.tables.items.of(project.id), str(pair[0]), str(pair[1]))):
            message = "Issue with the same external id and external source already exists"
            raise RefusalError(409, {"error": message, "id": twin.id})
        changes = self._checked(project, {"state": self._default_state(project).id, **body})
        now = time.time()
        item = Item(
            id=str(uuid.uuid4()), workspace=project.workspace, project=project.id, created_by=actor.id,
            sequence_id=self.store.next(f"plane.sequence.{project.id}"), created_at=now, updated_at=now,
            **changes,
        )  # fmt: skip
        item.completed_at = now if self._group(item.state) == "completed" else None
        self._record(actor, item, verb="created", field=None, comment="created the issue")
        self.emitter.emit("issue", "created", item, actor)
        return item

    def update_item(self, actor: User, item: Item, body: Json, via: Via) -> Item:
        """Change an item: one line of history and one webhook for each key whose value is another one."""
        project = self.tables.projects.get(item.project)
        assert project, "items do not outlive their project"
        changes = self._checked(project, body)
        before = {key: getattr(item, key) for key in changes}
        item.updated_at, item.updated_by = time.time(), actor.id
        for key, value in changes.items():
            setattr(item, key, value)
        if "state" in changes:
            item.completed_at = item.updated_at if self._group(item.state) == "completed" else None
        self.tables.items.put(item)
        for key in changes:
            if before[key] != changes[key]:
                self._record_change(actor, item, key, before[key], changes[key])
                name = UI_NAMES.get(key, key) if via == "ui" else key
                self.emitter.emit("issue", "updated", item, actor, (name, before[key], changes[key]))
        return item

    def delete_item(self, item: Item) -> None:
        """Delete an item. Nothing is sent (open issue 8054)."""
        for comment in self.tables.comments.of(item.id):
            self.tables.comments.delete(comment)
        self.tables.items.delete(item)

    def archive_item(self, item: Item) -> None:
        """Archive an item: it vanishes from lists and nothing is sent."""
        item.archived_at = time.time()
        self.tables.items.put(item)

    def create_comment(self, actor: User, item: Item, body: Json) -> Comment:
        """A comment; the external pair makes a repeated create harmless (409 with the first one's id)."""
        if not isinstance(body.get("comment_html"), str):
            raise RefusalError(400, {"comment_html": ["This field is required."]})
        source, external_id = body.get("external_source"), body.get("external_id")
        rows = [row for other in self.tables.items.of(item.project) for row in self.tables.comments.of(other.id)]
        if source and external_id and (twin := self.tables.external(rows, source, external_id)):
            message = "Work item comment with the same external id and external source already exists"
            raise RefusalError(409, {"error": message, "id": twin.id})
        now = time.time()
        comment = Comment(
            id=str(uuid.uuid4()), workspace=item.workspace, project=item.project, item=item.id,
            description=str(uuid.uuid4()), comment_html=body["comment_html"],
            access=body.get("access") or "INTERNAL",
            external_id=external_id, external_source=source, actor=actor.id, created_by=actor.id,
            created_at=now,
            updated_at=now,
        )  # fmt: skip
        self.tables.comments.put(comment)
        self._touch(item)
        self.emitter.emit("issue_comment", "created", comment, actor)
        return comment

    def update_comment(self, actor: User, item: Item, comment: Comment, body: Json) -> Comment:
        """Edit a comment; the same text again sends nothing."""
        before = comment.comment_html
        comment.comment_html = str(body.get("comment_html", before))
        comment.updated_at, comment.updated_by = time.time(), actor.id
        self.tables.comments.put(comment)
        self._touch(item)
        if comment.comment_html != before:
            change = ("comment_html", before, comment.comment_html)
            self.emitter.emit("issue_comment", "updated", comment, actor, change)
        return comment

    def delete_comment(self, item: Item, comment: Comment) -> None:
        """Delete a comment. Nothing is sent."""
        self.tables.comments.delete(comment)
        self._touch(item)

    def create_link(self, actor: User, item: Item, body: Json) -> Link:
        """A link; the same url twice on one item is refused."""
        url = body.get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise RefusalError(400, {"url": ["Invalid URL format."]})
        if any(link.url == url for link in self.tables.links.of(item.id)):
            raise RefusalError(400, {"error": "URL already exists for this Issue"})
        link = Link(
            id=str(uuid.uuid4()), workspace=item.workspace, project=item.project, item=item.id, url=url,
            title=body.get("title"), created_by=actor.id, created_at=time.time(),
        )  # fmt: skip
        self.tables.links.put(link)
        self._record(actor, item, verb="created", field="link", new_value=url, comment="created a link")
        return link

    def history(self, item: Item) -> list[Activity]:
        """The lines written so far; the newest may still be on their way."""
        now = time.time()
        return [row for row in self.tables.activities.of(item.id) if row.visible_at <= now]

    def _checked(self, project: Project, body: Json) -> Json:
        changes = {key: body[key] for key in WRITABLE if key in body}
        _check_types(changes)
        if "state" in changes:
            self._check_state(project, changes["state"])
        if changes.get("priority", "none") not in PRIORITIES:
            raise RefusalError(400, {"priority": [f'"{changes["priority"]}" is not a valid choice.']})
        known = {
            "labels": {row.id for row in self.tables.labels.of(project.id)},
            "assignees": set(project.members),
        }
        for key, ids in known.items():
            unknown = set(changes.get(key, ())) - ids
            if unknown:
                raise RefusalError(400, {key: [f'Invalid pk "{min(unknown)}" - object does not exist.']})
        return changes

    def _check_state(self, project: Project, state_id: object) -> None:
        state = self.tables.states.get(str(state_id))
        if state is None:
            raise RefusalError(400, {"state": [f'Invalid pk "{state_id}" - object does not exist.']})
        if state.project != project.id:
            raise RefusalError(400, {"non_field_errors": ["State is not valid please pass a valid state_id"]})

    def _default_state(self, project: Project) -> State:
        states = self.tables.states.of(project.id)
        return next((state for state in states if state.default), states[0])

    def _group(self, state_id: str) -> str:
        state = self.tables.states.get(state_id)
        return state.group if state else ""

    def _record_change(self, actor: User, item: Item, key: str, old: object, new: object) -> None:
        field = {"description_html": "description"}.get(key, key)
        texts = {"old_value": _text(old), "new_value": _text(new)}
        if key == "state":
            names = [found.name if (found := self.tables.states.get(str(value))) else None for value in (old, new)]
            texts = {"old_value": names[0], "new_value": names[1],
                     "old_identifier": str(old), "new_identifier": str(new)}  # fmt: skip
        self._record(actor, item, verb="updated", field=field, comment=f"updated the {field} to", **texts)

    def _record(
        self, actor: User, item: Item, *, verb: str, field: str | None, comment: str, **values: str | None
    ) -> None:
        self._touch(item)
        self.tables.activities.put(
            Activity(
                id=str(uuid.uuid4()), workspace=item.workspace, project=item.project, item=item.id,
                actor=actor.id,
                verb=verb, field=field, comment=comment, visible_at=item.touch_at, **values,
            )
        )  # fmt: skip

    def _touch(self, item: Item) -> None:
        now = time.time()
        item.updated_at = item.moved_at(now)
        item.touch_at = now + self._delay
        self.tables.items.put(item)


def _check_types(changes: Json) -> None:
    for key, value in changes.items():
        if key in LISTS:
            if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
                raise RefusalError(400, {key: ["Expected a list of items."]})
        elif not isinstance(value, str) and (value is not None or key in REQUIRED):
            raise RefusalError(400, {key: ["Not a valid string."]})


def _text(value: object) -> str | None:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return None if value is None else str(value)
