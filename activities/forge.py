"""Gitea by repository and by account."""

import aiohttp

from activities.adapters.gitea import GiteaClient
from activities.adapters.gitea_models import PublicUrls
from activities.adapters.http import HttpClient
from activities.settings import WorkerSettings
from workflows.model import Repository


class Forge:
    """Hands out clients: the bot pushes, opens and merges; the reviewer only reviews."""

    def __init__(self, session: aiohttp.ClientSession, settings: WorkerSettings, public_url: str) -> None:
        self._bot = _http(session, settings.gitea_url, settings.gitea_token.get_secret_value())
        self._reviewer = _http(session, settings.gitea_url, settings.gitea_reviewer_token.get_secret_value())
        self._public_url = public_url

    def client(self, repository: Repository) -> GiteaClient:
        """The repository as the bot account sees it."""
        return GiteaClient(self._bot, repository.owner, repository.name)

    def reviewer(self, repository: Repository) -> GiteaClient:
        """The repository as the reviewer account sees it."""
        return GiteaClient(self._reviewer, repository.owner, repository.name)

    def urls(self, repository: Repository) -> PublicUrls:
        """Addresses for people; they differ from the API's."""
        return PublicUrls(self._public_url, repository.owner, repository.name)


def _http(session: aiohttp.ClientSession, base_url: str, token: str) -> HttpClient:
    return HttpClient(
        session,
        f"{base_url}/api/v1/",
        service="gitea",
        headers={"Authorization": f"token {token}"},
        secrets=(token,),
    )
