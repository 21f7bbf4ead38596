"""Building and landing candidates. Safety comes from the ref; the lease only gives order.

The order of steps is design section 6's; every step may be repeated after a crash at any point.
"""

import asyncio
import shutil

from temporalio import activity

from activities.adapters.errors import Unavailable
from activities.adapters.git import (
    AlreadyLanded,
    Empty,
    Identity,
    Mirror,
    Pushed,
    RebaseConflict,
    StaleHead,
    rebase_onto,
)
from activities.adapters.gitea_merge import BaseMoved, HeadMoved, MergeConflict, Merged, NotAllowed
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.forge import Forge
from activities.mirrors import Mirrors
from activities.reviews import objection
from activities.settings import WorkerSettings
from workflows.contracts import landing as contract
from workflows.model import Candidate, Repository

COMMITTER = Identity(name="Orch", email="orch@orch.invalid")


class Landing:
    """The only code that changes a base branch, and only through Gitea's merge call."""

    def __init__(self, mirrors: Mirrors, forge: Forge, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._forge = forge
        self._store = store
        self._root = settings.home / "candidates"

    @activity.defn
    async def build_candidate(self, arg: contract.BuildCandidate) -> contract.CandidateBuilt:
        """Rebase in our own workspace with a pinned identity and date, so that a retry gives the same commit."""
        fence = await Fence.take(self._store, arg.ref)
        if not await self._store.landings.holds(arg.lease.queue, arg.lease.epoch):
            return _none(contract.CandidateOutcome.LEASE_LOST, "the merge lease was taken back")
        repository = arg.repository
        mirror = await self._mirrors.fetched(repository)
        main = await _tip(mirror, repository)
        if await mirror.is_ancestor(arg.head_sha, main):
            return _none(contract.CandidateOutcome.ALREADY_LANDED, f"{arg.head_sha[:10]} is already on main")
        built = await self._rebased(arg, mirror, main)
        if isinstance(built, contract.CandidateBuilt):
            return built
        if built != arg.head_sha:
            await fence.check()
            await self._store.runs.pushing(
                str(repository),
                built,
                arg.branch,
                (arg.ref.key, arg.ref.generation, arg.ref.step, fence.attempt),
            )
            pushed = await mirror.push(built, arg.branch, arg.head_sha)
            ours = isinstance(pushed, Pushed) or (isinstance(pushed, StaleHead) and pushed.actual == built)
            if not ours:
                return _none(contract.CandidateOutcome.HEAD_MOVED, "somebody else pushed to the task branch")
        elif await mirror.remote_head(arg.branch) != built:
            return _none(contract.CandidateOutcome.HEAD_MOVED, "somebody else pushed to the task branch")
        candidate = Candidate(sha=built, tree=await mirror.tree(built), base_sha=main, replaces=arg.head_sha)
        return contract.CandidateBuilt(outcome=contract.CandidateOutcome.READY, candidate=candidate)

    async def _rebased(self, arg: contract.BuildCandidate, mirror: Mirror, main: str) -> str | contract.CandidateBuilt:
        """The candidate's sha: the head itself where it already stands on main."""
        if await mirror.is_ancestor(main, arg.head_sha):
            return arg.head_sha
        work = self._root / arg.ref.key
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        work.parent.mkdir(parents=True, exist_ok=True)
        try:
            result = await rebase_onto(
                mirror, work, head=arg.head_sha, onto=main, identity=COMMITTER, date=arg.lease.granted_at
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        if isinstance(result, RebaseConflict):
            return contract.CandidateBuilt(
                outcome=contract.CandidateOutcome.CONFLICT,
                reason=f"conflicts with main in {', '.join(result.paths[:5])}",
                conflicts=tuple(result.paths),
            )
        if isinstance(result, AlreadyLanded | Empty):
            return _none(contract.CandidateOutcome.ALREADY_LANDED, "main already has every change of the branch")
        return result.sha

    @activity.defn
    async def land(self, arg: contract.Land) -> contract.Landed:
        """Re-read everything inside the lease, write the intent, merge, read back."""
        fence = await Fence.take(self._store, arg.ref)
        repository, candidate, lease = arg.repository, arg.candidate, arg.lease
        mirror = await self._mirrors.fetched(repository)
        if await mirror.is_ancestor(candidate.sha, await _tip(mirror, repository)):
            # The merge call of an earlier attempt went through and its answer was lost.
            return await self._read_back(arg, mirror)
        refused = await self._refusal(arg, mirror)
        if refused is not None:
            await self._settle(arg, "abandoned", refused.reason)
            return refused
        await self._store.landings.open_landing(
            str(repository),
            candidate.sha,
            lease.epoch,
            task=arg.ref.key,
            generation=arg.ref.generation,
            base_sha=candidate.base_sha,
            tree=candidate.tree,
        )
        await self._approve_again(arg)
        await fence.check()
        outcome = await self._forge.client(repository).merge_pull(
            arg.pull.number, style="fast-forward-only", head_commit_id=candidate.sha
        )
        match outcome:
            case Merged() | NotAllowed(reason="already_merged"):
                return await self._read_back(arg, await self._mirrors.fetched(repository))
            case HeadMoved():
                return await self._abandon(arg, contract.LandOutcome.HEAD_MOVED, "the branch's head moved")
            case BaseMoved() | MergeConflict():
                return await self._abandon(arg, contract.LandOutcome.MAIN_MOVED, "main moved")
            case NotAllowed(reason="checking"):
                raise Unavailable("gitea is still checking the pull request for conflicts", ambiguous=False)
            case NotAllowed(reason=why, message=message):
                reason = f"gitea refuses the merge ({why}): {message}"
                return await self._abandon(arg, contract.LandOutcome.NOT_ALLOWED, reason)

    async def _refusal(self, arg: contract.Land, mirror: Mirror) -> contract.Landed | None:
        """What has changed since the candidate was tested, if anything has."""
        repository, candidate = arg.repository, arg.candidate
        outcome, reason = None, ""
        if not await self._store.landings.holds(arg.lease.queue, arg.lease.epoch):
            outcome, reason = contract.LandOutcome.LEASE_LOST, "the merge lease was taken back"
        elif await _tip(mirror, repository) != candidate.base_sha:
            outcome, reason = contract.LandOutcome.MAIN_MOVED, "main moved since the candidate was tested"
        elif await mirror.remote_head(arg.branch) != candidate.sha:
            outcome, reason = contract.LandOutcome.HEAD_MOVED, "the branch's head moved"
        else:
            against = await objection(self._forge, repository, arg.pull.number, candidate.sha)
            if against is not None:
                outcome = contract.LandOutcome.NOT_ALLOWED
                reason = f"{against.login} requests changes: {against.text}"
            elif not (await self._forge.client(repository).get_repo()).allow_fast_forward_only_merge:
                outcome = contract.LandOutcome.NOT_ALLOWED
                reason = f"{repository} does not allow fast-forward-only merges; allow them in its settings"
        return contract.Landed(outcome=outcome, reason=reason) if outcome else None

    async def _approve_again(self, arg: contract.Land) -> None:
        """A rebase may have made the approvals stale; where protection wants one, give it to the candidate."""
        client = self._forge.client(arg.repository)
        base = await client.get_branch(arg.repository.base)
        if base is None or not base.required_approvals or arg.candidate.sha == arg.candidate.replaces:
            return
        reviewer = self._forge.reviewer(arg.repository)
        login = (await reviewer.me()).login
        for review in await reviewer.list_reviews(arg.pull.number):
            same = review.user and review.user.login == login and review.commit_id == arg.candidate.sha
            if same and review.state == "APPROVED" and not review.stale:
                return
        await reviewer.create_review(
            arg.pull.number,
            event="APPROVED",
            body="The reviewed change, rebased onto current main; the combined tree passed its tests.",
            commit_id=arg.candidate.sha,
        )

    async def _read_back(self, arg: contract.Land, mirror: Mirror) -> contract.Landed:
        candidate = arg.candidate
        main = await _tip(mirror, arg.repository)
        if not await mirror.is_ancestor(candidate.sha, main):
            raise Unavailable("the merge was accepted but is not on main yet", ambiguous=True)
        if await mirror.tree(candidate.sha) != candidate.tree:
            return contract.Landed(outcome=contract.LandOutcome.WRONG_TREE, reason="main holds another tree")
        await self._settle(arg, "landed", "")
        return contract.Landed(outcome=contract.LandOutcome.LANDED, sha=candidate.sha)

    async def _abandon(self, arg: contract.Land, outcome: contract.LandOutcome, reason: str) -> contract.Landed:
        await self._settle(arg, "abandoned", reason)
        return contract.Landed(outcome=outcome, reason=reason)

    async def _settle(self, arg: contract.Land, status: str, reason: str) -> None:
        await self._store.landings.settle_landing(
            str(arg.repository), arg.candidate.sha, arg.lease.epoch, status=status, reason=reason
        )


async def _tip(mirror: Mirror, repository: Repository) -> str:
    main = await mirror.resolve(f"refs/heads/{repository.base}")
    if main is None:
        raise Unavailable(f"{repository} has no branch {repository.base}", ambiguous=False)
    return main


def _none(outcome: contract.CandidateOutcome, reason: str) -> contract.CandidateBuilt:
    return contract.CandidateBuilt(outcome=outcome, reason=reason)
