"""Resolving: the API makes no REST calls, so deliveries it cannot name are handed to this workflow."""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.calls import call
from workflows.contracts import resolving
from workflows.contracts.resolving import (
    RESOLVE_PATIENCE,
    Resolution,
    Resolutions,
    RowEnd,
    UnknownCommit,
    UnknownRow,
)

GATHER = timedelta(seconds=1)
"""What is said of one commit comes in bursts: so long is waited for more of it before a look."""
AT_ONCE = 500
"""Rows of one look at most, so that its arguments stay small."""


@workflow.defn
class ResolveWorkflow:
    """One unknown commit: find its task, wake it, write into each row that speaks of it what happened."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], UnknownRow] = {}

    @workflow.signal
    def rows(self, arg: tuple[UnknownRow, ...]) -> None:
        """Rows to settle; a row that is handed over twice is one row."""
        self._waiting |= {(row.row, row.times_received): row for row in arg}

    @workflow.run
    async def run(self, arg: UnknownCommit) -> int:
        """Look until no row waits; how many looks it took. A row that comes during a look waits for the next."""
        self.rows(arg.rows)
        looks = 0
        while self._waiting:
            await workflow.sleep(GATHER)
            rows = tuple(self._waiting.values())[:AT_ONCE]
            for row in rows:
                del self._waiting[row.row, row.times_received]
            await self._look(arg.model_copy(update={"rows": rows}))
            looks += 1
            if self._waiting and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(arg.model_copy(update={"rows": tuple(self._waiting.values())}))
        return looks

    async def _look(self, arg: UnknownCommit) -> None:
        """Ask once for all; what cannot be found out makes dead rows, which a person may replay."""
        about = f"{len(arg.rows)} rows on {arg.sha[:10]}"
        try:
            found = await call(
                resolving.resolve_rows,
                arg,
                summary=f"whose is {arg.sha[:10]} of {arg.repository}? ({about})",
                patience=RESOLVE_PATIENCE,
            )
        except ActivityError as error:
            reason = f"can not be resolved: {error.cause or error}"[:300]
            found = Resolutions(rows=tuple(_dead(row, reason) for row in arg.rows))
        await call(resolving.settle_rows, found, summary=f"settle {about}")


def _dead(row: UnknownRow, reason: str) -> Resolution:
    return Resolution(row=row.row, times_received=row.times_received, end=RowEnd.DEAD, reason=reason)
