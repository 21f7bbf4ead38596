"""All five services in their order, with small stand-ins for ours, run by an ordinary user."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.environment import SECRETS_OF

pytestmark = pytest.mark.embedded

SOURCE = Path(__file__).parents[2]
KEEP_ENVIRONMENT = """
import json, os, pathlib
pathlib.Path(os.environ["ORCH_HOME"], NAME + ".json").write_text(json.dumps(dict(os.environ)))
"""
SERVE = """
from aiohttp import web

async def ok(request):
    return web.Response()

async def seeded(request):
    return web.json_response({"projects": {"DEMO": {"id": "p"}}, "users": {"orch-bot": "b", "olga": "o"}})

async def serve(ports, path):
    app = web.Application()
    app.router.add_get(path, ok)
    app.router.add_post("/_sandbox/seed", seeded)
    runner = web.AppRunner(app)
    await runner.setup()
    for port in ports:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()
"""
SANDBOX = f"""
NAME = "sandbox"
import asyncio, sys
{KEEP_ENVIRONMENT}
{SERVE}
config = json.loads(pathlib.Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
ports = [value for key, value in config.items() if key.endswith("_port")]
assert len(ports) == 4
asyncio.run(serve(ports, "/_sandbox/healthz"))
"""
API = f"""
NAME = "api"
import asyncio
{KEEP_ENVIRONMENT}
{SERVE}
asyncio.run(serve([int(os.environ["ORCH_API_PORT"])], "/healthz"))
"""
WORKER = f"""
NAME = "worker"
import asyncio, os
{KEEP_ENVIRONMENT}
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

@workflow.defn
class Nothing:
    @workflow.run
    async def run(self) -> None:
        pass

async def main():
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"], namespace=os.environ["TEMPORAL_NAMESPACE"])
    await Worker(
        client, task_queue="orch", workflows=[Nothing], workflow_runner=UnsandboxedWorkflowRunner()
    ).run()

asyncio.run(main())
"""
SCRIPT = """
import asyncio, os
from deploy.embedded import EmbeddedStack

async def main():
    stack = EmbeddedStack(owner_pid=os.getpid())
    up = await stack.up()
    print("up", up.phase, [s.name for s in up.services], sorted(up.urls), flush=True)
    print(await stack.down(), flush=True)

asyncio.run(main())
os._exit(0)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder that other accounts can pass through."""
    path = Path(tempfile.mkdtemp(prefix="orch-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def python_for_others() -> Path | None:
    """An interpreter of this version that an ordinary user can run: ours, or else the system's."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (Path(sys.executable), Path("/usr/bin/python3")):
        command = [str(python), "-c", "import sys; print('%s.%s' % sys.version_info[:2])"]
        try:
            answer = subprocess.run(
                command, user=ordinary(), check=False, capture_output=True, text=True, cwd="/", timeout=20
            )
        except (FileNotFoundError, PermissionError):
            continue
        if answer.stdout.strip() == version:
            return python
    return None


def ordinary() -> int | None:
    """Who runs the stack: ourselves, unless we are root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def source_with_stand_ins(folder: Path) -> Path:
    """Our packages, with small programs in place of sandbox, API and worker."""
    source = folder / "source"
    for package in ("deploy", "workflows"):
        shutil.copytree(SOURCE / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(source / "deploy" / "sandbox")
    for path, text in {"deploy/sandbox": SANDBOX, "api": API}.items():
        (source / path).mkdir(parents=True)
        (source / path / "__init__.py").touch()
        (source / path / "__main__.py").write_text(text)
    (source / "worker.py").write_text(WORKER)
    return source


def test_ordinary_user_runs_the_whole_stack(folder: Path) -> None:
    """A user without rights starts all services at home, each with its own secrets, and stops them."""
    python = python_for_others()
    if python is None:
        pytest.skip("no Python of this version that an ordinary user can run")
    user_home = folder / "user"
    user_home.mkdir(mode=0o700)
    if (uid := ordinary()) is not None:
        os.chown(user_home, uid, -1)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {
        "HOME": str(user_home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "PYTHONPATH": os.pathsep.join([str(source_with_stand_ins(folder)), site]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANTHROPIC_API_KEY": "for agents",
    }
    result = subprocess.run(
        [str(python), "-c", SCRIPT],
        cwd=folder,
        env=environment,
        user=uid,
        group=uid if uid is None else pwd.getpwuid(uid).pw_gid,
        extra_groups=None if uid is None else [],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert result.returncode == 0, result.stderr
    names = ["postgres", "temporal", "sandbox", "api", "worker"]
    urls = ["api", "gitea", "plane", "production", "telegram", "temporal_ui"]
    assert f"up running {names} {urls}" in result.stdout
    assert "Stopped(was_running=True, leftovers=())" in result.stdout
    home = user_home / ".local" / "share" / "orch"
    assert (home / "postgres" / "data").stat().st_uid == user_home.stat().st_uid
    given = {name: json.loads((home / f"{name}.json").read_text()) for name in SECRETS_OF}
    secrets = set(SECRETS_OF["sandbox"])
    for name, present in given.items():
        assert secrets & set(present) == set(SECRETS_OF[name])
    assert [name for name in given if "ANTHROPIC_API_KEY" in given[name]] == ["worker"]
    assert [name for name in given if "ORCH_DATABASE_URL" in given[name]] == ["worker", "api"]
