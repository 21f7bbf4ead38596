"""git clone, fetch and push over HTTP through git's own `http-backend` (CGI), with tokens as passwords."""

import base64
import binascii

from aiohttp import web

from deploy.sandbox.gitea import protection
from deploy.sandbox.gitea.git import environment, execute
from deploy.sandbox.gitea.records import Repository, User
from deploy.sandbox.gitea.service import GiteaService

# Refuses what the server lists as closed; runs inside git, so that a refused push changes nothing at all.
PRE_RECEIVE = """#!/bin/sh
set -f
while read -r _old _new ref; do
  case "$ref" in
    refs/heads/*) ;;
    refs/tags/*) continue ;;
    *) echo "Gitea: The ref $ref is reserved" >&2; exit 1 ;;
  esac
  for pattern in $SANDBOX_CLOSED_BRANCHES; do
    case "${ref#refs/heads/}" in
      $pattern) echo "Gitea: Not allowed to push to protected branch ${ref#refs/heads/}" >&2; exit 1 ;;
    esac
  done
done
"""


class GitHttp:
    """The smart protocol under /{owner}/{name}.git/."""

    def __init__(self, service: GiteaService) -> None:
        self._service = service

    def add_routes(self, app: web.Application) -> None:
        """Register the three requests the protocol is made of."""
        base = "/{owner}/{name}.git"
        app.router.add_get(f"{base}/info/refs", self.info_refs)
        app.router.add_post(f"{base}/git-upload-pack", self.upload_pack)
        app.router.add_post(f"{base}/git-receive-pack", self.receive_pack)

    async def info_refs(self, request: web.Request) -> web.Response:
        """What refs there are, for either direction."""
        writes = request.query.get("service") == "git-receive-pack"
        repository, user = self._open(request, writes=writes)
        return await self._backend(request, repository, user, "info/refs")

    async def upload_pack(self, request: web.Request) -> web.Response:
        """Clone and fetch."""
        repository, user = self._open(request, writes=False)
        return await self._backend(request, repository, user, "git-upload-pack")

    async def receive_pack(self, request: web.Request) -> web.Response:
        """Push; what moved is found by comparing refs, whatever the client asked for."""
        repository, user = self._open(request, writes=True)
        async with self._service.changing_refs(repository, user.id):
            return await self._backend(request, repository, user, "git-receive-pack")

    def _open(self, request: web.Request, *, writes: bool) -> tuple[Repository, User]:
        user = self._user(request)
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self._service.tables.repositories.get(name)
        if repository is None:
            raise web.HTTPNotFound
        if writes and self._service.level(repository, user) == "read":
            raise web.HTTPForbidden
        return repository, user

    def _user(self, request: web.Request) -> User:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        token = ""
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(value).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                token = ""
        elif scheme.lower() in {"token", "bearer"}:
            token = value
        user = self._service.tables.users.find(lambda row: bool(token) and row.token == token)
        if user is None:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="Gitea"'})
        return user

    async def _backend(self, request: web.Request, repository: Repository, user: User, action: str) -> web.Response:
        body = await request.read()
        path = self._service.path(repository)
        closed = protection.closed_patterns(self._service.tables, repository.id, user)
        env = {
            **environment(), "GIT_PROJECT_ROOT": str(path), "PATH_INFO": f"/{action}",
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method, "QUERY_STRING": request.query_string, "REMOTE_USER": user.id,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": request.remote or "", "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "SANDBOX_CLOSED_BRANCHES": "\n".join(closed),
        }  # fmt: skip
        done = await execute(["http-backend"], cwd=path, env=env, stdin=body)
        if done.code:
            return web.Response(status=500, text=done.err.decode(errors="replace"))
        return _cgi_response(done.out)


def _cgi_response(out: bytes) -> web.Response:
    head, _, body = out.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    status = int(headers.pop("Status", "200").split(" ", 1)[0])
    return web.Response(status=status, headers=headers, body=body)
