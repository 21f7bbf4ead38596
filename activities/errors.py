"""The one mapping from what an adapter raises to what Temporal does next: ask again, when, or not at all."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import ParamSpec, TypeVar

from temporalio.exceptions import ApplicationError

from activities.adapters.errors import (
    AdapterError,
    Conflict,
    GitError,
    InvalidName,
    NotFound,
    ProcessNotStarted,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)

_P = ParamSpec("_P")
_R = TypeVar("_R")

MAX_MESSAGE = 500
"""Characters of an error text that go into the history, which has to stay small."""

_PERMANENT = (Unauthorized, NotFound, Conflict, Rejected, InvalidName, ProcessNotStarted)
_PERMANENT_GIT = frozenset({"exists", "too_large", "unsafe"})


def to_activity_error(error: BaseException) -> ApplicationError:
    """The failure a workflow sees: `type` is the class name, the one detail says what the adapter knew.

    Permanent are a refused credential (the workflow parks that source), a refused request, a missing thing,
    a bad name. All else is asked again by the activity's retry policy, or when the server said.
    An ambiguous failure is retryable too: an activity looks its effect up before it repeats it.
    """
    detail: dict[str, object] = {}
    if isinstance(error, AdapterError):
        detail["status"] = error.status
    if isinstance(error, Unavailable):
        detail["ambiguous"] = error.ambiguous
    if isinstance(error, GitError):
        detail["kind"] = error.kind
    return ApplicationError(
        str(error)[:MAX_MESSAGE],
        detail,
        type=type(error).__name__,
        non_retryable=_is_permanent(error),
        next_retry_delay=_delay(error),
    )


@contextmanager
def translating() -> Iterator[None]:
    """Let adapter errors leave a block as activity errors; everything else passes unchanged."""
    try:
        yield
    except AdapterError as error:
        raise to_activity_error(error) from error


def translated(function: Callable[_P, Awaitable[_R]]) -> Callable[_P, Awaitable[_R]]:
    """Decorate an activity: its adapter errors become activity errors. Goes below `@activity.defn`."""

    @functools.wraps(function)
    async def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with translating():
            return await function(*args, **kwargs)

    return wrapper


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, GitError):
        return error.kind in _PERMANENT_GIT
    return isinstance(error, _PERMANENT)


def _delay(error: BaseException) -> timedelta | None:
    seconds = error.retry_after if isinstance(error, RateLimited | Unavailable) else None
    return timedelta(seconds=seconds) if seconds is not None else None
