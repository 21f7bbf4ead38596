"""Merging a pull request: every refusal of the contract (gitea.md section 3), then real git."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from deploy.sandbox.gitea import protection
from deploy.sandbox.gitea.git import GitError, GitRepository, Person
from deploy.sandbox.gitea.records import Pull, Repository, User
from deploy.sandbox.gitea.service import HEADS, GiteaService
from deploy.sandbox.gitea.shapes import PullView
from deploy.sandbox.web import RefusalError


class MergeForm(BaseModel):
    """The old names of the fields: newer Gitea accepts them, older Gitea knows no others."""

    Do: str
    MergeTitleField: str = ""
    MergeMessageField: str = ""
    head_commit_id: str = ""
    delete_branch_after_merge: bool = False
    force_merge: bool = False
    merge_when_checks_succeed: bool = False


class ConflictError(Exception):
    """git could not merge."""


async def merge(service: GiteaService, repository: Repository, pull: Pull, user: User, form: MergeForm) -> None:
    """Merge or refuse; after this returns the base branch has moved and everybody was told."""
    if form.merge_when_checks_succeed:
        raise service.refuse(501, "the sandbox does not schedule merges")
    async with service.changing_refs(repository, user.id) as git:
        view = await service.view(pull, repository)
        _check_state(service, pull, view)
        _check_style(service, repository, form.Do)
        _check_rights(service, repository, pull, user)
        behind = not await git.is_ancestor(view.base_sha, view.head_sha)
        _check_protection(service, repository, pull, overrule=form.force_merge and user.is_admin, behind=behind)
        if form.head_commit_id and form.head_commit_id != view.head_sha:
            raise service.refuse(409, "head out of date")
        try:
            tip = await _Merger(git, pull, user, form, view).tip(behind=behind)
        except ConflictError as conflict:
            body = {"Style": form.Do, "StdOut": str(conflict), "StdErr": "", "Err": {}}
            raise RefusalError(409, body) from conflict
        if tip is None:
            raise service.refuse(409, "merge push out of date")
        try:
            await git.update_ref(HEADS + pull.base, tip, view.base_sha)
        except GitError as error:
            raise service.refuse(409, "merge push out of date") from error
        pull.head_sha, pull.merge_base = view.head_sha, view.merge_base
        service.mark_merged(pull, by=user.id, merge_commit=tip, base_before=view.base_sha, base_after=tip)
        if form.delete_branch_after_merge:
            await git.delete_ref(HEADS + pull.head)
    await service.tell_closed(pull, repository, user.id)


def _check_state(service: GiteaService, pull: Pull, view: PullView) -> None:
    if pull.merged_at is not None:
        raise service.refuse(405, "The PR is already merged")
    if pull.state == "closed":
        raise service.refuse(404, "not found")
    if pull.title.upper().startswith(("WIP:", "[WIP]")):
        raise service.refuse(405, "Work in progress PRs cannot be merged")
    if not view.mergeable:
        raise service.refuse(405, "Please try again later")


def _check_style(service: GiteaService, repository: Repository, style: str) -> None:
    allowed = {
        "merge": repository.allow_merge_commits,
        "rebase": repository.allow_rebase,
        "squash": repository.allow_squash_merge,
        "fast-forward-only": repository.allow_fast_forward_only_merge,
    }
    if not allowed.get(style):
        raise service.refuse(405, f"{style} is not allowed an allowed merge style for this repository")


def _check_rights(service: GiteaService, repository: Repository, pull: Pull, user: User) -> None:
    rule = protection.rule_for(service.tables, repository.id, pull.base)
    allowed = service.level(repository, user) != "read"
    if rule and rule.settings["enable_merge_whitelist"]:
        names = rule.settings["merge_whitelist_usernames"]
        allowed = allowed and isinstance(names, list) and user.id in names
    if not allowed:
        raise service.refuse(405, "User not allowed to merge PR")


def _check_protection(
    service: GiteaService, repository: Repository, pull: Pull, *, overrule: bool, behind: bool
) -> None:
    rule = protection.rule_for(service.tables, repository.id, pull.base)
    if rule is None or (overrule and not rule.settings["block_admin_merge_override"]):
        return
    reviews, statuses = service.tables.reviews.of(pull.id), service.statuses(repository, pull.head_sha)
    if objection := protection.objections(rule, pull, reviews, statuses, behind=behind):
        raise service.refuse(405, objection)


class _Merger:
    """One merge in one style."""

    def __init__(self, git: GitRepository, pull: Pull, user: User, form: MergeForm, view: PullView) -> None:
        self._git, self._pull, self._form, self._view = git, pull, form, view
        email = user.email or f"{user.id}@noreply.example.com"
        self._user = Person(user.full_name or user.id, email, datetime.now(UTC))

    async def tip(self, *, behind: bool) -> str | None:
        """The new tip of the base; None if only a fast-forward was asked and the base is no ancestor."""
        base, head = self._view.base_sha, self._view.head_sha
        match self._form.Do:
            case "fast-forward-only":
                return None if behind else head
            case "rebase":
                return await self._rebase(base, head) if behind else head
            case "squash":
                return await self._commit([base], f"{self._pull.title} (#{self._pull.index})")
            case _:
                pull = self._pull
                title = f"Merge pull request '{pull.title}' (#{pull.index}) from {pull.head} into {pull.base}"
                return await self._commit([base, head], title)

    async def _commit(self, parents: list[str], default_title: str) -> str:
        tree, words = await self._git.merge_tree(self._view.base_sha, self._view.head_sha)
        if tree is None:
            raise ConflictError(words)
        title = self._form.MergeTitleField or default_title
        message = f"{title}\n\n{self._form.MergeMessageField}".strip() + "\n"
        return await self._git.commit_tree(tree, parents, message, self._user, self._user)

    async def _rebase(self, base: str, head: str) -> str:
        folder = Path(tempfile.mkdtemp())
        try:
            await self._git.run("clone", "--quiet", "--no-checkout", str(self._git.path), str(folder / "work"))
            work = GitRepository(folder / "work")
            await work.run("checkout", "--quiet", "--detach", head)
            try:
                await work.run("rebase", "--quiet", base, env=self._user.environment("COMMITTER"))
            except GitError as error:
                raise ConflictError(str(error)) from error
            tip = await work.run("rev-parse", "HEAD")
            await self._git.run("fetch", "--quiet", str(work.path), tip)
            return tip
        finally:
            shutil.rmtree(folder, ignore_errors=True)
