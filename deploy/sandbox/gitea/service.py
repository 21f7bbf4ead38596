"""What happens when refs move, pull requests change and statuses arrive, whoever caused it."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.gitea import protection
from deploy.sandbox.gitea.git import ZERO, Commit, GitRepository
from deploy.sandbox.gitea.records import KnownRefs, Pull, Repository, Run, Status, Tables, User
from deploy.sandbox.gitea.shapes import PullView, Shapes
from deploy.sandbox.gitea.webhooks import Emitter
from deploy.sandbox.store import Store
from deploy.sandbox.web import RefusalError

HEADS = "refs/heads/"
TAGS = "refs/tags/"
PUSH_COMMITS = 200  # enough for total_commits of anything a person or an agent pushes

CommitListener = Callable[[Repository, str, str, str], None]


def refusal(status: int, message: str, root: str = "") -> RefusalError:
    """An error in Gitea's form."""
    return RefusalError(status, {"message": message, "url": f"{root}/api/swagger"})


class GiteaService:
    """The rules behind the API, the git server and the control API."""

    def __init__(self, store: Store, config: SandboxConfig, public_url: str) -> None:
        self.store = store
        self.tables = Tables(store)
        self.shapes = Shapes(self.tables, public_url)
        self.emitter = Emitter(store, self.tables, self.shapes, config)
        self.new_commit: list[CommitListener] = []
        self._home = config.home / "gitea"
        self._check_delay = config.gitea_conflict_check_delay
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._diffs: dict[tuple[str, str, str], tuple[str | None, bool, int, int, int]] = {}

    def refuse(self, status: int, message: str) -> RefusalError:
        """An error in Gitea's form."""
        return refusal(status, message, self.shapes.root)

    def path(self, repository: Repository) -> Path:
        """The bare repository's folder."""
        return self._home / f"{repository.id}.git"

    def git(self, repository: Repository) -> GitRepository:
        """The bare repository."""
        return GitRepository(self.path(repository))

    def level(self, repository: Repository, user: User) -> str:
        """What a user may do: admin, write or read."""
        if user.is_admin or user.id == repository.owner:
            return "admin"
        return repository.collaborators.get(user.id, "write")

    @asynccontextmanager
    async def changing_refs(self, repository: Repository, by: str) -> AsyncIterator[GitRepository]:
        """One change of refs at a time; what moved inside is told, as one user's doing, also after errors."""
        async with self._locks[repository.id]:
            git = self.git(repository)
            before = await git.refs()
            try:
                yield git
            finally:
                await self._tell(repository, before, await git.refs(), by)

    async def settle(self) -> None:
        """Tell what moved in the last moment of a killed process; nobody knows any more who did it."""
        for repository in self.tables.repositories.all():
            if known := self.tables.refs.get(repository.id):
                await self._tell(repository, known.refs, await self.git(repository).refs(), repository.owner)

    async def _tell(self, repository: Repository, before: dict[str, str], after: dict[str, str], by: str) -> None:
        changed = [ref for ref in {**before, **after} if before.get(ref) != after.get(ref)]
        for ref in changed:
            if ref.startswith(TAGS):
                await self._tell_tag(repository, ref, before.get(ref, ZERO), after.get(ref, ZERO), by)
        moved = [ref for ref in changed if ref.startswith(HEADS)]
        for ref in moved:
            repository.updated_at = time.time()
            self.tables.repositories.put(repository)
            old, new = before.get(ref, ZERO), after.get(ref, ZERO)
            branch = ref.removeprefix(HEADS)
            if new == ZERO:
                self.emitter.deleted(repository, "branch", branch, by)
                await self._close_orphans(repository, branch, by)
                continue
            if old == ZERO:
                self.emitter.created(repository, "branch", branch, new, by)
            known = [sha for other, sha in before.items() if other.startswith(HEADS)] if old == ZERO else [old]
            commits = await self.git(repository).log(new, *(f"^{sha}" for sha in known), limit=PUSH_COMMITS)
            self.emitter.push(repository, ref, (old, new), commits, by)
            await self._follow_head(repository, branch, old, new, by)
            await self._follow_base(repository, branch, old, new, by)
            for listener in self.new_commit:
                listener(repository, branch, new, by)
        self.tables.refs.put(KnownRefs(id=repository.id, refs=after))

    async def _tell_tag(self, repository: Repository, ref: str, old: str, new: str, by: str) -> None:
        """A deleted tag is a push and a delete, a new one a push and a create; a moved one is a push only."""
        name = ref.removeprefix(TAGS)
        # A tag of something that is no commit has no head commit to show.
        sha = None if new == ZERO else await self.git(repository).resolve(ref)
        head = await self.git(repository).commit(sha) if sha else None
        self.emitter.tag_pushed(repository, ref, (old, new), head, by)
        if new == ZERO:
            self.emitter.deleted(repository, "tag", name, by)
        elif old == ZERO:
            self.emitter.created(repository, "tag", name, new, by)

    async def about_run(self, repository: Repository, run: Run) -> tuple[str, list[Pull]]:
        """A CI run's title, and the open pull requests of its commit."""
        commit = await self.commit(repository, run.sha)
        pulls = [pull for pull in self.open_pulls(repository) if pull.head_sha == run.sha]
        return commit.message.split("\n", 1)[0], pulls

    async def tell_run(self, repository: Repository, run: Run, action: str) -> None:
        """Send that a CI run was requested, is in progress or completed."""
        self.emitter.run(repository, run, action, *await self.about_run(repository, run))

    async def _follow_head(self, repository: Repository, branch: str, old: str, new: str, by: str) -> None:
        for pull in self.open_pulls(repository):
            if pull.head != branch:
                continue
            pull.head_sha, pull.updated_at = new, time.time()
            self.recheck(pull)
            await self.git(repository).update_ref(f"refs/pull/{pull.index}/head", new)
            rule = protection.rule_for(self.tables, repository.id, pull.base)
            if rule and rule.settings["dismiss_stale_approvals"]:
                for review in self.tables.reviews.of(pull.id):
                    if review.state == "APPROVED":
                        review.dismissed = True
                        self.tables.reviews.put(review)
            view = await self.view(pull, repository)
            shas = {"before": old, "after": new}
            self.emitter.pull("pull_request_sync", "synchronized", (pull, repository, view), by, extra=shas)

    async def _follow_base(self, repository: Repository, branch: str, old: str, new: str, by: str) -> None:
        git = self.git(repository)
        for pull in self.open_pulls(repository):
            if pull.base != branch:
                continue
            landed = await git.is_ancestor(pull.head_sha, new)
            if landed and (old == ZERO or not await git.is_ancestor(pull.head_sha, old)):
                self.mark_merged(pull, by=by, merge_commit=pull.head_sha, base_before=old, base_after=new)
                await self.tell_closed(pull, repository, by)
            else:
                self.recheck(pull)

    async def _close_orphans(self, repository: Repository, branch: str, by: str) -> None:
        for pull in self.open_pulls(repository):
            if branch in {pull.head, pull.base}:
                await self.set_state(pull, repository, "closed", by)

    def open_pulls(self, repository: Repository) -> list[Pull]:
        """The open pull requests, oldest first."""
        return [pull for pull in self.tables.pulls.of(repository.id) if pull.state == "open"]

    def recheck(self, pull: Pull) -> None:
        """Start the conflict check: until it is over the pull request is not mergeable."""
        pull.checked_at = time.time() + self._check_delay
        self.tables.pulls.put(pull)

    def mark_merged(self, pull: Pull, *, by: str, merge_commit: str, base_before: str, base_after: str) -> None:
        """Record a merge."""
        now = time.time()
        pull.state, pull.merged_at, pull.closed_at, pull.updated_at = "closed", now, now, now
        pull.merged_by, pull.merge_commit_sha, pull.merged_base_sha = by, merge_commit, base_after
        pull.merge_base = pull.merge_base or base_before
        self.tables.pulls.put(pull)

    async def tell_closed(self, pull: Pull, repository: Repository, by: str) -> None:
        """Send `closed`; whether it was merged stands in the pull request."""
        view = await self.view(pull, repository)
        self.emitter.pull("pull_request", "closed", (pull, repository, view), by)

    async def set_state(self, pull: Pull, repository: Repository, state: str, by: str) -> None:
        """Close or reopen."""
        if state == pull.state:
            return
        if pull.merged_at is not None:
            raise self.refuse(412, "cannot change state of this pull request, it was already merged")
        now = time.time()
        if state == "closed":
            pull.state, pull.closed_at = "closed", now
        else:
            pull.state, pull.closed_at = "open", None
            pull.head_sha = (await self.git(repository).branches()).get(pull.head, pull.head_sha)
        pull.updated_at = now
        self.recheck(pull)
        action = "closed" if state == "closed" else "reopened"
        view = await self.view(pull, repository)
        self.emitter.pull("pull_request", action, (pull, repository, view), by)

    async def open_pull(
        self, repository: Repository, user: User, *, head: str, base: str, title: str, body: str
    ) -> Pull:
        """A new pull request, with the recorded refusals."""
        git = self.git(repository)
        branches = await git.branches()
        if head not in branches or base not in branches:
            raise self.refuse(404, "not found")
        twin = next((row for row in self.open_pulls(repository) if (row.head, row.base) == (head, base)), None)
        if twin:
            repo = repository.number
            ids = (
                f"id: {twin.number}, issue_id: {twin.issue_number}, head_repo_id: {repo}, "
                f"base_repo_id: {repo}, head_branch: {head}, base_branch: {base}"
            )
            raise self.refuse(409, f"pull request already exists for these targets [{ids}]")
        if await git.is_ancestor(branches[head], branches[base]):
            raise self.refuse(422, "Invalid PullRequest: There are no changes between the head and the base")
        index, now = self.store.next(f"gitea.index.{repository.id}"), time.time()
        pull = Pull(
            id=f"{repository.id}#{index}", number=self.store.next("gitea.pull"), index=index, user=user.id,
            issue_number=self.store.next("gitea.issue"), repository=repository.id, title=title, body=body,
            head=head,
            base=base, head_sha=branches[head], created_at=now, updated_at=now,
        )  # fmt: skip
        self.recheck(pull)
        await git.update_ref(f"refs/pull/{index}/head", pull.head_sha)
        view = await self.view(pull, repository)
        self.emitter.pull("pull_request", "opened", (pull, repository, view), user.id)
        return pull

    async def view(self, pull: Pull, repository: Repository) -> PullView:
        """What git says of a pull request; the head is the branch's own, as in the single GET."""
        branches = await self.git(repository).branches()
        head = branches.get(pull.head, pull.head_sha) if pull.state == "open" else pull.head_sha
        return await self._view(pull, repository, head, branches)

    async def recorded_views(self, pulls: list[Pull], repository: Repository) -> list[PullView]:
        """The same for a list, with the recorded heads, which may lag."""
        branches = await self.git(repository).branches()
        return [await self._view(pull, repository, pull.head_sha, branches) for pull in pulls]

    async def _view(self, pull: Pull, repository: Repository, head: str, branches: dict[str, str]) -> PullView:
        base = pull.merged_base_sha or branches.get(pull.base, pull.head_sha)
        start = pull.merge_base if pull.merged_at else base
        key = (repository.id, start or base, head)
        if key not in self._diffs:
            self._diffs[key] = await self._diff(repository, start or base, head)
        merge_base, clean, additions, deletions, files = self._diffs[key]
        mergeable = pull.merged_at is not None or (clean and time.time() >= pull.checked_at)
        return PullView(head, base, merge_base, mergeable, additions, deletions, files)

    async def _diff(self, repository: Repository, base: str, head: str) -> tuple[str | None, bool, int, int, int]:
        git = self.git(repository)
        merge_base = await git.merge_base(base, head)
        tree, _ = await git.merge_tree(base, head)
        text = await git.run("diff", "--numstat", "--no-renames", merge_base or base, head)
        rows = [line.split("\t", 2) for line in text.splitlines()]
        counts = [(int(added) if added.isdigit() else 0, int(gone) if gone.isdigit() else 0) for added, gone, _ in rows]
        return (
            merge_base,
            tree is not None,
            sum(row[0] for row in counts),
            sum(row[1] for row in counts),
            len(rows),
        )

    async def commit(self, repository: Repository, name: str) -> Commit:
        """The commit behind a branch, tag or sha, or 404."""
        git = self.git(repository)
        sha = await git.resolve(name)
        if sha is None:
            raise self.refuse(404, "not found")
        return await git.commit(sha)

    async def create_status(
        self,
        repository: Repository,
        sha: str,
        state: str,
        *,
        context: str,
        description: str,
        target_url: str,
        by: str,
    ) -> Status:
        """A new row of a commit's statuses, and its webhook."""
        commit = await self.commit(repository, sha)
        index = len(self.tables.statuses.of(f"{repository.id}@{commit.sha}")) + 1
        status = Status(
            id=f"{repository.id}@{commit.sha}#{index}", number=self.store.next("gitea.status"), index=index,
            repository=repository.id, sha=commit.sha, state=state, context=context, description=description,
            target_url=target_url, creator=by, created_at=time.time(),
        )  # fmt: skip
        self.tables.statuses.put(status)
        self.emitter.status(repository, status, commit)
        return status

    def statuses(self, repository: Repository, sha: str) -> list[Status]:
        """The newest status of each context of a commit."""
        return protection.latest(self.tables.statuses.of(f"{repository.id}@{sha}"))
