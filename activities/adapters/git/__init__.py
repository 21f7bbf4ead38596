"""Git, driven from outside: trusted bare mirrors, clones for agents, rebases in our own workspace.

The orchestrator never runs git inside a tree that an agent could write: hooks, `core.fsmonitor` and filters
of such a tree are programs (research/reliability_ux.md, fact 5). It fetches from it instead.
"""

from activities.adapters.git.command import GitAuth, Identity
from activities.adapters.git.history import Commit, DiffStat, FileChange
from activities.adapters.git.mirror import Mirror, Pushed, PushOutcome, Refused, StaleHead
from activities.adapters.git.names import check_branch, check_path, check_ref, check_sha
from activities.adapters.git.rebasing import (
    AlreadyLanded,
    Empty,
    RebaseConflict,
    Rebased,
    RebaseOutcome,
    rebase_onto,
)
from activities.adapters.git.workspaces import checkout_clean, clone_for_task

__all__ = [
    "AlreadyLanded",
    "Commit",
    "DiffStat",
    "Empty",
    "FileChange",
    "GitAuth",
    "Identity",
    "Mirror",
    "PushOutcome",
    "Pushed",
    "RebaseConflict",
    "RebaseOutcome",
    "Rebased",
    "Refused",
    "StaleHead",
    "check_branch",
    "check_path",
    "check_ref",
    "check_sha",
    "checkout_clean",
    "clone_for_task",
    "rebase_onto",
]
