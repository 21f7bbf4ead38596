"""A tiny server that answers recorded requests with recorded answers, byte for byte where that matters."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
from aiohttp import web

from activities.adapters.http import HttpClient

PAYLOADS = Path(__file__).parents[1] / "payloads"


def payload(name: str) -> dict[str, Any]:
    """A recorded exchange, for instance `plane/rest_issue_get`."""
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def recorded(service: str) -> list[str]:
    """The names of all recorded REST exchanges of a service."""
    return sorted(file.stem for file in (PAYLOADS / service).glob("rest_*.json"))


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class Answer:
    """What the server says; `body` is JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> "Answer":
        """A recorded answer."""
        exchange = payload(name)
        return cls(exchange["status"], exchange["body"], exchange["headers"])


@dataclass
class Server:
    """Answers by method and path, in the given order; the last answer of a route is repeated."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    routes: dict[tuple[str, str], list[Answer | Callable[[Request], Answer]]] = field(default_factory=dict)

    def on(self, method: str, path: str, *answers: Answer | Callable[[Request], Answer]) -> None:
        """Answer this route; the path is compared after decoding."""
        self.routes[method, path] = list(answers)

    def record(self, *names: str) -> None:
        """Answer a recorded request with its recorded answers, in the given order."""
        for name in names:
            request = payload(name)["request"]
            path = unquote(urlsplit(request["path"]).path)
            self.routes.setdefault((request["method"], path), []).append(Answer.of(name))

    async def handle(self, request: web.Request) -> web.Response:
        """Find the answer, remember the question."""
        raw = await request.read()
        seen = Request(
            request.method,
            unquote(request.raw_path.partition("?")[0]),
            dict(parse_qsl(request.raw_path.partition("?")[2])),
            request.headers,
            json.loads(raw) if raw else None,
        )
        self.requests.append(seen)
        answers = self.routes.get((seen.method, seen.path))
        if not answers:
            return web.json_response({"error": "Page not found."}, status=404)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = found(seen) if callable(found) else found
        body = (
            answer.body
            if isinstance(answer.body, bytes)
            else b""
            if answer.body is None
            else json.dumps(answer.body).encode()
        )
        return web.Response(status=answer.status, body=body, headers=dict(answer.headers))


@asynccontextmanager
async def serve() -> AsyncIterator[Server]:
    """Start a server on a free port of the loopback."""
    server = Server()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(server: Server, service: str, headers: Mapping[str, str], **options: Any) -> AsyncIterator[HttpClient]:
    """An HTTP client of that server, below `/api/v1`."""
    async with aiohttp.ClientSession() as session:
        yield HttpClient(session, f"{server.url}/api/v1", service=service, headers=headers, **options)
