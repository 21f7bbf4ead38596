"""Plane's REST API v1, community edition (contracts/plane.md, 2)."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from activities.adapters.errors import Conflict, NotFound, Rejected, Unavailable
from activities.adapters.http import HttpClient, Response
from activities.adapters.plane_models import (
    Activity,
    Comment,
    Item,
    ItemRow,
    Label,
    Page,
    PlaneModel,
    Project,
    State,
    StateChange,
    User,
)

_M = TypeVar("_M", bound=PlaneModel)

EXTERNAL_SOURCE = "orch"
"""Marks what we wrote, so that it can be found again and never written twice."""
PER_PAGE = 100
"""Rows in a page: the community allows 1000, the documentation and the cloud 100."""
ROW_FIELDS = "id,sequence_id,name,state,updated_at,labels,assignees"
_NEW, _OLD = "work-items", "issues"
_DUPLICATE_LINK = "already exists"


class PlaneClient:
    """One workspace, seen with one API key. `http`: base URL `{host}/api/v1`, header `X-API-Key`.

    Every method raises the errors of `HttpClient.request`; NotFound where item, project or route is missing.
    """

    def __init__(self, http: HttpClient, workspace: str) -> None:
        self._http = http
        self._root = f"workspaces/{quote(workspace, safe='')}"
        self._items = _NEW
        self._items_known = False

    async def get_me(self) -> User:
        """The user our key belongs to: the actor of everything we write."""
        return (await self._http.request("GET", "users/me/")).model(User)

    async def list_members(self, project_id: str | None = None) -> tuple[User, ...]:
        """Members of the workspace, with roles, or of one project, without."""
        where = self._root if project_id is None else self._project(project_id)
        return (await self._http.request("GET", f"{where}/members/")).models(User)

    async def get_project(self, project_id: str) -> Project:
        """One project."""
        return (await self._http.request("GET", f"{self._project(project_id)}/")).model(Project)

    async def list_projects(self) -> tuple[Project, ...]:
        """Every project of the workspace that our user can see."""
        return await self._all(Project, f"{self._root}/projects/")

    async def list_states(self, project_id: str) -> tuple[State, ...]:
        """The states of a project."""
        return await self._all(State, f"{self._project(project_id)}/states/")

    async def create_state(self, project_id: str, name: str, group: str, color: str) -> State:
        """Add a state to a project's board."""
        body = {"name": name, "group": group, "color": color}
        return (await self._http.request("POST", f"{self._project(project_id)}/states/", json=body)).model(State)

    async def list_labels(self, project_id: str) -> tuple[Label, ...]:
        """The labels of a project; items name them by id only."""
        return await self._all(Label, f"{self._project(project_id)}/labels/")

    async def get_item(self, project_id: str, item_id: str) -> Item:
        """One item as it is now."""
        return (await self._item("GET", project_id, f"{_q(item_id)}/")).model(Item)

    async def get_item_by_key(self, identifier: str, seq: int) -> Item:
        """The item people call `<identifier>-<seq>`."""
        key = f"{_q(identifier)}-{seq}"
        try:
            answer = await self._http.request("GET", f"{self._root}/{self._items}/{key}/")
        except NotFound:
            if self._items_known:
                raise
            answer = await self._http.request("GET", f"{self._root}/{_OLD}/{key}/")
            self._items = _OLD
        self._items_known = True
        return answer.model(Item)

    async def find_item(self, project_id: str, external_id: str, external_source: str = EXTERNAL_SOURCE) -> Item | None:
        """The item that carries this external pair, or None."""
        params = {"external_id": external_id, "external_source": external_source}
        try:
            # With both parameters the list answers one object instead of a page, and 404 when there is none.
            return (await self._item("GET", project_id, "", params=params)).model(Item)
        except NotFound:
            return None

    async def list_items_changed(
        self, project_id: str, since: datetime | None, *, per_page: int = PER_PAGE
    ) -> AsyncIterator[tuple[ItemRow, ...]]:
        """Pages of items changed at or after `since`, newest change first; None walks every item.

        Paging is by offset, not a snapshot: an item changed meanwhile moves to the front and shifts the rest
        back, so rows can repeat (dropped here) and the moved item belongs to the next pass. Subtract two
        minutes or more from `since`, because `updated_at` is written late (contracts/plane.md, 2).
        Archived, deleted, draft and triage items are not listed at all.
        """
        seen: set[str] = set()
        params = {"order_by": "-updated_at", "fields": ROW_FIELDS}
        async for answer, page in self._pages("", params, project_id=project_id, per_page=per_page):
            rows = answer.models(ItemRow, page.results)
            fresh = tuple(row for row in rows if row.id not in seen and (since is None or row.updated_at >= since))
            seen.update(row.id for row in fresh)
            if fresh:
                yield fresh
            if since is not None and any(row.updated_at < since for row in rows):
                return

    async def patch_item_state(self, project_id: str, item_id: str, state_id: str) -> Item:
        """Move an item. Writing the state it is in already makes no activity and no webhook."""
        return (await self._item("PATCH", project_id, f"{_q(item_id)}/", json={"state": state_id})).model(Item)

    async def list_activities(self, project_id: str, item_id: str) -> tuple[Activity, ...]:
        """An item's whole history, oldest first. It lags behind the item: a missing line may still come."""
        rows = [
            row
            async for answer, page in self._pages(f"{_q(item_id)}/activities/", {}, project_id=project_id)
            for row in answer.models(Activity, page.results)
        ]
        return tuple(sorted(rows, key=lambda row: (row.created_at, row.id)))

    async def state_changes(self, project_id: str, item_id: str) -> tuple[StateChange, ...]:
        """Only the moves between states, oldest first."""
        return tuple(
            StateChange(
                id=row.id,
                actor=row.actor,
                old_state=row.old_identifier,
                new_state=row.new_identifier,
                created_at=row.created_at,
            )
            for row in await self.list_activities(project_id, item_id)
            if row.field == "state"
        )

    async def list_comments(self, project_id: str, item_id: str) -> tuple[Comment, ...]:
        """Every comment on an item."""
        return tuple(
            [
                row
                async for answer, page in self._pages(f"{_q(item_id)}/comments/", {}, project_id=project_id)
                for row in answer.models(Comment, page.results)
            ]
        )

    async def get_comment(self, project_id: str, item_id: str, comment_id: str) -> Comment:
        """One comment."""
        return (await self._item("GET", project_id, f"{_q(item_id)}/comments/{_q(comment_id)}/")).model(Comment)

    async def find_comment(
        self, project_id: str, item_id: str, external_id: str, external_source: str = EXTERNAL_SOURCE
    ) -> Comment | None:
        """The comment on this item that carries this external pair, or None."""
        for comment in await self.list_comments(project_id, item_id):
            if (comment.external_id, comment.external_source) == (external_id, external_source):
                return comment
        return None

    async def create_comment(
        self,
        project_id: str,
        item_id: str,
        comment_html: str,
        external_id: str,
        external_source: str = EXTERNAL_SOURCE,
    ) -> Comment:
        """Write a comment once: if one with this external pair exists, that one is returned, unchanged.

        Raises:
            Conflict: the pair, which is unique in the project, belongs to a comment on another item.
        """
        body = {"comment_html": comment_html, "external_id": external_id, "external_source": external_source}
        try:
            return (await self._item("POST", project_id, f"{_q(item_id)}/comments/", json=body)).model(Comment)
        except Conflict as conflict:
            existing = conflict.body.get("id") if isinstance(conflict.body, dict) else None
            if not isinstance(existing, str):
                raise
            try:
                return await self.get_comment(project_id, item_id, existing)
            except NotFound:
                raise conflict from None

    async def update_comment(self, project_id: str, item_id: str, comment_id: str, comment_html: str) -> Comment:
        """Replace a comment's text."""
        path = f"{_q(item_id)}/comments/{_q(comment_id)}/"
        return (await self._item("PATCH", project_id, path, json={"comment_html": comment_html})).model(Comment)

    async def create_link(self, project_id: str, item_id: str, url: str, title: str) -> bool:
        """Attach a link; False if the item carried this URL already."""
        try:
            await self._item("POST", project_id, f"{_q(item_id)}/links/", json={"url": url, "title": title})
        except Rejected as error:
            if error.status == 400 and _DUPLICATE_LINK in str(error):
                return False
            raise
        return True

    def _project(self, project_id: str) -> str:
        return f"{self._root}/projects/{_q(project_id)}"

    async def _item(
        self,
        method: str,
        project_id: str,
        rest: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
    ) -> Response:
        """Call under `work-items/`, or under `issues/` where the server is older than v1.1.0.

        A missing route and a missing item are both 404, so the first 404 makes us ask for the list instead.
        """
        base = self._project(project_id)
        try:
            answer = await self._http.request(method, f"{base}/{self._items}/{rest}", params=params, json=json)
        except NotFound:
            if self._items_known or await self._has_route(base, _NEW):
                self._items_known = True
                raise
            if not await self._has_route(base, _OLD):
                raise
            self._items = _OLD
            self._items_known = True
            return await self._http.request(method, f"{base}/{_OLD}/{rest}", params=params, json=json)
        self._items_known = True
        return answer

    async def _has_route(self, base: str, name: str) -> bool:
        try:
            await self._http.request("GET", f"{base}/{name}/", params={"per_page": 1, "fields": "id"})
        except NotFound:
            return False
        return True

    async def _pages(
        self,
        rest: str,
        params: Mapping[str, str | int],
        *,
        project_id: str | None = None,
        per_page: int = PER_PAGE,
    ) -> AsyncIterator[tuple[Response, Page]]:
        """Walk a list by cursor; `rest` is below the project's items, or a whole path without a project."""
        asked: dict[str, str | int] = {**params, "per_page": per_page}
        while True:
            if project_id is None:
                answer = await self._http.request("GET", rest, params=asked)
            else:
                answer = await self._item("GET", project_id, rest, params=asked)
            page = answer.model(Page)
            yield answer, page
            if not page.next_page_results:
                return
            if page.next_cursor in ("", asked.get("cursor")):
                raise Unavailable(f"{answer.label}: paging does not advance", status=answer.status)
            asked["cursor"] = page.next_cursor

    async def _all(self, model: type[_M], path: str) -> tuple[_M, ...]:
        rows: list[_M] = []
        async for answer, page in self._pages(path, {}):
            rows.extend(answer.models(model, page.results))
        return tuple(rows)


def _q(part: str) -> str:
    return quote(str(part), safe="")
