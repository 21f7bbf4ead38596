"""The services of the embedded stack, in the order they start."""

import dataclasses
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from temporalio.client import Client

from deploy import environment
from deploy.catalogue import PORTS
from deploy.demo.seed import seed
from deploy.home import Home, write_private
from deploy.migrate import upgrade
from deploy.ports import LOOPBACK
from deploy.postgres import Cluster
from deploy.service import Service
from deploy.setup import ensure_namespace, ensure_search_attributes
from deploy.temporal_server import TemporalServer
from workflows.names import NAMESPACE

_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True)
class Plan:
    """Everything there is to know before the first service starts."""

    home: Home
    names: tuple[str, ...]
    ports: Mapping[str, int]
    cluster: Cluster | None
    values: Mapping[str, str]
    secrets: Mapping[str, str]

    def services(self) -> list[Service]:
        """The services, in the order they start."""
        makers: dict[str, Callable[[], Service]] = {
            "postgres": self._postgres,
            "temporal": self._temporal,
            "sandbox": self._sandbox,
            "api": self._api,
            "worker": self._worker,
        }
        return [makers[name]() for name in self.names]

    @property
    def temporal(self) -> TemporalServer:
        """The Temporal server of this stack."""
        return TemporalServer(self.home.temporal, self.ports["temporal"], self.ports["temporal_ui"])

    def _postgres(self) -> Service:
        cluster = self.cluster
        assert cluster is not None

        async def prepare() -> None:
            await cluster.ensure_database()
            await upgrade(cluster.url())

        service = cluster.service(self.home.log("postgres"), environment.marker(self.home))
        return dataclasses.replace(service, once_ready=prepare)

    def _temporal(self) -> Service:
        async def prepare() -> None:
            client = await Client.connect(self.temporal.address, namespace=NAMESPACE)
            await ensure_namespace(client)
            await ensure_search_attributes(client)

        service = self.temporal.service(self.home.log("temporal"), environment.marker(self.home))
        return dataclasses.replace(service, once_ready=prepare)

    def _sandbox(self) -> Service:
        config = self.home.sandbox / "config.json"
        names = PORTS["sandbox"]
        write_private(config, json.dumps(sandbox_config(self.home, self.ports), indent=2) + "\n")
        urls = [f"http://{LOOPBACK}:{self.ports[name]}/_sandbox/healthz" for name in names]
        service = self._python("sandbox", ("deploy.sandbox", "--config", str(config)), answers(*urls))

        async def prepare() -> None:
            await seed(self.home, self.ports, self.secrets)

        # Who has no worker to configure wants the servers empty.
        return dataclasses.replace(service, once_ready=prepare) if "worker" in self.names else service

    def _api(self) -> Service:
        return self._python("api", ("api",), answers(f"http://{LOOPBACK}:{self.ports['api']}/healthz"))

    def _worker(self) -> Service:
        ready = self.temporal.worker_polls if "temporal" in self.names else _at_once
        # It drains for 30 s (worker.DRAIN), and needs some more to end what is left.
        return dataclasses.replace(self._python("worker", ("worker",), ready), stop_timeout=45)

    def _python(
        self, name: str, module_and_arguments: tuple[str, ...], ready: Callable[[datetime], Awaitable[bool]]
    ) -> Service:
        return Service(
            name=name,
            # -P: the home folder, in which it runs, is not a place to import from.
            argv=(sys.executable, "-P", "-m", *module_and_arguments),
            env=environment.for_service(name, self.values, os.environ) | environment.marker(self.home),
            ready=ready,
            log=self.home.log(name),
            cwd=self.home.root,
        )


def sandbox_config(home: Home, ports: Mapping[str, int]) -> dict[str, str | int]:
    """What the sandbox servers are told. People and browsers reach them by another name than programs do."""
    return {
        # Plane's own 60 calls a minute would make a demo of a minute wait for most of it.
        "plane_rate_limit": 6000,
        "home": str(home.sandbox),
        "host": LOOPBACK,
        **{f"{name}_port": ports[name] for name in PORTS["sandbox"]},
        "plane_public_url": f"http://localhost:{ports['plane']}",
        "gitea_public_url": f"http://localhost:{ports['gitea']}",
    }


def answers(*urls: str) -> Callable[[datetime], Awaitable[bool]]:
    """A probe: whether all these addresses answer with 200."""

    async def probe(_started: datetime) -> bool:
        try:
            async with aiohttp.ClientSession(timeout=_HTTP_TIMEOUT) as session:
                for url in urls:
                    async with session.get(url, allow_redirects=False) as answer:
                        if answer.status != 200:
                            return False
        except (aiohttp.ClientError, TimeoutError):
            return False
        return True

    return probe


async def _at_once(_started: datetime) -> bool:
    return True
