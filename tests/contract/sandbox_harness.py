"""A running sandbox with people in it, a receiver that keeps every webhook, and real git clients."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from deploy.sandbox import Sandbox, SandboxConfig

PLANE_SECRET, GITEA_SECRET = "plane_wh_test", "gitea-test-secret"
GITEA_TOKENS = {"author-bot": "g-author", "review-bot": "g-review", "anna": "g-anna", "root": "g-root"}
GATE = {"enable_status_check": True, "status_check_contexts": ["CI / test*"], "required_approvals": 1}


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Received:
    """One webhook, exactly as it arrived."""

    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON it carries."""
        return json.loads(self.raw)


@dataclass
class Receiver:
    """Takes webhooks; `status` is what it answers."""

    url: str = ""
    status: int = 202
    got: list[Received] = field(default_factory=list)

    def of(self, header: str, event: str) -> list[Received]:
        """What arrived under one event name."""
        return [hook for hook in self.got if hook.headers.get(header) == event]

    async def handle(self, request: web.Request) -> web.Response:
        """Keep it, then answer."""
        self.got.append(Received(dict(request.headers), await request.read()))
        return web.Response(status=self.status)


async def eventually(read: Callable[[], Any], seconds: float = 15) -> Any:
    """Poll until something true is read."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        result = await value if isinstance(value, Awaitable) else value
        if result:
            return result
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.02)


def started(*argv: str) -> bool:
    """Whether any process of this machine runs with exactly these arguments."""
    wanted = "".join(f"{word}\0" for word in argv).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False


class Harness:
    """The sandbox and everything a test says to it."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, receiver: Receiver) -> None:
        self.sandbox, self.session, self.receiver = sandbox, session, receiver
        self.plane_ids: dict[str, Any] = {}

    async def call(self, method: str, url: str, body: object = None, **headers: str) -> Answer:
        """One request."""
        data = None if body is None else json.dumps(body)
        sent = {"Content-Type": "application/json", **headers}
        async with self.session.request(method, url, data=data, headers=sent) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answer(response.status, json.loads(text) if is_json else text or None, dict(response.headers))

    async def plane(self, method: str, path: str, body: object = None, token: str = "p-bot") -> Answer:
        """One call of Plane's API; a path without a leading slash is below the project."""
        root = f"/api/v1/workspaces/acme/projects/{self.plane_ids['projects']['PAY']['id']}/"
        url = self.sandbox.plane_url + (path if path.startswith("/") else root + path)
        return await self.call(method, url, body, **{"X-API-Key": token})

    async def gitea(self, method: str, path: str, body: object = None, user: str = "author-bot") -> Answer:
        """One call of Gitea's API; a path without a leading slash is below the repository."""
        url = f"{self.sandbox.gitea_url}/api/v1" + (path if path.startswith("/") else f"/repos/acme/payments/{path}")
        return await self.call(method, url, body, Authorization=f"token {GITEA_TOKENS[user]}")

    async def control(self, server: str, method: str, path: str, body: object = None) -> Answer:
        """One call of a control API."""
        return await self.call(method, f"{self.sandbox.urls[server]}/_sandbox/{path}", body)

    async def seed(self, **repository: Any) -> None:
        """The same people and one repository for every test; arguments change the repository."""
        plane = {
            "workspace": {"slug": "acme", "name": "Acme"},
            "users": [
                {"display_name": "delivery-bot", "token": "p-bot", "is_bot": True},
                {"display_name": "olga", "token": "p-olga"},
            ],
            "projects": [{"identifier": "PAY", "name": "Payments", "labels": ["agent"]}],
            "webhooks": [{"url": f"{self.receiver.url}/plane", "secret": PLANE_SECRET}],
        }
        users = [{"login": login, "token": token, "is_admin": login == "root"} for login, token in GITEA_TOKENS.items()]
        wanted = {"owner": "acme", "name": "payments", "files": {"README.md": "# Payments\n"}, **repository}
        hook = {"repository": "acme/payments", "url": f"{self.receiver.url}/gitea", "secret": GITEA_SECRET}
        seeded = await self.control("plane", "POST", "seed", plane)
        assert seeded.status == 200, seeded.body
        self.plane_ids = seeded.body
        seeded = await self.control(
            "gitea", "POST", "seed", {"users": users, "repositories": [wanted], "hooks": [hook]}
        )
        assert seeded.status == 200, seeded.body

    async def git(self, *args: str, cwd: Path, check: bool = True) -> str:
        """Run a real git client; its words."""
        who = ["-c", "user.name=Author", "-c", "user.email=author-bot@example.com"]
        process = await asyncio.create_subprocess_exec(
            "git", *who, *args, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert not check or process.returncode == 0, out.decode()
        return out.decode().strip()

    async def clone(self, folder: Path, user: str = "author-bot") -> Path:
        """A clone over HTTP with the user's token as password."""
        address = self.sandbox.gitea_url.replace("://", f"://x:{GITEA_TOKENS[user]}@")
        await self.git("clone", "--quiet", f"{address}/acme/payments.git", str(folder), cwd=folder.parent)
        return folder

    async def push(self, clone: Path, branch: str, files: dict[str, str], *options: str) -> str:
        """Commit files on a branch and push it; the new sha."""
        await self.git("checkout", "--quiet", "-B", branch, cwd=clone)
        for name, text in files.items():
            (clone / name).write_text(text)
        await self.git("add", "--all", cwd=clone)
        await self.git("commit", "--quiet", "--message", f"Change {', '.join(files)}", cwd=clone)
        await self.git("push", "--quiet", *options, "origin", branch, cwd=clone)
        return await self.git("rev-parse", "HEAD", cwd=clone)

    async def open_pull(self, branch: str = "task/PAY-1", base: str = "main") -> Any:
        """Open a pull request and wait for its conflict check."""
        body = {"head": branch, "base": base, "title": "PAY-1: Add retry", "body": "Plane: PAY-1"}
        created = await self.gitea("POST", "pulls", body)
        assert created.status == 201, created.body

        async def checked() -> Any:
            answer = await self.gitea("GET", f"pulls/{created.body['number']}")
            return answer.body if answer.body["mergeable"] else None

        return await eventually(checked)

    async def combined(self, sha: str, state: str) -> Any:
        """Wait until the checks of a commit say so."""

        async def read() -> Any:
            body = (await self.gitea("GET", f"commits/{sha}/status")).body
            return body if body["state"] == state and body["statuses"] else None

        return await eventually(read)


@asynccontextmanager
async def harness(home: Path, receiver: Receiver | None = None, **config: Any) -> AsyncIterator[Harness]:
    """A sandbox in `home`; the same home again is a restart."""
    receiver = receiver or Receiver()
    app = web.Application()
    app.router.add_post("/{vendor}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = int(receiver.url.rsplit(":", 1)[1]) if receiver.url else 0
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = site.name if port else f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = SandboxConfig(home=home, **{"plane_rate_limit": 10_000, "plane_retry_base": 0, **config})
    try:
        async with Sandbox(settings) as sandbox, aiohttp.ClientSession() as session:
            yield Harness(sandbox, session, receiver)
    finally:
        await runner.cleanup()
