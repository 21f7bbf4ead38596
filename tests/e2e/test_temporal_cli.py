"""Temporal's own command line against the running stack: no code of ours is needed to see and steer a task."""

import base64
import json
from typing import Any

import pytest

from tests.e2e.auditor import Auditor
from tests.e2e.harness import Orch
from workflows.names import task_workflow_id

pytestmark = pytest.mark.embedded


async def answer(orch: Orch, *words: str) -> Any:
    """What a command that must succeed says, as JSON."""
    code, out, err = await orch.cli(*words, "-o", "json")
    assert code == 0, f"{words}: {out}{err}"
    return json.loads(out)


async def query(orch: Orch, key: str, name: str) -> Any:
    """The result of a query."""
    said = await answer(orch, "workflow", "query", "--workflow-id", task_workflow_id(key), "--name", name)
    return said["queryResult"][0]


async def update(orch: Orch, key: str, name: str, **command: str) -> tuple[int, str]:
    """Send an update in plain JSON; the exit code and everything that was said."""
    words = ["workflow", "update", "execute", "--workflow-id", task_workflow_id(key), "--name", name]
    code, out, err = await orch.cli(*words, "--input", json.dumps(command))
    return code, out + err


def summaries(events: list[dict[str, Any]]) -> list[str]:
    """What the Web UI shows beside each event."""
    data = [event.get("userMetadata", {}).get("summary", {}).get("data", "IiI=") for event in events]
    return [json.loads(base64.b64decode(one)) for one in data]


async def test_a_task_is_seen_and_approved_with_the_temporal_command(orch: Orch) -> None:
    """List, query and update work with plain JSON, and an approval given that way is an operator's act."""
    orch.play(reviewer=6)
    key = await orch.start("Approved from the command line")

    async def asked() -> str:
        row = await orch.task(key)
        return str(row["spec_digest"]) if row and row["waiting_on"] == "person" else ""

    digest = await orch.until(f"{key} asks for a decision", asked, key)
    status = await query(orch, key, "status")
    assert (status["stage"], status["digest"]) == ("analysis", digest)
    assert "waits for a person" in await query(orch, key, "why")
    code, said = await update(orch, key, "approve", by="olga", digest="0123456789ab")
    assert code != 0
    assert f"the spec asked about has digest {digest}, not 0123456789ab" in said
    assert "repeat with the current digest" in said
    code, said = await update(orch, key, "approve", by="olga", digest=digest)
    assert code == 0, said
    assert "approve by olga taken" in said
    await orch.running(f"{key}/g1/review/r1/agent", key)

    async def listed() -> bool:
        found = await answer(orch, "workflow", "list", "--query", 'OrchStage="review"')
        return task_workflow_id(key) in [one["execution"]["workflowId"] for one in found]

    await orch.until(f"{key} is listed in review", listed, key)
    assert (await query(orch, key, "status"))["stage"] == "review"
    timeline = [line["text"] for line in await query(orch, key, "timeline")]
    assert "spec decided: green, approved by olga via temporal" in timeline
    described = await answer(orch, "workflow", "describe", "--workflow-id", task_workflow_id(key))
    assert key in json.dumps(described)
    metadata = json.dumps(await answer(orch, "workflow", "metadata", "--workflow-id", task_workflow_id(key)))
    assert f"{key} is in review (round 1) and working." in metadata
    assert "Approve the spec that is asked about, by its digest." in metadata
    shown = await answer(orch, "workflow", "show", "--workflow-id", task_workflow_id(key))
    assert "reviewer, round 1" in summaries(shown["events"])
    acts = await orch.rows("SELECT act, actor, via, outcome FROM operator_acts WHERE task = $1", key)
    assert acts == [{"act": "approve", "actor": "olga", "via": "temporal", "outcome": "counted"}]
    await orch.done(key)
    await Auditor(orch).check(key)


async def test_no_secret_is_shown_by_the_temporal_command(orch: Orch) -> None:
    """The history of a finished task, as the command prints it, holds none of the stack's secrets."""
    code, out, err = await orch.cli("workflow", "show", "--workflow-id", task_workflow_id(orch.keys[0]), "-o", "json")
    assert code == 0, err
    assert json.loads(out)["events"]
    assert not [name for name, value in orch.stack.home.secrets().items() if value in out]
