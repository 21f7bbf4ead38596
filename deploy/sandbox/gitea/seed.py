"""Seeding Gitea with users, repositories, protection and webhooks. Seeding twice changes nothing."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.gitea import protection
from deploy.sandbox.gitea.git import GitError, Person
from deploy.sandbox.gitea.git_http import PRE_RECEIVE
from deploy.sandbox.gitea.records import Hook, Level, Protection, Repository, User
from deploy.sandbox.gitea.service import HEADS, GiteaService
from deploy.sandbox.gitea.webhooks import FLAGS, FORGEJO_FLAGS
from deploy.sandbox.web import RefusalError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # names become folders


class Strict(BaseModel):
    """A control body; a misspelt key is an error, not a silence."""

    model_config = ConfigDict(extra="forbid")


class SeedUser(Strict):
    """A user, known by the login."""

    login: str = Field(pattern=NAME)
    full_name: str = ""
    email: str = ""
    token: str = ""
    scopes: list[str] = Field(default_factory=lambda: ["all"])
    is_admin: bool = False


class SeedRepository(Strict):
    """A repository that starts with `files`, `import_git` (HEAD of a git folder) or `import_folder`."""

    owner: str = Field(pattern=NAME)
    name: str = Field(pattern=NAME)
    description: str = ""
    default_branch: str = "main"
    collaborators: dict[str, Level] = Field(default_factory=dict)
    files: dict[str, str] | None = None
    import_git: Path | None = None
    import_folder: Path | None = None
    protected: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Rule name -> settings.")
    ci_command: list[str] | str | None = None
    ci_context: str = "CI / test (push)"
    allow_merge_commits: bool = True
    allow_rebase: bool = True
    allow_squash_merge: bool = True
    allow_fast_forward_only_merge: bool = True


class SeedHook(Strict):
    """An active webhook for every event the sandbox sends, known by repository and url."""

    repository: str
    url: str
    secret: str
    events: list[str] = Field(default_factory=lambda: [*FLAGS, *FORGEJO_FLAGS])


class GiteaSeed(Strict):
    """Everything at once; what exists already is kept or brought up to date."""

    users: list[SeedUser] = Field(default_factory=list)
    repositories: list[SeedRepository] = Field(default_factory=list)
    hooks: list[SeedHook] = Field(default_factory=list)


class Seeder:
    """Brings the server to what a seed asks."""

    def __init__(self, service: GiteaService) -> None:
        self._service, self._tables = service, service.tables

    async def apply(self, seed: GiteaSeed) -> None:
        """Users first, because repositories name them."""
        for user in seed.users:
            self._user(user)
        for repository in seed.repositories:
            await self._repository(repository)
        for hook in seed.hooks:
            self._hook(hook)

    def _user(self, wanted: SeedUser) -> User:
        known = self._tables.users.get(wanted.login)
        fields = wanted.model_dump(exclude={"login"})
        fields["token"] = wanted.token or (known.token if known else "")
        fields["email"] = wanted.email or f"{wanted.login}@example.com"
        number = known.number if known else self._service.store.next("gitea.user")
        created_at = known.created_at if known else time.time()
        return self._tables.users.put(User(id=wanted.login, number=number, created_at=created_at, **fields))

    async def _repository(self, wanted: SeedRepository) -> None:
        if self._tables.users.get(wanted.owner) is None:
            number = self._service.store.next("gitea.user")
            self._tables.users.put(User(id=wanted.owner, number=number, is_org=True, created_at=time.time()))
        repository_id = f"{wanted.owner}/{wanted.name}"
        known, now = self._tables.repositories.get(repository_id), time.time()
        fields = wanted.model_dump(exclude={"files", "import_git", "import_folder", "protected"})
        repository = Repository(
            id=repository_id, number=known.number if known else self._service.store.next("gitea.repository"),
            created_at=known.created_at if known else now, updated_at=now, **fields,
        )  # fmt: skip
        self._tables.repositories.put(repository)
        for rule, settings in wanted.protected.items():
            self._protect(repository, rule, settings)
        await self._content(repository, wanted)

    async def _content(self, repository: Repository, wanted: SeedRepository) -> None:
        git = self._service.git(repository)
        if not git.path.exists():
            await git.create(repository.default_branch)
            hook = git.path / "hooks" / "pre-receive"
            hook.parent.mkdir(exist_ok=True)
            hook.write_text(PRE_RECEIVE)
            hook.chmod(0o755)
        async with self._service.changing_refs(repository, repository.owner):
            if repository.default_branch in await git.branches():
                return
            ref = HEADS + repository.default_branch
            if wanted.import_git:
                try:
                    await git.run("fetch", "--quiet", str(wanted.import_git.resolve()), f"HEAD:{ref}")
                except GitError as error:
                    raise RefusalError(422, {"error": f"{wanted.import_git}: {error}"}) from error
                return
            files = _folder(wanted.import_folder) if wanted.import_folder else _bytes(wanted.files or _readme(wanted))
            tree = await git.write_tree(None, files)
            author = Person(repository.owner, f"{repository.owner}@example.com", datetime.now(UTC))
            await git.update_ref(ref, await git.commit_tree(tree, [], "Initial\n", author, author))

    def _protect(self, repository: Repository, rule: str, settings: dict[str, Any]) -> None:
        unknown = set(settings) - set(protection.DEFAULTS)
        if unknown:
            raise RefusalError(422, {"error": f"unknown protection settings: {sorted(unknown)}"})
        rule_id, now = f"{repository.id}:{rule}", time.time()
        merged = {**protection.DEFAULTS, **settings}
        self._tables.protections.put(
            Protection(
                id=rule_id,
                repository=repository.id,
                rule_name=rule,
                settings=merged,
                created_at=now,
                updated_at=now,
            )
        )

    def _hook(self, wanted: SeedHook) -> None:
        if self._tables.repositories.get(wanted.repository) is None:
            raise RefusalError(422, {"error": f"no repository {wanted.repository}"})
        known = next((row for row in self._tables.hooks.of(wanted.repository) if row.url == wanted.url), None)
        number, now = known.number if known else self._service.store.next("gitea.hook"), time.time()
        self._tables.hooks.put(
            Hook(
                id=str(number),
                number=number,
                active=True,
                **wanted.model_dump(),
                updated_at=now,
                created_at=known.created_at if known else now,
            )
        )


def _folder(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise RefusalError(422, {"error": f"{folder} is not a folder"})
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in files.items() if ".git" not in name.parts}


def _bytes(files: dict[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in files.items()}


def _readme(wanted: SeedRepository) -> dict[str, str]:
    return {"README.md": f"# {wanted.name}\n"}
