"""A person at Gitea's web UI, and the levers of the small Actions."""

from datetime import UTC, datetime
from typing import Literal

from aiohttp import web

from deploy.sandbox.gitea.api_pulls import create_review
from deploy.sandbox.gitea.ci import Ci
from deploy.sandbox.gitea.git import ZERO, Person
from deploy.sandbox.gitea.merge import MergeForm, merge
from deploy.sandbox.gitea.records import Flavour, Pull, Repository, Run, User
from deploy.sandbox.gitea.seed import GiteaSeed, Seeder, Strict
from deploy.sandbox.gitea.service import HEADS, GiteaService
from deploy.sandbox.web import CONTROL, RefusalError, control_body


class UiCommit(Strict):
    """A person pushes a commit. A file that is null is deleted; `start` is where a new branch begins."""

    actor: str
    branch: str
    files: dict[str, str | None]
    message: str = "Change by hand"
    start: str | None = None
    force: bool = False


class UiReview(Strict):
    """A person reviews."""

    actor: str
    event: Literal["APPROVED", "REQUEST_CHANGES", "COMMENT"]
    body: str = ""
    commit_id: str = ""


class UiActor(Strict):
    """A person who acts."""

    actor: str


class UiMerge(UiActor):
    """A person merges by hand."""

    style: Literal["merge", "squash", "rebase", "fast-forward-only"] = "merge"
    delete_branch: bool = False


class UiBranch(UiActor):
    """A person deletes a branch."""

    branch: str


class FlavourChoice(Strict):
    """Which server the Gitea of the sandbox is taken for."""

    name: Literal["gitea", "forgejo"]


class CiTarget(Strict):
    """The newest run of a commit."""

    repository: str
    sha: str


class GiteaControl:
    """Handlers of the control API."""

    def __init__(self, service: GiteaService, ci: Ci) -> None:
        self._service, self._tables, self._ci = service, service.tables, ci
        self._seeder = Seeder(service)

    def add_routes(self, app: web.Application) -> None:
        """Register every route."""
        repo = f"{CONTROL}/ui/repos/{{owner}}/{{name}}"
        pull = f"{repo}/pulls/{{index:\\d+}}"
        app.router.add_post(f"{CONTROL}/seed", self.seed)
        app.router.add_post(f"{repo}/commits", self.commit)
        app.router.add_post(f"{repo}/branches/delete", self.delete_branch)
        app.router.add_post(f"{pull}/reviews", self.review)
        app.router.add_post(f"{pull}/close", self.close)
        app.router.add_post(f"{pull}/reopen", self.reopen)
        app.router.add_post(f"{pull}/merge", self.merge)
        app.router.add_post(f"{CONTROL}/ci/rerun", self.rerun)
        app.router.add_post(f"{CONTROL}/ci/cancel", self.cancel)
        app.router.add_put(f"{CONTROL}/flavour", self.flavour)

    async def seed(self, request: web.Request) -> web.Response:
        """Bring the server to what is asked; answer where the repositories are."""
        seed = await control_body(request, GiteaSeed)
        await self._seeder.apply(seed)
        named = [
            repository
            for wanted in seed.repositories
            if (repository := self._tables.repositories.get(f"{wanted.owner}/{wanted.name}"))
        ]
        shown = {row.id: {"id": row.number, "bare_path": str(self._service.path(row)),
                          "branches": await self._service.git(row).branches()} for row in named}  # fmt: skip
        users = {row.id: row.number for row in self._tables.users.all()}
        return web.json_response({"repositories": shown, "users": users})

    async def commit(self, request: web.Request) -> web.Response:
        """A person pushes a commit to an old or a new branch."""
        repository, act = self._repository(request), await control_body(request, UiCommit)
        user = self._actor(act.actor)
        person = Person(user.full_name or user.id, user.email, datetime.now(UTC))
        async with self._service.changing_refs(repository, user.id) as git:
            branches = await git.branches()
            tip = branches.get(act.branch)
            start = await git.resolve(act.start) if act.start else tip or branches.get(repository.default_branch)
            if start is None or (tip and start != tip and not act.force):
                raise RefusalError(422, {"error": "no such start, or it would rewrite the branch without force"})
            files = {path: None if text is None else text.encode() for path, text in act.files.items()}
            tree = await git.write_tree(start, files)
            sha = await git.commit_tree(tree, [start], act.message.rstrip("\n") + "\n", person, person)
            await git.update_ref(HEADS + act.branch, sha, tip or ZERO)
        return web.json_response({"sha": sha, "branch": act.branch}, status=201)

    async def delete_branch(self, request: web.Request) -> web.Response:
        """A person deletes a branch; its open pull requests are closed."""
        repository, act = self._repository(request), await control_body(request, UiBranch)
        async with self._service.changing_refs(repository, self._actor(act.actor).id) as git:
            if act.branch not in await git.branches():
                raise RefusalError(404, {"error": f"no branch {act.branch}"})
            await git.delete_ref(HEADS + act.branch)
        return web.Response(status=204)

    async def review(self, request: web.Request) -> web.Response:
        """A person reviews a pull request."""
        repository, pull = self._pull(request)
        act = await control_body(request, UiReview)
        body = act.model_dump(exclude={"actor"})
        review = await create_review(self._service, repository, pull, self._actor(act.actor), body)
        return web.json_response(self._service.shapes.review(review, pull), status=201)

    async def close(self, request: web.Request) -> web.Response:
        """A person closes a pull request without merging it."""
        return await self._set_state(request, "closed")

    async def reopen(self, request: web.Request) -> web.Response:
        """A person reopens a pull request."""
        return await self._set_state(request, "open")

    async def merge(self, request: web.Request) -> web.Response:
        """A person merges by hand, with the same refusals as the API's."""
        repository, pull = self._pull(request)
        act = await control_body(request, UiMerge)
        form = MergeForm(Do=act.style, delete_branch_after_merge=act.delete_branch, force_merge=True)
        await merge(self._service, repository, pull, self._actor(act.actor), form)
        return web.json_response({"merge_commit_sha": pull.merge_commit_sha})

    async def rerun(self, request: web.Request) -> web.Response:
        """Run the newest run of a commit again."""
        run = await self._run(request)
        return web.json_response({"run": run.number, "started": self._ci.rerun(run)})

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel the newest run of a commit."""
        run = await self._run(request)
        self._ci.cancel(run)
        return web.json_response({"run": run.number})

    async def flavour(self, request: web.Request) -> web.Response:
        """Behave as Gitea or as Forgejo from now on, also after a restart."""
        choice = await control_body(request, FlavourChoice)
        self._tables.flavours.put(Flavour(id=Flavour.ONLY, name=choice.name))
        return web.json_response({"name": choice.name})

    async def _set_state(self, request: web.Request, state: str) -> web.Response:
        repository, pull = self._pull(request)
        act = await control_body(request, UiActor)
        await self._service.set_state(pull, repository, state, self._actor(act.actor).id)
        return web.json_response({"state": pull.state})

    async def _run(self, request: web.Request) -> Run:
        target = await control_body(request, CiTarget)
        rows = [run for run in self._tables.runs.of(target.repository) if run.sha == target.sha]
        if not rows:
            raise RefusalError(404, {"error": "no run of this commit"})
        return rows[-1]

    def _actor(self, login: str) -> User:
        user = self._tables.users.get(login)
        if user is None:
            raise RefusalError(404, {"error": f"no user {login}"})
        return user

    def _repository(self, request: web.Request) -> Repository:
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self._tables.repositories.get(name)
        if repository is None:
            raise RefusalError(404, {"error": f"no repository {name}"})
        return repository

    def _pull(self, request: web.Request) -> tuple[Repository, Pull]:
        repository = self._repository(request)
        pull = self._tables.pulls.get(f"{repository.id}#{request.match_info['index']}")
        if pull is None:
            raise RefusalError(404, {"error": "no such pull request"})
        return repository, pull
