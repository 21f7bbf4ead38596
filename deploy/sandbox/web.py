"""What all four servers share: refusals as exceptions, JSON bodies, health, and readable pages."""

import html
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shape = TypeVar("Shape", bound=BaseModel)

CONTROL = "/_sandbox"
MAX_BODY = 512 * 1024 * 1024  # a push of a real repository is one request


class RefusalError(Exception):
    """An answer that is not what the caller hoped for, with the body the vendor gives."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body, self.headers = status, body, dict(headers or {})


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn a RefusalError into its answer, so that handlers read as the happy path."""
    try:
        return await handler(request)
    except RefusalError as refusal:
        return web.json_response(refusal.body, status=refusal.status, headers=refusal.headers)


async def json_body(request: web.Request, refuse: Callable[[str], RefusalError]) -> Json:
    """The request's JSON object; an empty body is an empty object."""
    text = await request.text()
    try:
        body = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise refuse(f"JSON parse error - {error}") from error
    if not isinstance(body, dict):
        raise refuse("a JSON object is expected")
    return body


async def control_body(request: web.Request, shape: type[Shape]) -> Shape:
    """A control request, validated.

    The exact content type is required because a page in a browser cannot send it to another origin without
    asking first, and the control API has no other lock.
    """
    if request.content_type != "application/json":
        raise RefusalError(415, {"error": "send Content-Type: application/json"})
    try:
        return shape.model_validate_json(await request.read())
    except ValidationError as error:
        raise RefusalError(422, {"error": json.loads(error.json(include_url=False, include_input=False))}) from error


def add_health(app: web.Application, server: str) -> None:
    """Serve GET /_sandbox/healthz."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "server": server})

    app.router.add_get(f"{CONTROL}/healthz", healthz)


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def element(tag: str, *children: str, href: str | None = None) -> Markup:
    """One HTML element; children that are not Markup are escaped; only http(s) links and paths are made."""
    inside = "".join(child if isinstance(child, Markup) else html.escape(child) for child in children)
    link = f' href="{html.escape(href)}"' if href and href.startswith(("http://", "https://", "/")) else ""
    return Markup(f"<{tag}{link}>{inside}</{tag}>")


def page(title: str, *children: str) -> web.Response:
    """A small readable page which can run no script, whatever text an agent wrote."""
    style = Markup("<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
                   "pre{background:#f4f4f4;padding:1rem;overflow:auto}</style>")  # fmt: skip
    head = element("head", Markup('<meta charset="utf-8">'), element("title", title), style)
    document = "<!doctype html>" + element("html", head, element("body", element("h1", title), *children))
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return web.Response(text=document, content_type="text/html", headers=policy)
