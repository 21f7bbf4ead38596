"""One running embedded stack, somebody who acts as olga, and somebody who kills things."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import aiohttp
import asyncpg
import psutil
from temporalio.client import Client

from deploy import processes
from deploy.demo import seed
from deploy.demo.playbook import playbook
from deploy.demo.shop import CHANGE, FIRST_TRY
from deploy.embedded import EmbeddedStack
from deploy.logs import tail
from workflows.names import NAMESPACE
from workflows.plugin import orch_plugin

Seen = TypeVar("Seen")
Row = dict[str, Any]

SERVICES = ("postgres", "temporal", "sandbox", "api", "worker")
AWAY = (
    OSError,
    TimeoutError,
    aiohttp.ClientError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What is raised while a server that was killed is not back yet."""
POLL = 0.1
PATIENCE = 90.0
"""Seconds after which a condition that does not come is a failure; nothing waits this long by itself."""

WORK: list[dict[str, object]] = [
    FIRST_TRY[0],
    *CHANGE[:2],
    {"write": "notes/{key}.md", "text": "# {title}\n\nWhat {key} changed.\n"},
    {"commit": "{key}: the change and its note"},
]
"""The developer's steps: every task changes a file of its own, also when an earlier one mended the shop."""


@dataclass
class Orch:
    """A stack that runs, with a hand on each of its servers."""

    stack: EmbeddedStack
    http: aiohttp.ClientSession
    ports: dict[str, int]
    environment: dict[str, str]
    keys: list[str] = field(default_factory=list)
    pushed_by_people: set[str] = field(default_factory=set)
    """Commits that olga put on main herself."""

    # -- acting as olga ------------------------------------------------------------------------------------

    async def request(self, method: str, server: str, path: str, body: object = None, token: str = "") -> Any:
        """Talk to one of the sandbox servers."""
        url = f"http://127.0.0.1:{self.ports[server]}{path}"
        headers = {"X-API-Key": token, "Authorization": f"token {token}"} if token else {}
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            assert answer.status < 300, f"{method} {url}: {answer.status} {text}"
            return json.loads(text) if text else None

    async def create(self, name: str, description: str = "<p>Totals must be whole cents.</p>") -> str:
        """A new item that nobody works on yet."""
        body = {
            "actor": seed.PERSON,
            "project": seed.PROJECT,
            "name": name,
            "description_html": description,
            "state": "Todo",
        }
        made = await self.request("POST", "plane", "/_sandbox/ui/items", body)
        self.keys.append(made["key"])
        return str(made["key"])

    async def move(self, key: str, state: str, actor: str = seed.PERSON) -> Row:
        """Move an item, as a person does in Plane's web UI."""
        body = {"actor": actor, "state": state}
        moved: Row = await self.request("PATCH", "plane", f"/_sandbox/ui/items/{key}", body)
        return moved

    async def start(self, name: str, **more: str) -> str:
        """A new item that is being worked on."""
        key = await self.create(name, **more)
        await self.move(key, "In Progress")
        return key

    async def asked(self, key: str, *, after: str = "") -> str:
        """Wait until a decision on a spec (another than `after`) is asked for; its digest."""

        async def asks() -> str:
            row = await self.task(key)
            waits = row and row["spec_digest"] != after and row["waiting_on"] == "person"
            return str(row["spec_digest"]) if row and waits else ""

        return await self.until(f"{key} asks for a decision", asks, key)

    async def approve_when_asked(self, key: str) -> None:
        """Approve the spec once a decision on it is asked for."""
        await self.asked(key)
        await self.until(f"{key} is approved", lambda: self.move(key, "Approved"), key)

    async def done(self, key: str, seconds: float = PATIENCE) -> Row:
        """Wait until the task has ended as done; a task that asks for a person has failed."""

        async def ended() -> Row | None:
            row = await self.task(key)
            if row and row["needs_human"] and row["stage"] != "analysis":
                raise AssertionError(f"{key} needs a person: {row['waiting_reason']}\n{await self.report(key)}")
            return row if row and row["ended_at"] else None

        row = await self.until(f"{key} has ended", ended, key, seconds)
        assert row["outcome"] == "done", await self.report(key)
        return row

    async def carry_through(self, name: str) -> str:
        """One task from an item to production."""
        key = await self.start(name)
        await self.approve_when_asked(key)
        await self.done(key)
        return key

    def play(self, **sleeps: float) -> None:
        """Let roles work this many seconds, after they have done their work and before they say so."""
        rounds = playbook(WORK)
        for role, seconds in sleeps.items():
            steps = rounds[role][0]
            steps.insert(len(steps) - 1, {"sleep": seconds})
        self.perform(rounds)

    def perform(self, rounds: dict[str, list[list[Row]]]) -> None:
        """Give the scripted agents another playbook."""
        fresh = self.stack.home.root / ".playbook.json"
        fresh.write_text(json.dumps(rounds))
        fresh.replace(seed.playbook_file(self.stack.home))

    async def faults(self, server: str, *routes: Row, **webhooks: object) -> None:
        """Put route and webhook faults in force on a sandbox server; none: everything works again."""
        body = {"routes": list(routes), "webhooks": webhooks}
        await self.request("PUT", server, "/_sandbox/faults", body)

    async def commit_to_main(self, path: str, text: str) -> None:
        """Change a file on main, as somebody does who may push there."""
        body = {"actor": seed.PERSON, "branch": "main", "files": {path: text}, "message": f"Change {path}"}
        await self.request("POST", "gitea", f"/_sandbox/ui/repos/{seed.OWNER}/shop/commits", body)
        branch = await self.gitea("/branches/main")
        self.pushed_by_people.add(str(branch["commit"]["id"]))

    # -- looking -------------------------------------------------------------------------------------------

    async def rows(self, query: str, *values: object) -> list[Row]:
        """Ask PostgreSQL, over a connection of its own: the server may have been killed since."""
        connection = await asyncpg.connect(self.environment["ORCH_DATABASE_URL"], timeout=5)
        try:
            return [dict(row) for row in await connection.fetch(query, *values, timeout=5)]
        finally:
            await connection.close(timeout=5)

    async def task(self, key: str) -> Row | None:
        """The newest generation's row."""
        found = await self.rows("SELECT * FROM tasks WHERE task = $1 ORDER BY generation DESC LIMIT 1", key)
        return found[0] if found else None

    async def comments(self, key: str) -> list[Row]:
        """The item's comments in Plane."""
        item = (await self.rows("SELECT item_id, project_id FROM items WHERE task = $1", key))[0]
        path = f"/api/v1/workspaces/{seed.WORKSPACE}/projects/{item['project_id']}/work-items/{item['item_id']}"
        token = self.environment["ORCH_PLANE_TOKEN"]
        page = await self.request("GET", "plane", f"{path}/comments/?per_page=100", token=token)
        found: list[Row] = page["results"]
        return found

    async def gitea(self, path: str) -> Any:
        """Read something of the repository from Gitea's API."""
        token = self.environment["ORCH_GITEA_TOKEN"]
        return await self.request("GET", "gitea", f"/api/v1/repos/{seed.OWNER}/shop{path}", token=token)

    async def temporal(self) -> Client:
        """A client of the running Temporal."""
        address = self.environment["TEMPORAL_ADDRESS"]
        return await Client.connect(address, namespace=NAMESPACE, plugins=[orch_plugin()])

    async def cli(self, *words: str) -> tuple[int, str, str]:
        """Run the `temporal` command; its exit code, output and errors."""
        program = str(Path(sys.executable).with_name("temporal"))
        wanted = {name: self.environment[name] for name in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE")}
        process = await asyncio.create_subprocess_exec(
            program,
            *words,
            env={"PATH": os.defpath, "HOME": str(self.stack.home.root), **wanted},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def until(
        self, what: str, probe: Callable[[], Awaitable[Seen | None]], key: str = "", seconds: float = PATIENCE
    ) -> Seen:
        """Wait for a condition; a server that is away for a moment is asked again."""
        deadline = time.monotonic() + seconds
        while True:
            problem = ""
            try:
                if seen := await probe():
                    return seen
            except AWAY as error:
                problem = f"; last answer: {type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}{problem}\n{await self.report(key)}")
            await asyncio.sleep(POLL)

    async def report(self, key: str) -> str:
        """Everything that helps to see why a task stands still."""
        parts = []
        with contextlib.suppress(*AWAY):
            lines = await self.rows("SELECT * FROM transitions WHERE task = $1 ORDER BY n", key)
            parts += [f"{line['at']:%H:%M:%S.%f} {line['stage']} r{line['round']} {line['text']}" for line in lines]
            runs = await self.rows("SELECT * FROM agent_runs WHERE task = $1 ORDER BY started_at", key)
            parts += [f"run {r['stage']} r{r['round']} {r['attempt']} {r['outcome']} {r['reason']}" for r in runs]
            parts.append(str(await self.task(key)))
        parts += [f"--- {name}.log\n{tail(self.stack.home.log(name))}" for name in SERVICES]
        return "\n".join(parts)

    def agent_processes(self, prefix: str) -> list[psutil.Process]:
        """Living processes of runs whose id begins like this, for instance `DEMO-1/g1/review/r1/agent`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                run_id = process.environ().get("ORCH_RUN_ID", "")
                if run_id.startswith(f"{self.stack.home.root}/{prefix}") and processes.is_alive(process):
                    found.append(process)
        return found

    async def running(self, prefix: str, key: str) -> list[psutil.Process]:
        """Wait until such a run has a process."""

        async def seen() -> list[psutil.Process]:
            return await asyncio.to_thread(self.agent_processes, prefix)

        return await self.until(f"{prefix} runs", seen, key)

    async def attempts(self, key: str, stage: str) -> list[str]:
        """How the agent runs of a stage ended, in order."""
        query = "SELECT outcome FROM agent_runs WHERE task = $1 AND stage = $2 ORDER BY started_at"
        return [row["outcome"] for row in await self.rows(query, key, stage)]

    # -- killing -------------------------------------------------------------------------------------------

    def signal(self, service: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a service; answer which process got it."""
        pid = self.stack.status().service(service).pid
        assert pid is not None, f"{service} does not run"
        os.kill(pid, number)
        return pid

    async def back(self, service: str, dead: int, key: str = "") -> None:
        """Wait until the supervisor has started a service again."""

        async def is_back() -> bool:
            now = self.stack.status().service(service)
            return now.phase == "running" and now.pid not in {None, dead}

        await self.until(f"{service} runs again", is_back, key)

    async def gone(self, found: list[psutil.Process], key: str = "") -> None:
        """Wait until none of these processes lives."""

        async def all_dead() -> bool:
            return not any(processes.is_alive(process) for process in found)

        await self.until(f"{found} are gone", all_dead, key)


@contextlib.asynccontextmanager
async def running_stack(**settings: str) -> AsyncIterator[Orch]:
    """A fresh stack, deleted afterwards; `settings` are environment variables of its services."""
    folder = Path(tempfile.mkdtemp(prefix="orch-e2e-"))
    folder.chmod(0o711)
    stack = EmbeddedStack(folder / "home", owner_pid=os.getpid())
    try:
        with mock.patch.dict(os.environ, settings):
            status = await stack.up()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            orch = Orch(stack, http, dict(status.ports), dict(status.environment))
            orch.play()
            yield orch
    finally:
        await stack.destroy()
        shutil.rmtree(folder, ignore_errors=True)
