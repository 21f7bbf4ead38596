"""EnvironmentWorkflow: one deployment at a time to each environment of a repository."""

from temporalio import workflow

from workflows.lease_rules import QueueState, Request
from workflows.merge_queue import LeaseQueue, QueueInput, Release


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

    @workflow.signal(description="A task wishes to deploy.")
    def request(self, request: Request) -> None:
        """Queue a wish."""
        self.take_request(request)

    @workflow.signal(description="The holder gives the lease back.")
    def release(self, release: Release) -> None:
        """Free the lease."""
        self.take_release(release)

    @workflow.query(description="Who holds the lease and who waits.")
    def show(self) -> QueueState:
        """The queue as it stands."""
        return self.shown()
