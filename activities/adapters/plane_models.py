"""What Plane's REST API v1 sends, as far as Orch reads it (contracts/plane.md, 2)."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _id_of(value: object) -> object:
    # With `expand=` Plane sends the whole object where it otherwise sends its UUID.
    return value["id"] if isinstance(value, dict) and "id" in value else value


Id = Annotated[str, BeforeValidator(_id_of)]
"""A UUID as text."""


class PlaneModel(BaseModel):
    """Immutable, tolerant of fields that a newer Plane adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class User(PlaneModel):
    """A person or a bot. `role` comes with the workspace's members only: 20 admin, 15 member, 5 guest."""

    id: Id
    display_name: str = ""
    first_name: str = ""
    last_name: str = ""
    email: str | None = None
    role: int | None = None


class Project(PlaneModel):
    """`identifier` is the `DEMO` of `DEMO-1`; people can rename it."""

    id: Id
    identifier: str
    name: str
    archived_at: datetime | None = None


class State(PlaneModel):
    """A column of the board. `group` is backlog, unstarted, started, completed, cancelled or triage."""

    id: Id
    name: str
    group: str
    color: str = ""
    sequence: float = 0.0
    default: bool = False


class Label(PlaneModel):
    """Items carry label ids only; the names are here."""

    id: Id
    name: str
    color: str | None = ""


class ItemRow(PlaneModel):
    """A row of the item list with the fields that the reconcile pass asks for.

    `updated_at` also moves some seconds after a write, for comments and links too: never use it as a version.
    """

    id: Id
    sequence_id: int
    name: str
    state: Id
    updated_at: datetime
    labels: tuple[Id, ...] = ()
    assignees: tuple[Id, ...] = ()


class Item(ItemRow):
    """One work item in full."""

    description_html: str | None = ""
    priority: str | None = None
    project: Id
    parent: Id | None = None
    created_at: datetime | None = None
    created_by: Id | None = None
    archived_at: datetime | None = None
    is_draft: bool = False
    external_id: str | None = None
    external_source: str | None = None


class Activity(PlaneModel):
    """One line of an item's history; written some time after the change it tells of.

    `old_value` and `new_value` are names, `old_identifier` and `new_identifier` the UUIDs behind them.
    """

    id: Id
    verb: str
    field: str | None = None
    old_value: str | None = None
    new_value: str | None = None
    old_identifier: Id | None = None
    new_identifier: Id | None = None
    actor: Id | None = None
    created_at: datetime


class StateChange(PlaneModel):
    """Who moved the item from which state to which, and when; no `actor` for a change by Plane itself."""

    id: str
    actor: str | None
    old_state: str | None
    new_state: str | None
    created_at: datetime


class Comment(PlaneModel):
    """A comment on an item. The external pair is unique in a project, which makes writing one idempotent."""

    id: Id
    comment_html: str
    issue: Id
    actor: Id | None = None
    created_by: Id | None = None
    created_at: datetime
    updated_at: datetime
    external_id: str | None = None
    external_source: str | None = None


class Page(PlaneModel):
    """The envelope of every list. `next_cursor` is always filled; only `next_page_results` tells the end."""

    results: list[object]
    next_page_results: bool
    next_cursor: str = ""
    total_results: int | None = None
