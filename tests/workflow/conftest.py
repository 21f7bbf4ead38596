"""One real Temporal server for the session, with a virtual clock that moves only when a test says so."""

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment
from temporalio.worker import Worker

from activities.interceptor import WorkerInterceptor
from deploy.setup import ensure_search_attributes
from tests.fake_world import HOST, FakeWorld, activities_of
from tests.workflow.driving import Driver, Journey
from workflows import names
from workflows.environment import EnvironmentWorkflow
from workflows.merge_queue import MergeQueueWorkflow
from workflows.plugin import orch_plugin
from workflows.task import TaskWorkflow

QUEUES = (names.SHARED_QUEUE, names.PLANE_QUEUE, names.host_work_queue(HOST), names.host_agent_queue(HOST))
IDENTITY = "orch-tests"
SERVER_CONFIG = (
    "frontend.WorkflowTimeSkippingEnabled=true",
    # A second between the runs of a task is nothing in production, and most of a test's time.
    'history.workflowIdReuseMinimalInterval="0s"',
)

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """The only place that knows how time is skipped."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(enabled=False),
        plugins=[orch_plugin()],
        identity=IDENTITY,
        dev_server_existing_path=str(Path(sys.executable).with_name("temporal")),
        dev_server_extra_args=[argument for value in SERVER_CONFIG for argument in ("--dynamic-config-value", value)],
    ) as environment:
        await ensure_search_attributes(environment.client, environment.client.namespace)
        yield environment


@asynccontextmanager
async def a_world(environment: WorkflowEnvironment) -> AsyncIterator[Driver]:
    """A fresh world, workers that act in it, and a way to drive tasks; what is left running is ended."""
    world = FakeWorld(environment.client, next(_numbers))
    async with AsyncExitStack() as running:
        for worker in workers(environment.client, world):
            await running.enter_async_context(worker)
        driver = Driver(environment, world)
        yield driver
        await driver.end()


@pytest.fixture
async def driver(environment: WorkflowEnvironment) -> AsyncIterator[Driver]:
    """Starts tasks in a world of the test's own, and moves their clocks."""
    async with a_world(environment) as driver:
        yield driver


@pytest.fixture
def world(driver: Driver) -> FakeWorld:
    """The world the test's tasks run in."""
    return driver.world


@pytest.fixture(scope="module")
async def happy(environment: WorkflowEnvironment) -> Journey:
    """A task for which everything was green, gone all the way: for tests that only look at it.

    Its workers are gone: two of one client cannot share a queue, and the next world's take over.
    """
    async with a_world(environment) as driver:
        handle = await driver.start()
        outcome = await handle.result()
        return Journey(driver.world, handle, outcome, await driver.status(), await driver.runs(handle))


def workers(client: Client, world: FakeWorld) -> list[Worker]:
    """A worker for each queue, with every activity on each: which queue is right is test_contracts.py's."""
    activities = list(activities_of(world).values())
    return [
        Worker(
            client,
            task_queue=queue,
            activities=activities,
            workflows=[TaskWorkflow, MergeQueueWorkflow, EnvironmentWorkflow] if queue == names.SHARED_QUEUE else [],
            interceptors=[WorkerInterceptor()],
            identity=IDENTITY,
            # A cancellation reaches an activity with the answer to a heartbeat.
            max_heartbeat_throttle_interval=timedelta(seconds=0.1),
            default_heartbeat_throttle_interval=timedelta(seconds=0.1),
        )
        for queue in QUEUES
    ]
