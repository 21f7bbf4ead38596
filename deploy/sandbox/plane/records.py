"""What the Plane server stores. Times are seconds since the epoch; the wire form is made in `shapes`."""

from typing import Any, Literal

from pydantic import Field

from deploy.sandbox.store import Record, Store, Table

Group = Literal["backlog", "unstarted", "started", "completed", "cancelled"]
PRIORITIES = ("urgent", "high", "medium", "low", "none")
EVENTS = ("project", "issue", "issue_comment")


class User(Record):
    """A person or a bot. A token acts as its user."""

    display_name: str
    email: str
    token: str
    first_name: str = ""
    last_name: str = ""
    is_bot: bool = False


class Workspace(Record):
    """A workspace and the roles of its members (20 admin, 15 member, 5 guest)."""

    slug: str
    name: str
    members: dict[str, int] = Field(default_factory=dict)


class Project(Record):
    """A project; `identifier` is the first half of an item's key."""

    workspace: str
    identifier: str
    name: str
    description: str = ""
    members: dict[str, int] = Field(default_factory=dict)
    created_by: str
    created_at: float


class State(Record):
    """A column of the board."""

    workspace: str
    project: str
    name: str
    group: Group
    color: str
    sequence: float
    default: bool = False
    created_by: str
    created_at: float


class Label(Record):
    """A label of a project."""

    workspace: str
    project: str
    name: str
    color: str = ""
    created_by: str
    created_at: float


class Item(Record):
    """A work item ("issue" in the old paths and in every webhook)."""

    workspace: str
    project: str
    sequence_id: int
    name: str
    description_html: str = "<p></p>"
    priority: str = "none"
    state: str
    labels: list[str] = Field(default_factory=list)
    assignees: list[str] = Field(default_factory=list)
    parent: str | None = None
    start_date: str | None = None
    target_date: str | None = None
    external_id: str | None = None
    external_source: str | None = None
    completed_at: float | None = None
    archived_at: float | None = None
    created_by: str
    updated_by: str | None = None
    created_at: float
    updated_at: float
    touch_at: float = Field(default=0, description="When the recorded activity moves updated_at, unseen by the caller.")

    def moved_at(self, now: float) -> float:
        """`updated_at` as a reader sees it: it jumps shortly after each answer."""
        return max(self.updated_at, self.touch_at) if self.touch_at <= now else self.updated_at


class Comment(Record):
    """A comment on an item."""

    workspace: str
    project: str
    item: str
    description: str
    comment_html: str
    access: str = "INTERNAL"
    external_id: str | None = None
    external_source: str | None = None
    actor: str
    created_by: str
    updated_by: str | None = None
    created_at: float
    updated_at: float


class Link(Record):
    """A link on an item."""

    workspace: str
    project: str
    item: str
    url: str
    title: str | None = None
    created_by: str
    created_at: float


class Activity(Record):
    """One line of an item's history, readable from `visible_at` on."""

    workspace: str
    project: str
    item: str
    actor: str
    verb: str
    field: str | None
    old_value: str | None = None
    new_value: str | None = None
    old_identifier: str | None = None
    new_identifier: str | None = None
    comment: str
    visible_at: float


class Webhook(Record):
    """A workspace's receiver. Only a person (the control API) switches a dead one on again."""

    workspace: str
    url: str
    secret: str
    is_active: bool = True
    events: list[str] = Field(default_factory=lambda: list(EVENTS))


class Tables:
    """Every table of the Plane server."""

    def __init__(self, store: Store) -> None:
        self.users = Table(store, "plane.user", User)
        self.workspaces = Table(store, "plane.workspace", Workspace)
        self.projects = Table(store, "plane.project", Project, parent=lambda row: row.workspace)
        self.states = Table(store, "plane.state", State, parent=lambda row: row.project)
        self.labels = Table(store, "plane.label", Label, parent=lambda row: row.project)
        self.items = Table(store, "plane.item", Item, parent=lambda row: row.project)
        self.comments = Table(store, "plane.comment", Comment, parent=lambda row: row.item)
        self.links = Table(store, "plane.link", Link, parent=lambda row: row.item)
        self.activities = Table(store, "plane.activity", Activity, parent=lambda row: row.item)
        self.webhooks = Table(store, "plane.webhook", Webhook, parent=lambda row: row.workspace)

    def external(self, rows: "list[Any]", source: str, external_id: str) -> Any | None:
        """The row with this external pair."""
        return next((row for row in rows if (row.external_source, row.external_id) == (source, external_id)), None)
