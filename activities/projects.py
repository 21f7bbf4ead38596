"""`orch.toml` as it is now: read again when the file changes, so that a change acts at the next look."""

from pathlib import Path

import structlog

from activities.adapters.errors import NotFound
from activities.settings import ConfigError, read_orch_toml
from workflows.projects import OrchConfig, ProjectConfig

log = structlog.get_logger(__name__)


class ProjectNotConfigured(NotFound):
    """The project of a task is not in `orch.toml`: its tasks wait, and go on when it is back."""


class Projects:
    """The configured projects. A file that became invalid keeps the last good one in force."""

    def __init__(self, path: Path, config: OrchConfig) -> None:
        self._path = path
        self._config = config
        self._read_at = self._modified()

    @property
    def config(self) -> OrchConfig:
        """The configuration in force."""
        modified = self._modified()
        if modified != self._read_at:
            self._read_at = modified
            try:
                self._config = read_orch_toml(self._path)
            except ConfigError as error:
                log.warning("orch_toml_invalid", error=str(error), in_force="the last valid one")
        return self._config

    def of(self, task: str) -> ProjectConfig:
        """The project of a task key such as `DEMO-1`.

        Raises:
            ProjectNotConfigured: it is not in the file.
        """
        project = self.config.project_of(task)
        if project is None:
            raise ProjectNotConfigured(f"the project of {task} is not configured in {self._path.name}")
        return project

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
