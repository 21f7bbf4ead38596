"""A complete configuration of both processes, for tests that then break it."""

import os
from pathlib import Path

import pytest

UUID_1 = "486a6d94-3d3f-477a-9f3d-e37fd22a196d"
UUID_2 = "68033053-876e-447a-8f45-420c79888946"
ORCH_TOML = f"""
plane_workspace = "acme"
plane_public_url = "https://plane.example.com"
gitea_public_url = "https://git.example.com"
[projects.PAY]
plane_project_id = "{UUID_1}"
bots = ["{UUID_2}"]
[projects.PAY.repository]
owner = "acme"
name = "payments"
[projects.PAY.states]
done = "Shipped"
"""
SECRETS = (
    "ORCH_DATABASE_URL",
    "ORCH_PLANE_TOKEN",
    "ORCH_GITEA_TOKEN",
    "ORCH_GITEA_REVIEWER_TOKEN",
    "ORCH_TELEGRAM_TOKEN",
    "ORCH_PLANE_WEBHOOK_SECRET",
    "ORCH_PLANE_WEBHOOK_SECRET_PREVIOUS",
    "ORCH_GITEA_WEBHOOK_SECRET",
    "ORCH_GITEA_WEBHOOK_SECRET_PREVIOUS",
    "ORCH_ANTHROPIC_API_KEY",
)


def clear(patch: pytest.MonkeyPatch) -> None:
    """Take everything of ours out of the environment."""
    for name in list(os.environ):
        if name.startswith(("ORCH_", "TEMPORAL_")):
            patch.delenv(name)


def configure(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set everything that is required, and one thing that is not."""
    clear(patch)
    (folder / "orch.toml").write_text(ORCH_TOML)
    for name in SECRETS:
        if not name.endswith("_PREVIOUS") and name != "ORCH_TELEGRAM_TOKEN":
            patch.setenv(name, f"secret-of-{name.lower()}")
    patch.setenv("ORCH_CONFIG", str(folder / "orch.toml"))
    patch.setenv("ORCH_HOME", str(folder / "home"))
    patch.setenv("ORCH_PLANE_URL", "https://user:pass@plane.internal/")
    patch.setenv("ORCH_GITEA_URL", "https://git.internal")
    patch.setenv("ORCH_HOST_NAME", "host-1")
    patch.setenv("ORCH_AGENT_SLOTS", "7")
