"""Gitea: the task's pull request and the reviewer's word on it."""

from temporalio import activity

from activities.adapters.gitea_models import Pull
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.forge import Forge
from activities.markup import for_gitea, title
from workflows.contracts import pull_requests as contract
from workflows.model import Done, PullRequest


class PullRequests:
    """Opens pull requests and posts reviews, once each."""

    def __init__(self, forge: Forge, store: Store) -> None:
        self._forge = forge
        self._store = store

    @activity.defn
    async def ensure_pull_request(self, arg: contract.EnsurePullRequest) -> PullRequest:
        """Looked up by head and base first: a person may have opened it, or an earlier attempt."""
        fence = await Fence.take(self._store, arg.ref)
        client = self._forge.client(arg.repository)
        pull = await client.find_pull(arg.repository.base, arg.branch)
        if pull is None:
            await fence.check()
            pull = await client.create_pull(
                head=arg.branch, base=arg.repository.base, title=title(arg.title), body=arg.body
            )
        await self._store.effects.open(arg.ref.intent("pull-request"), "pull request")
        await self._store.effects.settle(arg.ref.intent("pull-request"), str(pull.number))
        return self._shown(arg, pull)

    @activity.defn
    async def post_review(self, arg: contract.PostReview) -> Done:
        """A review carries its intent key as a visible last line, by which a repeat finds it."""
        fence = await Fence.take(self._store, arg.ref)
        intent = arg.ref.intent(arg.effect)
        known = await self._store.effects.open(intent, "review")
        if known.status == "done":
            return Done(reference=known.reference)
        reviewer = self._forge.reviewer(arg.repository)
        marker = f"`{intent}`"
        posted = next((r for r in await reviewer.list_reviews(arg.number) if marker in (r.body or "")), None)
        if posted is None:
            await fence.check()
            posted = await reviewer.create_review(
                arg.number,
                event="APPROVED" if arg.approve else "REQUEST_CHANGES",
                body=f"{for_gitea(arg.body)}\n\n{marker}",
                commit_id=arg.sha,
            )
        await self._store.effects.settle(intent, str(posted.id))
        return Done(reference=str(posted.id))

    def _shown(self, arg: contract.EnsurePullRequest, pull: Pull) -> PullRequest:
        return PullRequest(
            number=pull.number,
            head_sha=pull.head.sha,
            url=self._forge.urls(arg.repository).pull(pull.number),
            state=pull.state,
            merged=pull.merged,
        )
