"""Records as Plane writes them: key for key what was recorded from v1.3.1 (payloads/plane)."""

import html
import re
import time
from datetime import UTC, datetime

from deploy.sandbox.plane.records import Activity, Comment, Item, Label, Link, Project, State, Tables, User
from deploy.sandbox.store import Record
from deploy.sandbox.web import Json


def stamp(seconds: float | None) -> str | None:
    """UTC with microseconds and Z."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def stripped(text: str) -> str:
    """HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", text)).strip()


def user(row: User | None) -> Json | None:
    """The lite form, the only one the API and the webhooks show."""
    if row is None:
        return None
    return {
        "id": row.id, "first_name": row.first_name, "last_name": row.last_name, "email": row.email,
        "avatar": "", "avatar_url": None, "display_name": row.display_name,
    }  # fmt: skip


def _times(created_at: float, updated_at: float) -> Json:
    return {"created_at": stamp(created_at), "updated_at": stamp(updated_at), "deleted_at": None}


def project_event(row: Project) -> Json:
    """A project as its webhook shows it."""
    return {
        "id": row.id, "cover_image_url": None, **_times(row.created_at, row.created_at), "name": row.name,
        "description": row.description, "description_text": None, "description_html": None, "network": 2,
        "identifier": row.identifier, "emoji": None, "icon_prop": None, "module_view": False,
        "cycle_view": False,
        "issue_views_view": False, "page_view": True, "intake_view": False, "is_time_tracking_enabled": False,
        "is_issue_type_enabled": False, "guest_view_all_features": False, "cover_image": None,
        "archive_in": 0,
        "close_in": 0, "logo_props": {"icon": {"name": "eco", "color": "#5e6ad2"}, "in_use": "icon"},
        "archived_at": None, "timezone": "UTC", "external_source": None, "external_id": None,
        "created_by": row.created_by, "updated_by": None, "workspace": row.workspace,
        "default_assignee": None,
        "project_lead": None, "cover_image_asset": None, "estimate": None, "default_state": None,
    }  # fmt: skip


def project(row: Project, viewer: User) -> Json:
    """A project as the API shows it to one of its members."""
    return {
        **project_event(row), "total_members": len(row.members), "total_cycles": 0, "total_modules": 0,
        "is_member": viewer.id in row.members, "sort_order": 65535.0,
        "member_role": row.members.get(viewer.id),
        "is_deployed": False,
    }  # fmt: skip


def project_lite(row: Project) -> Json:
    """A project inside an expanded item."""
    return {
        "id": row.id, "identifier": row.identifier, "name": row.name, "cover_image": None, "icon_prop": None,
        "emoji": None, "description": row.description, "cover_image_url": None,
    }  # fmt: skip


def state(row: State) -> Json:
    """A state."""
    return {
        "id": row.id, **_times(row.created_at, row.created_at), "name": row.name, "description": "",
        "color": row.color, "slug": row.name.lower().replace(" ", "-"), "sequence": row.sequence,
        "group": row.group,
        "is_triage": False, "default": row.default, "external_source": None, "external_id": None,
        "created_by": row.created_by, "updated_by": None, "project": row.project, "workspace": row.workspace,
    }  # fmt: skip


def state_lite(row: State | None) -> Json | None:
    """A state inside an item."""
    return {"id": row.id, "name": row.name, "color": row.color, "group": row.group} if row else None


def label(row: Label) -> Json:
    """A label."""
    return {
        "id": row.id, **_times(row.created_at, row.created_at), "name": row.name, "description": "",
        "color": row.color, "sort_order": 65535.0, "external_source": None, "external_id": None,
        "created_by": row.created_by, "updated_by": None, "workspace": row.workspace, "project": row.project,
        "parent": None,
    }  # fmt: skip


def _item_base(row: Item, now: float) -> Json:
    return {
        "id": row.id, **_times(row.created_at, row.moved_at(now)), "point": None, "name": row.name,
        "description_html": row.description_html, "description_binary": None, "priority": row.priority,
        "start_date": row.start_date, "target_date": row.target_date, "sequence_id": row.sequence_id,
        "sort_order": 65535.0, "completed_at": stamp(row.completed_at), "archived_at": stamp(row.archived_at),
        "is_draft": False, "external_source": row.external_source, "external_id": row.external_id,
        "created_by": row.created_by, "updated_by": row.updated_by, "project": row.project,
        "workspace": row.workspace, "parent": row.parent, "estimate_point": None, "type": None,
    }  # fmt: skip


def item(row: Item) -> Json:
    """An item as REST shows it: relations are ids."""
    relations = {"state": row.state, "assignees": row.assignees, "labels": row.labels}
    return {"type_id": None, **_item_base(row, time.time()), **relations}


def item_expanded(row: Item, tables: Tables, expand: set[str]) -> Json:
    """An item with the asked relations as objects."""
    shown = item(row)
    if "state" in expand:
        shown["state"] = state_lite(tables.states.get(row.state))
    if "project" in expand and (of := tables.projects.get(row.project)):
        shown["project"] = project_lite(of)
    if "labels" in expand:
        shown["labels"] = [label(found) for key in row.labels if (found := tables.labels.get(key))]
    if "assignees" in expand:
        shown["assignees"] = [user(tables.users.get(key)) for key in row.assignees]
    return shown


def item_event(row: Item, tables: Tables) -> Json:
    """An item as its webhook shows it: relations are objects, project and workspace stay ids."""
    labels = [found for key in row.labels if (found := tables.labels.get(key))]
    return {
        **_item_base(row, time.time()),
        "labels": [{"id": found.id, "name": found.name, "color": found.color} for found in labels],
        "assignees": [user(tables.users.get(key)) for key in row.assignees],
        "state": state_lite(tables.states.get(row.state)),
        "description": {}, "description_json": {}, "description_stripped": stripped(row.description_html),
    }  # fmt: skip


def comment(row: Comment) -> Json:
    """A comment, as written and in webhooks."""
    return {
        "id": row.id, **_times(row.created_at, row.updated_at), "comment_html": row.comment_html,
        "attachments": [],
        "access": row.access, "external_source": row.external_source, "external_id": row.external_id,
        "edited_at": None, "created_by": row.created_by, "updated_by": row.updated_by, "project": row.project,
        "workspace": row.workspace, "description": row.description, "issue": row.item, "actor": row.actor,
        "parent": None,
    }  # fmt: skip


def link(row: Link) -> Json:
    """A link."""
    return {
        "id": row.id, **_times(row.created_at, row.created_at), "title": row.title, "url": row.url,
        "metadata": {},
        "created_by": row.created_by, "updated_by": None, "project": row.project, "workspace": row.workspace,
        "issue": row.item,
    }  # fmt: skip


def activity(row: Activity) -> Json:
    """A line of the history."""
    return {
        "id": row.id, **_times(row.visible_at, row.visible_at), "verb": row.verb, "field": row.field,
        "old_value": row.old_value, "new_value": row.new_value, "comment": row.comment, "attachments": [],
        "old_identifier": row.old_identifier, "new_identifier": row.new_identifier,
        "epoch": float(int(row.visible_at)), "project": row.project, "workspace": row.workspace,
        "issue": row.item,
        "issue_comment": None, "actor": row.actor,
    }  # fmt: skip


def event_data(kind: str, record: Record, tables: Tables) -> Json:
    """The `data` of a webhook, read now."""
    match kind, record:
        case "issue", Item():
            return item_event(record, tables)
        case "issue_comment", Comment():
            return comment(record)
        case "project", Project():
            return project_event(record)
    raise TypeError(f"no webhook shows a {kind}")
