"""Switches that act at the next look: asked at each evaluation, never pinned."""

from activities.settings import WorkerSettings
from workflows.model import Repository


class MergeGate:
    """Whether the merge gate is on for a repository; it is on wherever nobody says otherwise."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._enabled = settings.merge_gate_enabled
        self._repositories = {name.casefold() for name in settings.merge_gate_repos.split(",") if name}

    def off(self, repository: Repository, *, policy: bool) -> str:
        """Why it is off, in words for people; empty where it is on."""
        because = ""
        if not self._enabled:
            because = "ORCH_MERGE_GATE_ENABLED"
        elif self._repositories and str(repository).casefold() not in self._repositories:
            because = "ORCH_MERGE_GATE_REPOS"
        elif not policy:
            because = ".orch/pipeline.toml"
        return f"merge gate off for {repository} ({because})" if because else ""
