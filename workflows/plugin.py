"""The one data converter and the one plugin that clients, workers, replayers and tests share."""

from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PLAIN_MODULES = (
    "workflows.contracts",
    "workflows.hints",
    "workflows.lease_rules",
    "workflows.lease_standing",
    "workflows.lease_state",
    "workflows.model",
    "workflows.names",
    "workflows.problems",
    "workflows.projects",
    "workflows.situation",
    "workflows.stages",
    "workflows.state",
    "workflows.usage",
    "workflows.verdicts",
)
"""Types and rules without a clock or I/O. The sandbox would build all their models anew for every run of a
workflow, which is most of what a run costs (0.4 s); the modules that give commands stay inside it."""


def data_converter() -> DataConverter:
    """Readable JSON payloads of pydantic models: the Web UI and the `temporal` CLI need no code of ours.

    This is also the seam for payload encryption.
    """
    return pydantic_data_converter


def orch_plugin() -> SimplePlugin:
    """What every `Client.connect(plugins=[...])`, worker and replayer of Orch is given."""
    runner = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PLAIN_MODULES))
    return SimplePlugin("orch", data_converter=data_converter(), workflow_runner=runner)
