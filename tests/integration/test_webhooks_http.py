"""The webhook paths over real HTTP on a real PostgreSQL: what is refused, with what, and what is stored."""

import asyncio
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientSession, FormData, ServerDisconnectedError, web

from api import app as app_module
from api import health as health_module
from api.app import DROP_SECONDS, MAX_BODY, SERVER_OPTIONS, make_app
from api.health import Check
from api.inbox import Inbox, Status, open_pool
from tests.fake_temporal import FakeTemporal, rpc_error
from tests.integration.conftest import Postgres
from tests.integration.test_forwarder import make_forwarder
from tests.recorded import gitea_bytes, plane_bytes, recorded

PLANE_SECRET = b"plane-secret"
PREVIOUS_SECRET = b"plane-secret-before"
GITEA_SECRET = b"gitea-secret"
BODY = plane_bytes(recorded("plane/webhook_issue_updated_state_via_api.json")["body"])


async def well() -> None:
    """A dependency without trouble."""


@dataclass
class Api:
    """A running API."""

    host: str
    port: int
    http: ClientSession
    app: web.Application
    now: list[float] = field(default_factory=lambda: [0.0])

    async def post(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, str]:
        """Send a request; its status and text."""
        async with self.http.post(f"http://{self.host}:{self.port}{path}", data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def plane(self, body: bytes = BODY, *, secret: bytes = PLANE_SECRET, **headers: str) -> int:
        """Deliver as Plane does; the status."""
        return (await self.post("/webhooks/plane", body, plane_headers(body, secret) | headers))[0]

    async def gitea(self, body: bytes = b"{}") -> int:
        """Deliver as Gitea does; the status."""
        signature = hmac.new(GITEA_SECRET, body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Gitea-Event-Type": "push",
            "X-Gitea-Signature": signature,
        }
        return (await self.post("/webhooks/gitea", body, headers))[0]

    async def raw(self, head: str, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and send a request by hand, which need not be complete."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        lines = [*head.strip().splitlines(), f"Host: {self.host}", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        for part in parts:
            writer.write(part)
        await writer.drain()
        return reader, writer


def sign(body: bytes, secret: bytes = PLANE_SECRET) -> str:
    """Plane's signature."""
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def plane_headers(body: bytes, secret: bytes = PLANE_SECRET) -> dict[str, str]:
    """The headers Plane sends."""
    return {
        "Content-Type": "application/json",
        "X-Plane-Delivery": "80c33e4c-0c8a-47bb-a6f4-87ffd8ed21e1",
        "X-Plane-Event": "issue",
        "X-Plane-Signature": sign(body, secret),
    }


@asynccontextmanager
async def serving(inbox: Inbox, checks: dict[str, Check] | None = None) -> AsyncIterator[Api]:
    """The application on a port of its own, served as the composition root serves it."""
    now = [0.0]
    app = make_app(
        inbox,
        plane_secrets=(PLANE_SECRET, PREVIOUS_SECRET),
        gitea_secrets=(GITEA_SECRET,),
        checks=checks or {"postgresql": Check(probe=inbox.probe, required=True)},
        clock=lambda: now[0],
    )
    runner = web.AppRunner(app, **SERVER_OPTIONS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with ClientSession() as http:
        yield Api(host, port, http, app, now)
    await runner.cleanup()


@pytest.fixture
async def api(inbox: Inbox) -> AsyncIterator[Api]:
    """The API on empty tables."""
    async with serving(inbox) as running:
        yield running


async def stored(pool: asyncpg.Pool) -> int:
    """How many deliveries the inbox holds."""
    count: int = await pool.fetchval("SELECT count(*) FROM webhook_deliveries")
    return count


async def status_line(reader: asyncio.StreamReader) -> int:
    """The status of an answer read by hand."""
    line = await asyncio.wait_for(reader.readline(), 10)
    return int(line.split()[1])


async def test_a_signed_delivery_is_stored_and_accepted(api: Api, pool: asyncpg.Pool) -> None:
    """A delivery with a valid signature is answered 202 when its raw bytes and few headers are committed."""
    assert await api.plane() == 202
    row = await pool.fetchrow("SELECT source, body, headers, event, delivery_id, status FROM webhook_deliveries")
    assert row is not None
    assert (row["source"], row["body"], row["event"], row["status"]) == ("plane", BODY, "issue", "new")
    assert row["delivery_id"] == "80c33e4c-0c8a-47bb-a6f4-87ffd8ed21e1"
    kept = json.loads(row["headers"])
    assert set(kept) == {"content-type", "user-agent", "x-plane-delivery", "x-plane-event"}


async def test_every_recorded_gitea_delivery_is_accepted(api: Api, pool: asyncpg.Pool) -> None:
    """Gitea's bytes and signature are accepted on Gitea's path only."""
    body = gitea_bytes(recorded("gitea/webhook_push_update.json")["body"])
    assert await api.gitea(body) == 202
    signature = {"X-Plane-Signature": sign(body, GITEA_SECRET), "Content-Type": "application/json"}
    assert (await api.post("/webhooks/plane", body, signature))[0] == 401
    assert await stored(pool) == 1


async def test_the_previous_secret_is_accepted(api: Api) -> None:
    """A delivery signed with the secret before the rotation is accepted."""
    assert await api.plane(secret=PREVIOUS_SECRET) == 202


async def test_a_hundred_duplicates_are_one_row(api: Api, pool: asyncpg.Pool) -> None:
    """Concurrent copies of a delivery are all accepted and make one row that counts them."""
    assert set(await asyncio.gather(*(api.plane() for _ in range(100)))) == {202}
    assert await pool.fetchval("SELECT array_agg(times_received) FROM webhook_deliveries") == [100]


FORGED: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "no signature": lambda h: {k: v for k, v in h.items() if k != "X-Plane-Signature"},
    "empty": lambda h: h | {"X-Plane-Signature": ""},
    "wrong": lambda h: h | {"X-Plane-Signature": "0" * 64},
    "cut": lambda h: h | {"X-Plane-Signature": h["X-Plane-Signature"][:32]},
    "upper case": lambda h: h | {"X-Plane-Signature": h["X-Plane-Signature"].upper()},
    "prefixed": lambda h: h | {"X-Plane-Signature": "sha256=" + h["X-Plane-Signature"]},
    "not ascii": lambda h: h | {"X-Plane-Signature": "é" * 64},
    "of another secret": lambda h: h | {"X-Plane-Signature": sign(BODY, GITEA_SECRET)},
    "of other spacing": lambda h: (
        h | {"X-Plane-Signature": sign(json.dumps(json.loads(BODY), separators=(",", ":")).encode())}
    ),
    "of another body": lambda h: h | {"X-Plane-Signature": sign(BODY[:-1])},
}


async def test_every_forgery_gets_the_same_answer(api: Api, pool: asyncpg.Pool) -> None:
    """Whatever is wrong with a signature, the answer is one and the same 401, and nothing is stored."""
    headers = plane_headers(BODY)
    answers = {await api.post("/webhooks/plane", BODY, forge(headers)) for forge in FORGED.values()}
    assert answers == {(401, '{"error": "the signature is not valid"}')}
    assert await stored(pool) == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_only_post_is_allowed(api: Api, pool: asyncpg.Pool, method: str) -> None:
    """Any other method is answered 405, also with a method override."""
    headers = plane_headers(BODY) | {"X-HTTP-Method-Override": "POST"}
    url = f"http://{api.host}:{api.port}/webhooks/plane"
    async with api.http.request(method, url, data=BODY, headers=headers) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert await stored(pool) == 0


TYPES = {
    "application/json": 202,
    "Application/JSON; charset=utf-8": 202,
    "application/json; charset=utf-16": 415,
    "application/x-www-form-urlencoded": 415,
    "multipart/form-data; boundary=x": 415,
    "text/json": 415,
    "application/jsonp": 415,
    "application/vnd.api+json": 415,
    "": 415,
}


@pytest.mark.parametrize(("content_type", "status"), TYPES.items())
async def test_only_json_is_taken(api: Api, pool: asyncpg.Pool, content_type: str, status: int) -> None:
    """A correctly signed body of any other content type is answered 415 and not stored."""
    assert await api.plane(**{"Content-Type": content_type}) == status
    assert await stored(pool) == (status == 202)


async def test_two_content_types_are_refused(api: Api) -> None:
    """A request that names two content types is refused, whichever a reader would believe."""
    reader, writer = await api.raw(
        f"""POST /webhooks/plane HTTP/1.1
Content-Type: application/json
Content-Type: multipart/form-data
X-Plane-Signature: {sign(b"{}")}
Content-Length: 2""",
        b"{}",
    )
    assert await status_line(reader) in (400, 415)
    writer.close()


async def test_a_form_that_gitea_signed_is_refused(api: Api, pool: asyncpg.Pool) -> None:
    """Gitea's form encoding, whose signature is over a field of the form, is answered 415."""
    headers = {"X-Gitea-Event-Type": "push", "X-Gitea-Signature": sign(b"{}", GITEA_SECRET)}
    assert (await api.post("/webhooks/gitea", FormData({"payload": "{}"}), headers))[0] == 415
    assert await stored(pool) == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_compressed_bodies_are_refused(api: Api, pool: asyncpg.Pool, encoding: str) -> None:
    """A compressed body is answered 415 without being unpacked."""
    bomb = gzip.compress(bytes(5_000_000))
    assert await api.plane(bomb, **{"Content-Encoding": encoding}) == 415
    assert await stored(pool) == 0


async def test_identity_encoding_is_no_compression(api: Api) -> None:
    """An explicit identity encoding is accepted."""
    assert await api.plane(**{"Content-Encoding": "identity"}) == 202


async def test_the_largest_body_is_accepted(api: Api) -> None:
    """A body of exactly the limit is stored."""
    assert await api.plane(b" " * MAX_BODY) == 202


async def test_a_body_above_the_limit_is_refused(api: Api, pool: asyncpg.Pool) -> None:
    """One byte more is answered 413."""
    assert await api.plane(b" " * (MAX_BODY + 1)) == 413
    assert await stored(pool) == 0


async def test_an_announced_oversize_is_refused_before_the_body(api: Api) -> None:
    """A content length above the limit is answered 413 although not one byte of the body was sent."""
    reader, writer = await api.raw(
        f"POST /webhooks/plane HTTP/1.1\nContent-Type: application/json\nContent-Length: {MAX_BODY + 1}"
    )
    assert await status_line(reader) == 413
    writer.close()


async def test_a_chunked_oversize_is_refused_while_it_is_read(api: Api, pool: asyncpg.Pool) -> None:
    """A chunked body that has no end is answered 413 once it passes the limit."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    reader, writer = await api.raw(
        "POST /webhooks/plane HTTP/1.1\nContent-Type: application/json\nTransfer-Encoding: chunked",
        *[chunk] * 17,
    )
    assert await status_line(reader) == 413
    writer.close()
    assert await stored(pool) == 0


async def test_a_chunked_body_within_the_limit_is_accepted(api: Api) -> None:
    """A chunked body is judged by its bytes like any other."""

    async def chunks() -> AsyncIterator[bytes]:
        yield BODY[:100]
        yield BODY[100:]

    assert (await api.post("/webhooks/plane", chunks(), plane_headers(BODY)))[0] == 202


async def test_a_slow_body_is_given_up(api: Api, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not complete in time is answered 408 and the connection is closed."""
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.2)
    head = "\n".join(f"{name}: {value}" for name, value in plane_headers(BODY).items())
    reader, writer = await api.raw(f"POST /webhooks/plane HTTP/1.1\n{head}\nContent-Length: {len(BODY)}", BODY[:-1])
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 408")
    writer.close()
    assert await stored(pool) == 0


async def test_a_cut_body_is_not_stored(api: Api, pool: asyncpg.Pool) -> None:
    """A sender that goes away in the middle of its body leaves nothing, and the next one is served."""
    head = "\n".join(f"{name}: {value}" for name, value in plane_headers(BODY).items())
    reader, writer = await api.raw(f"POST /webhooks/plane HTTP/1.1\n{head}\nContent-Length: {len(BODY) + 5}", BODY)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert await stored(pool) == 0
    assert await api.plane() == 202


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"\x00", b"[" * 200_000, b'{"a": NaN}', b'{"a": "\\ud800\\u0000"}'])
async def test_signed_poison_is_accepted_and_dies_later(
    api: Api, pool: asyncpg.Pool, inbox: Inbox, body: bytes
) -> None:
    """What is signed is stored without being read; the forwarder makes it a dead row and goes on."""
    assert await api.plane(body) == 202
    assert await api.plane() == 202
    temporal = FakeTemporal()
    await make_forwarder(pool, temporal.client).forward_batch()
    found = await pool.fetch("SELECT status, reason FROM webhook_deliveries ORDER BY id")
    assert [row["status"] for row in found] == [Status.DEAD, Status.FORWARDED]
    assert found[0]["reason"]


@pytest.mark.parametrize("value", ["\udcff\udcfe", "a" * 5000, "é\u202e"])
async def test_odd_unsigned_headers_do_not_lose_a_signed_body(api: Api, pool: asyncpg.Pool, value: str) -> None:
    """Header values that could not be stored as they are do not keep the signed bytes from being stored."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    head = [f"{name}: {value}" for name, value in plane_headers(BODY).items() if name != "X-Plane-Event"]
    lines = [
        "POST /webhooks/plane HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(BODY)}",
        *head,
        f"X-Plane-Event: {value}",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + BODY)
    assert await status_line(reader) == 202
    writer.close()
    assert len(await pool.fetchval("SELECT event FROM webhook_deliveries")) <= 200


async def test_too_large_headers_are_refused(api: Api) -> None:
    """Headers beyond the limits are answered 400 without reaching a handler."""
    assert await api.plane(**{"X-Filler": "x" * 9000}) == 400
    assert await api.plane(**{f"X-{number}": "x" for number in range(70)}) == 400


async def test_postgresql_down_is_never_a_success(api: Api, postgres: Postgres) -> None:
    """While nothing can be stored Gitea is answered 503 and Plane's connection is dropped, later 503 too."""
    with postgres.down():
        for second in (0.0, DROP_SECONDS - 1):
            api.now[0] = second
            with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
                await api.plane()
            assert await api.gitea() == 503
        api.now[0] = DROP_SECONDS
        assert await api.plane() == 503
        assert await api.gitea() == 503
    assert await api.plane() == 202
    with postgres.down():
        api.now[0] += 1
        with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
            await api.plane()
    assert await api.gitea() == 202


async def test_an_outage_leaves_a_gap_on_record(api: Api, pool: asyncpg.Pool, postgres: Postgres) -> None:
    """The first delivery stored after an outage marks, once, from when on each sender was refused."""
    with postgres.down():
        assert await api.gitea() == 503
        api.now[0] = 60.0
        with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
            await api.plane()
        api.now[0] = 90.0
    assert await api.plane() == 202
    assert await api.gitea() == 202
    gaps = await pool.fetch("SELECT source, extract(epoch FROM until - since)::int FROM intake_gaps ORDER BY 1")
    assert [tuple(gap) for gap in gaps] == [("gitea", 90), ("plane", 30)]


async def test_without_an_outage_there_is_no_gap(api: Api, pool: asyncpg.Pool) -> None:
    """Deliveries that were all stored leave no marker."""
    assert await api.plane() == 202
    assert await pool.fetchval("SELECT count(*) FROM intake_gaps") == 0


async def test_a_gap_that_can_not_be_recorded_costs_no_delivery_and_is_not_forgotten(
    api: Api, pool: asyncpg.Pool, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing marker leaves the delivery accepted, and the next delivery writes it."""

    async def fail(*_: object) -> None:
        raise asyncpg.InterfaceError("made up")

    with postgres.down():
        assert await api.gitea() == 503
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "note_gap", fail)
        assert await api.gitea() == 202
    assert await pool.fetchval("SELECT count(*) FROM intake_gaps") == 0
    assert await api.gitea(b'{"again": 1}') == 202
    assert await pool.fetchval("SELECT source FROM intake_gaps") == "gitea"


async def test_a_postgresql_that_hangs_is_answered_in_time(api: Api, pool: asyncpg.Pool) -> None:
    """An insert that does not end is given up within five seconds and answered 503."""
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE webhook_deliveries IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            assert await api.gitea() == 503
    assert await api.gitea() == 202


async def test_storing_as_a_whole_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> None:
    """However its parts are delayed, storing is given up in time and answered 503."""

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app_module, "STORE_SECONDS", 0.1)
    monkeypatch.setattr(Inbox, "receive", hang)
    async with asyncio.timeout(5):
        assert await api.gitea() == 503


async def test_an_unreachable_postgresql_is_answered_in_time() -> None:
    """A server that takes connections and says nothing is given up within five seconds and answered 503."""

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    pool = await open_pool(f"postgresql://orch@127.0.0.1:{port}/postgres")
    async with serving(Inbox(pool)) as api, asyncio.timeout(5):
        assert await api.gitea() == 503
    pool.terminate()
    silent.close()


async def test_temporal_down_is_accepted_and_forwarded_later(api: Api, pool: asyncpg.Pool) -> None:
    """Deliveries are accepted while Temporal is down and reach their task when it is back."""
    temporal = FakeTemporal(error=lambda _: rpc_error(14))
    forwarder = make_forwarder(pool, temporal.client, poll=timedelta(seconds=0.1))
    stop = asyncio.Event()
    loop = asyncio.create_task(forwarder.run(stop))
    assert await api.plane() == 202
    await becomes(pool, "SELECT reason <> '' FROM webhook_deliveries")
    temporal.error = lambda _: None
    await becomes(pool, "SELECT status = 'forwarded' FROM webhook_deliveries")
    stop.set()
    await asyncio.wait_for(loop, 10)
    assert [id_ for id_, _ in temporal.signals] == ["task/PAY-1"]


async def becomes(pool: asyncpg.Pool, question: str) -> None:
    """Wait until the database answers a question with yes."""
    async with asyncio.timeout(20):
        while True:
            if await pool.fetchval(question):
                return
            await asyncio.sleep(0.02)


async def test_a_redelivery_over_http_wakes_again(api: Api, pool: asyncpg.Pool) -> None:
    """The same delivery sent again after it was forwarded wakes its task once more."""
    temporal = FakeTemporal()
    forwarder = make_forwarder(pool, temporal.client)
    for _ in range(2):
        assert await api.plane() == 202
        assert await forwarder.forward_batch() == 1
    assert len(temporal.signals) == 2
    assert await stored(pool) == 1


async def test_a_refused_request_leaves_no_connection_busy(api: Api, pool: asyncpg.Pool) -> None:
    """After every kind of refusal the next delivery on a fresh connection is accepted."""
    for headers in ({"Content-Type": "text/plain"}, {"X-Plane-Signature": "x"}, {"Content-Encoding": "gzip"}):
        assert await api.plane(**headers) in (401, 415)
        assert await api.plane() == 202
    assert await stored(pool) == 1


async def test_healthz_asks_nobody(api: Api, postgres: Postgres) -> None:
    """The process is alive also while PostgreSQL is down."""
    with postgres.down():
        async with api.http.get(f"http://{api.host}:{api.port}/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "alive"})


async def test_readyz_names_the_cause(inbox: Inbox, postgres: Postgres) -> None:
    """Without Temporal the API is degraded but ready for webhooks; without PostgreSQL it is not ready."""
    trouble: list[Exception] = []

    async def temporal() -> None:
        if trouble:
            raise trouble[0]

    checks = {
        "postgresql": Check(probe=inbox.probe, required=True),
        "temporal": Check(probe=temporal, required=False),
    }

    async with serving(inbox, checks) as api:

        async def ask() -> tuple[int, Any]:
            async with api.http.get(f"http://{api.host}:{api.port}/readyz") as answer:
                return answer.status, await answer.json()

        fine = {"ok": True, "cause": ""}
        assert await ask() == (
            200,
            {"status": "ready", "dependencies": {"postgresql": fine, "temporal": fine}},
        )
        trouble.append(RuntimeError("Failed client connect: https://temporal.internal:7233, token s3cret"))
        cause = {"ok": False, "cause": "can not be reached"}
        assert await ask() == (
            200,
            {"status": "degraded", "dependencies": {"postgresql": fine, "temporal": cause}},
        )
        with postgres.down():
            status, found = await ask()
        assert (status, found["status"]) == (503, "not ready")
        assert found["dependencies"]["postgresql"]["cause"] == "can not be reached"


async def test_readyz_does_not_wait_for_a_hanging_dependency(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that does not answer is a cause of its own."""
    monkeypatch.setattr(health_module, "PROBE_SECONDS", 0.1)
    checks = {"temporal": Check(probe=asyncio.Event().wait, required=False)}  # type: ignore[dict-item]
    async with serving(inbox, checks) as api, api.http.get(f"http://{api.host}:{api.port}/readyz") as answer:
        assert (await answer.json())["dependencies"]["temporal"]["cause"] == "no answer in time"


@pytest.mark.parametrize("secrets", [(), (b"",), (b"good", b"")])
async def test_no_application_without_secrets(inbox: Inbox, secrets: tuple[bytes, ...]) -> None:
    """An application cannot even be built with a missing or an empty secret."""
    with pytest.raises(ValueError, match="secret"):
        make_app(inbox, plane_secrets=secrets, gitea_secrets=(GITEA_SECRET,), checks={})
    with pytest.raises(ValueError, match="secret"):
        make_app(inbox, plane_secrets=(PLANE_SECRET,), gitea_secrets=secrets, checks={})
