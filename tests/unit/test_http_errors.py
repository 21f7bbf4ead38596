"""HTTP answers and broken connections: what each means, in one table, and what never gets out."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError

from activities.adapters.errors import (
    AdapterError,
    Conflict,
    GitError,
    InvalidName,
    NotFound,
    ProcessNotStarted,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from activities.adapters.http import (
    DEFAULT_RETRY_AFTER,
    MAX_RETRY_AFTER,
    HttpClient,
    message_of,
    retry_after_of,
    status_error,
)
from activities.errors import MAX_MESSAGE, to_activity_error, translated, translating


@pytest.mark.parametrize(
    ("status", "kind", "ambiguous_for_writes"),
    [
        (301, Rejected, None),
        (302, Rejected, None),
        (307, Rejected, None),
        (400, Rejected, None),
        (401, Unauthorized, None),
        (403, Unauthorized, None),
        (404, NotFound, None),
        (405, Rejected, None),
        (408, Unavailable, True),
        (409, Conflict, None),
        (410, NotFound, None),
        (413, Rejected, None),
        (415, Rejected, None),
        (422, Rejected, None),
        (425, Unavailable, True),
        (429, RateLimited, None),
        (500, Unavailable, True),
        (502, Unavailable, True),
        (503, Unavailable, True),
        (504, Unavailable, True),
        (599, Unavailable, True),
    ],
)
def test_every_status_means_one_thing(status: int, kind: type[AdapterError], ambiguous_for_writes: bool | None) -> None:
    """Each status maps to one error type; only a write without an answer is ambiguous."""
    for method in ("GET", "POST"):
        error = status_error(status, {}, b'{"message": "why"}', method=method, label="gitea GET x")
        assert type(error) is kind
        assert error.status == status
        assert "why" in str(error)
        if isinstance(error, Unavailable):
            assert error.ambiguous is (bool(ambiguous_for_writes) and method == "POST")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_no_error(status: int) -> None:
    """2xx is success whatever the body."""
    assert status_error(status, {}, b"", method="POST", label="x") is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("56", 56.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("999999999", MAX_RETRY_AFTER),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
    ],
)
def test_retry_after_is_bounded_and_never_trusted(value: str, seconds: float | None) -> None:
    """Seconds are taken between 0 and an hour; nonsense is as good as nothing."""
    assert retry_after_of({"retry-after": value}) == seconds


def test_retry_after_may_be_a_date() -> None:
    """An HTTP date is turned into seconds from now; a past one is zero."""
    future = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < (retry_after_of({"Retry-After": future}) or 0) <= 90
    assert retry_after_of({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_rate_limit_without_a_word_waits_the_default() -> None:
    """A 429 that does not say how long gets our default."""
    error = status_error(429, {}, b"", method="GET", label="x")
    assert isinstance(error, RateLimited)
    assert error.retry_after == DEFAULT_RETRY_AFTER


def test_messages_are_one_short_line_from_the_usual_keys() -> None:
    """Whatever shape the error body has, the text is the human part, in one bounded line."""
    assert message_of({"error": "gone\n  away"}) == "gone away"
    assert message_of({"detail": "no"}) == "no"
    assert message_of({"state": ["Invalid pk"]}) == '{"state": ["Invalid pk"]}'
    assert message_of("<html>" + "x" * 1000).startswith("<html>")
    assert len(message_of({"message": "x" * 5000})) == 300
    assert message_of(None) == ""


# Against a raw socket: what a healthy server never sends.

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def socket_server(handler: Handler) -> AsyncIterator[str]:
    """A server that answers with raw bytes."""

    async def safe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(safe, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def says(data: bytes) -> Handler:
    """A handler that reads the head of a request and answers these bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return handler


@asynccontextmanager
async def client(url: str, **options: object) -> AsyncIterator[HttpClient]:
    """A client whose base URL holds a token, as Telegram's does."""
    async with aiohttp.ClientSession() as session:
        secret = {"X-API-Key": "key-123"}
        yield HttpClient(
            session,
            f"{url}/bot42:token",
            service="svc",
            headers=secret,
            secrets=("42:token",),
            **options,  # type: ignore[arg-type]
        )


class Thing(BaseModel):
    """A shape to expect."""

    id: int


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "data",
    [
        OK + b'Content-Length: 100\r\n\r\n{"id": 1',
        OK + b'\r\n{"id": ',
        OK + b"\r\n<html>please log in</html>",
        OK + b'\r\n{"id": "not a number"}',
        OK + b"\r\n[]",
        OK + b"\r\n" + b"[" * 100_000,
        OK + b"Content-Encoding: gzip\r\n\r\nnot gzip at all",
        OK + b"\r\n" + b" " * 2_000_000 + b'{"id": 1}',
        b"",
        b"garbage\r\n\r\n",
    ],
    ids=["cut", "half", "html", "shape", "list", "deep", "gzip", "large", "silent", "garbage"],
)
async def test_an_unusable_answer_is_unavailable_and_ambiguous_only_for_writes(data: bytes) -> None:
    """A cut, foreign, oversized or malformed answer raises Unavailable, no secret in its traceback."""
    async with socket_server(says(data)) as url, client(url, max_bytes=1_000_000) as http:
        for method in ("GET", "POST"):
            with pytest.raises(Unavailable) as caught:
                (await http.request(method, "things/1")).model(Thing)
            assert caught.value.ambiguous is (method == "POST")
            text = "".join(traceback.format_exception(caught.value))
            assert "42:token" not in text.replace(url, "")
            assert "key-123" not in text


async def test_a_silent_server_times_out(tmp_path: object) -> None:
    """A server that never answers ends in Unavailable after the timeout, ambiguous for a write."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with socket_server(silent) as url, client(url, timeout=0.2) as http:
        with pytest.raises(Unavailable) as caught:
            await http.request("POST", "things/")
        assert caught.value.ambiguous


async def test_a_refused_connection_is_not_ambiguous() -> None:
    """If nothing was sent, nothing can have happened."""
    async with socket_server(says(b"")) as url:
        pass
    async with client(url) as http:
        with pytest.raises(Unavailable) as caught:
            await http.request("POST", "things/")
    assert not caught.value.ambiguous
    assert "42:token" not in "".join(traceback.format_exception(caught.value))


async def test_redirects_are_not_followed_and_carry_no_key_away() -> None:
    """A redirect to another host is refused there and then; the other host sees no request at all."""
    asked: list[bytes] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    async with socket_server(other) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n".encode()
        async with socket_server(says(moved)) as url, client(url) as http:
            with pytest.raises(Rejected, match="redirect"):
                await http.request("GET", "things/")
    assert asked == []


async def test_an_error_body_that_repeats_the_token_is_redacted() -> None:
    """A server that echoes our token does not get it into our logs."""
    body = b'{"message": "bot42:token is wrong"}'
    data = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    async with socket_server(says(data)) as url, client(url) as http:
        with pytest.raises(Rejected) as caught:
            await http.request("GET", "things/")
    assert "42:token" not in str(caught.value)
    assert "is wrong" in str(caught.value)


# What Temporal is told.


@pytest.mark.parametrize(
    ("error", "permanent", "delay"),
    [
        (Unauthorized("x", status=401), True, None),
        (NotFound("x", status=404), True, None),
        (Conflict("x"), True, None),
        (Rejected("x", status=422), True, None),
        (InvalidName("x"), True, None),
        (ProcessNotStarted("x"), True, None),
        (RateLimited("x", retry_after=7), False, 7.0),
        (Unavailable("x"), False, None),
        (Unavailable("x", retry_after=0.5), False, 0.5),
        (GitError("x"), False, None),
        (GitError("x", kind="corrupt"), False, None),
        (GitError("x", kind="disk"), False, None),
        (GitError("x", kind="unsafe"), True, None),
        (GitError("x", kind="exists"), True, None),
        (ValueError("x"), False, None),
    ],
)
def test_errors_become_retries_or_ends(error: Exception, permanent: bool, delay: float | None) -> None:
    """What asking again cannot mend is final; what the server timed waits exactly that long."""
    failure = to_activity_error(error)
    assert (failure.type, failure.non_retryable) == (type(error).__name__, permanent)
    assert (failure.next_retry_delay.total_seconds() if failure.next_retry_delay else None) == delay


def test_activity_errors_are_short_and_say_what_is_known() -> None:
    """The text is bounded and the detail tells status and ambiguity."""
    failure = to_activity_error(Unavailable("y" * 10_000, ambiguous=True, status=502))
    assert len(failure.message) == MAX_MESSAGE
    assert failure.details == ({"status": 502, "ambiguous": True},)


async def test_translated_changes_adapter_errors_only() -> None:
    """A decorated activity turns adapter errors into activity errors and leaves all else alone."""

    @translated
    async def act(error: BaseException | None) -> int:
        if error is not None:
            raise error
        return 7

    assert await act(None) == 7
    with pytest.raises(ApplicationError):
        await act(NotFound("x"))
    for error in (ValueError("x"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await act(error)
    with pytest.raises(ApplicationError), translating():
        raise Rejected("x")
