"""Gitea's webhooks: is it really Gitea, and which branch or commit does it speak of? Pure functions of bytes.

Dispatch is on `X-Gitea-Event-Type`: `X-Gitea-Event` has one value for different things.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AliasChoices, Field, StringConstraints

from api.webhooks.reading import Headers, PayloadError, Text, fit, header, read_json, signature_matches
from workflows.model import Frozen

EVENT_HEADER = "X-Gitea-Event-Type"
DELIVERY_HEADER = "X-Gitea-Delivery"
SIGNATURE_HEADER = "X-Gitea-Signature"
FORGEJO_EVENT_HEADER = "X-Forgejo-Event-Type"
FORGEJO_DELIVERY_HEADER = "X-Forgejo-Delivery"
FORGEJO_SIGNATURE_HEADER = "X-Forgejo-Signature"
"""Forgejo's twins of the three: the same values under its own name."""

HEADS = "refs/heads/"

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
Sha = Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]


class Subject(StrEnum):
    """What of a branch to look at again."""

    BRANCH = "branch"
    PULL_REQUEST = "pull request"


class BranchEvent(Frozen):
    """A branch moved, came, went, or its pull request changed."""

    subject: Subject
    repo: str
    branch: str
    sha: str = ""
    """The branch's new head, where a push tells it."""
    what: str


class CommitEvent(Frozen):
    """CI said something about a commit. A branch is named only by some events, and is a help only."""

    repo: str
    sha: str
    branch: str = ""
    what: str


class OtherEvent(Frozen):
    """A delivery about something no task waits for."""

    what: str


Event = BranchEvent | CommitEvent | OtherEvent


def verify(body: bytes, headers: Headers, secrets: Sequence[bytes]) -> bool:
    """Whether Gitea signed exactly these bytes with one of our secrets."""
    signature = header(headers, SIGNATURE_HEADER) or header(headers, FORGEJO_SIGNATURE_HEADER)
    return signature_matches(body, signature, secrets)


def parse(body: bytes, headers: Headers) -> Event:
    """Name what a delivery speaks of.

    Raises:
        PayloadError: the body can not be read, or the headers do not say what it is.
    """
    names = (EVENT_HEADER, FORGEJO_EVENT_HEADER, "X-Gitea-Event", "X-Forgejo-Event")
    kind = next(filter(None, (header(headers, name) for name in names)), "")
    if not kind:
        raise PayloadError(f"the header {EVENT_HEADER} is missing: what kind of event this is can not be told")
    payload = read_json(body)
    if kind == "push":
        return _push(payload)
    if kind in ("create", "delete"):
        return _create_or_delete(kind, payload)
    if kind.startswith("pull_request"):
        return _pull_request(payload)
    if kind == "status":
        status = fit(_Status, payload)
        return CommitEvent(repo=status.repository.full_name, sha=status.sha, what=f"status {status.state}")
    if kind in ("workflow_run", "workflow_job"):
        return _workflow(kind, payload)
    return OtherEvent(what=f"{kind[:80]!r} events")


class _Repository(Frozen):
    full_name: Text


class _OfRepository(Frozen):
    repository: _Repository


class _Push(_OfRepository):
    ref: Text
    after: Any = None


class _CreateOrDelete(_OfRepository):
    ref: Text
    ref_type: Text


class _Ref(Frozen):
    ref: Text


class _PullRequest(Frozen):
    number: Annotated[int, Field(ge=1, lt=1 << 53)]
    head: _Ref


class _PullRequestEvent(_OfRepository):
    action: Text
    pull_request: _PullRequest


class _Status(_OfRepository):
    sha: Sha
    state: Text


class _Run(Frozen):
    head_sha: Sha
    head_branch: Text | None = None
    status: Text = ""


class _Workflow(_OfRepository):
    run: _Run = Field(validation_alias=AliasChoices("workflow_run", "workflow_job"))


def _push(payload: object) -> Event:
    push = fit(_Push, payload)
    if not push.ref.startswith(HEADS):
        return OtherEvent(what=f"pushes to {push.ref}, which is not a branch")
    branch = push.ref.removeprefix(HEADS)
    sha = push.after if isinstance(push.after, str) and _SHA.fullmatch(push.after) else ""
    repo = push.repository.full_name
    return BranchEvent(subject=Subject.BRANCH, repo=repo, branch=branch, sha=sha, what="branch pushed")


def _create_or_delete(kind: str, payload: object) -> Event:
    event = fit(_CreateOrDelete, payload)
    if event.ref_type != "branch":
        return OtherEvent(what=f"a {event.ref_type} named {event.ref}, which is not a branch")
    what = "branch created" if kind == "create" else "branch deleted"
    branch = event.ref.removeprefix(HEADS)
    return BranchEvent(subject=Subject.BRANCH, repo=event.repository.full_name, branch=branch, what=what)


def _pull_request(payload: object) -> Event:
    event = fit(_PullRequestEvent, payload)
    return BranchEvent(
        subject=Subject.PULL_REQUEST,
        repo=event.repository.full_name,
        branch=event.pull_request.head.ref,
        what=f"pull request {event.pull_request.number} {event.action}",
    )


def _workflow(kind: str, payload: object) -> Event:
    event = fit(_Workflow, payload)
    return CommitEvent(
        repo=event.repository.full_name,
        sha=event.run.head_sha,
        branch=event.run.head_branch or "",
        what=f"{kind.replace('_', ' ')} {event.run.status}".strip(),
    )
