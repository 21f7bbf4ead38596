"""Seeding Plane, and a person at its web UI: what has no API route, or another author there."""

import re
import time
import uuid

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.plane import shapes
from deploy.sandbox.plane.access import Gate
from deploy.sandbox.plane.records import EVENTS, Group, Item, Label, Project, State, User, Webhook, Workspace
from deploy.sandbox.plane.service import PlaneService
from deploy.sandbox.web import CONTROL, Json, RefusalError, control_body

# The states of a new project, with Plane's own colours (payloads/plane/rest_states_list.json).
DEFAULT_STATES: tuple[tuple[str, Group, str], ...] = (
    ("Backlog", "backlog", "#60646C"),
    ("Todo", "unstarted", "#60646C"),
    ("In Progress", "started", "#F59E0B"),
    ("Done", "completed", "#46A758"),
    ("Cancelled", "cancelled", "#9AA4BC"),
)


class Strict(BaseModel):
    """A control body; a misspelt key is an error, not a silence."""

    model_config = ConfigDict(extra="forbid")


class SeedWorkspace(Strict):
    """A workspace, known by its slug."""

    slug: str
    name: str = ""


class SeedUser(Strict):
    """A user, known by the display name; becomes a member of the workspace."""

    display_name: str
    email: str = ""
    token: str = ""
    first_name: str = ""
    last_name: str = ""
    is_bot: bool = False
    role: int = 20


class SeedState(Strict):
    """A state, known by its name."""

    name: str
    group: Group = "unstarted"
    color: str = "#60646C"


class SeedProject(Strict):
    """A project, known by its identifier. No states: Plane's five; no members: every seeded user."""

    identifier: str
    name: str = ""
    description: str = ""
    states: list[SeedState] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)
    members: list[str] | None = None


class SeedWebhook(Strict):
    """A webhook, known by its url. Seeding it again switches it on again, as a person would."""

    url: str
    secret: str
    events: list[str] = Field(default_factory=lambda: list(EVENTS))


class PlaneSeed(Strict):
    """Everything at once; what exists already is kept or brought up to date."""

    workspace: SeedWorkspace
    users: list[SeedUser] = Field(default_factory=list)
    projects: list[SeedProject] = Field(default_factory=list)
    webhooks: list[SeedWebhook] = Field(default_factory=list)


class UiItem(Strict):
    """A person creates (with `project`) or changes an item; states, labels, people go by name or id."""

    actor: str
    project: str | None = None
    name: str | None = None
    description_html: str | None = None
    state: str | None = None
    priority: str | None = None
    labels: list[str] | None = None
    assignees: list[str] | None = None


class UiComment(Strict):
    """A person comments."""

    actor: str
    comment_html: str


class RateLimit(Strict):
    """Requests a minute for each token, until the next start."""

    per_minute: int = Field(ge=1)


class PlaneControl:
    """Handlers of the control API."""

    def __init__(self, service: PlaneService, gate: Gate) -> None:
        self.service, self.tables, self.gate = service, service.tables, gate

    def add_routes(self, app: web.Application) -> None:
        """Register every route."""
        items = f"{CONTROL}/ui/items"
        app.router.add_post(f"{CONTROL}/seed", self.seed)
        app.router.add_put(f"{CONTROL}/rate-limit", self.rate_limit)
        app.router.add_post(items, self.create_item)
        app.router.add_patch(f"{items}/{{key}}", self.update_item)
        app.router.add_delete(f"{items}/{{key}}", self.delete_item)
        app.router.add_post(f"{items}/{{key}}/archive", self.archive_item)
        app.router.add_post(f"{items}/{{key}}/comments", self.comment)
        app.router.add_get(f"{CONTROL}/webhooks", self.webhooks)

    async def seed(self, request: web.Request) -> web.Response:
        """Bring the workspace to what is asked; answer every id."""
        seed = await control_body(request, PlaneSeed)
        workspace = self.tables.workspaces.find(lambda row: row.slug == seed.workspace.slug) or Workspace(
            id=str(uuid.uuid4()), slug=seed.workspace.slug, name=seed.workspace.name or seed.workspace.slug
        )
        users = {wanted.display_name: self._user(wanted) for wanted in seed.users}
        workspace.members |= {users[wanted.display_name].id: wanted.role for wanted in seed.users}
        self.tables.workspaces.put(workspace)
        hooks = [self._webhook(workspace, wanted) for wanted in seed.webhooks]
        projects = [self._project(workspace, wanted) for wanted in seed.projects]
        answer = {
            "workspace": {"id": workspace.id, "slug": workspace.slug},
            "users": {name: user.id for name, user in users.items()},
            "projects": {project.identifier: self._project_ids(project) for project in projects},
            "webhooks": {hook.url: hook.id for hook in hooks},
        }
        return web.json_response(answer)

    async def rate_limit(self, request: web.Request) -> web.Response:
        """Change the limit."""
        self.gate.per_minute = (await control_body(request, RateLimit)).per_minute
        return web.json_response({"per_minute": self.gate.per_minute})

    async def webhooks(self, _request: web.Request) -> web.Response:
        """The hooks and whether they are still active, which only a person can see in Plane."""
        hooks = [hook.model_dump(exclude={"secret"}) for hook in self.tables.webhooks.all()]
        return web.json_response({"webhooks": hooks})

    async def create_item(self, request: web.Request) -> web.Response:
        """A person creates an item."""
        act = await control_body(request, UiItem)
        project = self.tables.projects.find(lambda row: act.project in {row.id, row.identifier})
        if project is None:
            raise RefusalError(404, {"error": f"no project {act.project}"})
        item = self.service.create_item(self._actor(act.actor), project, self._changes(project, act))
        return web.json_response(self._shown(item), status=201)

    async def update_item(self, request: web.Request) -> web.Response:
        """A person changes an item."""
        item, act = self._item(request), await control_body(request, UiItem)
        project = self.tables.projects.get(item.project)
        assert project, "items do not outlive their project"
        self.service.update_item(self._actor(act.actor), item, self._changes(project, act), "ui")
        return web.json_response(self._shown(item))

    async def delete_item(self, request: web.Request) -> web.Response:
        """A person deletes an item."""
        self.service.delete_item(self._item(request))
        return web.Response(status=204)

    async def archive_item(self, request: web.Request) -> web.Response:
        """A person archives an item."""
        self.service.archive_item(self._item(request))
        return web.Response(status=204)

    async def comment(self, request: web.Request) -> web.Response:
        """A person comments."""
        act = await control_body(request, UiComment)
        body = {"comment_html": act.comment_html}
        comment = self.service.create_comment(self._actor(act.actor), self._item(request), body)
        return web.json_response(shapes.comment(comment), status=201)

    def _user(self, wanted: SeedUser) -> User:
        known = self.tables.users.find(lambda row: row.display_name == wanted.display_name)
        fields = wanted.model_dump(exclude={"role"})
        fields["email"] = wanted.email or f"{wanted.display_name}@example.com"
        fields["token"] = wanted.token or (known.token if known else f"plane_api_{uuid.uuid4().hex}")
        return self.tables.users.put(User(id=known.id if known else str(uuid.uuid4()), **fields))

    def _webhook(self, workspace: Workspace, wanted: SeedWebhook) -> Webhook:
        known = next((row for row in self.tables.webhooks.of(workspace.id) if row.url == wanted.url), None)
        hook_id = known.id if known else str(uuid.uuid4())
        return self.tables.webhooks.put(Webhook(id=hook_id, workspace=workspace.id, **wanted.model_dump()))

    def _project(self, workspace: Workspace, wanted: SeedProject) -> Project:
        mine = self.tables.projects.of(workspace.id)
        known = next((row for row in mine if row.identifier == wanted.identifier), None)
        owner = next(iter(workspace.members), None)
        if owner is None:
            raise RefusalError(422, {"error": "seed a user before a project: somebody has to own it"})
        project = known or Project(
            id=str(uuid.uuid4()), workspace=workspace.id, identifier=wanted.identifier,
            name=wanted.name or wanted.identifier, description=wanted.description, created_by=owner,
            created_at=time.time(),
        )  # fmt: skip
        named = None if wanted.members is None else {self._actor(name).id for name in wanted.members}
        project.members |= {key: role for key, role in workspace.members.items() if named is None or key in named}
        self.tables.projects.put(project)
        self._states_and_labels(project, wanted)
        if known is None and (creator := self.tables.users.get(owner)):
            self.service.emitter.emit("project", "created", project, creator)
        return project

    def _states_and_labels(self, project: Project, wanted: SeedProject) -> None:
        defaults = [SeedState(name=name, group=group, color=color) for name, group, color in DEFAULT_STATES]
        states, labels = self.tables.states.of(project.id), self.tables.labels.of(project.id)
        common = {"workspace": project.workspace, "project": project.id, "created_by": project.created_by}
        for position, state in enumerate(wanted.states or ([] if states else defaults), start=len(states)):
            if state.name not in {row.name for row in states}:
                self.tables.states.put(
                    State(id=str(uuid.uuid4()), **common, **state.model_dump(), default=position == 0,
                          sequence=15000.0 + 10000 * position, created_at=time.time())
                )  # fmt: skip
        for name in wanted.labels:
            if name not in {row.name for row in labels}:
                self.tables.labels.put(Label(id=str(uuid.uuid4()), **common, name=name, created_at=time.time()))

    def _project_ids(self, project: Project) -> Json:
        states = {row.name: row.id for row in self.tables.states.of(project.id)}
        labels = {row.name: row.id for row in self.tables.labels.of(project.id)}
        return {"id": project.id, "states": states, "labels": labels}

    def _actor(self, name: str) -> User:
        user = self.tables.users.find(lambda row: name in {row.id, row.display_name})
        if user is None:
            raise RefusalError(404, {"error": f"no user {name}"})
        return user

    def _item(self, request: web.Request) -> Item:
        key = request.match_info["key"]
        match = re.fullmatch(r"(.+)-(\d+)", key)
        for item in self.tables.items.all():
            project = self.tables.projects.get(item.project)
            by_key = match and project and (project.identifier, item.sequence_id) == (match[1], int(match[2]))
            if item.id == key or by_key:
                return item
        raise RefusalError(404, {"error": f"no item {key}"})

    def _changes(self, project: Project, act: UiItem) -> Json:
        given = act.model_dump(exclude={"actor", "project"}, exclude_none=True)
        states = {row.name: row.id for row in self.tables.states.of(project.id)}
        labels = {row.name: row.id for row in self.tables.labels.of(project.id)}
        if "state" in given:
            given["state"] = states.get(given["state"], given["state"])
        if "labels" in given:
            given["labels"] = [labels.get(name, name) for name in given["labels"]]
        if "assignees" in given:
            given["assignees"] = [self._actor(name).id for name in given["assignees"]]
        return given

    def _shown(self, item: Item) -> Json:
        project = self.tables.projects.get(item.project)
        return {**shapes.item(item), "key": f"{project.identifier if project else '?'}-{item.sequence_id}"}
