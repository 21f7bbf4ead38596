"""The composition root: settings -> clients -> activities -> Workers; drain; exit."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import structlog
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from activities.adapters.http import HttpClient
from activities.adapters.plane import PlaneClient
from activities.adapters.store import Store, open_pool
from activities.adapters.telegram import TelegramClient
from activities.agents import Agents
from activities.base_tests import BaseTests
from activities.candidates import Candidates
from activities.deploy_commands import DeployCommands
from activities.deploy_secrets import DeploySecrets
from activities.deployments import Deployments
from activities.forge import Forge
from activities.gates import Gates
from activities.interceptor import WorkerInterceptor
from activities.items import Items
from activities.landing import Landing
from activities.leases import Leases
from activities.ledger import Ledger
from activities.mirrors import Mirrors
from activities.notifications import Sender
from activities.projects import Projects
from activities.pull_requests import PullRequests
from activities.reconcile import Reconcile, ensure_schedules
from activities.resolving import Resolving
from activities.runners.base import Runner
from activities.runners.claude import ClaudeOptions, ClaudeRunner, Patience
from activities.runners.command import CommandRunner
from activities.runners.isolation import Isolation
from activities.runners.prompt import Prompts
from activities.runners.scripted import ScriptedRunner
from activities.settings import ConfigError, WorkerSettings, exit_with, load_settings
from activities.situations import Situations
from activities.switches import MergeGate
from activities.workspaces import Workspaces
from workflows import names
from workflows.environment import EnvironmentWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.plugin import orch_plugin
from workflows.projects import OrchConfig
from workflows.reconcile import ReconcileWorkflow
from workflows.resolve import ResolveWorkflow
from workflows.task import TaskWorkflow

log = structlog.get_logger("worker")

DRAIN = timedelta(seconds=30)
"""How long running activities may go on after SIGTERM; what is left then is cancelled and retried elsewhere."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a worker is made of."""

    settings: WorkerSettings
    client: Client
    store: Store
    items: Items
    situations: Situations
    gates: Gates
    pull_requests: PullRequests
    workspaces: Workspaces
    base_tests: BaseTests
    agents: Agents
    candidates: Candidates
    landing: Landing
    deployments: Deployments
    leases: Leases
    ledger: Ledger
    reconcile: Reconcile
    resolving: Resolving
    sender: Sender | None


@contextlib.asynccontextmanager
async def assemble(settings: WorkerSettings, config: OrchConfig, client: Client) -> AsyncIterator[Parts]:
    """Make every client and every activity object; close what was opened."""
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url.get_secret_value())
        stack.push_async_callback(pool.close)
        store = Store(pool)
        token = settings.plane_token.get_secret_value()
        plane = PlaneClient(
            HttpClient(
                session,
                f"{settings.plane_url}/api/v1/",
                service="plane",
                headers={"X-API-Key": token},
                secrets=(token,),
            ),
            config.plane_workspace,
        )
        forge = Forge(session, settings, config.gitea_public_url)
        mirrors = Mirrors(settings)
        projects = Projects(settings.config, config)
        isolation = Isolation(required=settings.isolation == "required")
        yield Parts(
            settings=settings,
            client=client,
            store=store,
            items=Items(plane, forge, store, projects, settings.temporal_ui_url),
            situations=Situations(plane, forge, store, projects),
            gates=Gates(plane, forge, store, projects, MergeGate(settings)),
            pull_requests=PullRequests(forge, store),
            workspaces=Workspaces(mirrors, isolation, store, settings),
            base_tests=BaseTests(mirrors, isolation, settings),
            agents=Agents(_runners(settings), isolation, store, settings),
            candidates=Candidates(mirrors, forge, store, settings),
            landing=Landing(mirrors, forge, store, settings),
            deployments=Deployments(mirrors, DeployCommands(isolation, DeploySecrets(os.environ)), store, settings),
            leases=Leases(client, store),
            ledger=Ledger(store),
            reconcile=Reconcile(plane, client, store, projects, settings),
            resolving=Resolving(client, forge, store),
            sender=_sender(session, settings, store),
        )


def workers(parts: Parts) -> list[Worker]:
    """One Worker for each queue, so that a slow kind of work never starves another."""
    host = parts.settings.host_name
    shared: list[Callable[..., Any]] = [
        parts.gates.read_policy,
        parts.gates.evaluate_gate,
        parts.pull_requests.ensure_pull_request,
        parts.pull_requests.post_review,
        parts.workspaces.claim_host,
        parts.leases.request_lease,
        parts.leases.withdraw_lease,
        parts.leases.release_lease,
        parts.leases.open_lease,
        parts.leases.close_lease,
        parts.leases.inspect_holder,
        parts.leases.read_queue,
        parts.leases.record_queue_act,
        parts.leases.set_freeze,
        parts.leases.lift_freeze,
        parts.ledger.record_progress,
        parts.ledger.record_act,
        parts.ledger.read_acts,
        parts.resolving.resolve_rows,
        parts.resolving.settle_rows,
    ]
    plane: list[Callable[..., Any]] = [
        parts.items.begin_generation,
        parts.items.ask_decision,
        parts.items.settle_decision,
        parts.items.show_status,
        parts.items.post_comment,
        parts.items.move_item,
        parts.situations.read_situation,
        parts.gates.evaluate_gate,
        parts.reconcile.reconcile_project,
    ]
    work: list[Callable[..., Any]] = [
        parts.workspaces.prepare_workspace,
        parts.workspaces.publish_work,
        parts.workspaces.run_tests,
        parts.base_tests.test_base,
        parts.workspaces.remove_workspaces,
        parts.candidates.build_candidate,
        parts.landing.land,
        parts.deployments.deploy,
        parts.deployments.roll_back,
    ]
    return [
        _worker(
            parts.client,
            names.SHARED_QUEUE,
            shared,
            workflows=[TaskWorkflow, MergeQueueWorkflow, EnvironmentWorkflow, ReconcileWorkflow, ResolveWorkflow],
            # A worker killed hard keeps its cached workflows reserved this long.
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
        ),
        _worker(
            parts.client,
            names.PLANE_QUEUE,
            plane,
            max_task_queue_activities_per_second=parts.settings.plane_rate,
        ),
        _worker(parts.client, names.host_control_queue(host), [parts.workspaces.claim_host]),
        _worker(parts.client, names.host_work_queue(host), work, max_concurrent_activities=parts.settings.work_slots),
        _worker(
            parts.client,
            names.host_agent_queue(host),
            [parts.agents.run_agent],
            max_concurrent_activities=parts.settings.agent_slots,
        ),
    ]


def _worker(client: Client, queue: str, activities: Sequence[Callable[..., Any]], **more: Any) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        activities=activities,
        interceptors=[WorkerInterceptor()],
        graceful_shutdown_timeout=DRAIN,
        max_heartbeat_throttle_interval=timedelta(seconds=3),
        **more,
    )


def _runners(settings: WorkerSettings) -> dict[str, Runner]:
    prompts = Prompts()
    key = settings.anthropic_api_key
    options = ClaudeOptions(
        program=settings.claude_path,
        api_key=key.get_secret_value() if key else "",
        base_url=settings.anthropic_base_url,
        retries=settings.claude_retries,
        patience=Patience(
            tool=settings.agent_tool_silence,
            request=settings.agent_model_silence,
            after_result=settings.agent_exit_grace,
        ),
    )
    runners: dict[str, Runner] = {
        "claude": ClaudeRunner(options, prompts),
        "command": CommandRunner(tuple(shlex.split(settings.agent_command)), prompts),
    }
    if settings.scripted_playbook is not None:
        runners["scripted"] = ScriptedRunner(settings.scripted_playbook)
    return runners


def _sender(session: aiohttp.ClientSession, settings: WorkerSettings, store: Store) -> Sender | None:
    if settings.telegram_token is None or settings.telegram_chat is None:
        return None
    telegram = TelegramClient(session, settings.telegram_token.get_secret_value(), base_url=settings.telegram_url)
    return Sender(store.outbox, telegram, settings.telegram_chat)


async def serve(settings: WorkerSettings, config: OrchConfig, stop: asyncio.Event) -> None:
    """Work until told to stop, then drain."""
    connect = ClientConfig.load_client_connect_config()
    connect.setdefault("target_host", "127.0.0.1:7233")
    connect.setdefault("namespace", names.NAMESPACE)
    client = await Client.connect(**connect, plugins=[orch_plugin()])
    async with assemble(settings, config, client) as parts, contextlib.AsyncExitStack() as running:
        ours = workers(parts)
        for worker in ours:
            await running.enter_async_context(worker)
        await ensure_schedules(client, config, timedelta(seconds=settings.reconcile_interval))
        sender = asyncio.create_task(parts.sender.run()) if parts.sender else None
        log.info("worker_ready", host=settings.host_name, agent_slots=settings.agent_slots)
        stopping = asyncio.create_task(stop.wait())
        # The sender never ends by itself: if it does, the process ends with its error and is started again.
        await asyncio.wait({stopping, *([sender] if sender else [])}, return_when=asyncio.FIRST_COMPLETED)
        log.info("worker_draining", up_to_seconds=DRAIN.total_seconds())
        # All at once: a queue still polled while another one drains would be given work that it then drops,
        # and a dropped activity is missed only when its heartbeat is.
        await asyncio.gather(*(worker.shutdown() for worker in ours))
        if sender and not sender.cancel():
            sender.result()


def main() -> None:
    """Run a worker. SIGTERM drains; a second one stops at once."""
    try:
        settings, config = load_settings()
    except ConfigError as error:
        sys.exit(exit_with(error))
    structlog.configure(processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ])  # fmt: skip
    code = asyncio.run(_main(settings, config))
    sys.stdout.flush()
    sys.stderr.flush()
    # The SDK's runtime may abort or hang at interpreter exit (temporalio/sdk-python issue 300).
    os._exit(code)


async def _main(settings: WorkerSettings, config: OrchConfig) -> int:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(143)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await serve(settings, config, stop)
    return 0


if __name__ == "__main__":
    main()
