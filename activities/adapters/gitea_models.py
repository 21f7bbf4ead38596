"""What Gitea's and Forgejo's REST API v1 sends, as far as Orch reads it (contracts/gitea.md, 3 and 4).

`mergeable` is left out on purpose: it is stale in answers and events alike (contracts/gitea.md, 2).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import quote

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

OverallState = Literal["pending", "success", "failure"]


class GiteaModel(BaseModel):
    """Immutable, tolerant of fields that a newer Gitea adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True)


class User(GiteaModel):
    """A person or a bot; `id` is the identity, `login` can be renamed. Gitea Actions is id -2."""

    id: int
    login: str
    full_name: str = ""


class Permissions(GiteaModel):
    """What our token may do in a repository; hooks need `admin`."""

    admin: bool = False
    push: bool = False
    pull: bool = False


class Repo(GiteaModel):
    """A repository and the merge styles it allows; fast-forward-only exists from Gitea 1.22."""

    id: int
    full_name: str
    default_branch: str = ""
    private: bool = False
    archived: bool = False
    empty: bool = False
    clone_url: str = ""
    html_url: str = ""
    permissions: Permissions | None = None
    allow_merge_commits: bool = False
    allow_rebase: bool = False
    allow_squash_merge: bool = False
    allow_fast_forward_only_merge: bool = False
    default_merge_style: str = ""


class Branch(GiteaModel):
    """A branch and what protects it. `status_check_contexts` are globs."""

    name: str
    sha: str = Field(validation_alias=AliasPath("commit", "id"))
    protected: bool = False
    required_approvals: int = 0
    enable_status_check: bool = False
    status_check_contexts: tuple[str, ...] | None = ()


class PullRef(GiteaModel):
    """One end of a pull request."""

    ref: str
    sha: str
    repo_id: int = 0


class Pull(GiteaModel):
    """A pull request.

    From `get_pull`, `head.sha` is the branch itself; from a list it is refs/pull/N/head, which lags a push.
    Closed and not merged means abandoned.
    """

    number: int
    title: str = ""
    body: str | None = ""
    state: Literal["open", "closed"]
    draft: bool = False
    merged: bool = False
    merged_at: datetime | None = None
    merge_commit_sha: str | None = None
    merged_by: User | None = None
    user: User | None = None
    head: PullRef
    base: PullRef
    html_url: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    closed_at: datetime | None = None


class Review(GiteaModel):
    """A review. `stale`: the diff changed after it; `official`: its author may approve."""

    id: int
    user: User | None = None
    state: str
    body: str | None = ""
    commit_id: str = ""
    stale: bool = False
    official: bool = False
    dismissed: bool = False
    submitted_at: datetime | None = None


class ContextStatus(GiteaModel):
    """The latest word of one CI context about one commit.

    `id` counts within the commit. Gitea Actions sends `target_url` as a path without host.
    """

    id: int
    context: str
    state: str = Field(validation_alias=AliasChoices("status", "state"))
    description: str | None = ""
    target_url: str | None = ""
    created_at: datetime | None = None


class CombinedStatus(GiteaModel):
    """Every context of a commit, and one state over them that we compute ourselves."""

    sha: str
    state: OverallState
    statuses: tuple[ContextStatus, ...]


class Run(GiteaModel):
    """A workflow run of Gitea (>= 1.25) or Forgejo, which has no `conclusion`: its `status` says all."""

    id: int
    head_sha: str = Field(validation_alias=AliasChoices("head_sha", "commit_sha"))
    event: str = ""
    status: str
    conclusion: str | None = None
    html_url: str = ""


class Job(GiteaModel):
    """A job of a workflow run."""

    id: int
    name: str = ""
    conclusion: str | None = None


class Hook(GiteaModel):
    """A webhook of the repository; its secret is never returned."""

    id: int
    type: str = ""
    url: str = Field(default="", validation_alias=AliasPath("config", "url"))
    content_type: str = Field(default="", validation_alias=AliasPath("config", "content_type"))
    events: tuple[str, ...] | None = ()
    active: bool = False
    branch_filter: str = ""


class File(GiteaModel):
    """A file's content as the contents API sends it; `type` is file, dir, symlink or submodule."""

    type: str
    size: int = 0
    encoding: str | None = None
    content: str | None = None


def overall_state(statuses: tuple[ContextStatus, ...]) -> OverallState:
    """One state over the latest status of each context, by Gitea's rules (contracts/gitea.md, 3).

    Failure, error and warning are failure; success and skipped are success; no status at all is pending, and
    so is a state we do not know, which may not pass and may not be blamed on anyone.
    """
    states = {status.state for status in statuses}
    if states & {"failure", "error", "warning"}:
        return "failure"
    return "success" if states and states <= {"success", "skipped"} else "pending"


@dataclass(frozen=True, slots=True)
class PublicUrls:
    """Links for people. Gitea's public address differs from the one our API calls use."""

    public_base: str
    owner: str
    repo: str

    def pull(self, number: int) -> str:
        """The page of a pull request."""
        return f"{self._root}/pulls/{number}"

    def commit(self, sha: str) -> str:
        """The page of a commit."""
        return f"{self._root}/commit/{quote(sha, safe='')}"

    def file(self, path: str, sha: str) -> str:
        """A file as it is in one commit, so that the link keeps showing what was meant."""
        return f"{self._root}/src/commit/{quote(sha, safe='')}/{quote(path)}"

    def branch(self, name: str) -> str:
        """The files of a branch."""
        return f"{self._root}/src/branch/{quote(name)}"

    @property
    def _root(self) -> str:
        return f"{self.public_base.rstrip('/')}/{quote(self.owner, safe='')}/{quote(self.repo, safe='')}"
