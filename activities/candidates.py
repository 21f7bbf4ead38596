"""Building candidates: the task branch on top of current main, pushed and nothing else pushed.

The order of steps is design section 6's; every step may be repeated after a crash at any point.
"""

from temporalio import activity

from activities.adapters.git import (
    AlreadyLanded,
    Empty,
    Identity,
    Mirror,
    Pushed,
    RebaseConflict,
    Refused,
    StaleHead,
    rebase_onto,
)
from activities.adapters.store import Store
from activities.fencing import Fence
from activities.forge import Forge
from activities.landing_facts import rewound, standing, tip
from activities.mirrors import Mirrors
from activities.settings import WorkerSettings
from activities.switches import MergeGate
from workflows.contracts.landing import BuildCandidate, CandidateBuilt
from workflows.contracts.landing import CandidateOutcome as Outcome
from workflows.model import Candidate
from workflows.policy import PATH, read_policy

COMMITTER = Identity(name="Orch", email="orch@orch.invalid")
POLICY_LIMIT = 1024 * 1024


class Candidates:
    """Rebases and pushes task branches. It never changes a base branch."""

    def __init__(self, mirrors: Mirrors, forge: Forge, store: Store, settings: WorkerSettings) -> None:
        self._mirrors = mirrors
        self._forge = forge
        self._store = store
        self._switch = MergeGate(settings)
        self._root = settings.home / "candidates"

    @activity.defn
    async def build_candidate(self, arg: BuildCandidate) -> CandidateBuilt:
        """Rebase in our own workspace with a pinned identity and date, so that a retry gives the same commit."""
        fence = await Fence.take(self._store, arg.ref)
        if not await self._store.landings.holds(arg.lease.queue, arg.lease.epoch):
            return _none(Outcome.LEASE_LOST, "the merge lease was taken back")
        frozen = await standing(self._store, arg.lease)
        if frozen:
            return _none(Outcome.FROZEN, frozen)
        mirror = await self._mirrors.fetched(arg.repository)
        main = await tip(mirror, arg.repository)
        return await self._impossible(arg, mirror, main) or await self._built(arg, mirror, main, fence)

    async def _impossible(self, arg: BuildCandidate, mirror: Mirror, main: str) -> CandidateBuilt | None:
        """What main and the branch say before any work is done."""
        if lost := await rewound(self._store, mirror, main, arg.lease, arg.before):
            return _none(Outcome.BASE_REWOUND, lost)
        if await mirror.resolve(arg.head_sha) is None:
            return await self._moved(mirror, arg)
        return await self._on_main(arg) if await mirror.is_ancestor(arg.head_sha, main) else None

    async def _built(self, arg: BuildCandidate, mirror: Mirror, main: str, fence: Fence) -> CandidateBuilt:
        off = self._switch.off(arg.repository, policy=arg.policy_gate)
        built = arg.head_sha if off else await self._combined(arg, mirror, main)
        if isinstance(built, CandidateBuilt):
            return built
        broken = "" if off else await _policy_problem(mirror, built, main, arg)
        if broken:
            return _none(Outcome.BROKEN_POLICY, broken)
        refused = await self._pushed(arg, mirror, built, fence)
        if refused is not None:
            return refused
        candidate = Candidate(
            sha=built,
            tree=await mirror.tree(built),
            base_sha=main,
            replaces=arg.head_sha,
            gated=not off,
            built_at=arg.lease.granted_at,
        )
        return CandidateBuilt(outcome=Outcome.READY, candidate=candidate, gate_off=off)

    async def _on_main(self, arg: BuildCandidate) -> CandidateBuilt:
        """The branch's head is on main already: by us, if an intent of ours stands for it."""
        landed = await self._store.landings.settle_landed(str(arg.repository), arg.head_sha, arg.head_sha)
        if landed:
            reason = f"{arg.head_sha[:10]} landed earlier, and the answer was lost"
            return CandidateBuilt(outcome=Outcome.ALREADY_LANDED, reason=reason, sha=landed)
        return _none(Outcome.ON_MAIN_BY_HAND, f"somebody else brought {arg.head_sha[:10]} to main")

    async def _combined(self, arg: BuildCandidate, mirror: Mirror, main: str) -> str | CandidateBuilt:
        """The candidate's sha: the head itself where it already stands on main."""
        paths = await mirror.merge_conflicts(main, arg.head_sha)
        # Where main has a patch of the branch already, a rebase leaves it out and may well apply.
        if paths and not await mirror.has_upstream(main, arg.head_sha):
            return _conflict(paths)
        result = await rebase_onto(
            mirror,
            self._root / arg.repository.owner / arg.repository.name,
            head=arg.head_sha,
            onto=main,
            identity=COMMITTER,
            date=arg.lease.granted_at,
        )
        if isinstance(result, RebaseConflict):
            return _conflict(result.paths)
        if isinstance(result, AlreadyLanded | Empty):
            reason = "main already has every change of the branch, as other commits"
            return _none(Outcome.NOTHING_TO_LAND, reason)
        return result.sha

    async def _pushed(self, arg: BuildCandidate, mirror: Mirror, built: str, fence: Fence) -> CandidateBuilt | None:
        """Push exactly the candidate over exactly the old head; why not, if it may not be."""
        if built == arg.head_sha:
            return None if await mirror.remote_head(arg.branch) == built else await self._moved(mirror, arg)
        branch = await self._forge.client(arg.repository).get_branch(arg.branch)
        if branch is not None and branch.protected:
            reason = f"Gitea lists {arg.branch} as protected; take it out of the rule, and say retry"
            return _none(Outcome.REFUSED, reason)
        await fence.check()
        await self._store.runs.pushing(
            str(arg.repository),
            built,
            arg.branch,
            (arg.ref.key, arg.ref.generation, arg.ref.step, fence.attempt),
        )
        pushed = await mirror.push(built, arg.branch, arg.head_sha)
        if isinstance(pushed, Refused):
            return _none(
                Outcome.REFUSED, f"the push to {arg.branch} is refused: {pushed.reason}; mend it, and say retry"
            )
        ours = isinstance(pushed, Pushed) or (isinstance(pushed, StaleHead) and pushed.actual == built)
        return None if ours else await self._moved(mirror, arg)

    async def _moved(self, mirror: Mirror, arg: BuildCandidate) -> CandidateBuilt:
        now = await mirror.remote_head(arg.branch)
        said = f"somebody else pushed {now[:10]} to {arg.branch}" if now else f"somebody deleted {arg.branch}"
        return CandidateBuilt(outcome=Outcome.HEAD_MOVED, reason=said, sha=now or "")


async def _policy_problem(mirror: Mirror, sha: str, main: str, arg: BuildCandidate) -> str:
    """What is wrong with the file that would govern everybody once this has landed."""
    content = await mirror.read_file(sha, PATH, POLICY_LIMIT)
    if content is None and await mirror.read_file(main, PATH, POLICY_LIMIT) is None:
        return ""
    return read_policy(content, f"{PATH} on {arg.branch}").problem


def _conflict(paths: tuple[str, ...]) -> CandidateBuilt:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return CandidateBuilt(
        outcome=Outcome.CONFLICT, reason=f"conflicts with main in {', '.join(paths[:5])}{more}", conflicts=paths[:50]
    )


def _none(outcome: Outcome, reason: str) -> CandidateBuilt:
    return CandidateBuilt(outcome=outcome, reason=reason)
