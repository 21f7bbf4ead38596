"""What people say on a pull request: a change request outweighs any verdict."""

from dataclasses import dataclass

from activities.forge import Forge
from workflows.model import Repository

_DECISIVE = {"APPROVED", "REQUEST_CHANGES"}


@dataclass(frozen=True, slots=True)
class Objection:
    """A person's newest word is a change request; `current` if it speaks of this commit."""

    login: str
    text: str
    current: bool


async def objection(forge: Forge, repository: Repository, number: int, sha: str) -> Objection | None:
    """The first person who requests changes and has not taken it back, or None."""
    client = forge.client(repository)
    bots = {(await client.me()).login, (await forge.reviewer(repository).me()).login}
    newest = {
        review.user.login: review
        for review in await client.list_reviews(number)
        if review.user and review.user.login not in bots and not review.dismissed and review.state in _DECISIVE
    }
    requests = [(login, review) for login, review in newest.items() if review.state == "REQUEST_CHANGES"]
    # One that speaks of this very commit is told first: it can be acted on.
    requests.sort(key=lambda pair: pair[1].commit_id != sha)
    for login, review in requests:
        return Objection(login=login, text=review.body or "", current=review.commit_id == sha)
    return None
