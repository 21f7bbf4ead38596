"""EnvironmentWorkflow: one deployment at a time to each environment of a repository."""

from temporalio import workflow

from workflows.merge_queue import LeaseQueue, QueueInput


@workflow.defn
class EnvironmentWorkflow(LeaseQueue):
    """The right to deploy: `env/<owner>/<repo>/<environment>`, on the same rules as a merge queue."""

    @workflow.init
    def __init__(self, arg: QueueInput) -> None:
        super().__init__(arg)

    @workflow.run
    async def run(self, arg: QueueInput) -> None:  # noqa: ARG002 - Temporal wants the same parameters
        """Serve the queue."""
        await self.serve()
