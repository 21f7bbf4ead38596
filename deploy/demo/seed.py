"""Filling a fresh embedded stack: the sandbox servers get people and a project, the worker its `orch.toml`.

Doing it again changes nothing, so every start may do it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import BaseModel

from deploy.demo import playbook, shop
from deploy.errors import StackError
from deploy.home import Home, write_private
from deploy.ports import LOOPBACK

WORKSPACE = "acme"
PROJECT = "DEMO"
OWNER = "acme"
PERSON = "olga"
"""Starts and approves tasks; known to Plane and Gitea."""
BOT = "orch-bot"
REVIEWER = "orch-reviewer"
TELEGRAM_CHAT = 424242
CI_CONTEXT = "CI / test (push)"

_STATES = (
    ("Backlog", "backlog"),
    ("Todo", "unstarted"),
    ("In Progress", "started"),
    ("Awaiting approval", "started"),
    ("Approved", "started"),
    ("Rejected", "started"),
    ("Done", "completed"),
    ("Cancelled", "cancelled"),
)


class DemoSpec(BaseModel):
    """`<home>/demo.json`: what to seed instead of the demo's own shop."""

    repository: str = "shop"
    title: str = shop.TITLE
    description: str = shop.DESCRIPTION
    test_command: str = shop.TEST_COMMAND
    import_git: Path | None = None
    """A prepared copy of somebody's repository."""

    @classmethod
    def read(cls, home: Home) -> "DemoSpec":
        """The home's spec, or the demo's own."""
        path = home.root / "demo.json"
        return cls.model_validate_json(path.read_text()) if path.exists() else cls()


async def seed(home: Home, ports: Mapping[str, int], secrets: Mapping[str, str]) -> None:
    """Fill the sandbox servers and write `orch.toml` and the playbook.

    Raises:
        StackError: a sandbox server refuses what it is given.
    """
    spec = DemoSpec.read(home)
    async with aiohttp.ClientSession() as session:
        plane = await _post(session, ports["plane"], _plane(ports, secrets))
        await _post(session, ports["gitea"], _gitea(spec, ports, secrets))
    write_private(home.config_file, _orch_toml(spec, plane, ports))
    play = playbook.playbook(shop.NOTE) if spec.import_git else _story()
    write_private(playbook_file(home), json.dumps(play, indent=2) + "\n")


def _story() -> dict[str, list[list[playbook.Step]]]:
    """The demo's own: one rejected spec, one red CI, then done."""
    return playbook.playbook(shop.FIRST_TRY, shop.CHANGE, rejected_once=True)


def playbook_file(home: Home) -> Path:
    """Where the scripted agents' playbook is; it may be edited, a start writes it anew."""
    return home.root / "playbook.json"


def _plane(ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, Any]:
    hook = f"http://{LOOPBACK}:{ports['api']}/webhooks/plane"
    return {
        "workspace": {"slug": WORKSPACE, "name": "Acme"},
        "users": [
            {"display_name": PERSON, "first_name": "Olga", "last_name": "Owner"},
            {"display_name": BOT, "token": secrets["ORCH_PLANE_TOKEN"], "is_bot": True, "role": 15},
        ],
        "projects": [
            {
                "identifier": PROJECT,
                "name": "Demo",
                "states": [{"name": name, "group": group} for name, group in _STATES],
            }
        ],
        "webhooks": [{"url": hook, "secret": secrets["ORCH_PLANE_WEBHOOK_SECRET"]}],
    }


def _gitea(spec: DemoSpec, ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = {"import_git": str(spec.import_git)}
    if spec.import_git is None:
        content = {"files": shop.files(f"http://{LOOPBACK}:{ports['production']}")}
    name = f"{OWNER}/{spec.repository}"
    return {
        "users": [
            {"login": PERSON, "full_name": "Olga Owner"},
            {"login": BOT, "token": secrets["ORCH_GITEA_TOKEN"]},
            {"login": REVIEWER, "token": secrets["ORCH_GITEA_REVIEWER_TOKEN"]},
        ],
        "repositories": [
            {
                "owner": OWNER,
                "name": spec.repository,
                "collaborators": {PERSON: "admin", BOT: "write", REVIEWER: "write"},
                "protected": {
                    "main": {
                        "enable_push": False,
                        "enable_status_check": True,
                        "status_check_contexts": [CI_CONTEXT],
                        "required_approvals": 1,
                        "dismiss_stale_approvals": True,
                        "block_on_rejected_reviews": True,
                    }
                },
                "ci_command": spec.test_command,
                "ci_context": CI_CONTEXT,
                **content,
            }
        ],
        "hooks": [
            {
                "repository": name,
                "url": f"http://{LOOPBACK}:{ports['api']}/webhooks/gitea",
                "secret": secrets["ORCH_GITEA_WEBHOOK_SECRET"],
            }
        ],
    }


def _orch_toml(spec: DemoSpec, plane: dict[str, Any], ports: Mapping[str, int]) -> str:
    return f"""\
# Written by `orch up` for the embedded stack.
plane_workspace = "{WORKSPACE}"
plane_public_url = "http://localhost:{ports["plane"]}"
gitea_public_url = "http://localhost:{ports["gitea"]}"

[projects.{PROJECT}]
plane_project_id = "{plane["projects"][PROJECT]["id"]}"
bots = ["{plane["users"][BOT]}"]
approvers = ["{plane["users"][PERSON]}"]

[projects.{PROJECT}.repository]
owner = "{OWNER}"
name = "{spec.repository}"
base = "main"
"""


async def _post(session: aiohttp.ClientSession, port: int, body: dict[str, Any]) -> dict[str, Any]:
    url = f"http://{LOOPBACK}:{port}/_sandbox/seed"
    async with session.post(url, json=body) as answer:
        if answer.status >= 300:
            raise StackError(f"the sandbox refused its seed at {url}: {answer.status} {await answer.text()}")
        parsed: dict[str, Any] = await answer.json()
        return parsed
