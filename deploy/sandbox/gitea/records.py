"""What the Gitea server stores beside the bare repositories. Times are seconds since the epoch."""

from typing import ClassVar, Literal

from pydantic import Field

from deploy.sandbox.store import Record, Store, Table

Level = Literal["read", "write", "admin"]
RunStatus = Literal["queued", "in_progress", "completed"]


class User(Record):
    """A user or an organization; `id` is the login."""

    number: int
    full_name: str = ""
    email: str = ""
    token: str = ""
    scopes: list[str] = Field(default_factory=lambda: ["all"])
    is_admin: bool = False
    is_org: bool = False
    created_at: float = 0


# Statuses of CI are signed by this user (payloads/gitea/webhook_status_*.json).
ACTIONS_USER = User(id="gitea-actions", number=-2, full_name="Gitea Actions", email="teabot@gitea.io")


class Repository(Record):
    """A repository; `id` is owner/name. Users who are not listed as collaborators may write."""

    number: int
    owner: str
    name: str
    description: str = ""
    private: bool = True
    default_branch: str = "main"
    collaborators: dict[str, Level] = Field(default_factory=dict)
    allow_merge_commits: bool = True
    allow_rebase: bool = True
    allow_squash_merge: bool = True
    allow_fast_forward_only_merge: bool = True
    ci_command: list[str] | str | None = None
    ci_context: str = "CI / test (push)"
    created_at: float
    updated_at: float


class Pull(Record):
    """A pull request; `id` is owner/name#index."""

    number: int
    issue_number: int
    index: int
    repository: str
    user: str
    title: str
    body: str = ""
    head: str
    base: str
    state: Literal["open", "closed"] = "open"
    head_sha: str
    merged_at: float | None = None
    merged_by: str | None = None
    merge_commit_sha: str | None = None
    merged_base_sha: str | None = None
    merge_base: str | None = None
    requested_reviewers: list[str] = Field(default_factory=list)
    checked_at: float = Field(default=0, description="When the conflict check of the present head is over.")
    created_at: float
    updated_at: float
    closed_at: float | None = None


class Review(Record):
    """A review of a pull request at one commit."""

    number: int
    pull: str
    user: str
    state: Literal["APPROVED", "REQUEST_CHANGES", "COMMENT", "PENDING"]
    body: str = ""
    commit_id: str
    official: bool = True
    dismissed: bool = False
    comments: list[dict[str, object]] = Field(default_factory=list)
    submitted_at: float


class Comment(Record):
    """A comment on a pull request."""

    number: int
    pull: str
    user: str
    body: str
    created_at: float
    updated_at: float


class Status(Record):
    """One row of a commit's statuses; `index` counts within the commit, `number` in the database."""

    number: int
    index: int
    repository: str
    sha: str
    state: str
    context: str
    description: str = ""
    target_url: str = ""
    creator: str
    created_at: float

    @property
    def commit(self) -> str:
        """Whose status this is."""
        return f"{self.repository}@{self.sha}"


class Hook(Record):
    """A repository's webhook."""

    number: int
    repository: str
    name: str = ""
    url: str
    secret: str = ""
    content_type: str = "json"
    events: list[str]
    branch_filter: str = ""
    authorization_header: str = ""
    active: bool = False
    created_at: float
    updated_at: float


class Protection(Record):
    """A branch protection rule; `settings` holds the fields exactly as the API shows them."""

    repository: str
    rule_name: str
    settings: dict[str, object]
    created_at: float
    updated_at: float


class Run(Record):
    """One CI run of one commit."""

    number: int
    job_number: int
    index: int
    repository: str
    sha: str
    branch: str
    actor: str
    attempt: int = 1
    status: RunStatus = "queued"
    conclusion: Literal["success", "failure", "cancelled"] | None = None
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None


class KnownRefs(Record):
    """The refs of a repository (`id`) whose moves were told."""

    refs: dict[str, str]


class Flavour(Record):
    """Which of the two servers this one is taken for."""

    ONLY: ClassVar[str] = "flavour"
    name: Literal["gitea", "forgejo"] = "gitea"


class Tables:
    """Every table of the Gitea server."""

    def __init__(self, store: Store) -> None:
        self.users = Table(store, "gitea.user", User)
        self.repositories = Table(store, "gitea.repository", Repository)
        self.pulls = Table(store, "gitea.pull", Pull, parent=lambda row: row.repository)
        self.reviews = Table(store, "gitea.review", Review, parent=lambda row: row.pull)
        self.comments = Table(store, "gitea.comment", Comment, parent=lambda row: row.pull)
        self.statuses = Table(store, "gitea.status", Status, parent=lambda row: row.commit)
        self.hooks = Table(store, "gitea.hook", Hook, parent=lambda row: row.repository)
        self.protections = Table(store, "gitea.protection", Protection, parent=lambda row: row.repository)
        self.refs = Table(store, "gitea.refs", KnownRefs)
        self.runs = Table(store, "gitea.run", Run, parent=lambda row: row.repository)
        self.flavours = Table(store, "gitea.flavour", Flavour)

    @property
    def forgejo(self) -> bool:
        """Whether the server behaves as Forgejo (contracts of Gitea, 4)."""
        flavour = self.flavours.get(Flavour.ONLY)
        return flavour is not None and flavour.name == "forgejo"
