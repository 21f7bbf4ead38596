"""Who is calling, with which right to what, and which page of a list they want (gitea.md section 3)."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from deploy.sandbox.gitea.records import Repository, User
from deploy.sandbox.gitea.service import GiteaService
from deploy.sandbox.web import Handler, Json, RefusalError, json_body

USER = web.RequestKey("gitea_user", User)
DEFAULT_PAGE, MAX_PAGE = 30, 50  # a larger limit is silently capped


class Access:
    """Tokens, scopes and levels; the base of every group of routes."""

    def __init__(self, service: GiteaService) -> None:
        self.service, self.tables, self.shapes = service, service.tables, service.shapes

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token and its scope on API paths."""
        if not request.path.startswith("/api/v1/"):
            return await handler(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = scheme.lower() in {"token", "bearer"} and token
        user = self.tables.users.find(lambda row: row.token == token) if known else None
        if user is None:
            raise self.service.refuse(401, "token is required" if not token else "user does not exist")
        self._check_scope(request, user)
        request[USER] = user
        return await handler(request)

    def _check_scope(self, request: web.Request, user: User) -> None:
        kind = "user" if request.path == "/api/v1/user" else "issue" if "/issues/" in request.path else "repository"
        verb = "read" if request.method in {"GET", "HEAD"} else "write"
        enough = {"all", f"write:{kind}", f"{verb}:{kind}"}
        if not enough & set(user.scopes):
            scopes = ",".join(user.scopes)
            message = (f"token does not have at least one of required scope(s), required=[{verb}:{kind}], "
                       f"token scope={scopes}")  # fmt: skip
            raise self.service.refuse(403, message)

    def repository(self, request: web.Request, needs: str = "read") -> Repository:
        """The repository of the path, if the caller may do what is needed."""
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.tables.repositories.get(name)
        if repository is None:
            raise self.service.refuse(404, "not found")
        levels = ("read", "write", "admin")
        if levels.index(self.service.level(repository, request[USER])) < levels.index(needs):
            raise self.service.refuse(403, f"user should have a permission to {needs} to this repository")
        return repository

    async def body(self, request: web.Request) -> Json:
        """The JSON object of the request."""
        return await json_body(request, self._unprocessable)

    def _unprocessable(self, message: str) -> RefusalError:
        return self.service.refuse(422, message)


def window(request: web.Request) -> tuple[int, int]:
    """The asked page (from 1) and its capped size."""
    page, limit = request.query.get("page", "1"), request.query.get("limit", str(DEFAULT_PAGE))
    size = int(limit) if limit.isdigit() and int(limit) > 0 else DEFAULT_PAGE
    return (max(1, int(page)) if page.isdigit() else 1), min(size, MAX_PAGE)


def cut(request: web.Request, rows: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
    """One page of rows, and the headers that tell of the others."""
    page, size = window(request)
    last = max(1, -(-len(rows) // size))
    targets = {"next": page + 1, "last": last} if page < last else {}
    targets |= {"first": 1, "prev": page - 1} if page > 1 else {}
    links = [f'<{request.url.update_query(page=number)}>; rel="{name}"' for name, number in targets.items()]
    headers = {"X-Total-Count": str(len(rows)), **({"Link": ",".join(links)} if links else {})}
    return list(rows[(page - 1) * size : page * size]), headers
