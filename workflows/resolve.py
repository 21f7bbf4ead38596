"""Resolving: the API makes no REST calls, so a delivery it cannot name is handed to this workflow."""

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.calls import call
from workflows.contracts import resolving
from workflows.contracts.resolving import RESOLVE_PATIENCE, Resolution, ResolveDelivery, RowEnd, SettleRow


@workflow.defn
class ResolveWorkflow:
    """One row of the inbox: find its task, wake it, write into the row what happened."""

    @workflow.run
    async def run(self, arg: ResolveDelivery) -> Resolution:
        """Ask once; what cannot be found out is a dead row, which a person may replay."""
        try:
            found = await call(
                resolving.resolve_delivery,
                arg,
                summary=f"whose is {arg.sha[:10] or arg.branch} of {arg.repository}?",
                patience=RESOLVE_PATIENCE,
            )
        except ActivityError as error:
            cause = error.cause or error
            found = Resolution(end=RowEnd.DEAD, reason=f"can not be resolved: {cause}"[:300])
        await call(
            resolving.settle_row,
            SettleRow(row=arg.row, times_received=arg.times_received, resolution=found),
            summary=f"row {arg.row}: {found.end}",
        )
        return found
