"""The HTTP application: webhooks are checked, stored and acknowledged; nothing else happens in a request."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.web_protocol import RequestPayloadError

from api.health import Check, Health
from api.inbox import STORE_DOWN, Inbox, Source
from api.webhooks import gitea, plane
from api.webhooks.reading import Headers

MAX_BODY = 1 << 20
BODY_SECONDS = 10.0
STORE_SECONDS = 4.0
GAP_SECONDS = 0.5
DROP_SECONDS = 600.0
"""So long Plane is made to try again. Six failed tries in up to 50 minutes would switch its webhook off."""

SERVER_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": 15.0,
    "lingering_time": 2.0,
    "shutdown_timeout": BODY_SECONDS + STORE_SECONDS,
    "max_line_size": 4096,
    "max_field_size": 8190,
    "max_headers": 64,
}
"""What `web.AppRunner` is given: slow or silent headers end with the keep-alive time, big ones at once."""

Clock = Callable[[], float]
Verify = Callable[[bytes, Headers, Sequence[bytes]], bool]

log = structlog.get_logger("api.app")


@dataclass(frozen=True)
class Door:
    """How one sender's webhooks are checked."""

    source: Source
    secrets: tuple[bytes, ...]
    verify: Verify
    event_headers: tuple[str, ...]
    delivery_headers: tuple[str, ...]
    """Names of one header, the first that is there counts."""
    drop_seconds: float
    """How long into an outage connections are dropped rather than answered."""


class Outage:
    """Since when nothing can be stored, as far as requests have seen."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._refused: dict[Source, float] = {}

    def lasting(self, now: float, source: Source) -> float:
        """Note that a delivery could not be stored; for how many seconds storing has been failing."""
        if self._since is None:
            self._since = now
        self.refused(source, now)
        return now - self._since

    def refused(self, source: Source, since: float) -> None:
        """Remember from when on a sender's deliveries were refused."""
        self._refused[source] = min(since, self._refused.get(source, since))

    def take_refused(self) -> dict[Source, float]:
        """Hand out whose deliveries were refused since when; whoever takes it records it."""
        refused, self._refused = self._refused, {}
        return refused

    def over(self) -> None:
        """Note that something was stored."""
        self._since = None


INBOX = web.AppKey("inbox", Inbox)
CLOCK: web.AppKey[Clock] = web.AppKey("clock")
OUTAGE = web.AppKey("outage", Outage)


def make_app(
    inbox: Inbox,
    *,
    plane_secrets: tuple[bytes, ...],
    gitea_secrets: tuple[bytes, ...],
    checks: Mapping[str, Check],
    clock: Clock = time.monotonic,
) -> web.Application:
    """Build the application.

    Raises:
        ValueError: a sender has no secret, or an empty one.
    """
    if not (plane_secrets and gitea_secrets and all((*plane_secrets, *gitea_secrets))):
        raise ValueError("each sender of webhooks needs a secret that is not empty")
    app = web.Application(client_max_size=MAX_BODY)
    app[INBOX] = inbox
    app[CLOCK] = clock
    app[OUTAGE] = Outage()
    doors = (
        Door(
            source=Source.PLANE,
            secrets=plane_secrets,
            verify=plane.verify,
            event_headers=(plane.EVENT_HEADER,),
            delivery_headers=(plane.DELIVERY_HEADER,),
            drop_seconds=DROP_SECONDS,
        ),
        Door(
            source=Source.GITEA,
            secrets=gitea_secrets,
            verify=gitea.verify,
            event_headers=(gitea.EVENT_HEADER, gitea.FORGEJO_EVENT_HEADER),
            delivery_headers=(gitea.DELIVERY_HEADER, gitea.FORGEJO_DELIVERY_HEADER),
            drop_seconds=0.0,
        ),
    )
    for door in doors:
        app.router.add_post(f"/webhooks/{door.source.value}", _receiver(door))
    Health(checks).add_routes(app)
    return app


def _receiver(door: Door) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def receive(request: web.Request) -> web.Response:
        # The order is part of the contract (docs/reference/webhooks.md): cheap checks before the body is
        # read, the signature before anything is stored, and never 2xx before it is stored.
        refusal = _refuse_unread(request)
        if refusal is not None:
            return _refuse(door, *refusal)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(request)
        except TimeoutError:
            return _refuse(door, 408, f"the body did not arrive within {BODY_SECONDS:.0f} seconds")
        except (RequestPayloadError, ClientPayloadError, ConnectionError):
            return _refuse(door, 400, "the body could not be read to its end")
        if body is None:
            return _refuse(door, 413, f"the body is larger than {MAX_BODY} bytes")
        if not door.verify(body, request.headers, door.secrets):
            return _refuse(door, 401, "the signature is not valid")
        return await _store(request, door, body)

    return receive


def _refuse_unread(request: web.Request) -> tuple[int, str] | None:
    """What is wrong with a request before its body is read."""
    types = [value.lower().replace(" ", "") for value in request.headers.getall("Content-Type", ())]
    if types not in (["application/json"], ["application/json;charset=utf-8"]):
        return 415, "the content type must be application/json"
    if any(value.lower() != "identity" for value in request.headers.getall("Content-Encoding", ())):
        return 415, "the body must not be compressed"
    if request.content_length is not None and request.content_length > MAX_BODY:
        return 413, f"the body is larger than {MAX_BODY} bytes"
    return None


async def _read(request: web.Request) -> bytes | None:
    """The whole body, or None as soon as it is too large."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


async def _store(request: web.Request, door: Door, body: bytes) -> web.Response:
    outage = request.app[OUTAGE]
    headers = _kept_headers(request.headers)
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await request.app[INBOX].receive(
                door.source,
                body,
                headers=headers,
                event=_first(headers, door.event_headers),
                delivery_id=_first(headers, door.delivery_headers),
            )
    except STORE_DOWN as error:
        lasting = outage.lasting(request.app[CLOCK](), door.source)
        log.error(  # noqa: TRY400 - an outage fills no log with tracebacks
            "delivery not stored",
            source=door.source.value,
            cause=type(error).__name__,
            outage_seconds=lasting,
        )
        if lasting < door.drop_seconds and request.transport is not None:
            request.transport.abort()
        return _refuse(door, 503, "the delivery can not be stored now")
    outage.over()
    await note_gaps(request.app)
    return web.json_response({"status": "accepted"}, status=202)


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next(filter(None, (headers.get(name.lower(), "") for name in names)), "")


async def note_gaps(app: web.Application) -> None:
    """Mark what was refused while nothing could be stored, so that a reconcile pass looks at that time.

    It must not cost the delivery at hand: what can not be marked now is marked with the next delivery.
    """
    refused = app[OUTAGE].take_refused()
    for source, since in refused.items():
        seconds = app[CLOCK]() - since
        try:
            async with asyncio.timeout(GAP_SECONDS):
                await app[INBOX].note_gap(source, seconds)
        except STORE_DOWN as error:
            app[OUTAGE].refused(source, since)
            log.warning("gap not recorded yet", source=source.value, cause=type(error).__name__)
        else:
            app[OUTAGE].over()
            log.warning("deliveries were refused during an outage", source=source.value, seconds=round(seconds, 1))


def _refuse(door: Door, status: int, reason: str) -> web.Response:
    log.info("delivery refused", source=door.source.value, status=status, reason=reason)
    response = web.json_response({"error": reason}, status=status)
    response.force_close()
    return response


_KEPT = frozenset(
    name.lower()
    for name in (
        "Content-Type",
        "User-Agent",
        plane.EVENT_HEADER,
        plane.DELIVERY_HEADER,
        gitea.EVENT_HEADER,
        gitea.DELIVERY_HEADER,
        gitea.FORGEJO_EVENT_HEADER,
        gitea.FORGEJO_DELIVERY_HEADER,
        "X-Gitea-Event",
        "X-Forgejo-Event",
        "X-Gitea-Hook-Installation-Target-Type",
    )
)


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The few headers worth keeping, as text that can be stored. Not being signed, they prove nothing."""
    return {
        name.lower(): value.encode("ascii", "backslashreplace").decode()[:200]
        for name, value in headers.items()
        if name.lower() in _KEPT
    }
