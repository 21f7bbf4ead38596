"""The embedded stack with its real servers: starting, stopping, healing, and what it leaves behind."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import psutil
import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from deploy import postgres_files, processes
from deploy.embedded import EmbeddedStack, servers
from deploy.errors import StackError
from deploy.state import Phase
from deploy.status import StackStatus
from workflows.names import ITEM, NAMESPACE, SEARCH_ATTRIBUTES

pytestmark = pytest.mark.embedded

SERVERS = ("postgres", "temporal")
SOURCE = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that other accounts can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="orch-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder that other accounts can pass through."""
    with open_folder() as path:
        yield path


@pytest.fixture
async def stack(folder: Path) -> AsyncIterator[EmbeddedStack]:
    """A stack that is not started; whatever is left of it at the end is removed."""
    made = EmbeddedStack(folder / "home", SERVERS, owner_pid=os.getpid())
    yield made
    await made.destroy()
    assert processes_of(made) == []


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[EmbeddedStack]:
    """One stack that runs for all tests that leave it running."""
    with open_folder() as folder:
        made = EmbeddedStack(folder / "home", SERVERS, owner_pid=os.getpid())
        await made.up()
        yield made
        await made.destroy()


def processes_of(stack: EmbeddedStack) -> list[str]:
    """Every process that names the stack's folders, works in them, or carries its mark."""
    signs = {str(stack.home.root), postgres_files.elsewhere_name(stack.home)}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            texts = [*process.cmdline(), process.cwd(), process.environ().get(processes.MARKER, "")]
            if process.pid != os.getpid() and processes.is_alive(process):
                found += [f"{process.pid} {process.cmdline()}" for sign in signs if any(sign in t for t in texts)]
    return found


async def eventually(attempt: Callable[[], Awaitable[object]], seconds: float = 30) -> None:
    """Repeat until it neither raises nor answers False."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            async with asyncio.timeout(5):
                if await attempt() is not False:
                    return
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def write_row(status: StackStatus, value: str) -> None:
    """Commit one row."""
    connection = await asyncpg.connect(status.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def rows(status: StackStatus) -> list[str]:
    """All rows there are."""
    connection = await asyncpg.connect(status.database_url, timeout=3)
    values = [row["value"] for row in await connection.fetch("SELECT value FROM kept")]
    await connection.close()
    return values


async def start_workflow(status: StackStatus, workflow_id: str) -> None:
    """Start a workflow, with a search attribute, that nobody works on."""
    client = await Client.connect(status.temporal_address, namespace=NAMESPACE)
    attributes = TypedSearchAttributes([SearchAttributePair(ITEM, workflow_id)])
    await client.start_workflow("Any", id=workflow_id, task_queue="nobody", search_attributes=attributes)


async def workflow_type(status: StackStatus, workflow_id: str) -> str:
    """What the server says a workflow is."""
    client = await Client.connect(status.temporal_address, namespace=NAMESPACE)
    description = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=timedelta(seconds=3))
    return description.workflow_type


def kill(pid: int | None) -> None:
    """Kill -9."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def healed(stack: EmbeddedStack, name: str, dead: int | None) -> None:
    """Wait until the service runs as another process."""

    async def is_back() -> bool:
        service = stack.status().service(name)
        return service.phase == "running" and service.pid not in {None, dead}

    await eventually(is_back)


def sleeper(uid: int | None = None) -> subprocess.Popen[bytes]:
    """A process that has nothing to do with a stack."""
    return subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None)


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_up_then_down_leaves_nothing_running(stack: EmbeddedStack) -> None:
    """After `down` no process of the stack is left, and both servers refuse connections."""
    steps: list[str] = []
    status = await stack.up(progress=steps.append)
    assert status.running
    assert [service.name for service in status.services] == list(SERVERS)
    assert "starting temporal" in steps
    assert len(processes_of(stack)) >= 3
    stopped = await stack.down()
    assert stopped.was_running
    assert stopped.leftovers == ()
    assert processes_of(stack) == []
    assert stack.status().phase is Phase.STOPPED
    for port in status.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_restart_keeps_data_ports_and_passwords(stack: EmbeddedStack) -> None:
    """A row and a workflow written before `down` are there after the next `up`, at the same addresses."""
    first = await stack.up()
    await write_row(first, "before")
    await start_workflow(first, "task/DEMO-1")
    await stack.down()
    second = await stack.up()
    assert await rows(second) == ["before"]
    assert await workflow_type(second, "task/DEMO-1") == "Any"
    assert second.ports == first.ports
    assert second.notes == ()
    assert second.environment == first.environment


async def test_a_port_taken_meanwhile_is_replaced_and_said(stack: EmbeddedStack) -> None:
    """If somebody else sits on a remembered port, the stack takes another one and says so."""
    first = await stack.up()
    await stack.down()
    taken = first.ports["temporal"]
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", taken))
        squatter.listen()
        second = await stack.up()
    assert second.ports["temporal"] != taken
    assert second.ports["postgres"] == first.ports["postgres"]
    assert any(f"port {taken} of temporal is taken by" in note for note in second.notes)


async def test_two_ups_at_once_make_one_stack(stack: EmbeddedStack) -> None:
    """Two commands that start the same home at the same time end up with the same servers."""
    other = EmbeddedStack(stack.home.root, SERVERS, owner_pid=os.getpid())
    one, two = await asyncio.gather(stack.up(), other.up())
    assert one.supervisor_pid == two.supervisor_pid
    assert [service.pid for service in one.services] == [service.pid for service in two.services]
    supervisors = [line for line in processes_of(stack) if "deploy.supervisor" in line]
    assert len(supervisors) == 1


async def test_down_while_starting(stack: EmbeddedStack) -> None:
    """`down` during `up` stops what was started so far; the `up` says that it was stopped."""
    starting = asyncio.create_task(stack.up())
    await eventually(lambda: _true(stack.status().step == "starting postgres"))
    assert (await stack.down()).was_running
    with pytest.raises(StackError, match="it was stopped meanwhile"):
        await starting
    assert processes_of(stack) == []


async def test_up_of_a_running_stack_changes_nothing(running: EmbeddedStack) -> None:
    """A second `up` finds the stack and answers at once."""
    before = running.status()
    assert await running.up() == before


async def test_more_services_than_run_is_refused(running: EmbeddedStack) -> None:
    """`up` with a service that the running stack lacks says to stop it first."""
    with pytest.raises(StackError, match="runs without worker; run `orch down` first"):
        await EmbeddedStack(running.home.root, (*SERVERS, "worker")).up()


async def test_killed_postgres_is_healed(running: EmbeddedStack) -> None:
    """After kill -9 of PostgreSQL the server is back by itself with every committed row."""
    status = running.status()
    await write_row(status, "acknowledged")
    dead = status.service("postgres").pid
    kill(dead)
    await healed(running, "postgres", dead)
    assert "acknowledged" in await rows(status)
    assert running.status().service("postgres").last_exit
    assert running.status().service("postgres").restarts == 1


async def test_killed_temporal_is_healed(running: EmbeddedStack) -> None:
    """After kill -9 of Temporal the server is back by itself and knows the workflow it had acknowledged."""
    status = running.status()
    await start_workflow(status, "task/DEMO-2")
    dead = status.service("temporal").pid
    kill(dead)
    await healed(running, "temporal", dead)
    assert await workflow_type(status, "task/DEMO-2") == "Any"


async def test_namespace_and_search_attributes(running: EmbeddedStack) -> None:
    """The namespace keeps histories for 30 days and has every search attribute with its type."""
    client = await Client.connect(running.status().temporal_address, namespace=NAMESPACE)
    description = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=NAMESPACE))
    assert description.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(hours=720)
    from deploy.setup import _search_attributes

    assert await _search_attributes(client, NAMESPACE) == {
        key.name: key.indexed_value_type for key in SEARCH_ATTRIBUTES
    }


async def test_secrets_are_private(running: EmbeddedStack) -> None:
    """Files with secrets are readable by their owner only; logs and process lists hold no password."""
    home = running.home
    for file in (home.env_file, home.secrets_file, home.stack_file):
        assert mode(file) == 0o600
    password = home.secrets()["postgres_password"]
    assert not any(password in line for line in processes_of(running))
    assert not any(password in log.read_text(errors="replace") for log in home.logs.iterdir())
    assert password not in repr(running.status())


async def test_killed_supervisor_then_down(stack: EmbeddedStack) -> None:
    """If the supervisor was killed, `status` says so and `down` stops what it left."""
    status = await stack.up()
    kill(status.supervisor_pid)
    await eventually(lambda: _true(stack.status().phase is Phase.ABANDONED))
    stopped = await stack.down()
    assert set(stopped.leftovers) == set(SERVERS)
    assert processes_of(stack) == []
    assert stack.status().phase is Phase.STOPPED


async def test_killed_supervisor_then_up(stack: EmbeddedStack) -> None:
    """If the supervisor was killed, `up` starts anew with the data and the ports there were, and says so."""
    first = await stack.up()
    await write_row(first, "kept")
    kill(first.supervisor_pid)
    await eventually(lambda: _true(stack.status().phase is Phase.ABANDONED))
    second = await stack.up()
    assert await rows(second) == ["kept"]
    assert second.ports == first.ports
    assert any("stopped what an earlier supervisor had left" in note for note in second.notes)
    await stack.down()
    assert processes_of(stack) == []


async def test_lost_records_do_not_lose_processes(stack: EmbeddedStack) -> None:
    """Even with supervisor and `stack.json` gone, `down` finds the servers by their mark."""
    status = await stack.up()
    kill(status.supervisor_pid)
    stack.home.stack_file.unlink()
    stopped = await stack.down()
    assert len(stopped.leftovers) >= 2
    assert processes_of(stack) == []


async def test_stale_postmaster_pid_is_healed(stack: EmbeddedStack) -> None:
    """A lock file of PostgreSQL that names a living process of another program does not stop the start."""
    await stack.up()
    await stack.down()
    data = next(p for p in postgres_files.data_places(stack.home, None) if p.exists())
    owner = data.stat().st_uid
    with sleeper(owner) as other:
        lock = data / "postmaster.pid"
        lock.write_text(f"{other.pid}\n{data}\n1700000000\n{stack.status().ports['postgres']}\n\n127.0.0.1\n")
        os.chown(lock, owner, -1)
        assert (await stack.up()).running
        assert other.poll() is None
        other.kill()


async def test_failed_start_says_why_and_leaves_nothing(stack: EmbeddedStack) -> None:
    """A server that cannot start makes `up` fail with the end of its log, and everything is stopped again."""
    stack.home.create()
    (stack.home.temporal / "temporal.db").mkdir()
    with pytest.raises(StackError, match=r"temporal ended with exit code 1 .*\n.*temporal\.log:\n(.|\n)+database"):
        await stack.up()
    assert stack.status().phase is Phase.FAILED
    assert processes_of(stack) == []
    (stack.home.temporal / "temporal.db").rmdir()
    assert (await stack.up()).running


async def test_stack_stops_with_its_owner(folder: Path) -> None:
    """A stack that belongs to a process stops when that process is killed."""
    with sleeper() as owner:
        stack = EmbeddedStack(folder / "home", SERVERS, owner_pid=owner.pid)
        await stack.up()
        owner.kill()
    await eventually(lambda: _true(processes_of(stack) == []))
    assert stack.status().phase is Phase.STOPPED


async def test_servers_for_tests_are_deleted_afterwards() -> None:
    """The servers for tests run inside the block, and nothing of them remains after it."""
    async with servers() as status:
        await write_row(status, "short-lived")
        home = status.home
        assert await rows(status) == ["short-lived"]
    assert not home.exists()


@as_root
async def test_root_hands_data_to_an_account_without_rights(running: EmbeddedStack) -> None:
    """As root the server and its data belong to another account, and no folder above was opened."""
    data = running.home.postgres / "data"
    account = pwd.getpwuid(data.stat().st_uid)
    assert account.pw_name in {"postgres", "nobody"}
    assert mode(data) == 0o700
    assert psutil.Process(running.status().service("postgres").pid).uids().effective == account.pw_uid
    assert running.home.root.stat().st_uid == 0
    assert mode(running.home.root.parent) == 0o711


@as_root
async def test_closed_home_puts_data_elsewhere(tmp_path: Path) -> None:
    """A home below a folder closed to others keeps its permissions; the data go to a folder of our own."""
    assert mode(tmp_path) == 0o700
    stack = EmbeddedStack(tmp_path / "home", SERVERS, owner_pid=os.getpid())
    try:
        status = await stack.up()
        await write_row(status, "elsewhere")
        assert mode(tmp_path) == 0o700
        recorded = stack.home.stack_file.read_text()
        data = next(p for p in postgres_files.data_places(stack.home, None) if p.exists())
        assert str(data) in recorded
        assert tmp_path not in data.parents
        await stack.down()
        assert await rows(await stack.up()) == ["elsewhere"]
    finally:
        await stack.destroy()
    assert not data.parent.exists()


async def _true(value: bool) -> bool:
    return value
