"""A stand-in for the task workflow, alone here: the sandbox imports this module again, with its imports."""

from typing import Any

from temporalio import workflow

from workflows.hints import Hint
from workflows.state import TaskInput


@workflow.defn(name="TaskWorkflow")
class TinyTask:
    """Takes hints until it has two, and returns their topics."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    @workflow.run
    async def run(self, argument: TaskInput) -> dict[str, Any]:
        """Wait for two hints."""
        await workflow.wait_condition(lambda: len(self.topics) == 2)
        return {"argument": argument.model_dump(), "topics": self.topics}

    @workflow.signal
    def hint(self, hint: Hint) -> None:
        """Note one."""
        self.topics.append(hint.topic.value)
