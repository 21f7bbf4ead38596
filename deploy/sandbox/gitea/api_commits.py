"""REST: statuses, commits, comparisons, file contents, and the runs of the small Actions."""

import base64

from aiohttp import web

from deploy.sandbox.gitea import protection, shapes_of_actions
from deploy.sandbox.gitea.access import USER, Access, cut
from deploy.sandbox.gitea.ci import Ci
from deploy.sandbox.gitea.records import Repository, Run
from deploy.sandbox.gitea.service import GiteaService
from deploy.sandbox.gitea.shapes import stamp
from deploy.sandbox.web import Json

STATES = {"pending", "success", "error", "failure", "warning", "skipped"}


class CommitsApi(Access):
    """Handlers; the rules are in `GiteaService` and `Ci`."""

    def __init__(self, service: GiteaService, ci: Ci) -> None:
        super().__init__(service)
        self._ci = ci

    def add_routes(self, app: web.Application) -> None:
        """Register every route."""
        repo = "/api/v1/repos/{owner}/{name}"
        add = app.router.add_route
        add("POST", f"{repo}/statuses/{{ref:.+}}", self.create_status)
        add("GET", f"{repo}/statuses/{{ref:.+}}", self.statuses)
        add("GET", f"{repo}/commits/{{ref:.+}}/statuses", self.statuses)
        add("GET", f"{repo}/commits/{{ref:.+}}/status", self.combined)
        add("GET", f"{repo}/commits/{{ref:.+}}/pull", self.pull)
        add("GET", f"{repo}/commits/{{ref:.+}}", self.commit)
        add("GET", f"{repo}/commits", self.commits)
        add("GET", f"{repo}/git/commits/{{ref:.+}}", self.commit)
        add("GET", f"{repo}/compare/{{span:.+}}", self.compare)
        add("GET", f"{repo}/contents/{{path:.+}}", self.contents)
        add("GET", f"{repo}/raw/{{path:.+}}", self.raw)
        add("GET", f"{repo}/actions/runs", self.runs)
        add("GET", f"{repo}/actions/runs/{{run:\\d+}}", self.run)
        add("GET", f"{repo}/actions/runs/{{run:\\d+}}/jobs", self.jobs)
        add("POST", f"{repo}/actions/runs/{{run:\\d+}}/rerun", self.rerun)
        add("GET", f"{repo}/actions/jobs/{{job:\\d+}}/logs", self.log)

    async def create_status(self, request: web.Request) -> web.Response:
        """A new status of a commit."""
        repository, body = self.repository(request, "write"), await self.body(request)
        if body.get("state") not in STATES:
            raise self.service.refuse(422, f"unknown state {body.get('state')}")
        status = await self.service.create_status(
            repository, request.match_info["ref"], body["state"], context=body.get("context") or "default",
            description=body.get("description") or "", target_url=body.get("target_url") or "",
            by=request[USER].id,
        )  # fmt: skip
        return web.json_response(self.shapes.status(status), status=201)

    async def statuses(self, request: web.Request) -> web.Response:
        """The full history of a commit's statuses, newest first."""
        repository = self.repository(request)
        commit = await self.service.commit(repository, request.match_info["ref"])
        rows = list(reversed(self.tables.statuses.of(f"{repository.id}@{commit.sha}")))
        if state := request.query.get("state"):
            rows = [row for row in rows if row.state == state]
        if request.query.get("sort") in {"oldest", "leastupdate"}:
            rows.reverse()
        shown, headers = cut(request, rows)
        return web.json_response([self.shapes.status(row) for row in shown], headers=headers)

    async def combined(self, request: web.Request) -> web.Response:
        """The newest status of each context; `state` and `total_count` tell of this page only."""
        repository = self.repository(request)
        commit = await self.service.commit(repository, request.match_info["ref"])
        shown, headers = cut(request, self.service.statuses(repository, commit.sha))
        link = self.shapes.api(repository.id, f"/commits/{commit.sha}")
        body: Json = {
            "state": protection.combined(shown), "sha": commit.sha, "total_count": len(shown),
            "statuses": [self.shapes.status(row) for row in shown] or None,
            "repository": self.shapes.repository(repository, "admin"), "commit_url": link,
            "url": f"{link}/status",
        }  # fmt: skip
        return web.json_response(body, headers=headers)

    async def pull(self, request: web.Request) -> web.Response:
        """The pull request whose recorded merge commit this is; never one that is open."""
        repository, sha = self.repository(request), request.match_info["ref"]
        rows = self.tables.pulls.of(repository.id)
        pull = next((row for row in rows if row.merge_commit_sha == sha), None)
        if pull is None:
            raise self.service.refuse(404, "not found")
        view = await self.service.view(pull, repository)
        return web.json_response(self.shapes.pull(pull, repository, view))

    async def commit(self, request: web.Request) -> web.Response:
        """One commit."""
        repository = self.repository(request)
        commit = await self.service.commit(repository, request.match_info["ref"])
        return web.json_response(self.shapes.commit(repository.id, commit))

    async def commits(self, request: web.Request) -> web.Response:
        """The commits of a branch, newest first."""
        repository = self.repository(request)
        tip = await self.service.commit(repository, request.query.get("sha") or repository.default_branch)
        rows, headers = cut(request, await self.service.git(repository).log(tip.sha))
        return web.json_response([self.shapes.commit(repository.id, row) for row in rows], headers=headers)

    async def compare(self, request: web.Request) -> web.Response:
        """What `head` has beyond `base`: commits only, no ahead and behind."""
        repository = self.repository(request)
        names = request.match_info["span"].replace("...", "..").split("..", 1)
        if len(names) != 2:
            raise self.service.refuse(404, "not found")
        base, head = [await self.service.commit(repository, name) for name in names]
        rows = await self.service.git(repository).log(head.sha, f"^{base.sha}")
        body = {
            "total_commits": len(rows),
            "commits": [self.shapes.commit(repository.id, row) for row in rows],
        }
        return web.json_response(body)

    async def contents(self, request: web.Request) -> web.Response:
        """A file with its content; folders are not listed."""
        repository, path = self.repository(request), request.match_info["path"]
        ref = request.query.get("ref") or repository.default_branch
        content, commit = await self._file(repository, ref, path)
        git = self.service.git(repository)
        last = await git.last_change(commit, path)
        blob = await git.run("rev-parse", f"{commit}:{path}")
        link = self.shapes.api(repository.id, f"/contents/{path}?ref={ref}")
        blob_link = self.shapes.api(repository.id, f"/git/blobs/{blob}")
        kind = "branch" if ref in await git.branches() else "commit"
        page = self.shapes.url(repository.id, f"/src/{kind}/{ref}/{path}")
        body: Json = {
            "name": path.rsplit("/", 1)[-1], "path": path, "sha": blob, "last_commit_sha": last.sha,
            "last_committer_date": stamp(last.committer.at), "last_author_date": stamp(last.author.at),
            "type": "file", "size": len(content), "encoding": "base64",
            "content": base64.b64encode(content).decode(), "target": None, "url": link, "html_url": page,
            "git_url": blob_link, "download_url": self.shapes.url(repository.id, f"/raw/{kind}/{ref}/{path}"),
            "submodule_git_url": None, "_links": {"self": link, "git": blob_link, "html": page},
        }  # fmt: skip
        return web.json_response(body)

    async def raw(self, request: web.Request) -> web.Response:
        """A file's bytes."""
        repository = self.repository(request)
        ref = request.query.get("ref") or repository.default_branch
        content, _ = await self._file(repository, ref, request.match_info["path"])
        return web.Response(body=content, content_type="application/octet-stream")

    async def runs(self, request: web.Request) -> web.Response:
        """CI runs, newest first; filters by head_sha, branch and status."""
        repository = self.repository(request)
        wanted = {key: request.query.get(name) for key, name in
                  (("sha", "head_sha"), ("branch", "branch"), ("status", "status"))}  # fmt: skip
        rows = [run for run in reversed(self.tables.runs.of(repository.id))
                if all(value in {None, "", getattr(run, key)} for key, value in wanted.items())]  # fmt: skip
        shown, headers = cut(request, rows)
        body = {
            "workflow_runs": [await self._run(repository, run) for run in shown],
            "total_count": len(rows),
        }
        return web.json_response(body, headers=headers)

    async def run(self, request: web.Request) -> web.Response:
        """One CI run."""
        repository, run = self._found(request, "run")
        return web.json_response(await self._run(repository, run))

    async def jobs(self, request: web.Request) -> web.Response:
        """The one job of a run."""
        repository, run = self._found(request, "run")
        return web.json_response({"jobs": [shapes_of_actions.job(self.shapes, run, repository)], "total_count": 1})

    async def rerun(self, request: web.Request) -> web.Response:
        """Run a completed run again."""
        repository, run = self._found(request, "run")
        if not self._ci.rerun(run):
            raise self.service.refuse(400, "this run is not over")
        return web.json_response(await self._run(repository, run), status=201)

    async def log(self, request: web.Request) -> web.Response:
        """A job's log as text."""
        _, run = self._found(request, "job")
        path = self._ci.log_path(run)
        return web.Response(text=path.read_text(errors="replace") if path.exists() else "")

    async def _file(self, repository: Repository, ref: str, path: str) -> tuple[bytes, str]:
        commit = await self.service.commit(repository, ref)
        content = await self.service.git(repository).read(commit.sha, path)
        if content is None:
            raise self.service.refuse(404, f"object does not exist [id: , rel_path: {path}]")
        return content, commit.sha

    async def _run(self, repository: Repository, run: Run) -> Json:
        title, pulls = await self.service.about_run(repository, run)
        if self.tables.forgejo:
            return shapes_of_actions.forgejo_run(self.shapes, run, title)
        return shapes_of_actions.run(self.shapes, run, repository, title, pulls)

    def _found(self, request: web.Request, what: str) -> tuple[Repository, Run]:
        repository, number = self.repository(request), int(request.match_info[what])
        key = "number" if what == "run" else "job_number"
        rows = self.tables.runs.of(repository.id)
        run = next((row for row in rows if getattr(row, key) == number), None)
        if run is None:
            raise self.service.refuse(404, "not found")
        return repository, run
