"""What the workflows ask of Gitea: pull requests and reviews."""

from temporalio import activity

from workflows.model import (
    Done,
    Frozen,
    PullRequest,
    Repository,
    TaskRef,
)


class EnsurePullRequest(Frozen):
    """Open the task's pull request, or find it by head and base."""

    ref: TaskRef
    repository: Repository
    branch: str
    title: str
    body: str


class PostReview(Frozen):
    """Post a review by the reviewer account, once for each intent, bound to a commit."""

    ref: TaskRef
    effect: str
    repository: Repository
    number: int
    sha: str
    approve: bool
    body: str


@activity.defn
async def ensure_pull_request(arg: EnsurePullRequest) -> PullRequest:
    """The open pull request of the branch."""
    raise NotImplementedError


@activity.defn
async def post_review(arg: PostReview) -> Done:
    """Post a review; a repeat finds the first one."""
    raise NotImplementedError
