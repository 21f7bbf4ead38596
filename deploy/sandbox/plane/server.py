"""The Plane server, put together; and the page a person sees behind an item's link."""

from aiohttp import web

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.plane.access import Gate, missing_pages
from deploy.sandbox.plane.api import PlaneApi
from deploy.sandbox.plane.control import PlaneControl
from deploy.sandbox.plane.records import Item
from deploy.sandbox.plane.service import PlaneService
from deploy.sandbox.plane.shapes import stamp, stripped
from deploy.sandbox.store import Store
from deploy.sandbox.web import MAX_BODY, add_health, element, page, refusals


class PlaneServer:
    """One aiohttp application and the deliveries that leave it."""

    def __init__(self, store: Store, config: SandboxConfig) -> None:
        self.service = PlaneService(store, config)
        self.dispatcher = self.service.emitter.dispatcher
        gate = Gate(self.service.tables, config.plane_rate_limit)
        middlewares = [self.dispatcher.faults.middleware, refusals, missing_pages, gate.middleware]
        self.app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
        add_health(self.app, "plane")
        self.dispatcher.add_routes(self.app)
        PlaneControl(self.service, gate).add_routes(self.app)
        PlaneApi(self.service).add_routes(self.app)
        self.app.router.add_get("/{slug}/browse/{key}/", self.browse)

    async def start(self) -> None:
        """Take up what the last run left queued."""
        await self.dispatcher.start()

    async def stop(self) -> None:
        """Stop sending."""
        await self.dispatcher.stop()

    async def browse(self, request: web.Request) -> web.Response:
        """An item, its comments and its history, as text: nobody's HTML is shown as HTML."""
        tables = self.service.tables
        for item in tables.items.all():
            project, workspace = tables.projects.get(item.project), tables.workspaces.get(item.workspace)
            if project and workspace and workspace.slug == request.match_info["slug"]:
                key = f"{project.identifier}-{item.sequence_id}"
                if key == request.match_info["key"]:
                    return self._item_page(key, item)
        raise web.HTTPNotFound

    def _item_page(self, key: str, item: Item) -> web.Response:
        tables = self.service.tables
        state = tables.states.get(item.state)
        people = {user.id: user.display_name for user in tables.users.all()}
        history = [
            element("li", f"{stamp(row.visible_at)} {people.get(row.actor)}: {row.comment} {row.new_value or ''}")
            for row in self.service.history(item)
        ]
        comments = [
            element("li", element("b", people.get(row.actor, "?")), element("pre", stripped(row.comment_html)))
            for row in tables.comments.of(item.id)
        ]
        links = [element("li", element("a", row.title or row.url, href=row.url)) for row in tables.links.of(item.id)]
        return page(
            f"{key} {item.name}",
            element("p", f"{state.name if state else '?'} · priority {item.priority}"),
            element("pre", stripped(item.description_html)),
            element("h2", "Links"), element("ul", *links),
            element("h2", "Comments"), element("ul", *comments),
            element("h2", "History"), element("ul", *history),
        )  # fmt: skip
