"""A task workflow with one more command at the start of each stage: what no running task could follow."""

from temporalio import workflow

from workflows.calls import call
from workflows.contracts import workspaces
from workflows.model import Stage, TaskRef
from workflows.state import TaskInput
from workflows.task import TaskOutcome, TaskWorkflow


@workflow.defn(name="TaskWorkflow")
class ChangedTask(TaskWorkflow):
    """Asks for a host first."""

    @workflow.init
    def __init__(self, arg: TaskInput) -> None:
        super().__init__(arg)

    @workflow.run
    async def run(self, arg: TaskInput) -> TaskOutcome:
        """One activity more, then what is always done."""
        ref = TaskRef(key=arg.key, generation=1, stage=Stage.ANALYSIS, round=1)
        await call(workspaces.claim_host, workspaces.ClaimHost(ref=ref), summary="one more")
        return await super().run(arg)
