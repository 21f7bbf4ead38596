"""How workflows call activities: one place for retries, timeouts and heartbeats."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import RetryPolicy

from workflows.names import SHARED_QUEUE

Arg = TypeVar("Arg", bound=BaseModel)
Result = TypeVar("Result")

HEARTBEAT = timedelta(seconds=10)
"""Every activity beats by itself (activities/heartbeat.py), so a killed worker is noticed this soon."""

ATTEMPT_LIMIT = timedelta(minutes=2)
"""How long one attempt of an activity may take, unless its work is known to take longer."""

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)


async def call(
    contract: Callable[[Arg], Awaitable[Result]],
    arg: Arg,
    *,
    summary: str,
    queue: str = SHARED_QUEUE,
    limit: timedelta = ATTEMPT_LIMIT,
    patience: timedelta | None = None,
    wait_for_cancel: bool = True,
) -> Result:
    """Run an activity to its end, retrying what could not be found out for as long as it takes.

    Args:
        contract: the stub from `workflows.contracts`.
        arg: its single argument.
        summary: what it does, for the Web UI's event list.
        queue: the task queue it runs on.
        limit: how long one attempt may take.
        patience: how long all attempts together may take; for ever if None.
        wait_for_cancel: whether a cancellation waits until the attempt has really ended; needless for reads.
    """
    result: Result = await workflow.execute_activity(
        contract,
        arg,
        task_queue=queue,
        start_to_close_timeout=limit,
        schedule_to_close_timeout=patience,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_RETRY,
        cancellation_type=(
            workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
            if wait_for_cancel
            else workflow.ActivityCancellationType.TRY_CANCEL
        ),
        summary=summary[:200],
    )
    return result
