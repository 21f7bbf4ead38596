"""What is written from the settings: `.env.example`, the reference's tables, the files `orch init` starts with."""

import textwrap
from pathlib import Path
from shlex import quote

from deploy.configuration import Described, described

_TITLES = {
    ("worker", "api"): "Worker and API",
    ("worker",): "Worker only",
    ("api",): "API only: keep its secrets from the worker where you can",
}
_START = "# Settings of Orch, for `set -a; . ./.env; set +a`, systemd's EnvironmentFile= or Compose's env_file.\n"
_NOTE = """\
# What has no `#` before it is required. Instead of a secret, <NAME>_FILE may name a file that holds it.
# `orch config check` says all that is wrong; docs/reference/configuration.md is the reference.
"""


def env_example(values: dict[str, str] | None = None) -> str:
    """Every variable with its meaning; the required ones to be filled in, the others as comments."""
    values = values or {}
    blocks = [_START + _NOTE]
    for users, title in _TITLES.items():
        lines = [f"# --- {title} ---"]
        for one in described():
            if one.used_by == users:
                lines += ["", *_commented(one), _line(one, values.get(one.name, ""))]
        blocks.append("\n".join(lines) + "\n")
    blocks.append(_TEMPORAL)
    return "\n".join(blocks)


_TEMPORAL = """\
# --- Temporal, by its own variables or a temporal.toml ---

# TEMPORAL_ADDRESS=127.0.0.1:7233
# TEMPORAL_NAMESPACE=orch
# TEMPORAL_API_KEY=
"""


def _commented(one: Described) -> list[str]:
    return textwrap.wrap(one.text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _line(one: Described, value: str) -> str:
    if one.info.is_required():
        return f"{one.name}={value}"
    return f"# {one.name}={one.default}"


# -- the reference -----------------------------------------------------------------------------------------


def with_tables(text: str) -> str:
    """The reference with its tables renewed, between `<!-- settings: ... -->` and `<!-- end -->`."""
    for name, users in (("both", ("worker", "api")), ("worker", ("worker",)), ("api", ("api",))):
        start, end = f"<!-- settings: {name} -->\n", "<!-- end -->"
        before, marker, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{marker}{_table(users)}{end}{after}"
    return text


def _table(users: tuple[str, ...]) -> str:
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for one in described():
        if one.used_by == users:
            secret = " (secret)" if one.secret else ""
            default = "required" if one.info.is_required() else f"`{one.default}`" if one.default else _unset(one)
            rows.append(f"| `{one.name}`{secret} | {one.text} | {default} |")
    return "\n".join(rows) + "\n"


def _unset(one: Described) -> str:
    return {"host_name": "the host's name", "work_slots": "its processors"}.get(one.field, "none")


# -- orch init ---------------------------------------------------------------------------------------------

ORCH_TOML = """\
# Which Plane project works on which Gitea repository. `orch config check` says what is still wrong.

plane_workspace = "acme"                        # the workspace's name in Plane's addresses
plane_public_url = "https://plane.example.com"  # for links people click
gitea_public_url = "https://git.example.com"

# The key is used in ids and branches, DEMO-1 and task/DEMO-1: take the project's identifier, and never change it.
[projects.DEMO]
plane_project_id = "TODO"                       # the UUID in the address of the project's page in Plane
bots = ["TODO-bot"]                             # user ids of our accounts in Plane: what they do is no person's act
approvers = ["TODO-person"]                     # user ids of those whose approve or reject counts; never a bot

[projects.DEMO.repository]
owner = "acme"
name = "payments"
base = "main"                                   # tasks land here

# What this project calls Plane's states. These are the defaults; make in Plane those it lacks.
[projects.DEMO.states]
# in_progress = "In Progress"
# awaiting_approval = "Awaiting approval"
# approved = "Approved"
# rejected = "Rejected"
# done = "Done"
# cancelled = "Cancelled"
"""

NEXT_STEPS = """\
What a person has to make, once:

1. In Plane: an account of its own for Orch, member of the project. Its API key is ORCH_PLANE_TOKEN, its user id goes
   into `bots`, and those who decide on specs into `approvers`.
2. In Plane: the states Awaiting approval, Approved and Rejected, or name yours in orch.toml.
3. In Plane, as an admin of the workspace (Settings > Webhooks; its API cannot do this):
   URL <API>/webhooks/plane, events Issue and Issue comment. It shows the secret once: ORCH_PLANE_WEBHOOK_SECRET.
4. In Gitea: two accounts with write access to the repository: one pushes and merges (ORCH_GITEA_TOKEN), another
   reviews (ORCH_GITEA_REVIEWER_TOKEN). Tokens: repository read and write, issue read and write, user read.
5. In Gitea (repository > Settings > Webhooks, type Gitea): URL <API>/webhooks/gitea, POST, application/json, events
   push, create, delete, pull request (all of them), status, workflow run, workflow job. The secret you enter there is
   ORCH_GITEA_WEBHOOK_SECRET.
6. In the repository, on its base branch: .orch/pipeline.toml (docs/reference/policy.md);
   `orch config check .orch/pipeline.toml` checks it.

<API> is the address at which Plane and Gitea reach `orch api`, port 8700 unless ORCH_API_PORT says otherwise. Both
refuse to send to private addresses unless told: Plane WEBHOOK_ALLOWED_HOSTS, Gitea ALLOWED_HOST_LIST in [webhook].

Then: fill in .env and orch.toml, `set -a; . ./.env; set +a`, `orch config check`, `orch api` and `orch worker`.
"""


def starts(folder: Path) -> dict[Path, str]:
    """The files a new installation begins with."""
    values = {"ORCH_CONFIG": quote(str(folder / "orch.toml")), "ORCH_HOME": quote(str(folder / "home"))}
    return {folder / "orch.toml": ORCH_TOML, folder / ".env": env_example(values)}
