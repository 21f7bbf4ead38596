"""Landing candidates. Safety comes from the ref; the lease only gives order.

After any answer to the merge call but a plain yes, Gitea and main are read before anything is decided.
"""

from fnmatch import fnmatchcase

from temporalio import activity

from activities.adapters.errors import Unavailable
from activities.adapters.git import Mirror
from activities.adapters.gitea_merge import (
    BaseMoved,
    HeadMoved,
    MergeConflict,
    Merged,
    MergeOutcome,
    MergeStyle,
    NotAllowed,
)
from activities.adapters.gitea_models import Pull, Repo
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.forge import Forge
from activities.landing_facts import contains, rewound, standing, tip
from activities.mirrors import Mirrors
from activities.reviews import objection
from activities.settings import WorkerSettings
from activities.switches import MergeGate
from workflows.contracts.landing import Land, Landed
from workflows.contracts.landing import LandOutcome as Outcome

CHECKS = 20
"""How often Gitea may say that it is still checking a pull request, before a person is asked."""
CHECK_PAUSE = 2.0
"""Seconds between two such questions."""


class Landing:
    """The only code that changes a base branch, and only through Gitea's merge call."""

    def __init__(self, mirrors: Mirrors, forge: Forge, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._forge = forge
        self._store = store
        self._switch = MergeGate(settings)

    @activity.defn
    async def land(self, arg: Land) -> Landed:
        """Re-read everything inside the lease, write the intent, merge, read back."""
        fence = await Fence.take(self._store, arg.ref)
        repository, candidate, lease = arg.repository, arg.candidate, arg.lease
        mirror = await self._mirrors.fetched(repository)
        # The merge call of an earlier attempt may have gone through and its answer been lost.
        settled = await self._read_back(arg, mirror) or await self._refusal(arg, mirror)
        if settled is not None:
            return await self._settle(arg, settled)
        style = await self._style(arg, mirror)
        if style is None:
            reason = f"{repository} does not allow fast-forward-only merges; allow them in its settings, and say retry"
            return await self._settle(arg, Landed(outcome=Outcome.NOT_ALLOWED, reason=reason))
        await self._store.landings.open_landing(
            str(repository),
            candidate.sha,
            lease.epoch,
            queue=lease.queue,
            task=arg.ref.key,
            generation=arg.ref.generation,
            base_sha=candidate.base_sha,
            tree=candidate.tree,
        )
        await self._approve_again(arg)
        await fence.check()
        answer = await self._forge.client(repository).merge_pull(
            arg.pull.number, style=style, head_commit_id=candidate.sha
        )
        mirror = await self._mirrors.fetched(repository)
        landed = await self._read_back(arg, mirror)
        if landed is None and isinstance(answer, Merged):
            raise Unavailable("the merge was accepted but is not on main yet", ambiguous=True)
        if landed is None and answer == NotAllowed("checking", getattr(answer, "message", "")):
            await self._still_checking(arg)
        settled = landed or await self._refusal(arg, mirror) or await self._refused(arg, answer)
        return await self._settle(arg, settled)

    # -- before the call -------------------------------------------------------------------------------------

    async def _refusal(self, arg: Land, mirror: Mirror) -> Landed | None:
        """What has changed since the candidate was tested, if anything has."""
        if not await self._store.landings.holds(arg.lease.queue, arg.lease.epoch):
            return Landed(outcome=Outcome.LEASE_LOST, reason="the merge lease was taken back")
        frozen = await standing(self._store, arg.lease)
        if frozen:
            return Landed(outcome=Outcome.FROZEN, reason=frozen)
        return (
            await self._main_changed(arg, mirror) or await self._head_changed(arg, mirror) or await self._objected(arg)
        )

    async def _main_changed(self, arg: Land, mirror: Mirror) -> Landed | None:
        candidate, main = arg.candidate, await tip(mirror, arg.repository)
        if not candidate.gated:
            return await self._ungated_changed(arg, mirror, main)
        if main == candidate.base_sha:
            return None
        if lost := await rewound(self._store, mirror, main, arg.lease, candidate):
            return Landed(outcome=Outcome.BASE_REWOUND, reason=lost)
        reason = f"main moved to {main[:10]} since the candidate was tested"
        return Landed(outcome=Outcome.MAIN_MOVED, reason=reason)

    async def _ungated_changed(self, arg: Land, mirror: Mirror, main: str) -> Landed | None:
        if not self._switch.off(arg.repository, policy=arg.policy_gate):
            return Landed(outcome=Outcome.GATE_ON, reason="the merge gate was switched on meanwhile")
        if await mirror.resolve(arg.candidate.sha) is None:
            return None  # the next look says that the head has moved
        paths = await mirror.merge_conflicts(main, arg.candidate.sha)
        if paths:
            return Landed(outcome=Outcome.CONFLICT, reason=f"conflicts with main in {', '.join(paths[:5])}")
        return None

    async def _head_changed(self, arg: Land, mirror: Mirror) -> Landed | None:
        head = await mirror.remote_head(arg.branch)
        if head == arg.candidate.sha:
            return None
        said = f"somebody pushed {head[:10]} to {arg.branch}" if head else f"somebody deleted {arg.branch}"
        return Landed(outcome=Outcome.HEAD_MOVED, sha=head or "", reason=said)

    async def _objected(self, arg: Land) -> Landed | None:
        """A change request by a person; one of the commit before our own rebase is one of the candidate."""
        waits = None
        for sha in (arg.candidate.sha, arg.candidate.replaces):
            against = await objection(self._forge, arg.repository, arg.pull.number, sha)
            if against is None:
                return None
            if against.current:
                reason = f"{against.login} requests changes: {against.text}"
                return Landed(outcome=Outcome.CHANGES_REQUESTED, reason=reason)
            reason = f"{against.login} requested changes of an older commit and must look again"
            waits = Landed(outcome=Outcome.REVIEW_WAITS, reason=reason)
        return waits

    async def _style(self, arg: Land, mirror: Mirror) -> MergeStyle | None:
        """Fast-forward-only; where the gate is off also what else the repository allows."""
        repo = await self._forge.client(arg.repository).get_repo()
        if arg.candidate.gated:
            return "fast-forward-only" if repo.allow_fast_forward_only_merge else None
        ahead = await mirror.is_ancestor(await tip(mirror, arg.repository), arg.candidate.sha)
        return _ungated_style(repo, ahead=ahead)

    async def _approve_again(self, arg: Land) -> None:
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

    # -- after the call --------------------------------------------------------------------------------------

    async def _read_back(self, arg: Land, mirror: Mirror) -> Landed | None:
        """What is on main of it, whoever brought it there; None if nothing is."""
        candidate, main = arg.candidate, await tip(mirror, arg.repository)
        if await contains(mirror, main, candidate.sha):
            if await mirror.tree(candidate.sha) != candidate.tree:
                return Landed(outcome=Outcome.WRONG_TREE, reason="main holds another tree")
            if await self._store.landings.is_ours(str(arg.repository), candidate.sha):
                return Landed(outcome=Outcome.LANDED, sha=candidate.sha)
            return Landed(outcome=Outcome.MERGED_BY_HAND, reason=f"somebody brought {candidate.sha[:10]} to main")
        pull = await self._forge.client(arg.repository).get_pull(arg.pull.number)
        return await self._merged_as_another(arg, mirror, main, pull) if pull.merged else None

    async def _merged_as_another(self, arg: Land, mirror: Mirror, main: str, pull: Pull) -> Landed:
        """The pull request is merged, but main has another commit than the candidate."""
        merged = pull.merge_commit_sha or ""
        me = (await self._forge.client(arg.repository).me()).login
        ours = pull.merged_by is not None and pull.merged_by.login == me
        if not ours or not await self._store.landings.is_ours(str(arg.repository), arg.candidate.sha):
            who = pull.merged_by.login if pull.merged_by else "somebody"
            reason = f"{who} merged the pull request as {merged[:10]}"
            return Landed(outcome=Outcome.MERGED_BY_HAND, reason=reason)
        if not merged or not await contains(mirror, main, merged):
            raise Unavailable(f"merged as {merged[:10]}, which is not on main yet", ambiguous=True)
        if arg.candidate.gated and await mirror.tree(merged) != arg.candidate.tree:
            reason = f"main got {merged[:10]}, whose tree is not the tested one of {arg.candidate.sha[:10]}"
            return Landed(outcome=Outcome.WRONG_TREE, reason=reason)
        return Landed(outcome=Outcome.LANDED, sha=merged)

    async def _still_checking(self, arg: Land) -> None:
        if activity.info().attempt < CHECKS:
            text = f"gitea is still checking pull request {arg.pull.number} for conflicts"
            raise Unavailable(text, ambiguous=False, retry_after=CHECK_PAUSE)

    async def _refused(self, arg: Land, answer: MergeOutcome) -> Landed:
        """What a refusal means where neither head nor main nor a person explains it."""
        match answer:
            case HeadMoved():
                return Landed(outcome=Outcome.HEAD_MOVED, reason="Gitea has another head for the branch")
            case BaseMoved() | MergeConflict():
                return Landed(outcome=Outcome.MAIN_MOVED, reason="Gitea refuses to fast-forward main")
            case NotAllowed(reason="checks", message=message):
                lacking = await self._lacking(arg)
                reason = f"protection of {arg.repository.base} is not met: {message}{lacking}; mend it, and say retry"
            case NotAllowed(reason="checking"):
                reason = "Gitea does not end its check for conflicts; look at the pull request, and say retry"
            case NotAllowed(reason=why, message=message):
                reason = f"gitea refuses the merge ({why}): {message}; mend it, and say retry"
            case Merged():
                raise Unavailable("the merge was accepted but is not on main yet", ambiguous=True)
        return Landed(outcome=Outcome.NOT_ALLOWED, reason=reason)

    async def _lacking(self, arg: Land) -> str:
        """What the base's protection wants and does not have, by name."""
        client = self._forge.client(arg.repository)
        base = await client.get_branch(arg.repository.base)
        if base is None:
            return ""
        found = []
        if base.required_approvals:
            found.append(f"it wants {base.required_approvals} approval(s)")
        if base.enable_status_check:
            good = [
                one.context
                for one in (await client.combined_status(arg.candidate.sha)).statuses
                if one.state in {"success", "skipped"}
            ]
            wanted = base.status_check_contexts or ()
            missing = [glob for glob in wanted if not any(fnmatchcase(context, glob) for context in good)]
            found += [f"no success of {', '.join(missing)}"] if missing else []
        return f" ({'; '.join(found)})" if found else ""

    async def _settle(self, arg: Land, landed: Landed) -> Landed:
        repository, candidate = str(arg.repository), arg.candidate
        if landed.outcome is Outcome.LANDED:
            await self._store.landings.settle_landed(repository, candidate.sha, landed.sha)
        elif landed.outcome is not Outcome.WRONG_TREE:
            await self._store.landings.settle_abandoned(
                repository, candidate.sha, arg.lease.epoch, reason=landed.reason
            )
        return landed


def _ungated_style(repo: Repo, *, ahead: bool) -> MergeStyle | None:
    allowed: list[tuple[bool, MergeStyle]] = [
        (repo.allow_fast_forward_only_merge and ahead, "fast-forward-only"),
        (repo.allow_rebase, "rebase"),
        (repo.allow_merge_commits, "merge"),
        (repo.allow_squash_merge, "squash"),
    ]
    return next((style for may, style in allowed if may), None)
