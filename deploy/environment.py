"""The environment of each service: every process holds its own secrets and no other's."""

import os
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from deploy.home import Home, write_private
from deploy.ports import LOOPBACK
from deploy.processes import MARKER

_TOKENS = ("ORCH_PLANE_TOKEN", "ORCH_GITEA_TOKEN", "ORCH_GITEA_REVIEWER_TOKEN", "ORCH_TELEGRAM_TOKEN")
_WEBHOOK_SECRETS = ("ORCH_PLANE_WEBHOOK_SECRET", "ORCH_GITEA_WEBHOOK_SECRET")
SECRETS_OF = {
    "worker": _TOKENS,
    "api": _WEBHOOK_SECRETS,
    # The other end of both: it checks the tokens and signs the webhooks.
    "sandbox": (*_TOKENS, *_WEBHOOK_SECRETS),
}
"""Which secrets each process is started with."""
_DEPLOY_SECRETS = "ORCH_DEPLOY_SECRET_"
_FROM_OUTSIDE = {"worker": ("ORCH_ANTHROPIC_API_KEY", _DEPLOY_SECRETS)}
"""Secrets of services that are not here: whoever starts the stack brings them along."""

_ORDINARY = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|XDG_\w+|SSL_CERT_(FILE|DIR)|(http|https|no|all)_proxy",
    re.IGNORECASE,
)
"""What programs need of their surroundings. Only the worker, which starts agents, is given the rest too."""
_OURS = re.compile(r"ORCH_\w+")
_SECRET = re.compile(r"TOKEN(?!S)|SECRET|PASSWORD|KEY|DATABASE_URL")


def describe(
    home: Home,
    ports: Mapping[str, int],
    secrets: Mapping[str, str],
    *,
    services: tuple[str, ...],
    database_url: str,
) -> dict[str, str]:
    """All that is known of how to reach the stack: what `orch.env` holds."""
    values = {"ORCH_HOME": str(home.root), "ORCH_CONFIG": str(home.config_file)}
    if "postgres" in services:
        values["ORCH_DATABASE_URL"] = database_url
    if "temporal" in services:
        from workflows.names import NAMESPACE

        values["TEMPORAL_ADDRESS"] = f"{LOOPBACK}:{ports['temporal']}"
        values["TEMPORAL_NAMESPACE"] = NAMESPACE
        values["TEMPORAL_CONFIG_FILE"] = str(home.temporal_config)
        values["ORCH_TEMPORAL_UI_URL"] = f"http://{LOOPBACK}:{ports['temporal_ui']}"
    if "api" in services:
        values["ORCH_API_HOST"] = LOOPBACK
        values["ORCH_API_PORT"] = str(ports["api"])
    if "sandbox" in services:
        for name in ("plane", "gitea", "telegram"):
            values[f"ORCH_{name.upper()}_URL"] = f"http://{LOOPBACK}:{ports[name]}"
        values |= {name: secrets[name] for name in (*_TOKENS, *_WEBHOOK_SECRETS)}
    if {"worker", "sandbox"} <= set(services):
        values |= {
            "ORCH_ISOLATION": "preferred",
            "ORCH_PLANE_RATE": "50",
            # The sandbox has no rate to spare: what a lost webhook hides is found while a person still looks.
            "ORCH_RECONCILE_INTERVAL": "5",
            "ORCH_SCRIPTED_PLAYBOOK": str(home.root / "playbook.json"),
            "ORCH_TELEGRAM_CHAT": "424242",
        }
    return values


def _write_temporal_config(home: Home, values: Mapping[str, str]) -> None:
    """Leave a Temporal configuration of our own: the user's is about other servers, with certificates."""
    profile = "".join(
        f'{key} = "{values[name]}"\n'
        for key, name in (("address", "TEMPORAL_ADDRESS"), ("namespace", "TEMPORAL_NAMESPACE"))
    )
    write_private(home.temporal_config, f"[profile.default]\n{profile}")


def for_service(name: str, values: Mapping[str, str], outer: Mapping[str, str]) -> dict[str, str]:
    """The environment to start a service of ours with.

    Args:
        name: the service.
        values: what `describe` says of the stack; it wins.
        outer: the environment `orch up` was called in. Its `ORCH_` settings are passed on, its secrets only
            to the service they belong to.
    """
    own = (*SECRETS_OF[name], *_FROM_OUTSIDE.get(name, ()))
    given = {
        key: value for key, value in outer.items() if _is_for(key, own) and (name == "worker" or _is_ordinary(key))
    }
    if "TEMPORAL_ADDRESS" in values:
        given = {key: value for key, value in given.items() if not key.startswith("TEMPORAL_")}
    stack = {key: value for key, value in values.items() if _is_for(key, own) or key == "ORCH_DATABASE_URL"}
    if name == "sandbox":
        stack.pop("ORCH_DATABASE_URL", None)
    return given | source_path(outer) | stack


def source_path(outer: Mapping[str, str]) -> dict[str, str]:
    """What lets a new interpreter import us from a source tree that is not installed."""
    root = Path(__file__).parent.parent
    if root in {Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))}:
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, [outer.get("PYTHONPATH")])])}


def marker(home: Home) -> dict[str, str]:
    """What every process of a stack carries, so that it can be found whatever happens to the records."""
    return {MARKER: str(home.root)}


def write(home: Home, values: Mapping[str, str]) -> None:
    """Leave `orch.env` for the command line, and Temporal's own configuration."""
    lines = "".join(f"{key}={value}\n" for key, value in sorted(values.items()))
    write_private(home.env_file, f"# How to reach the stack; written at each start.\n{lines}")
    if "TEMPORAL_ADDRESS" in values:
        _write_temporal_config(home, values)


def _is_for(key: str, own: tuple[str, ...]) -> bool:
    """Whether a process with these secrets may see a variable. `<SECRET>_FILE` goes with its secret."""
    if key == MARKER:
        return False
    if not _OURS.fullmatch(key) or not _SECRET.search(key):
        return True
    return key.startswith(own)


def _is_ordinary(key: str) -> bool:
    return bool(_ORDINARY.fullmatch(key) or _OURS.fullmatch(key) or key.startswith("TEMPORAL_"))
