"""Switches that act at the next look: asked at each evaluation, never pinned."""

from activities.settings import WorkerSettings
from workflows.model import Repository
from workflows.policy import merge_gate_off


class MergeGate:
    """Whether the merge gate is on for a repository; it is on wherever nobody says otherwise."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._enabled = settings.merge_gate_enabled
        self._repositories = settings.merge_gate_repos

    def off(self, repository: Repository, *, policy: bool) -> str:
        """Why it is off, in words for people; empty where it is on."""
        return merge_gate_off(repository, enabled=self._enabled, repositories=self._repositories, policy=policy)
