"""All servers in one process: start them, tell where they are, stop them promptly."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import ClassVar, Protocol, Self

from aiohttp import web
from pydantic import Field

from deploy.sandbox.config import SERVERS, SandboxConfig
from deploy.sandbox.gitea.server import GiteaServer
from deploy.sandbox.plane.server import PlaneServer
from deploy.sandbox.production import ProductionServer
from deploy.sandbox.store import Record, Store, Table
from deploy.sandbox.telegram import TelegramServer

STATE_FILE = "sandbox.json"
SHUTDOWN_SECONDS = 1.0


class Server(Protocol):
    """What the runtime needs of each server."""

    app: web.Application

    async def start(self) -> None:
        """Take up work."""

    async def stop(self) -> None:
        """Leave no work running."""


class Ports(Record):
    """The ports of the last run."""

    ONLY: ClassVar[str] = "last"
    ports: dict[str, int] = Field(default_factory=dict)


class Sandbox:
    """`async with Sandbox(config) as sandbox:` serves until the block ends."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.urls: dict[str, str] = {}
        self._runners: list[web.AppRunner] = []
        self._servers: list[Server] = []
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        """Start everything; if one part fails, stop the rest."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self.close()

    @property
    def plane_url(self) -> str:
        """Where the API is."""
        return self.urls["plane"]

    @property
    def gitea_url(self) -> str:
        """Where the API and git are."""
        return self.urls["gitea"]

    @property
    def telegram_url(self) -> str:
        """The base of /bot<token>/."""
        return self.urls["telegram"]

    @property
    def production_url(self) -> str:
        """The base of /staging/ and /production/."""
        return self.urls["production"]

    @property
    def plane_public_url(self) -> str:
        """What links for people start with."""
        return self.config.plane_public_url or _local(self.plane_url)

    @property
    def gitea_public_url(self) -> str:
        """What links for people start with; another one than the API's, as in most installations."""
        return self.config.gitea_public_url or _local(self.gitea_url)

    @property
    def _state_file(self) -> Path:
        return self.config.home / STATE_FILE

    async def _start(self) -> None:
        home = self.config.home
        home.mkdir(parents=True, exist_ok=True)
        self._store = Store(home / "sandbox.sqlite3")
        self._state_file.unlink(missing_ok=True)
        # Links inside answers name the port, so every port is taken before a server is built.
        table = Table(self._store, "sandbox.ports", Ports)
        last = table.get(Ports.ONLY) or Ports(id=Ports.ONLY)
        sockets = {name: self._take_port(name, last.ports.get(name, 0)) for name in SERVERS}
        ports = {name: int(taken.getsockname()[1]) for name, taken in sockets.items()}
        table.put(Ports(id=Ports.ONLY, ports=ports))
        self.urls = {name: f"http://{self.config.host}:{port}" for name, port in ports.items()}
        gitea = GiteaServer(self._store, self.config, self.gitea_public_url)

        def find_bare(owner: str, name: str) -> Path | None:
            repository = gitea.service.tables.repositories.get(f"{owner}/{name}")
            return gitea.service.path(repository) if repository else None

        built: dict[str, Server] = {
            "plane": PlaneServer(self._store, self.config),
            "gitea": gitea,
            "telegram": TelegramServer(self._store),
            "production": ProductionServer(home, find_bare),
        }
        for name, server in built.items():
            runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
            self._runners.append(runner)
            await runner.setup()
            await web.SockSite(runner, sockets[name]).start()
            self._servers.append(server)
            await server.start()
        self._write_state()

    def _take_port(self, name: str, last: int) -> socket.socket:
        """The configured port; for 0 the last run's if it is free, so that stored links still work."""
        configured = self.config.port(name)
        try:
            return socket.create_server((self.config.host, configured or last))
        except OSError:
            if configured:
                raise
            return socket.create_server((self.config.host, 0))

    def _write_state(self) -> None:
        """Written last and at once: a reader who finds the file finds running servers."""
        state = {
            "pid": os.getpid(),
            "ports": {name: int(url.rsplit(":", 1)[1]) for name, url in self.urls.items()},
            "urls": self.urls,
            "public_urls": {"plane": self.plane_public_url, "gitea": self.gitea_public_url},
        }
        fresh = self._state_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(state, indent=2) + "\n")
        fresh.replace(self._state_file)

    async def close(self) -> None:
        """Stop listening, then working, then remembering."""
        if self._store:
            self._state_file.unlink(missing_ok=True)
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        for server in self._servers:
            await server.stop()
        if self._store:
            self._store.close()
        self._runners, self._servers, self._store = [], [], None


def _local(url: str) -> str:
    return f"http://localhost:{url.rsplit(':', 1)[1]}"
