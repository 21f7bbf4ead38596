"""`orch.toml` refuses what would make a webhook or a decision ambiguous."""

from typing import Any

import pytest
from pydantic import ValidationError

from workflows.projects import OrchConfig

PLANE_ID = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
BOT = "68033053-876e-447a-8f45-420c79888946"


def config(**projects: dict[str, Any]) -> OrchConfig:
    """A file with these projects."""
    repository = {"owner": "acme", "name": "payments"}
    tables = {key: {"plane_project_id": PLANE_ID, "repository": repository} | more for key, more in projects.items()}
    return OrchConfig.model_validate(
        {"plane_workspace": "acme", "plane_public_url": "p", "gitea_public_url": "g", "projects": tables}
    )


def test_a_bot_never_approves() -> None:
    """A bot that is listed as approver, in whatever case of letters, is an error that names it."""
    with pytest.raises(ValidationError, match=rf"{BOT} stands under `bots` and under `approvers`"):
        config(PAY={"bots": [BOT], "approvers": [BOT.upper()]})


def test_two_projects_never_share_a_plane_project() -> None:
    """The same Plane project under two keys is an error that names both."""
    with pytest.raises(ValidationError, match=f"PAY, SHOP have the same plane_project_id {PLANE_ID}"):
        config(PAY={}, SHOP={"plane_project_id": PLANE_ID.upper()})


def test_plane_ids_are_compared_in_any_case() -> None:
    """An id written in capitals is the id that Plane sends."""
    read = config(PAY={"plane_project_id": PLANE_ID.upper(), "bots": [f" {BOT.upper()} "]})
    assert read.project_of_plane_id(PLANE_ID) == read.project_of_plane_id(PLANE_ID.upper()) == "PAY"
    assert read.projects["PAY"].bots == {BOT}
