"""What the gate does to the world: section 6 of the design, cut at every boundary where a worker may die."""

from typing import Any

from tests.proof.gate_parts import Candidate, Stage, Stale, Steps, Switch
from tests.proof.model_git import Conflict, Sha
from workflows.model import Lease


class Activities:
    """Every `yield` is a boundary. A generator that was given up may be revived at any later time."""

    key: str
    branch: str
    head: Sha
    candidate: Candidate | None
    objected: bool
    world: Any

    def _fenced(self, fence: object) -> None:
        if self.world.fences[self.key] != fence:
            raise Stale

    def _develop(self, _kind: str, _fence: object) -> Steps:
        """The developer mends what is red or in conflict, most of the time."""
        world, git = self.world, self.world.git
        head = git.branches[self.branch]
        yield
        fix = git.new_change()
        if world.dice.random() < 0.7:
            tree = git.tree(git.main) | git.tree(head)
            for broken in git.broken(tree):
                broken.mended_by.add(fix)
            git.conflicts = {pair for pair in git.conflicts if not pair & tree}
        git.push(self.branch, git.commit(head, fix), head)

    def _build(self, lease: Lease, fence: object) -> Steps:
        world, git = self.world, self.world.git
        if not world.holds(lease.epoch):
            return "lease lost", None
        if world.stopped_by(lease):
            return "frozen", None
        yield
        main = git.main
        if self.candidate and not git.is_ancestor(self.candidate.base, main):
            return "rewound", None
        if git.is_ancestor(self.head, main):
            return ("landed" if world.ours(self.head) else "on main by hand"), None
        yield
        base = self._base(main)
        built = git.rebase(self.head, base, lease.granted_at)
        if built is None:
            return "nothing to land", None
        if isinstance(built, Conflict):
            return "conflict", None
        if Switch.WRONG_BASE in world.switches:
            built = git.commit(base, git.new_change(), None, git.tree(self.head))
        yield
        self._fenced(fence)
        yield
        force = Switch.FORCE_PUSH in world.switches
        world.pushing(self, built, self.head)
        if not git.push(self.branch, built, self.head, force=force) and git.branches[self.branch] != built:
            return "head moved", None
        yield
        return "ready", Candidate(built, base, self.head)

    def _base(self, main: Sha) -> Sha:
        if Switch.SPECULATIVE_EVICTION not in self.world.switches:
            return main
        for other in self.world.tasks:
            if other is not self and other.stage is Stage.GATE:
                ahead = self.world.git.rebase(other.head, main, None)
                if isinstance(ahead, Sha):
                    return ahead
        return main

    def _test(self, sha: Sha, _fence: object) -> Steps:
        yield
        return self.world.tested(self.world.git.tree(sha))

    def _land(self, lease: Lease, candidate: Candidate, fence: object) -> Steps:
        world, git = self.world, self.world.git
        began = world.tick
        yield
        if git.is_ancestor(candidate.sha, git.main):
            world.settle(candidate.sha, lease.epoch, "landed")
            return "landed"
        if not world.holds(lease.epoch) and Switch.EARLY_RELEASE not in world.switches:
            return "lease lost"
        rechecks = Switch.NO_RECHECK not in world.switches
        if rechecks and world.stopped_by(lease):
            return "frozen"
        yield
        if git.main != candidate.base:
            return "main moved" if git.is_ancestor(candidate.base, git.main) else "rewound"
        if git.branches[self.branch] != candidate.sha:
            return "head moved"
        yield
        if rechecks and self.objected:
            return "not allowed"
        world.intents.setdefault((candidate.sha, lease.epoch), "open")
        yield
        self._fenced(fence)
        yield
        before = git.main
        answer = git.fast_forward(self.branch, candidate.sha)
        if answer == "merged":
            world.merged(self, candidate, lease, began, before)
        yield
        # A refusal is no word on whether an earlier attempt has landed: main is.
        if answer in {"merged", "already merged"} or git.is_ancestor(candidate.sha, git.main):
            assert git.is_ancestor(candidate.sha, git.main) or world.rewound_at >= began
            yield
            world.settle(candidate.sha, lease.epoch, "landed")
            return "landed"
        world.settle(candidate.sha, lease.epoch, "abandoned")
        return answer
