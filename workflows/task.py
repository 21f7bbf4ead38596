"""TaskWorkflow: one Plane item's way to done. Read `run` first; steps.py and delivery.py have the stages."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows import delivery, names, steps
from workflows.calls import call
from workflows.contracts import gates, items, workspaces
from workflows.hints import Hint, Source
from workflows.model import Frozen, Lease, Policy, Repository, Stage, TimelineLine, Waiting
from workflows.state import Act, Move, OperatorAct, TaskInput, TaskState, act_refusal, entered, why
from workflows.task_run import TaskRun

START_PATIENCE = timedelta(minutes=10)
"""How long Plane may take to write the activity that says who moved an item (contracts/plane.md, 2)."""

STAGES: dict[Stage, Callable[[TaskRun], Awaitable[Move]]] = {
    Stage.ANALYSIS: steps.analysis,
    Stage.ARCHITECTURE: steps.architecture,
    Stage.DEVELOPMENT: steps.development,
    Stage.REVIEW: steps.review,
    Stage.TESTING: steps.testing,
    Stage.DEPLOY_STAGING: delivery.deploy_staging,
    Stage.DEPLOY: delivery.deploy,
}


class OperatorCommand(Frozen):
    """What a person sends with an update, for instance `{"by": "olga", "digest": "3f2a…"}`."""

    by: str
    digest: str = ""
    reason: str = ""
    act_id: str = ""


class Status(Frozen):
    """What the `status` query answers."""

    key: str
    generation: int = 0
    stage: Stage | None = None
    round: int = 0
    why: str
    waiting: Waiting | None = None
    digest: str = ""
    head_sha: str = ""
    pull_request: str = ""
    lease: Lease | None = None
    landed_sha: str = ""
    deployed_sha: str = ""
    cost_usd: float | None = None
    outcome: str = ""


class TaskOutcome(Frozen):
    """How a generation ended."""

    key: str
    outcome: str
    landed_sha: str = ""
    deployed_sha: str = ""


@workflow.defn
class TaskWorkflow:
    """One task. Its id is `task/<KEY>`; its input is the key, for instance `{"key": "DEMO-1"}`."""

    @workflow.init
    def __init__(self, arg: TaskInput) -> None:
        self._key = arg.key
        self._task = TaskRun(arg.state)

    @workflow.run
    async def run(self, arg: TaskInput) -> TaskOutcome:
        """Play one round of one stage, then go on as a new run; end when the task is done."""
        task = self._task
        if not task.begun:
            reason = await self._begin()
            if reason is not None:
                return TaskOutcome(key=arg.key, outcome=f"not started: {reason}")
        stage = task.state.stage
        if stage is Stage.DONE:
            return await self._end()
        move = await STAGES[stage](task)
        await self._leave(move)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return workflow.continue_as_new(TaskInput(key=arg.key, state=task.carried()))

    # -- beginning and end -----------------------------------------------------------------------------------

    async def _begin(self) -> str | None:
        """Verify that a person started this task; answer why it does not start, if it does not."""
        deadline = workflow.now() + START_PATIENCE
        pause = timedelta(seconds=2)
        while True:
            beginning = await call(
                items.begin_generation,
                items.BeginGeneration(key=self._key),
                queue=names.PLANE_QUEUE,
                summary="did a person start this?",
            )
            if beginning.start is not items.Start.NOT_YET_KNOWN:
                break
            if workflow.now() >= deadline:
                return f"{beginning.reason}; nobody's move was recorded within {START_PATIENCE}"
            await workflow.sleep(pause, summary="the activity is not written yet")
            pause = min(pause * 2, timedelta(minutes=1))
        if beginning.start is items.Start.NOT_STARTED:
            return beginning.reason
        assert beginning.item is not None
        assert beginning.project is not None
        repository = beginning.project.repository
        workflow.upsert_search_attributes(
            [
                names.PROJECT.value_set(beginning.project.key),
                names.REPO.value_set(str(repository)),
                names.ITEM.value_set(self._key),
            ]
        )
        state = TaskState(
            key=self._key,
            generation=beginning.generation,
            step=beginning.step,
            start_activity=beginning.start_activity,
            item=beginning.item,
            project=beginning.project,
            policy=Policy(test=""),
            started_at=workflow.now(),
        )
        self._task.state = state
        self._task.say(beginning.reason, source=Source.PLANE)
        policy = await self._policy(repository)
        host = await call(workspaces.claim_host, workspaces.ClaimHost(ref=state.ref), summary="which host takes it?")
        self._task.update(policy=policy, host=host.host)
        return None

    async def _policy(self, repository: Repository) -> Policy:
        """Pin the policy of the base branch; a missing or broken one waits for a person."""
        while True:
            reading = await self._task.call(
                gates.read_policy, gates.ReadPolicy(repository=repository), summary="read .orch/pipeline.toml"
            )
            if reading.policy is not None:
                return reading.policy
            await self._task.ask_human(reading.problem)

    async def _end(self) -> TaskOutcome:
        task = self._task
        outcome = await delivery.finish(task)
        state = task.state
        task.say(f"{outcome}: landed {state.landed_sha[:10]}", sha=state.landed_sha)
        task.update(outcome=outcome, waiting=None)
        await task.record(announce=f"{state.key} is {outcome}: {state.item.title}")
        await workflow.wait_condition(workflow.all_handlers_finished)
        return TaskOutcome(key=state.key, outcome=outcome, landed_sha=state.landed_sha, deployed_sha=state.deployed_sha)

    async def _leave(self, move: Move) -> None:
        """Go where a round led, unless that way has been gone too often: then a person decides."""
        task = self._task
        await task.take_acts()  # late answers to a question that is already decided
        entries, forgiven = task.state.rounds.get(move.to, 0), task.state.forgiven
        stuck = move.to is Stage.DEPLOY and task.state.stage is Stage.DEPLOY
        if stuck or entries - forgiven.get(move.to, 0) >= task.state.policy.max_rounds:
            await task.ask_human(f"{move.reason} (round {entries} of {move.to} was the last allowed)")
            task.update(forgiven={**forgiven, move.to: entries})
        task.say(f"{task.state.stage} -> {move.to}: {move.reason}", source=move.source)
        task.state = entered(task.state, move)
        await task.record()
        await task.return_unwanted()

    # -- what others may say ---------------------------------------------------------------------------------

    @workflow.signal(description="Something may have changed: look at the topic again.")
    def hint(self, hint: Hint) -> None:
        """Mark what to look at; never acts by itself."""
        self._task.hint(hint)

    @workflow.signal(description="The lease queue's answer to a request of this task.")
    def lease_granted(self, lease: Lease) -> None:
        """Note a grant."""
        self._task.grant(lease)

    @workflow.update(description="Approve the spec that is asked about, by its digest.")
    def approve(self, command: OperatorCommand) -> str:
        """Take an approval."""
        return self._take(Act.APPROVE, command)

    @approve.validator
    def _validate_approve(self, command: OperatorCommand) -> None:
        self._validate(Act.APPROVE, command)

    @workflow.update(description="Reject the spec that is asked about, by its digest, with a reason.")
    def reject(self, command: OperatorCommand) -> str:
        """Take a rejection."""
        return self._take(Act.REJECT, command)

    @reject.validator
    def _validate_reject(self, command: OperatorCommand) -> None:
        self._validate(Act.REJECT, command)

    @workflow.update(description="Try again what needs a person.")
    def retry(self, command: OperatorCommand) -> str:
        """Take a retry."""
        return self._take(Act.RETRY, command)

    @retry.validator
    def _validate_retry(self, command: OperatorCommand) -> None:
        self._validate(Act.RETRY, command)

    def _validate(self, act: Act, command: OperatorCommand) -> None:
        refused = act_refusal(self._task.state_or_none, act, command.act_id, command.digest)
        if refused:
            raise ApplicationError(refused, type="ActRefused", non_retryable=True)

    def _take(self, act: Act, command: OperatorCommand) -> str:
        act_id = command.act_id or str(workflow.uuid4())
        self._task.take_act(
            OperatorAct(
                act_id=act_id,
                act=act,
                by=command.by,
                at=workflow.now(),
                digest=command.digest,
                reason=command.reason,
            )
        )
        return f"{act} by {command.by} taken"

    @workflow.query(description="Where the task stands, as one JSON object.")
    def status(self) -> Status:
        """The task as it stands."""
        state = self._task.state_or_none
        if state is None:
            return Status(key=self._key, why=f"{self._key} is looking whether a person started it.")
        return Status(
            key=state.key,
            generation=state.generation,
            stage=state.stage,
            round=state.round,
            why=why(state),
            waiting=state.waiting,
            digest=state.ask.digest if state.ask else "",
            head_sha=state.head_sha,
            pull_request=state.pull.url if state.pull else "",
            lease=state.lease,
            landed_sha=state.landed_sha,
            deployed_sha=state.deployed_sha,
            cost_usd=state.cost_usd if state.cost_complete else None,
            outcome=state.outcome,
        )

    @workflow.query(description="The last things that happened, oldest first.")
    def timeline(self) -> list[TimelineLine]:
        """The newest timeline lines; the ledger has all of them."""
        state = self._task.state_or_none
        return list(state.timeline) if state else []

    @workflow.query(description="One sentence: what the task does or waits for.")
    def why(self) -> str:
        """What a person asks first."""
        return self.status().why
