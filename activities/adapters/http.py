"""One HTTP client under all API adapters: bounded, without redirects, with typed errors and no retries.

Redirects are off because aiohttp sends `X-API-Key` on to whatever host it is redirected to
(research/reliability_ux.md, fact 15).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError
from yarl import URL

from activities.adapters.errors import (
    AdapterError,
    Conflict,
    NotFound,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)

_M = TypeVar("_M", bound=BaseModel)

READ_METHODS = frozenset({"GET", "HEAD"})
DEFAULT_RETRY_AFTER = 30.0
"""Seconds to wait after a 429 that does not say; half of Plane's sliding window (contracts/plane.md, 2)."""
MAX_RETRY_AFTER = 3600.0
_MESSAGE_KEYS = ("message", "error", "detail", "error_message", "description")
_MAX_MESSAGE = 300
_CHUNK = 64 * 1024
_WHOLE_BODY = object()


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. `label` names the request in error messages: method and path, no host, no query."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    label: str
    method: str = "GET"

    def json(self) -> object:
        """The body as JSON.

        Raises:
            Unavailable: half a body, or HTML from a proxy; ambiguous if the request was a write.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise self._useless("the body is not JSON") from None

    def model(self, model: type[_M]) -> _M:
        """The body as one object of `model`; raises Unavailable if it has another shape."""
        return self.parse(TypeAdapter(model), self.json())

    def models(self, model: type[_M], data: object = _WHOLE_BODY) -> tuple[_M, ...]:
        """The body, or `data` taken out of it, as a list of `model`; null is the empty list, as in Gitea."""
        found = self.json() if data is _WHOLE_BODY else data
        if found is None:
            return ()
        if not isinstance(found, list):
            raise self._useless("there is no list in it")
        adapter = TypeAdapter(model)
        return tuple(self.parse(adapter, row) for row in found)

    def parse(self, adapter: TypeAdapter[_M], data: object) -> _M:
        """Validate `data`; the error names fields only, because values may hold anything."""
        try:
            return adapter.validate_python(data)
        except ValidationError as error:
            fields = ", ".join(".".join(str(part) for part in item["loc"]) or "body" for item in error.errors()[:5])
        raise self._useless(f"the body has another shape ({fields})")

    def _useless(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self.label}: {self.status}, but {why}",
            ambiguous=self.method not in READ_METHODS,
            status=self.status,
        )


class HttpClient:
    """Sends requests to one service under one base URL.

    `timeout` is seconds for a whole request; `max_bytes` bounds the unpacked body. `service` names the far
    side in errors. `secrets` are texts that must never appear in one, such as a token in the base URL.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        service: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        max_bytes: int = 16 * 1024 * 1024,
        secrets: Sequence[str] = (),
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/") + "/"
        self._service = service
        self._headers = dict(headers or {})
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._max_bytes = max_bytes
        self._secrets = tuple(secret for secret in secrets if secret)

    async def send(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, json: object = None
    ) -> Response:
        """Send one request and return the answer whatever its status. `path` must be percent-encoded already.

        Raises:
            Unavailable: no complete answer came.
        """
        label = f"{self._service} {method} {path}"
        url = URL(self._base + path + (f"?{urlencode(params)}" if params else ""), encoded=True)
        writes = method not in READ_METHODS
        try:
            async with self._session.request(
                method, url, json=json, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                body = await self._read(answer)
                if body is not None:
                    return Response(answer.status, dict(answer.headers), body, label, method)
                failure = Unavailable(f"{label}: the answer is larger than {self._max_bytes} bytes", ambiguous=writes)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            failure = Unavailable(f"{label}: cannot connect ({type(error).__name__})")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            failure = Unavailable(f"{label}: no complete answer ({type(error).__name__})", ambiguous=writes)
        # Raised outside the handlers so that aiohttp's exception, whose text holds the URL, is not chained.
        raise failure

    async def request(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, json: object = None
    ) -> Response:
        """Like `send`, but any status other than 2xx raises what `status_error` makes of it."""
        answer = await self.send(method, path, params=params, json=json)
        error = status_error(answer.status, answer.headers, answer.body, method=method, label=answer.label)
        if error is not None:
            raise self._redacted(error)
        return answer

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes | None:
        parts = bytearray()
        while chunk := await answer.content.read(_CHUNK):
            parts += chunk
            if len(parts) > self._max_bytes:
                answer.close()
                return None
        return bytes(parts)

    def _redacted(self, error: AdapterError) -> AdapterError:
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        error.args = (text,)
        return error


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, method: str, label: str
) -> AdapterError | None:
    """What an HTTP answer means, or None for 2xx. Pure, so that the whole table can be tested.

    A 5xx to a write is ambiguous: Gitea may have merged before it failed (contracts/gitea.md, 3).
    """
    if 200 <= status < 300:
        return None
    data = parse_body(body)
    message = f"{label}: {status} {message_of(data)}".rstrip()
    if status in (401, 403):
        return Unauthorized(message, status=status)
    if status in (404, 410):
        return NotFound(message, status=status)
    if status == 409:
        return Conflict(message, body=data)
    return _temporary(status, headers, message, method) or _refused(status, message, data)


def _temporary(status: int, headers: Mapping[str, str], message: str, method: str) -> AdapterError | None:
    if status == 429:
        return RateLimited(message, retry_after=retry_after_of(headers) or DEFAULT_RETRY_AFTER)
    if status >= 500 or status in (408, 425):
        return Unavailable(
            message,
            ambiguous=method not in READ_METHODS,
            status=status,
            retry_after=retry_after_of(headers),
        )
    return None


def _refused(status: int, message: str, data: object) -> Rejected:
    hint = " (a redirect: set the base URL to the final address)" if 300 <= status < 400 else ""
    return Rejected(message + hint, status=status, body=data)


def parse_body(body: bytes) -> object:
    """The body as JSON where it is JSON, else as text cut short."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body[:_MAX_MESSAGE].decode("utf-8", "replace")


def message_of(data: object) -> str:
    """The human part of an error body, in one line.

    Plane uses error, detail, error_message or {"field": [...]}; Gitea message; Telegram description
    (contracts/plane.md, 2; contracts/gitea.md, 3; contracts/telegram.md).
    """
    if isinstance(data, dict):
        named = next((data[key] for key in _MESSAGE_KEYS if isinstance(data.get(key), str)), None)
        text = named if named is not None else json.dumps(data, ensure_ascii=False)
    else:
        text = data if isinstance(data, str) else ""
    return " ".join(text.split())[:_MAX_MESSAGE]


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for by Retry-After (a number or an HTTP date), at most an hour; None if not said."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else None


def _seconds_until(http_date: str) -> float:
    try:
        when = parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
