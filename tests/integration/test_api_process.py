"""The API as a process of its own, as supervisors start and stop it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientSession

from tests.integration.conftest import Postgres, free_port
from tests.integration.test_webhooks_http import BODY, becomes, plane_headers
from tests.unit.test_api_settings import ORCH_TOML

SECRET = "plane-secret"
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def api_process(
    postgres: Postgres, home: Path, temporal: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A started API that says that it accepts webhooks, and its address."""
    (home / "orch.toml").write_text(ORCH_TOML)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "ORCH_CONFIG": str(home / "orch.toml"),
        "ORCH_DATABASE_URL": postgres.url,
        "ORCH_API_PORT": str(port),
        "ORCH_PLANE_WEBHOOK_SECRET": SECRET,
        "ORCH_GITEA_WEBHOOK_SECRET": "gitea-secret",
        "TEMPORAL_ADDRESS": temporal,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            if json.loads(line)["event"] == "accepting webhooks":
                break
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_api_works_without_temporal_and_stops_when_asked(
    postgres: Postgres, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """With Temporal down the API starts, accepts and says why it is degraded; SIGTERM ends it with 0."""
    async with api_process(postgres, tmp_path, "127.0.0.1:1") as (process, address), ClientSession() as http:
        async with http.post(f"{address}/webhooks/plane", data=BODY, headers=plane_headers(BODY)) as answer:
            assert answer.status == 202
        async with http.get(f"{address}/readyz") as answer:
            found = await answer.json()
            assert (answer.status, found["status"]) == (200, "degraded")
            assert found["dependencies"]["temporal"] == {"ok": False, "cause": "can not be reached"}
        await becomes(pool, "SELECT status = 'new' AND reason LIKE 'Temporal is down%' FROM webhook_deliveries")
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "stopped"
    assert SECRET.encode() not in log
    details = [entry["detail"] for entry in map(json.loads, log.splitlines()) if entry.get("dependency") == "temporal"]
    assert len(details) == 1
    assert "Connection refused" in details[0]


@pytest.mark.parametrize("down", ["at the start", "later"])
async def test_the_api_survives_postgresql(postgres: Postgres, pool: asyncpg.Pool, tmp_path: Path, down: str) -> None:
    """An API that was started without PostgreSQL, or lost it, accepts and forwards again when it is back."""
    if down == "at the start":
        postgres.stop()
    async with api_process(postgres, tmp_path, "127.0.0.1:1") as (_, address), ClientSession() as http:
        if down == "later":
            postgres.stop()
        async with http.get(f"{address}/readyz") as answer:
            assert answer.status == 503
        postgres.start()
        async with http.post(f"{address}/webhooks/plane", data=BODY, headers=plane_headers(BODY)) as answer:
            assert answer.status == 202
        await becomes(pool, "SELECT status = 'new' AND reason LIKE 'Temporal is down%' FROM webhook_deliveries")
