"""Gitea's way of delivering (gitea.md section 1): exactly one attempt, indented JSON, many headers."""

import hashlib
import hmac
import json
from fnmatch import fnmatch
from typing import Literal

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.gitea import shapes_of_actions
from deploy.sandbox.gitea.git import ZERO, Commit
from deploy.sandbox.gitea.records import Comment, Hook, Pull, Repository, Run, Status, Tables
from deploy.sandbox.gitea.shapes import PullView, Shapes, stamp
from deploy.sandbox.hooks import Delivery, Dispatcher
from deploy.sandbox.store import Store
from deploy.sandbox.web import Json

FEED_MAX_COMMITS = 5

RefType = Literal["branch", "tag"]
Subject = tuple[Pull, Repository, PullView]  # a pull request, where it lives, and what git says of it now

# Event type -> the value of X-Gitea-Event, where it is another one (table in gitea.md section 1).
EVENT_HEADER = {
    "pull_request_sync": "pull_request",
    "pull_request_review_request": "pull_request",
    "pull_request_review_approved": "pull_request_approved",
    "pull_request_review_rejected": "pull_request_rejected",
    "pull_request_review_comment": "pull_request_comment",
    "pull_request_comment": "issue_comment",
}
# Event type -> the flag a hook has to carry, where it is another one.
FLAG = {
    "pull_request_review_approved": "pull_request_review",
    "pull_request_review_rejected": "pull_request_review",
    "pull_request_review_comment": "pull_request_review",
}
PULL_FLAGS = ("pull_request", "pull_request_sync", "pull_request_review_request", "pull_request_review",
              "pull_request_comment")  # fmt: skip
FLAGS = ("push", "create", "delete", "status", "workflow_run", "workflow_job", "issue_comment", *PULL_FLAGS)
FORGEJO_FLAGS = ("action_run_success", "action_run_failure")


def subscribed(events: list[str]) -> list[str]:
    """The flags a hook gets from what was asked: unknown names are ignored, nothing means push."""
    wanted = list(events)
    if "pull_request" in wanted:
        wanted += PULL_FLAGS
    if "pull_request_only" in wanted:
        wanted.append("pull_request")
    kept = list(dict.fromkeys(name for name in wanted if name in {*FLAGS, *FORGEJO_FLAGS}))
    return kept or ["push"]


class GiteaVendor:
    """Renders early, signs the text, tries once."""

    retries = 0

    def __init__(self, tables: Tables, config: SandboxConfig) -> None:
        self._tables = tables
        self.timeout = config.gitea_webhook_timeout

    def active(self, delivery: Delivery) -> bool:
        """A failure never switches a hook off; only people do."""
        hook = self._tables.hooks.get(delivery.hook)
        return hook is not None and hook.active

    def render(self, delivery: Delivery) -> str | None:
        """Two-space indented, with < > & escaped as Go does."""
        text = json.dumps(delivery.payload, indent=2, ensure_ascii=False)
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text

    def headers(self, delivery: Delivery, body: bytes, delivery_id: str) -> dict[str, str]:
        """The recorded headers. Without a secret they are there, and empty."""
        hook = self._tables.hooks.get(delivery.hook)
        assert hook, "active() was asked first"
        key = hook.secret.encode()
        sha256 = hmac.new(key, body, hashlib.sha256).hexdigest() if key else ""
        sha1 = hmac.new(key, body, hashlib.sha1).hexdigest() if key else ""
        event = EVENT_HEADER.get(delivery.event, delivery.event)
        headers = {"Content-Type": "application/json", "X-Hub-Signature": f"sha1={sha1}",
                   "X-Hub-Signature-256": f"sha256={sha256}"}  # fmt: skip
        twins = ("Forgejo",) if self._tables.forgejo else ()
        for family in ("Gitea", "Gogs", "GitHub", *twins):
            headers[f"X-{family}-Delivery"] = delivery_id
            headers[f"X-{family}-Event"] = event
            headers[f"X-{family}-Event-Type"] = delivery.event
        for family in ("Gitea", "Gogs", *twins):
            headers[f"X-{family}-Signature"] = sha256
        for family in ("Gitea", "GitHub"):
            headers[f"X-{family}-Hook-Installation-Target-Type"] = "repository"
        if hook.authorization_header:
            headers["Authorization"] = hook.authorization_header
        return headers

    def retry_wait(self) -> float:
        """Never asked: there is no second attempt."""
        return 0

    def gave_up(self, delivery: Delivery) -> None:
        """The event is lost; the hook stays active."""


class Emitter:
    """Builds each event's body and queues it for the hooks that asked for it."""

    def __init__(self, store: Store, tables: Tables, shapes: Shapes, config: SandboxConfig) -> None:
        self._tables, self._shapes = tables, shapes
        self.dispatcher = Dispatcher(store, "gitea", GiteaVendor(tables, config))

    def push(self, repository: Repository, ref: str, moved: tuple[str, str], commits: list[Commit], by: str) -> None:
        """A branch was created or moved (from, to); `commits` are the new ones, newest first."""
        before, after = moved
        shown = [self._shapes.payload_commit(repository.id, commit, files=True) for commit in commits]
        start = (
            before if before != ZERO else next((commit.parents[0] for commit in commits[-1:] if commit.parents), after)
        )
        body = {
            "ref": ref, "before": before, "after": after,
            "compare_url": self._shapes.url(repository.id, f"/compare/{start}...{after}"),
            "commits": shown[:FEED_MAX_COMMITS], "total_commits": len(shown),
            "head_commit": shown[0] if shown else None,
            "repository": self._shapes.repository(repository, "admin"), "pusher": self._shapes.person(by),
            "sender": self._shapes.person(by),
        }  # fmt: skip
        self._send(repository, "push", body, ref=ref.removeprefix("refs/heads/"))

    def tag_pushed(
        self, repository: Repository, ref: str, moved: tuple[str, str], head: Commit | None, by: str
    ) -> None:
        """A tag was created, moved or (to zero) deleted: a push that carries no commits."""
        before, after = moved
        shown = self._shapes.payload_commit(repository.id, head, files=True) if head else None
        compare = f"{repository.id}/compare/{ZERO}...{after}" if head else ""
        body = {
            "ref": ref, "before": before, "after": after, "compare_url": f"{self._shapes.root}/{compare}",
            "commits": [], "total_commits": 0, "head_commit": shown,
            "repository": self._shapes.repository(repository, "admin"), "pusher": self._shapes.person(by),
            "sender": self._shapes.person(by),
        }  # fmt: skip
        self._send(repository, "push", body, ref=ref.removeprefix("refs/tags/"))

    def created(self, repository: Repository, kind: RefType, name: str, sha: str, by: str) -> None:
        """A branch or a tag is new."""
        body = {"sha": sha, **self._ref_event(repository, kind, name, by)}
        self._send(repository, "create", body, ref=name)

    def deleted(self, repository: Repository, kind: RefType, name: str, by: str) -> None:
        """A branch or a tag is gone; a branch's end is no push."""
        body = {"pusher_type": "user", **self._ref_event(repository, kind, name, by)}
        self._send(repository, "delete", body, ref=name)

    def run(self, repository: Repository, run: Run, action: str, title: str, pulls: list[Pull]) -> None:
        """A CI run was requested, is in progress or completed; of Forgejo, only that it ended."""
        if self._tables.forgejo:
            self._forgejo_run(repository, run, action, title)
            return
        owner = self._tables.users.get(repository.owner)
        common: Json = {
            "organization": shapes_of_actions.organization(self._shapes, owner) if owner and owner.is_org else None,
            "repository": self._shapes.repository(repository, "admin"), "sender": self._shapes.person(run.actor),
        }  # fmt: skip
        if common["organization"] is None:
            del common["organization"]
        shown = shapes_of_actions.run(self._shapes, run, repository, title, pulls)
        workflow = shapes_of_actions.workflow(self._shapes, repository)
        self._send(
            repository, "workflow_run", {"action": action, "workflow": workflow, "workflow_run": shown, **common}
        )
        job = shapes_of_actions.job(self._shapes, run, repository)
        self._send(repository, "workflow_job", {"action": run.status, "workflow_job": job, **common})

    def _forgejo_run(self, repository: Repository, run: Run, action: str, title: str) -> None:
        if action != "completed":
            return
        word = "success" if run.conclusion == "success" else "failure"
        body = {
            "action": word, "run": shapes_of_actions.forgejo_run(self._shapes, run, title),
            "prior_status": "running", "last_run": None,
        }  # fmt: skip
        self._send(repository, f"action_run_{word}", body)

    def pull(
        self,
        event: str,
        action: str,
        subject: Subject,
        by: str,
        *,
        extra: Json | None = None,
        reviewer: str | None = None,
        review: Json | None = None,
    ) -> None:
        """Something happened to a pull request."""
        pull, repository, view = subject
        body = {
            "action": action, **(extra or {}), "number": pull.index,
            "pull_request": self._shapes.pull(pull, repository, view),
            "requested_reviewer": self._shapes.person(reviewer),
            "repository": self._shapes.repository(repository, "admin"), "sender": self._shapes.person(by),
            "commit_id": "", "review": review,
        }  # fmt: skip
        self._send(repository, event, body)

    def comment(self, action: str, comment: Comment, subject: Subject, by: str) -> None:
        """A comment on a pull request."""
        pull, repository, view = subject
        body = {
            "action": action, "issue": self._shapes.issue(pull, repository),
            "pull_request": self._shapes.pull(pull, repository, view),
            "comment": self._shapes.comment(comment, pull),
            "repository": self._shapes.repository(repository, "admin"), "sender": self._shapes.person(by),
            "is_pull": True,
        }  # fmt: skip
        self._send(repository, "pull_request_comment", body)

    def status(self, repository: Repository, status: Status, commit: Commit) -> None:
        """A commit has a new status. No branch is named, as in Gitea; target_url is absolute here only."""
        at = stamp(status.created_at)
        target = status.target_url
        body = {
            "commit": self._shapes.payload_commit(repository.id, commit, files=True),
            "context": status.context,
            "created_at": at, "description": status.description, "id": status.number,
            "repository": self._shapes.repository(repository, "admin"),
            "sender": self._shapes.person(status.creator), "sha": status.sha, "state": status.state,
            "target_url": f"{self._shapes.root}{target}" if target.startswith("/") else target,
            "updated_at": at,
        }  # fmt: skip
        self._send(repository, "status", body)

    def _ref_event(self, repository: Repository, kind: RefType, name: str, by: str) -> Json:
        shown = self._shapes.repository(repository)
        return {"ref": name, "ref_type": kind, "repository": shown, "sender": self._shapes.person(by)}

    def _send(self, repository: Repository, event: str, body: Json, ref: str | None = None) -> None:
        if self._tables.forgejo and event == "status":
            return
        for hook in self._tables.hooks.of(repository.id):
            filtered = ref is not None and hook.branch_filter not in {"", "*"}
            if filtered and not fnmatch(ref or "", hook.branch_filter):
                continue
            if hook.active and self._wants(hook, event):
                self.dispatcher.send(hook=hook.id, url=hook.url, event=event, payload=body)

    def _wants(self, hook: Hook, event: str) -> bool:
        return FLAG.get(event, event) in hook.events
