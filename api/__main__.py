"""Composition root of the API: `python -m api`."""

import asyncio
import logging
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from aiohttp import web
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from api.app import SERVER_OPTIONS, make_app, note_gaps
from api.breaker import Breaker
from api.forwarder import Forwarder
from api.gaps import GapWatch
from api.health import PROBE_SECONDS, Check
from api.inbox import Inbox, open_pool
from api.naming import Naming
from api.settings import EX_CONFIG, ConfigurationError, Loaded, load
from api.signalling import Tasks
from workflows.names import NAMESPACE
from workflows.plugin import orch_plugin

DRAIN_SECONDS = 20.0

log = structlog.get_logger("api")


async def connect_temporal() -> Client:
    """Temporal as its own environment and configuration file say; connected at the first call."""
    configured = ClientConfig.load_client_connect_config()
    options: dict[str, Any] = {"target_host": "localhost:7233", "namespace": NAMESPACE, **configured}
    return await Client.connect(**options, plugins=[orch_plugin()], lazy=True)


async def serve(loaded: Loaded, stop: asyncio.Event) -> None:
    """Accept webhooks and forward them until `stop` is set; then drain."""
    settings, projects = loaded
    pool = await open_pool(settings.database_url.get_secret_value())
    temporal = await connect_temporal()
    inbox = Inbox(pool)
    tasks = Tasks(temporal)
    forwarder = Forwarder(inbox, Naming(pool, projects), tasks, Breaker(pool, settings.wakes_per_hour))
    forwarding = asyncio.create_task(forwarder.run(draining := asyncio.Event()), name="forwarder")
    forwarding.add_done_callback(lambda _: stop.set())  # without it deliveries would pile up unseen

    async def ask_temporal() -> None:
        request = DescribeNamespaceRequest(namespace=temporal.namespace)
        await temporal.workflow_service.describe_namespace(request, timeout=timedelta(seconds=PROBE_SECONDS))

    app = make_app(
        inbox,
        plane_secrets=settings.plane_secrets,
        gitea_secrets=settings.gitea_secrets,
        checks={
            "postgresql": Check(probe=inbox.probe, required=True),
            "temporal": Check(probe=ask_temporal, required=False),
        },
    )
    watching = asyncio.create_task(GapWatch(pool, tasks, projects.projects, lambda: note_gaps(app)).run(), name="gaps")
    watching.add_done_callback(lambda _: stop.set())
    runner = web.AppRunner(app, **SERVER_OPTIONS)
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.api_host, settings.api_port).start()
        log.info("accepting webhooks", addresses=[f"{host}:{port}" for host, port, *_ in runner.addresses])
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()
        watching.cancel()
        draining.set()
        await _drain(forwarding)
        (ended,) = await asyncio.gather(watching, return_exceptions=True)
        await _close(pool)
        if isinstance(ended, Exception):
            raise ended
        log.info("stopped")


async def _drain(forwarding: "asyncio.Task[None]") -> None:
    """Let the batch in hand end. What is cut off comes due again when its lease ends."""
    done, _ = await asyncio.wait([forwarding], timeout=DRAIN_SECONDS)
    forwarding.cancel()
    if done:
        forwarding.result()


async def _close(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(5):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def run(loaded: Loaded) -> None:
    """Serve until SIGTERM or SIGINT; the second one ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        if stop.is_set():
            leave(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    await serve(loaded, stop)


def leave(code: int) -> None:
    """Flush and exit at once: the SDK can abort or hang while the interpreter shuts down (sdk-python#300)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def log_as_json() -> None:
    """One JSON object a line on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING)


def main() -> None:
    """Run the API; exits 0 after a stop that was asked for, 78 for a bad configuration, 1 for a failure."""
    log_as_json()
    try:
        loaded = load()
    except ConfigurationError as error:
        for problem in error.problems:
            sys.stderr.write(f"orch api: {problem}\n")
        leave(EX_CONFIG)
    try:
        asyncio.run(run(loaded))
    except Exception:
        log.exception("the api failed")
        leave(1)
    leave(0)


if __name__ == "__main__":
    main()
