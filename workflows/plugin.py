"""The one data converter and the one plugin that clients, workers, replayers and tests share."""

from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin


def data_converter() -> DataConverter:
    """Readable JSON payloads of pydantic models: the Web UI and the `temporal` CLI need no code of ours.

    This is also the seam for payload encryption.
    """
    return pydantic_data_converter


def orch_plugin() -> SimplePlugin:
    """What every `Client.connect(plugins=[...])`, worker and replayer of Orch is given."""
    return SimplePlugin("orch", data_converter=data_converter())
