"""Everything an adapter can raise.

An expected negative (no such branch, head moved, conflict) is a value, never an exception.
An exception here says either "could not find out, ask again" or "refused, asking again is useless";
`activities.errors` turns that into what Temporal does next.
"""

# ruff: noqa: N818 - the names say what the world answered; "Error" would add nothing to `Unauthorized`.

from collections.abc import Mapping
from typing import Literal

GitErrorKind = Literal["failed", "corrupt", "locked", "disk", "timeout", "exists", "too_large", "unsafe"]


class AdapterError(Exception):
    """Base of every adapter error. Its text never holds a token or a URL with one, so it may be shown."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status that led here, or None where no HTTP answer was involved."""


class Unauthorized(AdapterError):
    """The credential was refused (401, 403): every further call with it will be refused too."""


class NotFound(AdapterError):
    """The thing is not there (404, 410), or the credential may not see it: Gitea and Plane answer alike."""


class Conflict(AdapterError):
    """The state does not allow it (409). `body` keeps the answer: Plane names the existing object there."""

    def __init__(self, message: str, *, status: int = 409, body: object = None) -> None:
        super().__init__(message, status=status)
        self.body = body


class Rejected(AdapterError):
    """Refused for good (other 3xx and 4xx): the same request will be refused again."""

    def __init__(self, message: str, *, status: int | None = None, body: object = None) -> None:
        super().__init__(message, status=status)
        self.body = body


class ChatMigrated(Rejected):
    """A Telegram group became a supergroup; talk to `chat_id` from now on (contracts/telegram.md, Errors)."""

    def __init__(self, message: str, *, chat_id: int) -> None:
        super().__init__(message, status=400)
        self.chat_id = chat_id


class RateLimited(AdapterError):
    """Too many requests (429). Nothing happened; `retry_after` is how many seconds to wait."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class Unavailable(AdapterError):
    """No usable answer: 5xx, a timeout, a broken connection, a body that is not what was promised.

    `ambiguous` is True where the effect may have happened although no answer says so:
    look the effect up before repeating it. `retry_after` is in seconds, where the server named it.
    """

    def __init__(
        self,
        message: str,
        *,
        ambiguous: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status)
        self.ambiguous = ambiguous
        self.retry_after = retry_after


class GitError(AdapterError):
    """A git command could not do its work.

    `kind` is `corrupt` (throw the repository away), `locked` (another command is at it), `disk` (full),
    `timeout`, `exists` (the destination is taken), `too_large`, `unsafe` (a clone was tampered with),
    else `failed`.
    """

    def __init__(self, message: str, *, kind: GitErrorKind = "failed", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = exit_code


class InvalidName(AdapterError):
    """A branch, ref, commit id or path that we refuse to hand to git or to an API."""


class LockHeld(AdapterError):
    """The workspace is still in use; `owner` says by whom, as far as the lock file tells."""

    def __init__(self, message: str, *, owner: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class ProcessNotStarted(AdapterError):
    """The program, or the directory it should run in, does not exist or may not be used."""
