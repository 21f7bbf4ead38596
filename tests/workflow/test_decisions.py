"""A person's decision on a spec: by update, by Plane, by anyone but exactly on what was asked."""

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.fake_world import FakeWorld, judged
from tests.workflow.driving import Driver, record, updates_accepted
from workflows.hints import Source, Topic
from workflows.model import GateOutcome, Role, WaitingOn
from workflows.stages import Gate
from workflows.state import Act
from workflows.task import OperatorCommand, TaskWorkflow


@pytest.fixture
def undecided(world: FakeWorld) -> FakeWorld:
    """A world in which nobody has decided on the spec yet."""
    world.says(Gate.SPEC_DECIDED, GateOutcome.PENDING)
    return world


async def test_a_waiting_task_says_for_whom(driver: Driver, undecided: FakeWorld) -> None:
    """While a person must decide, status, why, timeline and the ledger all say so, since when and until when."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    status = await driver.status()
    assert (status.stage, status.round, status.generation) == ("analysis", 1, 1)
    assert status.waiting is not None
    assert status.waiting.needs_human
    assert status.waiting.since < status.waiting.next_check
    assert status.digest == undecided.of("ask_decision")[0].digest == undecided.progress[-1].spec_digest
    why = await handle.query(TaskWorkflow.why)
    assert why == status.why
    assert "waits for a person" in why
    timeline = await handle.query(TaskWorkflow.timeline)
    assert timeline[0].text.startswith("a person moved")
    assert any("asked a person to decide" in line.text for line in timeline)


async def test_a_right_approval_is_recorded_and_taken(driver: Driver, undecided: FakeWorld) -> None:
    """An approval with the current digest goes on record first, then the gate finds it there."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    answer = await handle.execute_update(TaskWorkflow.approve, OperatorCommand(by="olga", digest=digest, act_id="a-1"))
    assert answer == "approve by olga taken"
    await undecided.until(lambda: bool(undecided.gate_calls(Gate.DESIGN_PRESENT)), "architecture")
    order = [
        name for name, arg in undecided.calls if name == "record_act" or getattr(arg, "gate", "") == "spec decided"
    ]
    assert order == ["evaluate_gate", "record_act", "evaluate_gate"]
    act = undecided.acts[0].act
    assert (act.act, act.by, act.digest, act.act_id) == (Act.APPROVE, "olga", digest, "a-1")


async def test_an_approval_of_another_spec_is_refused_without_a_trace(driver: Driver, undecided: FakeWorld) -> None:
    """An approval that names another digest is refused by the validator, says the right one, and leaves no event."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    for wrong in ("", "0123456789ab"):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(TaskWorkflow.approve, OperatorCommand(by="eve", digest=wrong))
        assert digest in str(refused.value.cause)
    assert updates_accepted((await driver.runs(handle))[-1]) == 0
    assert not undecided.acts


async def test_the_same_act_twice_is_one(driver: Driver, undecided: FakeWorld) -> None:
    """An approval repeated under its id is recorded once, even before the first one has been taken."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    command = OperatorCommand(by="olga", digest=digest, act_id="a-1")
    with undecided.holding("record_act"):
        await handle.execute_update(TaskWorkflow.approve, command, id="first")
        await handle.execute_update(TaskWorkflow.approve, command, id="second")
    await undecided.until(lambda: bool(undecided.gate_calls(Gate.DESIGN_PRESENT)), "architecture")
    assert len(undecided.of("record_act")) == 1


async def test_a_rejection_leads_to_another_round_with_the_reason(driver: Driver, undecided: FakeWorld) -> None:
    """A rejected spec is written anew; the analyst is told why, and the new spec has another digest."""
    handle = await driver.start()
    mark = await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    reject = OperatorCommand(by="olga", digest=digest, reason="say what happens offline")
    await handle.execute_update(TaskWorkflow.reject, reject)
    await undecided.waiting(WaitingOn.PERSON, after=mark)
    status = await driver.status()
    assert (status.stage, status.round) == ("analysis", 2)
    assert status.digest != digest
    again = undecided.agent_calls(Role.ANALYST)[1]
    assert "say what happens offline" in again.data["feedback.md"]
    runs = await driver.runs(handle)
    record("task-analysis-rejected", runs[0])
    record("task-analysis-round-2-waiting", runs[1])


async def test_an_answer_to_the_older_spec_does_not_count(driver: Driver, undecided: FakeWorld) -> None:
    """After a rejection the digest of the rejected spec approves nothing."""
    handle = await driver.start()
    mark = await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    await handle.execute_update(TaskWorkflow.reject, OperatorCommand(by="olga", digest=digest))
    await undecided.waiting(WaitingOn.PERSON, after=mark)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update(TaskWorkflow.approve, OperatorCommand(by="olga", digest=digest))


async def test_a_move_in_plane_decides_after_a_mere_hint(driver: Driver, undecided: FakeWorld) -> None:
    """A hint carries no decision: it makes the gate look, and the gate's source decides."""
    await driver.start()
    mark = await undecided.waiting(WaitingOn.PERSON)
    await driver.hint(Topic.DECISION, Source.PLANE)
    await undecided.waiting(WaitingOn.PERSON, after=mark)
    assert (await driver.status()).stage == "analysis"
    undecided.says(Gate.SPEC_DECIDED, judged(Gate.SPEC_DECIDED, GateOutcome.GREEN, "approved by olga via plane"))
    await driver.hint(Topic.DECISION, Source.PLANE)
    await undecided.until(lambda: bool(undecided.gate_calls(Gate.DESIGN_PRESENT)), "architecture")
    moves = [line for row in undecided.progress for line in row.lines if "approved by olga via plane" in line.text]
    assert moves[0].source == Source.PLANE


async def test_nothing_can_be_approved_where_nothing_is_asked(driver: Driver, world: FakeWorld) -> None:
    """Approve and retry are refused, with the reason why, while the task needs neither."""
    world.says(Gate.CI_GREEN, GateOutcome.PENDING)
    handle = await driver.start()
    await world.waiting(WaitingOn.CI)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(TaskWorkflow.approve, OperatorCommand(by="olga", digest="x"))
    assert "no decision is asked for now" in str(refused.value.cause)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(TaskWorkflow.retry, OperatorCommand(by="olga"))
    assert "nothing to retry" in str(refused.value.cause)


async def test_an_answer_too_late_is_recorded_and_changes_nothing(driver: Driver, undecided: FakeWorld) -> None:
    """An act taken just before another source decided is on record before everybody is told what counted."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    green = judged(Gate.SPEC_DECIDED, GateOutcome.GREEN, "approved by petra via plane")
    undecided.script_gate(Gate.SPEC_DECIDED, green)
    looks = len(undecided.gate_calls(Gate.SPEC_DECIDED))
    with undecided.holding("gate: spec decided"):
        await driver.hint(Topic.DECISION, Source.PLANE)
        await undecided.until(lambda: len(undecided.gate_calls(Gate.SPEC_DECIDED)) > looks, "a look")
        await handle.execute_update(TaskWorkflow.reject, OperatorCommand(by="olga", digest=digest))
    await undecided.until(lambda: bool(undecided.gate_calls(Gate.DESIGN_PRESENT)), "architecture")
    assert [record.act.by for record in undecided.acts] == ["olga"]
    names = [name for name, _ in undecided.calls]
    assert names.index("record_act") < names.index("settle_decision")


async def test_an_answer_to_what_is_decided_is_refused_with_words(driver: Driver, undecided: FakeWorld) -> None:
    """While a decided task waits for a person for another reason, an approval is refused, and nothing says it asks."""
    handle = await driver.start()
    await undecided.waiting(WaitingOn.PERSON)
    digest = (await driver.status()).digest
    undecided.says(Gate.SPEC_DECIDED, judged(Gate.SPEC_DECIDED, GateOutcome.GREEN, "approved by petra via plane"))
    undecided.script("settle_decision", ApplicationError("the token may not comment", non_retryable=True))
    await driver.hint(Topic.DECISION, Source.PLANE)
    await undecided.waiting(WaitingOn.PERSON, reason="may not comment")
    assert undecided.progress[-1].spec_digest == ""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(TaskWorkflow.approve, OperatorCommand(by="olga", digest=digest))
    assert "no decision is asked for now" in str(refused.value.cause)
    assert not undecided.acts
    await driver.retry()
    await undecided.until(lambda: bool(undecided.gate_calls(Gate.DESIGN_PRESENT)), "architecture")
