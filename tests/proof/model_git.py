"""A repository small enough to run thousands of times: trees are sets of changes, tests are predicates over them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Sha = int
Change = int
Tree = frozenset[Change]


@dataclass(frozen=True, slots=True)
class Commit:
    """`change` is its patch id; `depth` counts the commits below it."""

    sha: Sha
    parent: "Commit | None"
    change: Change
    tree: Tree
    depth: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rebase that stopped at a change."""

    change: Change


@dataclass(slots=True)
class Break:
    """Changes that together make the tests red, until one of `mended_by` is there too."""

    changes: Tree
    mended_by: set[Change] = field(default_factory=set)


class Git:
    """A main branch, task branches, and nothing else. Only `fast_forward` and people move main."""

    def __init__(self) -> None:
        self.root = Commit(0, None, 0, frozenset(), 0)
        self._commits: dict[Sha, Commit] = {0: self.root}
        self._made: dict[tuple[Sha, Change, object], Sha] = {}
        self._changes = 0
        self.main: Sha = 0
        self.tips: list[Sha] = [0]
        """Everything main has ever been."""
        self.branches: dict[str, Sha] = {}
        self.breaks: list[Break] = []
        self.conflicts: set[Tree] = set()
        """Pairs of changes that touch the same lines."""

    # -- commits -----------------------------------------------------------------------------------------------

    def new_change(self) -> Change:
        """A patch that nobody has made before."""
        self._changes += 1
        return self._changes

    def commit(self, parent: Sha, change: Change, date: object = None, tree: Tree | None = None) -> Sha:
        """The same parent, change and date give the same commit, as with a pinned committer."""
        key = (parent, change, date)
        sha = self._made.get(key)
        if sha is None:
            below = self._commits[parent]
            sha = len(self._commits)
            made = Commit(sha, below, change, below.tree | {change} if tree is None else tree, below.depth + 1)
            self._commits[sha] = made
            self._made[key] = sha
        return sha

    def tree(self, sha: Sha) -> Tree:
        """The changes a commit contains."""
        return self._commits[sha].tree

    def is_ancestor(self, ancestor: Sha, descendant: Sha) -> bool:
        """Whether `descendant` contains `ancestor`."""
        wanted, at = self._commits[ancestor], self._commits[descendant]
        while at.depth > wanted.depth:
            assert at.parent is not None
            at = at.parent
        return at is wanted

    def own(self, base: Sha, head: Sha) -> list[Commit]:
        """The commits of `head` that `base` does not have, oldest first."""
        below, at, found = self._commits[base], self._commits[head], []
        while at is not below and at.parent is not None:
            if at.depth > below.depth:
                found.append(at)
                at = at.parent
            elif below.depth > at.depth:
                assert below.parent is not None
                below = below.parent
            else:
                found.append(at)
                assert below.parent is not None
                at, below = at.parent, below.parent
        return found[::-1]

    def changes(self, base: Sha, head: Sha) -> list[Change]:
        """The patch ids of `head` that `base` does not have as the same commits."""
        return [commit.change for commit in self.own(base, head)]

    def rebase(self, head: Sha, onto: Sha, date: object) -> Sha | Conflict | None:
        """`head`'s commits on top of `onto`; None if nothing is left of them."""
        if self.is_ancestor(onto, head):
            return head
        there, tip = self.tree(onto), onto
        own = self.own(onto, head)
        common = self.tree(own[0].parent.sha) if own and own[0].parent else frozenset()
        for commit in own:
            if commit.change in there:
                continue  # upstream has this patch already
            if any(commit.change in pair and pair & (there - common) for pair in self.conflicts):
                return Conflict(commit.change)
            tip = self.commit(tip, commit.change, date)
        return None if tip == onto else tip

    # -- refs --------------------------------------------------------------------------------------------------

    def push(self, branch: str, sha: Sha, expected: Sha | None, *, force: bool = False) -> bool:
        """Move a task branch from exactly `expected`; a plain force asks nothing."""
        if not force and self.branches.get(branch) != expected:
            return False
        self.branches[branch] = sha
        return True

    def set_main(self, sha: Sha) -> None:
        """Main is at another commit now."""
        self.main = sha
        self.tips.append(sha)

    def fast_forward(self, branch: str, head: Sha) -> str:
        """The forge's merge call: only a fast-forward, only if the branch is still at `head`."""
        if self.branches.get(branch) != head:
            return "head moved"
        if self.is_ancestor(head, self.main):
            return "already merged"
        if not self.is_ancestor(self.main, head):
            return "main moved"
        self.set_main(head)
        return "merged"

    # -- tests -------------------------------------------------------------------------------------------------

    def passes(self, tree: Tree) -> bool:
        """The whole suite: no break without its mending."""
        return not any(one.changes <= tree and not (one.mended_by & tree) for one in self.breaks)

    def broken(self, tree: Tree) -> Iterator[Break]:
        """What is red in a tree."""
        return (one for one in self.breaks if one.changes <= tree and not (one.mended_by & tree))

    def break_on(self, changes: Iterable[Change]) -> None:
        """These changes are red together."""
        self.breaks.append(Break(frozenset(changes)))
