"""What the developer is given of a red CI."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from activities.adapters.gitea import GiteaClient
from activities.adapters.http import HttpClient
from tests.contract.sandbox_harness import GITEA_TOKENS, Harness, harness


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Harness]:
    """Seeded servers."""
    async with harness(tmp_path) as running:
        await running.seed()
        yield running


async def test_a_red_commits_log_ends_with_what_failed(sandbox: Harness, tmp_path: Path) -> None:
    """The end of the failing job's log is at hand; a green commit has none."""
    await sandbox.seed(ci_command="echo checking; test ! -e broken || { echo it is broken; exit 3; }")
    clone = await sandbox.clone(tmp_path / "clone")
    red = await sandbox.push(clone, "task/PAY-1", {"broken": "yes"})
    await sandbox.combined(red, "failure")
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"token {GITEA_TOKENS['author-bot']}"}
        http = HttpClient(session, f"{sandbox.sandbox.gitea_url}/api/v1/", service="gitea", headers=headers)
        client = GiteaClient(http, "acme", "payments")
        log = await client.failing_log(red)
        assert "it is broken" in log
        main = await client.get_branch("main")
        assert main is not None
        assert not await client.failing_log(main.sha)
