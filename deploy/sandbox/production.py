"""Two places to deploy to: each serves the files of the commit it was given, and says which one that is."""

import asyncio
import mimetypes
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.faults import FaultPlan, Faults
from deploy.sandbox.gitea.git import GitError, export, git
from deploy.sandbox.web import CONTROL, RefusalError, add_health, control_body, element, page, refusals

ENVIRONMENTS = ("staging", "production")
KEPT = 5  # checkouts of older commits stay for a quick look, not for ever

FindBare = Callable[[str, str], Path | None]


class Deploy(BaseModel):
    """What to serve: a commit of a repository of the sandbox, or of any git address."""

    model_config = ConfigDict(extra="forbid")

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    owner: str | None = None
    repo: str | None = None
    repository_url: str | None = None


class ProductionServer:
    """What is served is a symlink, so that a restart finds it and a switch is atomic."""

    def __init__(self, home: Path, find_bare: FindBare) -> None:
        self._home, self._find_bare = home / "production", find_bare
        self._locks = {name: asyncio.Lock() for name in ENVIRONMENTS}
        self.faults = Faults()
        self.app = web.Application(middlewares=[self.faults.middleware, refusals])
        add_health(self.app, "production")
        environment = f"/{{environment:{'|'.join(ENVIRONMENTS)}}}"
        self.app.router.add_post(f"{environment}/deploy", self.deploy)
        self.app.router.add_get(f"{environment}/healthz", self.healthz)
        self.app.router.add_get(f"{environment}/", self.index)
        self.app.router.add_get(f"{environment}/files/{{path:.+}}", self.file)
        self.app.router.add_put(f"{CONTROL}/faults", self.replace_faults)

    async def start(self) -> None:
        """Nothing is left over: the symlinks say it all."""

    async def stop(self) -> None:
        """Nothing runs on its own."""

    async def deploy(self, request: web.Request) -> web.Response:
        """Fetch the commit, check it out beside the served one, then switch."""
        wanted = await control_body(request, Deploy)
        name = request.match_info["environment"]
        async with self._locks[name]:
            before = self._served(name)
            checkout = await self._checkout(name, wanted)
            link = self._home / name / "next"
            link.unlink(missing_ok=True)
            link.symlink_to(checkout.relative_to(link.parent))
            link.replace(self._home / name / "current")
            await asyncio.to_thread(self._forget_old, name)
        return web.json_response({"environment": name, "sha": wanted.sha, "previous_sha": before})

    async def healthz(self, request: web.Request) -> web.Response:
        """The served commit; 503 while there is none."""
        sha = self._served(request.match_info["environment"])
        return web.json_response({"sha": sha}, status=200 if sha else 503)

    async def index(self, request: web.Request) -> web.Response:
        """The served files, for a person."""
        name = request.match_info["environment"]
        sha, root = self._served(name), self._home / name / "current"
        paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()] if sha else []
        links = [element("li", element("a", path, href=f"/{name}/files/{path}")) for path in paths]
        return page(f"{name}: {sha or 'nothing deployed'}", element("ul", *links))

    async def file(self, request: web.Request) -> web.Response:
        """One file of the served commit."""
        root = (self._home / request.match_info["environment"] / "current").resolve()
        path = (root / request.match_info["path"]).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise web.HTTPNotFound
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return web.Response(body=path.read_bytes(), content_type=kind)

    async def replace_faults(self, request: web.Request) -> web.Response:
        """Put a new fault plan in force; its webhook half means nothing here."""
        self.faults.replace(await control_body(request, FaultPlan))
        return web.json_response(self.faults.plan.model_dump())

    async def _checkout(self, name: str, wanted: Deploy) -> Path:
        folder = self._home / name / "checkouts" / wanted.sha
        source = self._source(wanted)
        bare = self._home / name / "fetched.git"
        try:
            if not bare.exists():
                bare.mkdir(parents=True)
                await git("init", "--quiet", "--bare", ".", cwd=bare)
            await git("fetch", "--quiet", "--no-tags", source, wanted.sha, cwd=bare)
        except GitError as error:
            raise RefusalError(422, {"error": _without_password(f"{wanted.sha} cannot be fetched: {error}")}) from error
        if not folder.exists():
            fresh = folder.with_suffix(f".{os.getpid()}")
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
            await export(bare, wanted.sha, fresh)
            fresh.rename(folder)
        return folder

    def _source(self, wanted: Deploy) -> str:
        if wanted.repository_url:
            if not wanted.repository_url.startswith(("http://", "https://")):
                raise RefusalError(422, {"error": "repository_url must be http or https"})
            return wanted.repository_url
        bare = self._find_bare(wanted.owner or "", wanted.repo or "")
        if bare is None:
            raise RefusalError(422, {"error": f"no repository {wanted.owner}/{wanted.repo}"})
        return str(bare)

    def _served(self, name: str) -> str | None:
        link = self._home / name / "current"
        return link.readlink().name if link.is_symlink() else None

    def _forget_old(self, name: str) -> None:
        served = self._served(name)
        folders = sorted((self._home / name / "checkouts").iterdir(), key=lambda path: path.stat().st_mtime)
        for folder in [path for path in folders if path.name != served][:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _without_password(text: str) -> str:
    return re.sub(r"://[^@/\s]+@", "://", text)
