"""REST: pull requests, their merge, reviews, reviewers, commits, files and comments."""

import time

from aiohttp import web
from pydantic import ValidationError

from deploy.sandbox.gitea.access import USER, Access, cut
from deploy.sandbox.gitea.merge import MergeForm, merge
from deploy.sandbox.gitea.records import Comment, Pull, Repository, Review, User
from deploy.sandbox.gitea.service import GiteaService
from deploy.sandbox.web import Json

REVIEW_EVENTS = {
    "APPROVED": "pull_request_review_approved",
    "REQUEST_CHANGES": "pull_request_review_rejected",
    "COMMENT": "pull_request_review_comment",
}


class PullsApi(Access):
    """Handlers; the rules are in `GiteaService` and `merge`."""

    def add_routes(self, app: web.Application) -> None:
        """Register every route; the search by branches comes last, because it matches anything."""
        repo = "/api/v1/repos/{owner}/{name}"
        pull = f"{repo}/pulls/{{index:\\d+}}"
        add = app.router.add_route
        add("GET", f"{repo}/pulls", self.pulls)
        add("POST", f"{repo}/pulls", self.create)
        add("GET", pull, self.get)
        add("PATCH", pull, self.edit)
        add("GET", f"{pull}/merge", self.is_merged)
        add("POST", f"{pull}/merge", self.merge)
        add("GET", f"{pull}/commits", self.commits)
        add("GET", f"{pull}/files", self.files)
        add("GET", f"{pull}/reviews", self.reviews)
        add("POST", f"{pull}/reviews", self.create_review)
        add("POST", f"{pull}/requested_reviewers", self.request_reviewers)
        add("GET", f"{repo}/pulls/{{branches:.+/.+}}", self.get_by_branches)
        add("GET", f"{repo}/issues/{{index:\\d+}}/comments", self.comments)
        add("POST", f"{repo}/issues/{{index:\\d+}}/comments", self.create_comment)
        add("PATCH", f"{repo}/issues/comments/{{comment:\\d+}}", self.edit_comment)
        add("DELETE", f"{repo}/issues/comments/{{comment:\\d+}}", self.delete_comment)

    async def pulls(self, request: web.Request) -> web.Response:
        """Newest first. Their head sha is the recorded one, which may lag; there is no filter by head."""
        repository = self.repository(request)
        state, base = request.query.get("state", "open"), request.query.get("base_branch")
        rows = [row for row in reversed(self.tables.pulls.of(repository.id))
                if state in {"all", row.state} and base in {None, "", row.base}]  # fmt: skip
        if request.query.get("sort") == "recentupdate":
            rows.sort(key=lambda row: row.updated_at, reverse=True)
        shown, headers = cut(request, rows)
        views = await self.service.recorded_views(shown, repository)
        body = [self.shapes.pull(row, repository, view, listed=True) for row, view in zip(shown, views, strict=True)]
        return web.json_response(body, headers=headers)

    async def create(self, request: web.Request) -> web.Response:
        """A new pull request."""
        repository, body = self.repository(request, "write"), await self.body(request)
        fields = {key: str(body.get(key) or "") for key in ("head", "base", "title", "body")}
        pull = await self.service.open_pull(repository, request[USER], **fields)
        return web.json_response(await self._shown(pull, repository), status=201)

    async def get(self, request: web.Request) -> web.Response:
        """One pull request; its head sha is the branch's, right now."""
        repository, pull = self._pull(request)
        return web.json_response(await self._shown(pull, repository))

    async def get_by_branches(self, request: web.Request) -> web.Response:
        """The newest pull request of base and head; both may contain slashes."""
        repository, text = self.repository(request), request.match_info["branches"]
        cuts = [place for place, letter in enumerate(text) if letter == "/"]
        sides = {(text[:place], text[place + 1 :]) for place in cuts}
        rows = [row for row in self.tables.pulls.of(repository.id) if (row.base, row.head) in sides]
        if not rows:
            raise self.service.refuse(404, "not found")
        pull = next((row for row in rows if row.state == "open"), rows[-1])
        return web.json_response(await self._shown(pull, repository))

    async def edit(self, request: web.Request) -> web.Response:
        """Change title, body, base or state."""
        (repository, pull), body = self._pull(request, "write"), await self.body(request)
        changed: Json = {}
        for key, field in (("title", "title"), ("body", "body"), ("base", "ref")):
            if key in body and body[key] != getattr(pull, key):
                changed[field] = {"from": getattr(pull, key)}
                setattr(pull, key, body[key])
        if changed:
            pull.updated_at = time.time()
            self.tables.pulls.put(pull)
            view, extra = await self.service.view(pull, repository), {"changes": changed}
            subject = (pull, repository, view)
            self.service.emitter.pull("pull_request", "edited", subject, request[USER].id, extra=extra)
        if body.get("state") in {"open", "closed"}:
            await self.service.set_state(pull, repository, body["state"], request[USER].id)
        return web.json_response(await self._shown(pull, repository), status=201)

    async def is_merged(self, request: web.Request) -> web.Response:
        """204 if merged, 404 if not."""
        _, pull = self._pull(request)
        return web.Response(status=204 if pull.merged_at is not None else 404)

    async def merge(self, request: web.Request) -> web.Response:
        """Merge; the good answer is empty."""
        (repository, pull), body = self._pull(request), await self.body(request)
        try:
            form = MergeForm.model_validate(body)
        except ValidationError as error:
            raise self.service.refuse(422, str(error)) from error
        await merge(self.service, repository, pull, request[USER], form)
        return web.Response(status=200, content_type="application/json")

    async def commits(self, request: web.Request) -> web.Response:
        """The commits of a pull request, newest first."""
        repository, pull = self._pull(request)
        view = await self.service.view(pull, repository)
        span = [view.head_sha] if view.merge_base is None else [view.head_sha, f"^{view.merge_base}"]
        rows, headers = cut(request, await self.service.git(repository).log(*span))
        return web.json_response([self.shapes.commit(repository.id, row) for row in rows], headers=headers)

    async def files(self, request: web.Request) -> web.Response:
        """The files a pull request changes."""
        repository, pull = self._pull(request)
        view = await self.service.view(pull, repository)
        start = view.merge_base or view.base_sha
        text = await self.service.git(repository).run("diff", "--numstat", "--no-renames", start, view.head_sha)
        rows, headers = cut(request, [line.split("\t", 2) for line in text.splitlines()])
        body = [
            {"filename": path, "status": "changed", "additions": int(added) if added.isdigit() else 0,
             "deletions": int(gone) if gone.isdigit() else 0,
             "raw_url": self.shapes.url(repository.id, f"/raw/commit/{view.head_sha}/{path}")}
            for added, gone, path in rows
        ]  # fmt: skip
        return web.json_response(body, headers=headers)

    async def reviews(self, request: web.Request) -> web.Response:
        """Every review, oldest first."""
        _, pull = self._pull(request)
        rows, headers = cut(request, self.tables.reviews.of(pull.id))
        return web.json_response([self.shapes.review(row, pull) for row in rows], headers=headers)

    async def create_review(self, request: web.Request) -> web.Response:
        """A new review."""
        (repository, pull), body = self._pull(request), await self.body(request)
        review = await create_review(self.service, repository, pull, request[USER], body)
        return web.json_response(self.shapes.review(review, pull))

    async def request_reviewers(self, request: web.Request) -> web.Response:
        """Ask people for a review."""
        (repository, pull), body = self._pull(request, "write"), await self.body(request)
        for login in body.get("reviewers") or []:
            if self.tables.users.get(login) is None:
                raise self.service.refuse(404, f"user does not exist [name: {login}]")
            pull.requested_reviewers = list(dict.fromkeys([*pull.requested_reviewers, login]))
            self.tables.pulls.put(pull)
            view = await self.service.view(pull, repository)
            self.service.emitter.pull(
                "pull_request_review_request",
                "review_requested",
                (pull, repository, view),
                request[USER].id,
                reviewer=login,
            )
        return web.json_response([], status=201)

    async def comments(self, request: web.Request) -> web.Response:
        """Every comment, oldest first."""
        _, pull = self._pull(request)
        rows, headers = cut(request, self.tables.comments.of(pull.id))
        return web.json_response([self.shapes.comment(row, pull) for row in rows], headers=headers)

    async def create_comment(self, request: web.Request) -> web.Response:
        """A new comment."""
        (repository, pull), body = self._pull(request), await self.body(request)
        number, now = self.service.store.next("gitea.comment"), time.time()
        comment = Comment(id=str(number), number=number, pull=pull.id, user=request[USER].id,
                          body=str(body.get("body", "")), created_at=now, updated_at=now)  # fmt: skip
        self.tables.comments.put(comment)
        await self._tell_comment("created", comment, pull, repository, request[USER])
        return web.json_response(self.shapes.comment(comment, pull), status=201)

    async def edit_comment(self, request: web.Request) -> web.Response:
        """Edit a comment."""
        repository, comment, pull = self._comment(request)
        comment.body, comment.updated_at = str((await self.body(request)).get("body", "")), time.time()
        self.tables.comments.put(comment)
        await self._tell_comment("edited", comment, pull, repository, request[USER])
        return web.json_response(self.shapes.comment(comment, pull))

    async def delete_comment(self, request: web.Request) -> web.Response:
        """Delete a comment."""
        repository, comment, pull = self._comment(request)
        self.tables.comments.delete(comment)
        await self._tell_comment("deleted", comment, pull, repository, request[USER])
        return web.Response(status=204)

    async def _tell_comment(
        self, action: str, comment: Comment, pull: Pull, repository: Repository, user: User
    ) -> None:
        view = await self.service.view(pull, repository)
        self.service.emitter.comment(action, comment, (pull, repository, view), user.id)

    async def _shown(self, pull: Pull, repository: Repository) -> Json:
        return self.shapes.pull(pull, repository, await self.service.view(pull, repository))

    def _pull(self, request: web.Request, needs: str = "read") -> tuple[Repository, Pull]:
        repository = self.repository(request, needs)
        pull = self.tables.pulls.get(f"{repository.id}#{request.match_info['index']}")
        if pull is None:
            raise self.service.refuse(404, "not found")
        return repository, pull

    def _comment(self, request: web.Request) -> tuple[Repository, Comment, Pull]:
        repository = self.repository(request)
        comment = self.tables.comments.get(request.match_info["comment"])
        pull = self.tables.pulls.get(comment.pull) if comment else None
        if comment is None or pull is None or pull.repository != repository.id:
            raise self.service.refuse(404, "not found")
        return repository, comment, pull


async def create_review(service: GiteaService, repository: Repository, pull: Pull, user: User, body: Json) -> Review:
    """Add a review; nobody judges their own pull request. An empty commit_id means the present head."""
    event = body.get("event") or "COMMENT"
    if event not in {*REVIEW_EVENTS, "PENDING"}:
        raise service.refuse(422, f"unknown review event {event}")
    if user.id == pull.user and event in {"APPROVED", "REQUEST_CHANGES"}:
        verb = "approve" if event == "APPROVED" else "reject"
        raise service.refuse(422, f"{verb} your own pull is not allowed")
    view, number = await service.view(pull, repository), service.store.next("gitea.review")
    review = Review(
        id=str(number), number=number, pull=pull.id, user=user.id, state=event,
        body=str(body.get("body") or ""),
        commit_id=body.get("commit_id") or view.head_sha, official=service.level(repository, user) != "read",
        comments=body.get("comments") or [], submitted_at=time.time(),
    )  # fmt: skip
    service.tables.reviews.put(review)
    if kind := REVIEW_EVENTS.get(event):
        told = {"type": kind, "content": review.body}
        service.emitter.pull(kind, "reviewed", (pull, repository, view), user.id, reviewer=user.id, review=told)
    return review
