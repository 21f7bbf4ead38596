"""Gitea's and Forgejo's REST API v1 for one repository (contracts/gitea.md, 3 and 4)."""

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, TypeVar
from urllib.parse import quote

from activities.adapters.errors import Conflict, NotFound, Rejected, Unavailable
from activities.adapters.gitea_merge import MergeOutcome, MergeStyle, merge_outcome
from activities.adapters.gitea_models import (
    Branch,
    CombinedStatus,
    ContextStatus,
    File,
    GiteaModel,
    Hook,
    Job,
    Pull,
    Repo,
    Review,
    Run,
    User,
    overall_state,
)
from activities.adapters.http import HttpClient, Response, status_error

_M = TypeVar("_M", bound=GiteaModel)

PAGE_SIZE = 50
"""Gitea's default cap on `limit`; a server may cap lower and says nothing (contracts/gitea.md, 3)."""
MAX_PAGES = 200

ReviewEvent = Literal["APPROVED", "REQUEST_CHANGES", "COMMENT"]
CommitState = Literal["pending", "success", "error", "failure", "warning", "skipped"]


class GiteaClient:
    """One repository, seen with one token. `http`: base URL `{root}/api/v1`, header `Authorization: token …`.

    Every method raises the errors of `HttpClient.request`.
    """

    def __init__(self, http: HttpClient, owner: str, repo: str) -> None:
        self._http = http
        self._root = f"repos/{_q(owner)}/{_q(repo)}"

    async def me(self) -> User:
        """The user our token belongs to."""
        return (await self._http.request("GET", "user")).model(User)

    async def get_repo(self) -> Repo:
        """The repository."""
        return (await self._http.request("GET", self._root)).model(Repo)

    async def get_branch(self, name: str) -> Branch | None:
        """A branch, or None."""
        return await self._find(Branch, f"branches/{_q(name)}")

    async def delete_branch(self, name: str) -> bool:
        """Delete a branch; False if there was none."""
        try:
            await self._call("DELETE", f"branches/{_q(name)}")
        except NotFound:
            return False
        return True

    async def find_pull(self, base: str, head: str) -> Pull | None:
        """The open pull request from `head` into `base`, or None."""
        pull = await self._find(Pull, f"pulls/{_q(base)}/{quote(head)}")
        return pull if pull is not None and pull.state == "open" else None

    async def get_pull(self, number: int) -> Pull:
        """A pull request; `head.sha` is fresh."""
        return (await self._call("GET", f"pulls/{number}")).model(Pull)

    async def list_pulls(
        self, state: Literal["open", "closed", "all"] = "open", base: str | None = None
    ) -> tuple[Pull, ...]:
        """Pull requests, of one base branch if given. `head.sha` may lag: confirm with `get_pull`."""
        # Forgejo and Gitea before 1.24 ignore base_branch, so the filter is ours as well.
        params = {"state": state} | ({"base_branch": base} if base is not None else {})
        pulls = await self._all(Pull, "pulls", params)
        return tuple(pull for pull in pulls if base is None or pull.base.ref == base)

    async def find_pull_by_merge_commit(self, sha: str) -> Pull | None:
        """The merged pull request whose recorded merge commit is `sha`, or None."""
        return await self._find(Pull, f"commits/{_q(sha)}/pull")

    async def create_pull(self, *, head: str, base: str, title: str, body: str) -> Pull:
        """Open a pull request; if one is open for these branches, that one is returned, unchanged.

        Raises:
            Rejected: status 422, there are no changes between the branches.
        """
        wanted = {"head": head, "base": base, "title": title, "body": body}
        try:
            return (await self._call("POST", "pulls", json=wanted)).model(Pull)
        except Conflict:
            existing = await self.find_pull(base, head)
            if existing is None:
                raise
            return existing

    async def merge_pull(
        self, number: int, *, style: MergeStyle, head_commit_id: str, title: str = "", message: str = ""
    ) -> MergeOutcome:
        """Merge if the head is still `head_commit_id`.

        Old field names, because Gitea up to 1.25 and Forgejo know no others. Server auto-merge is never asked
        for: it ignores the head commit.

        Raises:
            Unavailable: ambiguous, it may have happened: read the pull request before repeating. A refused
                fast-forward is one of these, because Gitea answers 500 to it.
            Rejected: 201, the server scheduled the merge although nobody asked.
        """
        body = {
            "Do": style,
            "MergeTitleField": title,
            "MergeMessageField": message,
            "head_commit_id": head_commit_id,
            "delete_branch_after_merge": False,
        }
        answer = await self._http.send("POST", f"{self._root}/pulls/{number}/merge", json=body)
        outcome = merge_outcome(answer)
        if outcome is not None:
            return outcome
        error = status_error(answer.status, answer.headers, answer.body, method="POST", label=answer.label)
        if error is None:
            raise Rejected(f"{answer.label}: {answer.status}, the merge was scheduled", status=answer.status)
        raise error

    async def create_review(self, number: int, *, event: ReviewEvent, body: str, commit_id: str) -> Review:
        """Review exactly `commit_id`. An author who approves their own pull request is Rejected (422)."""
        wanted = {"event": event, "body": body, "commit_id": commit_id, "comments": []}
        return (await self._call("POST", f"pulls/{number}/reviews", json=wanted)).model(Review)

    async def list_reviews(self, number: int) -> tuple[Review, ...]:
        """Every review, oldest first; of one reviewer the last that is not a comment counts."""
        return await self._all(Review, f"pulls/{number}/reviews")

    async def post_status(
        self, sha: str, *, state: CommitState, context: str, description: str, target_url: str = ""
    ) -> ContextStatus:
        """Set the status of one context on a commit."""
        body = {"state": state, "target_url": target_url, "description": description, "context": context}
        return (await self._call("POST", f"statuses/{_q(sha)}", json=body)).model(ContextStatus)

    async def combined_status(self, sha: str) -> CombinedStatus:
        """The latest status of every context of a commit.

        The server's own `state` and `total_count` cover one page only and its `statuses` is null when empty,
        so all pages are read and the state is computed here.
        """
        latest: dict[str, ContextStatus] = {}
        async for answer in self._pages(f"commits/{_q(sha)}/status", {}):
            rows = answer.models(ContextStatus, _member(answer, "statuses"))
            # A server that ignores `page` sends the same rows for ever.
            if not rows or all(latest.get(row.context) == row for row in rows):
                break
            for row in rows:
                if row.context not in latest or latest[row.context].id < row.id:
                    latest[row.context] = row
        statuses = tuple(latest[context] for context in sorted(latest))
        return CombinedStatus(sha=sha, state=overall_state(statuses), statuses=statuses)

    async def list_runs(self, sha: str) -> tuple[Run, ...] | None:
        """Workflow runs of a commit, or None where the server cannot list them (Gitea before 1.25)."""
        try:
            params: dict[str, str | int] = {"head_sha": sha, "page": 1, "limit": PAGE_SIZE}
            answer = await self._call("GET", "actions/runs", params=params)
        except NotFound:
            return None
        runs = answer.models(Run, _member(answer, "workflow_runs"))
        return tuple(run for run in runs if run.head_sha == sha)

    async def failing_log(self, sha: str, limit: int = 6000) -> str:
        """The end of the logs of a commit's failed jobs, or nothing where the server keeps none to read."""
        tails = []
        for run in await self.list_runs(sha) or ():
            if run.conclusion not in {"failure", None}:
                continue
            with contextlib.suppress(NotFound):
                answer = await self._call("GET", f"actions/runs/{run.id}/jobs")
                for job in answer.models(Job, _member(answer, "jobs")):
                    if job.conclusion == "failure":
                        log = await self._call("GET", f"actions/jobs/{job.id}/logs")
                        tails.append(f"{job.name}:\n{log.body.decode(errors='replace')[-limit:]}")
        return "\n\n".join(tails)[-limit:]

    async def list_hooks(self) -> tuple[Hook, ...]:
        """The repository's webhooks; needs admin rights."""
        return await self._all(Hook, "hooks")

    async def create_hook(self, url: str, secret: str, events: Sequence[str]) -> Hook:
        """Add an active JSON webhook; needs admin rights. Unknown events are dropped silently: compare."""
        body = {
            "type": "gitea",
            "active": True,
            "branch_filter": "",
            "config": {"url": url, "content_type": "json", "secret": secret},
            "events": list(events),
        }
        return (await self._call("POST", "hooks", json=body)).model(Hook)

    async def get_file(self, path: str, ref: str, max_bytes: int = 1024 * 1024) -> bytes | None:
        """A regular file's bytes at a branch or commit, or None if there is no such file.

        Raises:
            Rejected: the file is larger than `max_bytes`.
        """
        file = await self._find(File, f"contents/{quote(path)}", {"ref": ref})
        if file is None or file.type != "file":
            return None
        if file.size > max_bytes:
            raise Rejected(f"gitea: {path} is {file.size} bytes, more than {max_bytes}")
        try:
            return base64.b64decode(file.content or "")
        except binascii.Error:
            raise Unavailable(f"gitea contents/{quote(path)}: the content is not base64") from None

    async def _call(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, json: object = None
    ) -> Response:
        return await self._http.request(method, f"{self._root}/{path}", params=params, json=json)

    async def _find(self, model: type[_M], path: str, params: Mapping[str, str | int] | None = None) -> _M | None:
        try:
            answer = await self._call("GET", path, params=params)
        except NotFound:
            return None
        # A directory's contents are a list: not the one object that was asked for.
        return None if isinstance(answer.json(), list) else answer.model(model)

    async def _pages(self, path: str, params: Mapping[str, str | int]) -> AsyncIterator[Response]:
        for page in range(1, MAX_PAGES + 1):
            yield await self._call("GET", path, params={**params, "page": page, "limit": PAGE_SIZE})
        raise Unavailable(f"gitea GET {path}: more than {MAX_PAGES} pages")

    async def _all(self, model: type[_M], path: str, params: Mapping[str, str | int] | None = None) -> tuple[_M, ...]:
        rows: list[_M] = []
        async for answer in self._pages(path, params or {}):
            found = answer.models(model)
            rows.extend(found)
            total = next((value for name, value in answer.headers.items() if name.lower() == "x-total-count"), "")
            if not found or (total.isdigit() and len(rows) >= int(total)):
                break
        return tuple(rows)


def _member(answer: Response, name: str) -> object:
    data = answer.json()
    return data.get(name) if isinstance(data, dict) else data


def _q(part: str) -> str:
    return quote(part, safe="")
