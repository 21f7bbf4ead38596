"""The invariants I1 to I8, I10 and I11, told by other means than the gate's own."""

from collections import Counter

from tests.proof.gate_parts import NEVER, Candidate, Stage, Switch, Violation
from tests.proof.gate_task import Task
from tests.proof.model_git import Sha, Tree
from workflows.lease_state import Request
from workflows.model import Lease


class Oracle:
    """Sees everything that happens to main, and who is blamed."""

    # -- what happens to main --------------------------------------------------------------------------------

    def tested(self, tree: Tree) -> bool:
        """Run the suite; a flake is red for no reason."""
        green = self.git.passes(tree)
        if green and self.flakes:
            self.flakes -= 1
            self.seen["flaked"] += 1
            return False
        if green:
            self.evidence.add(tree)
        return green

    def merged(self, task: Task, candidate: Candidate, lease: Lease, began: int, before: Sha) -> None:
        """We changed main: everything that must be true of that, by other means than the gate's own."""
        git = self.git
        self.landings.append((task.key, candidate.sha))
        rewound = self.rewound_at >= began
        self.seen["merged"] += 1
        tree, base = git.tree(candidate.sha), git.tree(before)
        mine = {commit.change for commit in git.own(before, candidate.replaces)} - base
        if Switch.WRONG_BASE in self.switches:
            mine = tree - base
        if not rewound and not (base | mine) <= tree:
            raise Violation("I6", f"{sorted((base | mine) - tree)} were lost by landing {task.key}")
        landed = git.changes(before, candidate.sha)
        same = set(landed) == mine and len(set(landed)) == len(landed)
        if not (rewound or same or Switch.WRONG_BASE in self.switches):
            raise Violation("I6", f"{task.key} landed {landed} where its branch has {sorted(mine)}")
        if not git.passes(tree):
            raise Violation("I1", f"main is red after {task.key} landed")
        if tree not in self.evidence:
            raise Violation("I1", f"{task.key} landed a tree that was never tested")
        if before != candidate.base and not rewound:
            raise Violation("I2", f"{task.key} landed on another base than it was tested on")
        self._check_section(task, lease, began)

    def _check_section(self, task: Task, lease: Lease, began: int) -> None:
        """What was over, frozen or objected to before the landing began must have stopped it."""
        if self.closed_at.get(lease.epoch, NEVER) < began:
            raise Violation("I4", f"epoch {lease.epoch} was over when {task.key} began to land")
        for cause, since in self.frozen_at.items():
            if since < began and cause not in lease.passes:
                raise Violation("I8", f"{task.key} landed although {cause} stood")
        if task.objected and task.objected_at < began:
            raise Violation("I8", f"{task.key} landed although a person had objected")

    def pushing(self, task: Task, sha: Sha, expected: Sha) -> None:
        """The gate is about to push."""
        actual = self.git.branches[task.branch]
        if Switch.FORCE_PUSH in self.switches and actual not in {expected, sha}:
            raise Violation("I5", f"the push of {task.key} throws away {actual}")

    def evicted(self, task: Task, candidate: Candidate) -> None:
        """A task is sent back because its candidate is red."""
        self.seen["evicted"] += 1
        if candidate.base not in self.git.tips:
            raise Violation("I7", f"{task.key} is blamed for a base that never landed")
        if not self.git.passes(self.git.tree(candidate.base)):
            raise Violation("I7", f"{task.key} is blamed for a red base")

    def _check_order(self, request: Request) -> None:
        causes = set(self.queue.causes)
        for other in self.queue.waiting:
            passes = [one for one in self.queue.passes if one.task == other.task]
            may = not causes or any(causes <= set(one.causes) for one in passes)
            if may and (other.priority.rank, other.place) < (request.priority.rank, request.place):
                raise Violation("I11", f"{request.task} overtook {other.task}")
        if causes and not any(one.task == request.task and causes <= set(one.causes) for one in self.queue.passes):
            raise Violation("I8", f"{request.task} is granted although the queue is frozen")

    def check(self) -> None:
        """What holds after every step."""
        holding, row = self.queue.holding, self.row
        if self.running and holding is not None and (row is None or row.epoch != holding.epoch):
            raise Violation("I3", f"epoch {holding.epoch} holds in the queue, {row} on record")
        if sum(1 for task in self.tasks if task.lease and self.holds(task.lease.epoch)) > 1:
            raise Violation("I3", "two tasks hold a valid epoch")
        for task in self.tasks:
            if task.waiting == "grant" and task.current is not None:
                raise Violation("I10", f"{task.key} waits for a lease while an activity of it runs")

    def _check_rest(self) -> None:
        """What holds once everything is at rest."""
        for key, sha in self.landings:
            if not self.git.passes(self.git.tree(sha)):
                raise Violation("I1", f"the tip that {key} made is red")
        per_task = Counter(key for key, _ in self.landings)
        for task in self.tasks:
            if task.stage is Stage.LANDED and len(task.landed) != 1:
                raise Violation("I9", f"{task.key} landed {len(task.landed)} times on record")
            if task.stage is Stage.LANDED and per_task[task.key] < 1:
                raise Violation("I9", f"{task.key} is on record as landed and is not on main")
            if per_task[task.key] > 1 and self.rewound_at < 0:
                raise Violation("I6", f"{task.key} changed main {per_task[task.key]} times")
        # A queue that is not running looks at its row when the next request starts it.
        if self.running and self.row is not None and self.row.open:
            raise Violation("I9", f"epoch {self.row.epoch} is open although nobody holds it")
