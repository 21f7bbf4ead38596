"""ReconcileWorkflow: one pass over one project, run by a Schedule. What webhooks lost is found here."""

from datetime import timedelta

from temporalio import workflow

from workflows.calls import call
from workflows.contracts import reconcile
from workflows.names import PLANE_QUEUE


@workflow.defn
class ReconcileWorkflow:
    """One pass: `reconcile/<PROJECT>`. It never decides anything: it only tells tasks to look."""

    @workflow.run
    async def run(self, arg: reconcile.ReconcileProject) -> reconcile.Pass:
        """Look once."""
        return await call(
            reconcile.reconcile_project,
            arg,
            summary=f"what changed in {arg.project}?",
            queue=PLANE_QUEUE,
            limit=timedelta(minutes=10),
        )
