"""The pages behind Gitea's public links, so that a link opened by a person shows the thing."""

from aiohttp import web

from deploy.sandbox.gitea.ci import Ci
from deploy.sandbox.gitea.git import EMPTY_TREE, GitError
from deploy.sandbox.gitea.records import Repository, Status
from deploy.sandbox.gitea.service import GiteaService
from deploy.sandbox.gitea.shapes import stamp
from deploy.sandbox.web import Markup, element, page

DIFF_LIMIT = 200_000


class Pages:
    """Read-only HTML, open to everyone who reaches the port."""

    def __init__(self, service: GiteaService, ci: Ci) -> None:
        self._service, self._tables, self._ci = service, service.tables, ci

    def add_routes(self, app: web.Application) -> None:
        """Register every page."""
        repo = "/{owner}/{name}"
        app.router.add_get(repo, self.repository)
        app.router.add_get(f"{repo}/pulls/{{index:\\d+}}", self.pull)
        app.router.add_get(f"{repo}/commit/{{sha}}", self.commit)
        app.router.add_get(f"{repo}/actions/runs/{{run:\\d+}}", self.run)
        app.router.add_get(f"{repo}/actions/runs/{{run:\\d+}}/jobs/{{job:\\d+}}", self.run)
        app.router.add_get(f"{repo}/src/{{kind:branch|commit}}/{{rest:.+}}", self.file)
        app.router.add_get(f"{repo}/raw/{{kind:branch|commit}}/{{rest:.+}}", self.raw)

    async def repository(self, request: web.Request) -> web.Response:
        """Branches and pull requests."""
        repository = self._repository(request)
        branches = await self._service.git(repository).branches()
        pulls = [
            element(
                "li",
                element("a", f"#{pull.index} {pull.title}", href=f"/{repository.id}/pulls/{pull.index}"),
                f" ({_state(pull.state, pull.merged_at)})",
            )
            for pull in reversed(self._tables.pulls.of(repository.id))
        ]
        tips = [element("li", f"{name} ", self._commit_link(repository, sha)) for name, sha in branches.items()]
        return page(repository.id, element("h2", "Pull requests"), element("ul", *pulls),
                    element("h2", "Branches"), element("ul", *tips))  # fmt: skip

    async def pull(self, request: web.Request) -> web.Response:
        """A pull request: its words, checks, reviews, comments and diff."""
        repository = self._repository(request)
        pull = self._tables.pulls.get(f"{repository.id}#{request.match_info['index']}")
        if pull is None:
            raise web.HTTPNotFound
        view = await self._service.view(pull, repository)
        reviews = [element("li", f"{row.user}: {row.state} at {row.commit_id[:10]}", element("pre", row.body))
                   for row in self._tables.reviews.of(pull.id)]  # fmt: skip
        comments = [element("li", element("b", row.user), element("pre", row.body))
                    for row in self._tables.comments.of(pull.id)]  # fmt: skip
        return page(
            f"#{pull.index} {pull.title}",
            element("p", f"{_state(pull.state, pull.merged_at)} · {pull.user}: {pull.head} → {pull.base} · ",
                    self._commit_link(repository, view.head_sha)),
            element("pre", pull.body),
            element("h2", "Checks"), self._checks(repository, view.head_sha),
            element("h2", "Reviews"), element("ul", *reviews),
            element("h2", "Comments"), element("ul", *comments),
            element("h2", "Changes"),
            element("pre", await self._diff(repository, view.merge_base or view.base_sha, view.head_sha)),
        )  # fmt: skip

    async def commit(self, request: web.Request) -> web.Response:
        """A commit: its message, checks and diff."""
        repository = self._repository(request)
        commit = await self._service.commit(repository, request.match_info["sha"])
        parent = commit.parents[0] if commit.parents else EMPTY_TREE
        return page(
            f"Commit {commit.sha[:10]}", element("p", f"{commit.author.name}, {stamp(commit.author.at)}"),
            element("pre", commit.message), self._checks(repository, commit.sha),
            element("pre", await self._diff(repository, parent, commit.sha)),
        )  # fmt: skip

    async def run(self, request: web.Request) -> web.Response:
        """A CI run and its log."""
        repository = self._repository(request)
        run = next((row for row in self._tables.runs.of(repository.id)
                    if row.number == int(request.match_info["run"])), None)  # fmt: skip
        if run is None:
            raise web.HTTPNotFound
        path = self._ci.log_path(run)
        log = path.read_text(errors="replace") if path.exists() else "(no log yet)"
        return page(
            f"Run {run.number}: {run.conclusion or run.status}",
            element("p", f"{repository.ci_context} · {run.branch} · attempt {run.attempt} · ",
                    self._commit_link(repository, run.sha)),
            element("pre", log),
        )  # fmt: skip

    async def file(self, request: web.Request) -> web.Response:
        """A file as text."""
        path, content = await self._content(request)
        return page(path, element("pre", content.decode(errors="replace")))

    async def raw(self, request: web.Request) -> web.Response:
        """A file's bytes, never as a page."""
        _, content = await self._content(request)
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(body=content, content_type="text/plain", charset="utf-8", headers=headers)

    async def _content(self, request: web.Request) -> tuple[str, bytes]:
        """Split `branch/with/slashes/path/to/file` where a branch ends and a file begins."""
        repository, parts = self._repository(request), request.match_info["rest"].split("/")
        git = self._service.git(repository)
        for length in range(1, len(parts)):
            name, path = "/".join(parts[:length]), "/".join(parts[length:])
            sha = await git.resolve(name)
            content = await git.read(sha, path) if sha else None
            if content is not None:
                return path, content
        raise web.HTTPNotFound

    async def _diff(self, repository: Repository, start: str, end: str) -> str:
        try:
            return (await self._service.git(repository).run("diff", start, end))[:DIFF_LIMIT]
        except GitError as error:
            return str(error)

    def _repository(self, request: web.Request) -> Repository:
        repository = self._tables.repositories.get(f"{request.match_info['owner']}/{request.match_info['name']}")
        if repository is None:
            raise web.HTTPNotFound
        return repository

    def _checks(self, repository: Repository, sha: str) -> Markup:
        def line(status: Status) -> Markup:
            return element("li", f"{status.state} · {status.context} · ",
                           element("a", status.description or "details", href=status.target_url))  # fmt: skip

        return element("ul", *map(line, self._service.statuses(repository, sha)))

    def _commit_link(self, repository: Repository, sha: str) -> Markup:
        return element("a", sha[:10], href=f"/{repository.id}/commit/{sha}")


def _state(state: str, merged_at: float | None) -> str:
    return "merged" if merged_at else state
