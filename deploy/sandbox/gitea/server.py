"""The Gitea server, put together."""

from aiohttp import web

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.gitea.access import Access
from deploy.sandbox.gitea.api_commits import CommitsApi
from deploy.sandbox.gitea.api_pulls import PullsApi
from deploy.sandbox.gitea.api_repositories import RepositoriesApi
from deploy.sandbox.gitea.ci import Ci
from deploy.sandbox.gitea.control import GiteaControl
from deploy.sandbox.gitea.git_http import GitHttp
from deploy.sandbox.gitea.pages import Pages
from deploy.sandbox.gitea.service import GiteaService, refusal
from deploy.sandbox.store import Store
from deploy.sandbox.web import MAX_BODY, Handler, add_health, refusals


@web.middleware
async def missing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An unknown API path answers in Gitea's form."""
    try:
        return await handler(request)
    except web.HTTPNotFound as error:
        if request.path.startswith("/api/v1/"):
            raise refusal(404, "not found") from error
        raise


class GiteaServer:
    """One aiohttp application, its deliveries and its CI."""

    def __init__(self, store: Store, config: SandboxConfig, public_url: str) -> None:
        self.service = GiteaService(store, config, public_url)
        self.dispatcher = self.service.emitter.dispatcher
        self.ci = Ci(self.service, config)
        access = Access(self.service)
        middlewares = [self.dispatcher.faults.middleware, refusals, missing, access.middleware]
        self.app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
        add_health(self.app, "gitea")
        self.dispatcher.add_routes(self.app)
        GiteaControl(self.service, self.ci).add_routes(self.app)
        RepositoriesApi(self.service).add_routes(self.app)
        PullsApi(self.service).add_routes(self.app)
        CommitsApi(self.service, self.ci).add_routes(self.app)
        GitHttp(self.service).add_routes(self.app)
        Pages(self.service, self.ci).add_routes(self.app)

    async def start(self) -> None:
        """Take up what the last run left queued."""
        await self.dispatcher.start()
        await self.service.settle()
        await self.ci.start()

    async def stop(self) -> None:
        """Kill the tests that run, stop sending."""
        await self.ci.stop()
        await self.dispatcher.stop()
