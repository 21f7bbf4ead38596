"""Git over HTTP: how it presents the token, and what a server's refusals mean. Also: killed half-way."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from activities.adapters.errors import AdapterError, GitError, NotFound, Unauthorized, Unavailable
from activities.adapters.git import GitAuth, Mirror
from tests.integration.git_world import make_world, names_in

TOKEN = "s3cret-token"


@dataclass
class Remote:
    """A server that answers every git request with one status, and remembers how it was asked."""

    status: int
    url: str = ""
    location: str = ""
    seen: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Remember the credential, answer the status."""
        self.seen.append(request.headers.get("Authorization", ""))
        headers = {"Location": self.location} if self.location else {}
        return web.Response(status=self.status, headers=headers, text="no")


@asynccontextmanager
async def serve(status: int, location: str = "") -> AsyncIterator[Remote]:
    """Start it on a free port."""
    remote = Remote(status, location=location)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", remote.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        remote.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield remote
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (403, Unauthorized), (404, NotFound), (500, Unavailable), (503, Unavailable)],
)
async def test_refusals_of_a_git_server_are_typed(tmp_path: Path, status: int, kind: type[AdapterError]) -> None:
    """A status of the server raises its type, with the token sent as a header and shown nowhere."""
    async with serve(status) as remote:
        mirror = Mirror(tmp_path / "m.git", f"{remote.url}/acme/repo.git", GitAuth(remote.url, TOKEN))
        with pytest.raises(kind) as caught:
            await mirror.ensure()
    secret = base64.b64encode(f"orch:{TOKEN}".encode()).decode()
    assert remote.seen[0] == f"Basic {secret}"
    assert TOKEN not in str(caught.value)
    assert secret not in str(caught.value)


async def test_the_token_is_not_sent_to_another_server(tmp_path: Path) -> None:
    """A token for one server is not given to a repository elsewhere, nor carried along by a redirect."""
    async with serve(404) as other, serve(302, f"{other.url}/x") as remote:
        auth = GitAuth(remote.url, TOKEN)
        with pytest.raises(AdapterError):
            await Mirror(tmp_path / "a.git", f"{other.url}/acme/repo.git", auth).ensure()
        assert other.seen
        assert not any(other.seen)
        other.seen.clear()
        with pytest.raises(AdapterError):
            await Mirror(tmp_path / "b.git", f"{remote.url}/acme/repo.git", auth).ensure()
        assert remote.seen
        assert other.seen == []


async def test_a_dead_server_is_unavailable(tmp_path: Path) -> None:
    """A refused connection means ask again, not give up."""
    with pytest.raises(Unavailable):
        await Mirror(tmp_path / "m.git", "http://127.0.0.1:9/acme/repo.git").ensure()


async def test_a_server_that_never_answers_ends_in_the_timeout(tmp_path: Path) -> None:
    """A stalled server costs the timeout, and nothing is left in the mirror's place."""
    stalled = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stalled.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/acme/repo.git"
        with pytest.raises(Unavailable):
            await Mirror(tmp_path / "m.git", url, timeout=0.5).ensure()
    finally:
        stalled.set()
        server.close()
    assert names_in(tmp_path) == ["m.git.lock"]


@pytest.mark.parametrize("steps", [1, 3, 8, 15, 30])
async def test_a_clone_cancelled_half_way_is_healed_by_the_next(tmp_path: Path, steps: int) -> None:
    """Wherever a clone is interrupted, no half mirror is taken for a whole one and nothing stays behind."""
    world = await make_world(tmp_path)
    mirror = Mirror(tmp_path / "second/repo.git", str(world.remote))
    task = asyncio.create_task(mirror.ensure())
    for _ in range(steps):
        await asyncio.wait([task], timeout=0.005)
    task.cancel()
    await asyncio.wait([task])
    await mirror.ensure()
    assert await mirror.resolve("main") == world.person.head
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["repo.git", "repo.git.lock"]


async def test_two_users_of_a_mirror_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Cloning, healing and fetching at once, from several objects, ends with one whole mirror."""
    world = await make_world(tmp_path)
    mirrors = [Mirror(tmp_path / "shared/repo.git", str(world.remote)) for _ in range(3)]
    await asyncio.gather(*(mirror.ensure() for mirror in mirrors))
    await asyncio.gather(*(mirror.fetch() for mirror in mirrors), *(mirror.ensure() for mirror in mirrors))
    assert await mirrors[0].resolve("main") == world.person.head


async def test_reading_a_mirror_that_is_gone_is_corrupt_and_healed(tmp_path: Path) -> None:
    """A mirror deleted under us reads as corrupt, and ensure brings it back."""
    world = await make_world(tmp_path)
    (world.mirror.path / "HEAD").unlink()
    with pytest.raises(GitError) as caught:
        await world.mirror.resolve("main")
    assert caught.value.kind == "corrupt"
    await world.mirror.ensure()
    assert await world.mirror.resolve("main") == world.person.head
