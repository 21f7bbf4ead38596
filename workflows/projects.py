"""`orch.toml` as plain types: which Plane project works on which Gitea repository, under which names."""

import re
import tomllib
from collections import defaultdict
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from workflows.model import Frozen, ItemState, Repository
from workflows.problems import explain

PlaneId = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)]
"""A UUID of Plane as Plane writes it. People may write it in capitals: that is the same UUID."""


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", value) or value in {".", ".."}:
        raise ValueError(
            f"{value!r} is no name in Gitea (letters, digits, `_`, `.`, and `-` but not first); write it as Gitea does"
        )
    return value


def _branch(value: str) -> str:
    if not re.fullmatch(r"[^\s~^:?*\[\\/-][^\s~^:?*\[\\]*", value) or ".." in value or value.endswith(("/", ".lock")):
        raise ValueError(f"{value!r} is no branch (no spaces, no leading `-`); write it as `git branch` shows it")
    return value


class _RepositoryTable(Repository):
    """`[projects.<KEY>.repository]`: a misspelt `base` would let tasks land on another branch than meant."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, use_attribute_docstrings=True)

    owner: Annotated[str, AfterValidator(_name)]
    """The user or organisation in Gitea."""
    name: Annotated[str, AfterValidator(_name)]
    """The repository's name in Gitea."""
    base: Annotated[str, AfterValidator(_branch)] = "main"
    """The branch tasks land on."""

    def plain(self) -> Repository:
        """The repository as everybody else knows it."""
        return Repository.model_validate(self.model_dump(exclude_unset=True))


class StateNames(BaseModel):
    """What a project calls the Plane states Orch reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    in_progress: str = "In Progress"
    """Where a person moves an item that Orch is to work on."""
    awaiting_approval: str = "Awaiting approval"
    """Where Orch moves an item whose spec is to be decided on."""
    approved: str = "Approved"
    """Where an approver moves it to approve."""
    rejected: str = "Rejected"
    """Where an approver moves it to reject."""
    done: str = "Done"
    """Where Orch moves it once its change is deployed."""
    cancelled: str = "Cancelled"
    """Where a person moves it to cancel the task."""

    def name_of(self, state: ItemState) -> str:
        """The project's own name of a state."""
        return str(getattr(self, state.value))


class ProjectConfig(BaseModel):
    """One `[projects.<KEY>]` table. `<KEY>` is the identifier in ids and branches, and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    plane_project_id: PlaneId
    """The project's UUID in Plane, as in the address of its page."""
    repository: Annotated[_RepositoryTable, AfterValidator(_RepositoryTable.plain)]
    """The repository in Gitea."""
    states: StateNames = StateNames()
    """What this project calls Plane's states."""
    bots: frozenset[PlaneId] = frozenset()
    """Plane user ids of our own accounts: what they do never counts as a person's act."""
    approvers: frozenset[PlaneId] = frozenset()
    """Plane user ids whose approve or reject counts."""

    @model_validator(mode="after")
    def _bots_approve_nothing(self) -> "ProjectConfig":
        both = sorted(self.bots & self.approvers)
        if both:
            raise ValueError(
                f"{', '.join(both)} stands under `bots` and under `approvers`: a bot's act never counts as a "
                "person's decision; take it out of `approvers`"
            )
        return self


class OrchConfig(BaseModel):
    """The whole of `orch.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    plane_workspace: str
    """The workspace's name in Plane's addresses."""
    plane_public_url: str
    """Plane's address for links people click."""
    gitea_public_url: str
    """Gitea's address for links people click."""
    projects: dict[str, ProjectConfig] = Field(min_length=1)
    """The projects, each under the key used in ids and branches."""

    @model_validator(mode="after")
    def _one_project_for_each_plane_project(self) -> "OrchConfig":
        keys: dict[str, list[str]] = defaultdict(list)
        for key, project in self.projects.items():
            keys[project.plane_project_id].append(key)
        for plane_id, several in keys.items():
            if len(several) > 1:
                raise ValueError(
                    f"the projects {', '.join(several)} have the same plane_project_id {plane_id}: whose item a "
                    "webhook is about could not be told; keep one of them"
                )
        return self

    def project_of_plane_id(self, plane_project_id: str) -> str | None:
        """The project key of a Plane project UUID, or None if the project is not configured."""
        for key, project in self.projects.items():
            if project.plane_project_id == plane_project_id.strip().lower():
                return key
        return None

    def project_of(self, key: str) -> ProjectConfig | None:
        """The project of a task key such as `DEMO-1`."""
        return self.projects.get(key.rpartition("-")[0])


def parse_orch_toml(text: str, where: str) -> tuple[OrchConfig | None, list[str]]:
    """`orch.toml` as read, or everything that is wrong with it; `where` names the file."""
    try:
        return OrchConfig.model_validate(tomllib.loads(text)), []
    except tomllib.TOMLDecodeError as error:
        return None, [f"{where}: is not TOML: {error}; mend it there"]
    except ValidationError as error:
        return None, explain(error, where, OrchConfig)


class ProjectFacts(Frozen):
    """What a task carries of its project: the names a workflow needs, nothing secret."""

    key: str
    repository: Repository
    temporal_ui: str = ""
