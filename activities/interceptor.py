"""What every activity gets for free: a heartbeat on a timer, and errors Temporal can act on."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.adapters.errors import AdapterError
from activities.adapters.store import StaleAttempt
from activities.errors import to_activity_error

_details: ContextVar[list[Any] | None] = ContextVar("heartbeat_details", default=None)


def note_progress(*details: object) -> None:
    """Let the next heartbeats carry these details; a retry finds the last ones that were sent."""
    current = _details.get()
    if current is not None:
        current[:] = details


class WorkerInterceptor(Interceptor):
    """Installed once on every Worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap every activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        with _pacemaker():
            try:
                return await super().execute_activity(input)
            except (AdapterError, StaleAttempt) as error:
                raise to_activity_error(error) from error


@contextlib.contextmanager
def _pacemaker() -> Iterator[None]:
    """Beat three times within the heartbeat timeout, so that one late beat is not a death."""
    limit = activity.info().heartbeat_timeout
    if limit is None:
        yield
        return
    details: list[Any] = []
    token = _details.set(details)

    async def beat(details: Sequence[Any]) -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(limit.total_seconds() / 3)

    pacemaker = asyncio.create_task(beat(details))
    try:
        yield
    finally:
        pacemaker.cancel()
        _details.reset(token)
