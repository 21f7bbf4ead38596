"""The person of the demo: what Olga sees and does, through Plane alone."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import aiohttp

from api.cli.outcome import CliError, Exit
from deploy.demo.seed import PERSON, PROJECT, WORKSPACE

_SPEC_LINK = re.compile(r'href="([^"]+/spec\.md)"')


def asked_spec(comments: Iterable[str], digest: str) -> str | None:
    """The link to the spec in the comment, as HTML, that names this digest; whatever the order of comments."""
    links = (_SPEC_LINK.search(html) for html in comments if digest in html)
    return next((found[1] for found in links if found), None)


class Person:
    """Acts in the sandbox's user interface and reads Plane's REST API."""

    def __init__(self, session: aiohttp.ClientSession, environment: Mapping[str, str]) -> None:
        self._session = session
        self._plane = environment["ORCH_PLANE_URL"]
        self._token = environment["ORCH_PLANE_TOKEN"]
        self._ids: dict[str, str] = {}
        self._states: dict[str, str] = {}

    async def create_item(self, title: str, description: str) -> str:
        """Write an item down; its key."""
        html = description or f"<p>{escape(title)}</p>"
        body = {"project": PROJECT, "name": title, "description_html": html, "state": "Todo"}
        item = await self._send("POST", "/_sandbox/ui/items", {"actor": PERSON, **body})
        self._ids = {"item": str(item["id"]), "project": str(item["project"])}
        return str(item["key"])

    async def move(self, key: str, state: str) -> None:
        """Move an item to a state."""
        await self._send("PATCH", f"/_sandbox/ui/items/{key}", {"actor": PERSON, "state": state})

    async def lose_webhooks(self, count: int) -> None:
        """Let Plane lose its next deliveries, as a restart of it or of us would."""
        await self._send("PUT", "/_sandbox/faults", {"webhooks": {"drop_next": count}})

    async def state(self, key: str) -> str:
        """The state an item is in."""
        root = f"/api/v1/workspaces/{WORKSPACE}"
        if not self._states:
            rows = await self._send("GET", f"{root}/projects/{self._ids['project']}/states/")
            self._states = {str(row["id"]): str(row["name"]) for row in rows["results"]}
        item = await self._send("GET", f"{root}/work-items/{key}/")
        return self._states.get(str(item["state"]), "")

    async def spec_link(self, digest: str) -> str:
        """The link to the spec in the comment that asks for a decision on it; it must lead somewhere."""
        ids = self._ids
        path = f"/api/v1/workspaces/{WORKSPACE}/projects/{ids['project']}/work-items/{ids['item']}/comments/"
        comments = await self._send("GET", path)
        link = asked_spec((str(row["comment_html"]) for row in comments["results"]), digest)
        if link is None:
            raise CliError(Exit.FAILED, f"the item asks for a decision, but no comment links to spec {digest}")
        async with self._session.get(link) as answer:
            if answer.status != 200:
                raise CliError(Exit.FAILED, f"the spec's link {link} answers {answer.status}")
        return link

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = self._plane + path
        async with self._session.request(method, url, json=body, headers={"X-API-Key": self._token}) as answer:
            if answer.status >= 300:
                raise CliError(Exit.FAILED, f"{url} answers {answer.status}: {(await answer.text())[:200]}")
            parsed: dict[str, Any] = await answer.json()
            return parsed
