"""The REST routes of Plane v1 (plane.md section 2), under both their names: work-items and issues."""

import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from deploy.sandbox.plane import shapes
from deploy.sandbox.plane.access import NOT_FOUND, USER, paged, project_of, workspace_of
from deploy.sandbox.plane.records import Comment, Item, Label, State
from deploy.sandbox.plane.service import PlaneService
from deploy.sandbox.web import Json, RefusalError, json_body

ORDERS = (
    "created_at",
    "updated_at",
    "sequence_id",
    "name",
    "priority",
    "sort_order",
    "state",
    "completed_at",
)


def _bad_json(message: str) -> RefusalError:
    return RefusalError(400, {"detail": message})


def _name(body: Json) -> str:
    if not isinstance(body.get("name"), str) or not body["name"].strip():
        raise RefusalError(400, {"name": ["This field is required."]})
    return str(body["name"])


class PlaneApi:
    """Handlers; the rules are in `PlaneService`."""

    def __init__(self, service: PlaneService) -> None:
        self.service = service
        self.tables = service.tables

    def add_routes(self, app: web.Application) -> None:
        """Register every route."""
        workspace = "/api/v1/workspaces/{slug}"
        project = workspace + "/projects/{project}"
        add = app.router.add_route
        add("GET", "/api/v1/users/me/", self.me)
        add("GET", f"{workspace}/members/", self.workspace_members)
        add("GET", f"{workspace}/projects/", self.projects)
        add("GET", f"{project}/", self.project)
        for name in ("members", "project-members"):
            add("GET", f"{project}/{name}/", self.project_members)
        add("GET", f"{project}/states/", self.states)
        add("POST", f"{project}/states/", self.create_state)
        add("GET", f"{project}/labels/", self.labels)
        add("POST", f"{project}/labels/", self.create_label)
        for name in ("work-items", "issues"):
            add("GET", f"{workspace}/{name}/search/", self.search)
            add("GET", f"{workspace}/{name}/{{key}}/", self.item_by_key)
            self._add_item_routes(add, f"{project}/{name}/")

    def _add_item_routes(
        self, add: Callable[[str, str, Callable[[web.Request], Awaitable[web.Response]]], object], items: str
    ) -> None:
        item = items + "{item}/"
        add("GET", items, self.items)
        add("POST", items, self.create_item)
        add("GET", item, self.item)
        add("PATCH", item, self.update_item)
        add("DELETE", item, self.delete_item)
        add("GET", f"{item}comments/", self.comments)
        add("POST", f"{item}comments/", self.create_comment)
        add("GET", f"{item}comments/{{comment}}/", self.comment)
        add("PATCH", f"{item}comments/{{comment}}/", self.update_comment)
        add("DELETE", f"{item}comments/{{comment}}/", self.delete_comment)
        add("GET", f"{item}links/", self.links)
        add("POST", f"{item}links/", self.create_link)
        add("GET", f"{item}activities/", self.activities)

    async def me(self, request: web.Request) -> web.Response:
        """The token's user."""
        return web.json_response(shapes.user(request[USER]))

    async def workspace_members(self, request: web.Request) -> web.Response:
        """A bare list, with roles."""
        members = workspace_of(request, self.tables).members
        rows = [(user, role) for key, role in members.items() if (user := self.tables.users.get(key))]
        return web.json_response([{**(shapes.user(user) or {}), "role": role} for user, role in rows])

    async def projects(self, request: web.Request) -> web.Response:
        """The projects of the workspace."""
        rows = self.tables.projects.of(workspace_of(request, self.tables).id)
        return paged(request, rows, lambda row: shapes.project(row, request[USER]))

    async def project(self, request: web.Request) -> web.Response:
        """One project."""
        return web.json_response(shapes.project(project_of(request, self.tables), request[USER]))

    async def project_members(self, request: web.Request) -> web.Response:
        """A bare list, without roles."""
        members = project_of(request, self.tables).members
        return web.json_response([shapes.user(user) for key in members if (user := self.tables.users.get(key))])

    async def states(self, request: web.Request) -> web.Response:
        """The states of the project."""
        return paged(request, self.tables.states.of(project_of(request, self.tables).id), shapes.state)

    async def create_state(self, request: web.Request) -> web.Response:
        """A new state; the answer is 200, not 201."""
        project, body = project_of(request, self.tables), await json_body(request, _bad_json)
        rows = self.tables.states.of(project.id)
        if any(row.name == body.get("name") for row in rows):
            raise RefusalError(409, {"error": "State with the same name already exists in the project"})
        state = State(
            id=str(uuid.uuid4()), workspace=project.workspace, project=project.id, name=_name(body),
            group=body.get("group", "backlog"), color=body.get("color", "#60646C"),
            sequence=max((row.sequence for row in rows), default=0) + 15000, created_by=request[USER].id,
            created_at=time.time(),
        )  # fmt: skip
        return web.json_response(shapes.state(self.tables.states.put(state)))

    async def labels(self, request: web.Request) -> web.Response:
        """The labels of the project."""
        return paged(request, self.tables.labels.of(project_of(request, self.tables).id), shapes.label)

    async def create_label(self, request: web.Request) -> web.Response:
        """A new label."""
        project, body = project_of(request, self.tables), await json_body(request, _bad_json)
        label = Label(
            id=str(uuid.uuid4()), workspace=project.workspace, project=project.id, name=_name(body),
            color=body.get("color", ""), created_by=request[USER].id, created_at=time.time(),
        )  # fmt: skip
        return web.json_response(shapes.label(self.tables.labels.put(label)), status=201)

    async def items(self, request: web.Request) -> web.Response:
        """The items of the project. Filters such as `state` are ignored, which is why callers must filter."""
        rows = [row for row in self.tables.items.of(project_of(request, self.tables).id) if row.archived_at is None]
        pair = (request.query.get("external_source"), request.query.get("external_id"))
        if all(pair):
            twin = self.tables.external(rows, str(pair[0]), str(pair[1]))
            if twin is None:
                raise NOT_FOUND
            return web.json_response(self._shown(request, twin))
        order = request.query.get("order_by", "-created_at")
        key = order.removeprefix("-")
        if key not in ORDERS:
            raise RefusalError(500, {"error": "Something went wrong please try again later"})
        now = time.time()

        def rank(row: Item) -> tuple[bool, object]:
            value = row.moved_at(now) if key == "updated_at" else getattr(row, key, None)
            return (value is None, value)

        return paged(
            request,
            sorted(rows, key=rank, reverse=order.startswith("-")),
            lambda row: self._shown(request, row),
        )

    async def create_item(self, request: web.Request) -> web.Response:
        """A new item."""
        project, body = project_of(request, self.tables), await json_body(request, _bad_json)
        return web.json_response(shapes.item(self.service.create_item(request[USER], project, body)), status=201)

    async def item(self, request: web.Request) -> web.Response:
        """One item by its id."""
        return web.json_response(self._shown(request, self._item(request)))

    async def item_by_key(self, request: web.Request) -> web.Response:
        """One item by IDENT-seq."""
        workspace = workspace_of(request, self.tables)
        match = re.fullmatch(r"(.+)-(\d+)", request.match_info["key"])
        for project in self.tables.projects.of(workspace.id) if match else []:
            for item in self.tables.items.of(project.id):
                if match and (project.identifier, item.sequence_id) == (match[1], int(match[2])):
                    return web.json_response(self._shown(request, item))
        raise NOT_FOUND

    async def search(self, request: web.Request) -> web.Response:
        """Items of the workspace whose name or number matches."""
        workspace, wanted = workspace_of(request, self.tables), request.query.get("search", "").lower()
        found = [
            {"name": item.name, "id": item.id, "sequence_id": item.sequence_id, "project_id": project.id,
             "project__identifier": project.identifier, "workspace__slug": workspace.slug}
            for project in self.tables.projects.of(workspace.id)
            for item in self.tables.items.of(project.id)
            if wanted and (wanted in item.name.lower() or wanted == str(item.sequence_id))
        ]  # fmt: skip
        return web.json_response({"issues": found})

    async def update_item(self, request: web.Request) -> web.Response:
        """Change the given keys."""
        item, body = self._item(request), await json_body(request, _bad_json)
        return web.json_response(shapes.item(self.service.update_item(request[USER], item, body, "api")))

    async def delete_item(self, request: web.Request) -> web.Response:
        """Delete one item."""
        self.service.delete_item(self._item(request))
        return web.Response(status=204)

    async def comments(self, request: web.Request) -> web.Response:
        """The comments of an item, newest first; only the list has `is_member`."""
        item = self._item(request)
        rows = self.tables.comments.of(item.id)[::-1]
        return paged(request, rows, lambda row: {**shapes.comment(row), "is_member": True})

    async def comment(self, request: web.Request) -> web.Response:
        """One comment."""
        return web.json_response({**shapes.comment(self._comment(request)), "is_member": True})

    async def create_comment(self, request: web.Request) -> web.Response:
        """A new comment."""
        item, body = self._item(request), await json_body(request, _bad_json)
        return web.json_response(shapes.comment(self.service.create_comment(request[USER], item, body)), status=201)

    async def update_comment(self, request: web.Request) -> web.Response:
        """Edit a comment."""
        item, comment, body = self._item(request), self._comment(request), await json_body(request, _bad_json)
        return web.json_response(shapes.comment(self.service.update_comment(request[USER], item, comment, body)))

    async def delete_comment(self, request: web.Request) -> web.Response:
        """Delete a comment."""
        self.service.delete_comment(self._item(request), self._comment(request))
        return web.Response(status=204)

    async def links(self, request: web.Request) -> web.Response:
        """The links of an item."""
        return paged(request, self.tables.links.of(self._item(request).id), shapes.link)

    async def create_link(self, request: web.Request) -> web.Response:
        """A new link."""
        item, body = self._item(request), await json_body(request, _bad_json)
        return web.json_response(shapes.link(self.service.create_link(request[USER], item, body)), status=201)

    async def activities(self, request: web.Request) -> web.Response:
        """The history written so far, oldest first."""
        return paged(request, self.service.history(self._item(request)), shapes.activity)

    def _item(self, request: web.Request) -> Item:
        project = project_of(request, self.tables)
        item = self.tables.items.get(request.match_info["item"])
        if item is None or item.project != project.id or item.archived_at is not None:
            raise NOT_FOUND
        return item

    def _comment(self, request: web.Request) -> Comment:
        comment = self.tables.comments.get(request.match_info["comment"])
        if comment is None or comment.item != self._item(request).id:
            raise NOT_FOUND
        return comment

    def _shown(self, request: web.Request, item: Item) -> Json:
        expand = set(request.query.get("expand", "").split(","))
        shown = shapes.item_expanded(item, self.tables, expand)
        fields = {name for name in request.query.get("fields", "").split(",") if name}
        return {key: value for key, value in shown.items() if key in fields} if fields else shown
