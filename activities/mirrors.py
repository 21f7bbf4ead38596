"""The trusted bare mirrors of this host, one for each repository."""

import asyncio
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git import GitAuth, Mirror
from activities.settings import WorkerSettings
from workflows.model import Repository


class Mirrors:
    """Hands out mirrors that exist and are fetched; one git at a time in each."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._root = settings.home / "mirrors"
        self._base_url = settings.gitea_url
        self._auth = GitAuth(base_url=settings.gitea_url, token=settings.gitea_token.get_secret_value())
        self._locks: dict[str, asyncio.Lock] = {}
        self._ready: set[str] = set()

    async def fetched(self, repository: Repository) -> Mirror:
        """The mirror of a repository, as new as the remote was a moment ago."""
        mirror = self._mirror(repository)
        async with self._locks.setdefault(str(repository), asyncio.Lock()):
            if str(repository) not in self._ready:
                await mirror.ensure()
                self._ready.add(str(repository))
            try:
                await mirror.fetch()
            except GitError:
                # It may be corrupt, or locked by a git that was killed: the next attempt mends it first.
                self._ready.discard(str(repository))
                raise
        return mirror

    def _mirror(self, repository: Repository) -> Mirror:
        path: Path = self._root / repository.owner / f"{repository.name}.git"
        path.parent.mkdir(parents=True, exist_ok=True)
        return Mirror(
            path,
            f"{self._base_url}/{repository.owner}/{repository.name}.git",
            self._auth,
            frozenset({repository.base}),
        )
