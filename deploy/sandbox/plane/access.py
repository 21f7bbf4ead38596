"""Who is calling, how often, and which page of a list they want (contract: plane.md section 2)."""

import math
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web

from deploy.sandbox.plane.records import Project, Tables, User, Workspace
from deploy.sandbox.web import CONTROL, Handler, Json, RefusalError

USER = web.RequestKey("plane_user", User)
WINDOW = 60.0
MAX_PAGE = 1000
NOT_FOUND = RefusalError(404, {"error": "The requested resource does not exist."})

T = TypeVar("T")


class Gate:
    """Knows the token, and counts its last minute."""

    def __init__(self, tables: Tables, per_minute: int) -> None:
        self._tables = tables
        self.per_minute = per_minute
        self._calls: dict[str, deque[float]] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, then the rate; good and bad answers alike carry what is left."""
        if not request.path.startswith("/api/"):
            return await handler(request)
        token = request.headers.get("X-API-Key")
        if not token:
            raise RefusalError(401, {"detail": "Authentication credentials were not provided."})
        user = self._tables.users.find(lambda row: row.token == token)
        if user is None:
            raise RefusalError(403, {"detail": "Given API token is not valid"})
        headers = self._count(user.id)
        request[USER] = user
        try:
            response = await handler(request)
        except RefusalError as refusal:
            raise RefusalError(refusal.status, refusal.body, {**refusal.headers, **headers}) from refusal
        response.headers.update(headers)
        return response

    def _count(self, key: str) -> dict[str, str]:
        now = time.time()
        calls = self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - WINDOW:
            calls.popleft()
        if len(calls) >= self.per_minute:
            wait = math.ceil(calls[0] + WINDOW - now)
            body = {"error_code": 5900, "error_message": "RATE_LIMIT_EXCEEDED"}
            raise RefusalError(429, body, {"Retry-After": str(max(1, wait))})
        calls.append(now)
        return {
            "X-RateLimit-Remaining": str(self.per_minute - len(calls)),
            "X-RateLimit-Reset": str(int(now + WINDOW)),
        }


@web.middleware
async def missing_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A path without its trailing slash, or any unknown one, is Plane's own kind of 404."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        if request.path.startswith(CONTROL):
            raise
        return web.json_response({"error": "Page not found."}, status=404)


def workspace_of(request: web.Request, tables: Tables) -> Workspace:
    """The workspace of the path, if the caller belongs to it."""
    slug = request.match_info["slug"]
    workspace = tables.workspaces.find(lambda row: row.slug == slug)
    if workspace is None or request[USER].id not in workspace.members:
        raise RefusalError(403, {"detail": "You do not have permission to perform this action."})
    return workspace


def project_of(request: web.Request, tables: Tables) -> Project:
    """The project of the path, if the caller belongs to it."""
    workspace = workspace_of(request, tables)
    project = tables.projects.get(request.match_info["project"])
    if project is None or project.workspace != workspace.id:
        raise NOT_FOUND
    if request[USER].id not in project.members:
        raise RefusalError(403, {"detail": "You do not have permission to perform this action."})
    return project


def per_page(request: web.Request) -> int:
    """The asked page size; more than the maximum is an error, not a cap."""
    text = request.query.get("per_page", str(MAX_PAGE))
    if not text.isdigit() or not 0 < int(text) <= MAX_PAGE:
        raise RefusalError(400, {"detail": f"Invalid per_page value. Cannot exceed {MAX_PAGE}."})
    return int(text)


def paged(request: web.Request, rows: Sequence[T], shape: Callable[[T], Any]) -> web.Response:
    """One page by offset: rows that move between two requests are seen twice or never, as in Plane."""
    size, index = per_page(request), 0
    if "cursor" in request.query:
        match = re.fullmatch(r"(\d+):(-?\d+):[01]", request.query["cursor"])
        if match is None:
            raise RefusalError(400, {"detail": "Invalid cursor parameter."})
        size, index = int(match[1]) or size, max(0, int(match[2]))
    shown = rows[index * size : (index + 1) * size]
    body: Json = {
        "grouped_by": None, "sub_grouped_by": None, "total_count": len(rows),
        "next_cursor": f"{size}:{index + 1}:0", "prev_cursor": f"{size}:{index - 1}:1",
        "next_page_results": (index + 1) * size < len(rows), "prev_page_results": index > 0,
        "count": len(shown),
        "total_pages": math.ceil(len(rows) / size), "total_results": len(rows), "extra_stats": None,
        "results": [shape(row) for row in shown],
    }  # fmt: skip
    return web.json_response(body)
