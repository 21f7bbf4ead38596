"""One run of a task: what every stage needs: speaking, waiting, gates, agents and leases."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows import names
from workflows.calls import ATTEMPT_LIMIT, Arg, Result, call
from workflows.contracts import gates, leases, ledger, workspaces
from workflows.hints import Hint, Pending, Source, note_hint
from workflows.model import GateOutcome, GateResult, Lease, Waiting, WaitingOn, grace_growth
from workflows.stages import REGISTRY, Gate, StageSpec
from workflows.state import Act, OperatorAct, TaskState, told, why
from workflows.verdicts import AgentRun, Binding, refusal

UNKNOWN_GRACE = timedelta(seconds=30)
"""How soon a source that could not be read is asked again; doubles like every other wait."""
HUMAN_REMINDER = timedelta(hours=24)
AGENT_LIMIT = timedelta(hours=4)


class TaskRun:
    """The state of a running task and the few ways in which a stage may change it."""

    def __init__(self, state: TaskState | None) -> None:
        self._state = state
        self.pending: Pending = dict(state.pending) if state else {}
        self.acts: list[OperatorAct] = list(state.acts) if state else []
        self._wanted = 0
        self._granted: Lease | None = None
        self._unwanted: list[Lease] = []
        self._recorded = state.lines_written if state else 0
        self._shown: tuple[object, ...] = ()

    # -- state ---------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether this generation has started."""
        return self._state is not None

    @property
    def state(self) -> TaskState:
        """The task's state."""
        if self._state is None:
            raise RuntimeError("the task has not begun")  # a bug of ours, never an input
        return self._state

    @state.setter
    def state(self, state: TaskState) -> None:
        self._state = state

    @property
    def state_or_none(self) -> TaskState | None:
        """The task's state, or None while it is not known whether a person started it."""
        return self._state

    def update(self, **changes: object) -> None:
        """Replace fields of the state."""
        self._state = self.state.model_copy(update=changes)

    def next_step(self) -> TaskState:
        """Advance the fence: whatever an earlier step still does elsewhere is stale from now on."""
        self.update(step=self.state.step + 1)
        return self.state

    @property
    def spec(self) -> StageSpec:
        """The registry's row for the current stage."""
        return REGISTRY[self.state.stage]

    def carried(self) -> TaskState:
        """The state with everything not yet acted on, for the next run."""
        return self.state.model_copy(update={"pending": self.pending, "acts": tuple(self.acts)})

    # -- speaking ------------------------------------------------------------------------------------------

    def say(self, text: str, *, sha: str = "", source: str = "") -> None:
        """Add a line to the timeline."""
        self.state = told(self.state, workflow.now(), text, sha=sha, source=source)

    async def record(self, announce: str = "") -> None:
        """Write the read model and the new timeline lines, and show the task in Temporal's own views."""
        state = self.state
        await call(
            ledger.record_progress,
            ledger.RecordProgress(
                ref=state.ref,
                project=state.project,
                item=state.item,
                branch=state.branch,
                start_activity=state.start_activity,
                started_at=state.started_at,
                at=workflow.now(),
                waiting=state.waiting,
                spec_digest=state.ask.digest if state.ask else "",
                head_sha=state.head_sha,
                pull=state.pull,
                landed_sha=state.landed_sha,
                deployed_sha=state.deployed_sha,
                cost_usd=state.cost_usd if state.cost_complete else None,
                lines=tuple(line for line in state.timeline if line.n > self._recorded),
                announce=announce,
                outcome=state.outcome,
            ),
            summary=f"record {state.stage}",
        )
        self._recorded = state.lines_written
        self._show()

    def _show(self) -> None:
        state = self.state
        waiting = state.waiting
        shown = (
            state.stage,
            waiting.on if waiting else "",
            bool(waiting and waiting.needs_human),
            state.cost_usd,
        )
        if shown != self._shown:
            workflow.upsert_search_attributes(
                [
                    names.STAGE.value_set(state.stage),
                    names.WAITING_ON.value_set(waiting.on if waiting else WaitingOn.NOTHING),
                    names.NEEDS_HUMAN.value_set(bool(waiting and waiting.needs_human)),
                    names.COST_USD.value_set(state.cost_usd),
                ]
            )
            self._shown = shown
        lines = "\n".join(f"- {line.at:%H:%M:%S} {line.stage}: {line.text}" for line in state.timeline[-5:])
        pull = f"\n\nPull request: {state.pull.url}" if state.pull else ""
        workflow.set_current_details(f"**{why(state)}**\n\n{lines}{pull}")

    # -- doing ---------------------------------------------------------------------------------------------

    async def call(
        self,
        contract: Callable[[Arg], Awaitable[Result]],
        arg: Arg,
        *,
        summary: str,
        queue: str = names.SHARED_QUEUE,
        limit: timedelta = ATTEMPT_LIMIT,
    ) -> Result:
        """Run an activity; what is refused for good needs a person, and is tried again when they say so."""
        while True:
            try:
                return await call(contract, arg, summary=summary, queue=queue, limit=limit)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self.ask_human(f"{summary}: {error.cause or error}")
                # The next attempt starts counting from 1 again: only a new step outranks the old ones.
                arg = arg.model_copy(update={"ref": self.next_step().ref})

    # -- waiting -------------------------------------------------------------------------------------------

    def hint(self, hint: Hint) -> None:
        """Mark what to look at; called by the signal handler."""
        self.pending = note_hint(self.pending, hint, workflow.now())

    def take_act(self, act: OperatorAct) -> None:
        """Accept a person's act once; called by update handlers."""
        state = self.state
        if act.act_id not in state.act_ids:
            self.update(act_ids=(*state.act_ids, act.act_id)[-100:])
            self.acts.append(act)

    async def wait(self, waiting: Waiting) -> Source:
        """Wait until something may have changed or the next check is due; say what woke us."""
        await self.return_unwanted()  # it would block others, and keep this wait from ever waiting
        self.update(waiting=waiting)
        await self.record()
        try:
            await workflow.wait_condition(
                lambda: bool(self.pending or self.acts or self._granted or self._unwanted),
                timeout=max(waiting.next_check - workflow.now(), timedelta(0)),
                timeout_summary=f"{waiting.on}: {waiting.reason}"[:200],
            )
        except TimeoutError:
            return Source.TIMER
        if self.acts:
            return Source.OPERATOR
        first = min(self.pending.values(), key=lambda hint: hint.since, default=None)
        return first.source if first else Source.WORKFLOW

    async def ask_human(self, reason: str) -> None:
        """Stand still until a person says `retry`; the reason says what they must look at."""
        self.say(f"needs a person: {reason}")
        since = workflow.now()
        while True:
            for act in await self.take_acts():
                if act.act is Act.RETRY:
                    self.say(f"{act.by} said retry", source=Source.OPERATOR)
                    self.update(waiting=None)
                    return
            self.pending.clear()
            await self.wait(
                Waiting(
                    on=WaitingOn.PERSON,
                    reason=reason,
                    since=since,
                    next_check=workflow.now() + HUMAN_REMINDER,
                    needs_human=True,
                )
            )

    async def take_acts(self) -> tuple[OperatorAct, ...]:
        """Put the acts that reached us directly on record, then hand them over."""
        taken = tuple(self.acts)
        for act in taken:
            await call(
                ledger.record_act,
                ledger.RecordAct(ref=self.state.ref, act=act),
                summary=f"record {act.act} by {act.by}",
            )
        self.acts = self.acts[len(taken) :]
        return taken

    # -- gates ---------------------------------------------------------------------------------------------

    async def gate(self, question: Callable[[], gates.GateQuestion], queue: str = names.SHARED_QUEUE) -> GateResult:
        """Ask a gate until it is green or red, waiting in between; hints only make it ask sooner."""
        looks, source, reason, since = 0, Source.WORKFLOW, "", workflow.now()
        while True:
            await self.take_acts()
            self.pending.clear()
            asked = question()
            result = await self.call(gates.evaluate_gate, asked, queue=queue, summary=f"gate: {asked.gate}")
            if result.outcome in {GateOutcome.GREEN, GateOutcome.RED}:
                self.update(waiting=None)
                self.say(f"{asked.gate}: {result.outcome}, {result.reason}", sha=result.sha, source=source)
                return result
            if result.reason != reason:
                reason, since, looks = result.reason, workflow.now(), 0
                self.say(f"waits: {reason}", sha=result.sha, source=source)
            base = UNKNOWN_GRACE if result.outcome is GateOutcome.UNKNOWN else self.spec.grace
            source = await self.wait(
                Waiting(
                    on=result.waiting_on,
                    reason=reason,
                    since=since,
                    next_check=workflow.now() + grace_growth(base, looks),
                    needs_human=result.waiting_on is WaitingOn.PERSON,
                )
            )
            looks = looks + 1 if source is Source.TIMER else looks

    def question(self, gate: Gate, **facts: object) -> gates.GateQuestion:
        """A gate question about the task as it stands."""
        state = self.state
        known: dict[str, object] = {
            "ref": state.ref,
            "gate": gate,
            "project": state.project,
            "item": state.item,
            "policy": state.policy,
            "branch": state.branch,
            "head_sha": state.head_sha,
            "pull": state.pull,
        }
        return gates.GateQuestion.model_validate({**known, **facts})

    # -- agents --------------------------------------------------------------------------------------------

    async def prepare(self) -> workspaces.Workspace:
        """A fresh clone of the task branch for this round."""
        state = self.next_step()
        return await self.call(
            workspaces.prepare_workspace,
            workspaces.PrepareWorkspace(ref=state.ref, repository=state.project.repository, branch=state.branch),
            queue=names.host_work_queue(state.host),
            summary=f"clone {state.branch}",
            limit=timedelta(minutes=15),
        )

    async def agent(
        self, workspace: workspaces.Workspace, artifact_path: str = "", **data: str
    ) -> tuple[AgentRun, str | None]:
        """Run this stage's role; answer the run and why its verdict may not be used, if it may not."""
        state, spec = self.next_step(), self.spec
        binding = Binding(ref=state.ref, head_sha=workspace.head_sha, nonce=workflow.uuid4().hex)
        self.say(f"{spec.role} works", sha=workspace.head_sha)
        await self.record()
        run = await self.call(
            workspaces.run_agent,
            workspaces.RunAgent(
                ref=state.ref,
                role=spec.role,
                runner=state.policy.runner_for(spec.role),
                workspace=workspace,
                branch=state.branch,
                nonce=binding.nonce,
                session_id=str(workflow.uuid4()),
                artifact_path=artifact_path,
                headings=spec.headings,
                data={
                    "item.md": f"# {state.item.title}\n\n{state.item.description_html}",
                    "feedback.md": "\n\n".join(state.feedback),
                    **data,
                },
            ),
            queue=names.host_agent_queue(state.host),
            summary=f"{spec.role}, round {state.round}",
            limit=AGENT_LIMIT,
        )
        self._account(run)
        problem = refusal(run, binding)
        said = run.verdict.outcome if run.verdict and problem is None else f"no verdict: {problem}"
        self.say(f"{spec.role}: {said}", sha=workspace.head_sha)
        return run, problem

    def _account(self, run: AgentRun) -> None:
        state, usage = self.state, run.usage
        self.update(
            cost_usd=round(state.cost_usd + (run.cost_usd or 0.0), 6),
            cost_complete=state.cost_complete and run.cost_usd is not None,
            tokens_in=state.tokens_in + usage.full_input,
            tokens_cached=state.tokens_cached + usage.cache_read,
            tokens_out=state.tokens_out + usage.output,
        )

    # -- leases --------------------------------------------------------------------------------------------

    def grant(self, lease: Lease) -> None:
        """Note a grant; called by the signal handler. One that nobody waits for any more is given back."""
        if lease.ticket == self._wanted:
            self._granted = lease
        elif self._state is None or lease != self._state.lease:
            self._unwanted.append(lease)

    async def acquire(self, kind: leases.LeaseKind) -> Lease:
        """Queue for a lease and wait for it without holding any slot."""
        state = self.next_step()
        self._wanted = state.step
        request = leases.RequestLease(
            ref=state.ref, kind=kind, repository=state.project.repository, ticket=self._wanted
        )
        since = workflow.now()
        while self._granted is None:
            # Asked again at every look: the queue ignores repeats, and a lost request heals.
            await self.call(leases.request_lease, request, summary=f"queue for the {kind} lease")
            if self._granted is None:
                await self._await_grant(kind, since)
        lease, self._granted, self._wanted = self._granted, None, 0
        self.update(waiting=None, lease=lease)
        return lease

    async def _await_grant(self, kind: leases.LeaseKind, since: datetime) -> None:
        await self.take_acts()
        self.pending.clear()
        await self.wait(
            Waiting(
                on=WaitingOn.MERGE_QUEUE,
                reason=f"queued for the {kind} lease",
                since=since,
                next_check=workflow.now() + self.spec.grace,
            )
        )

    async def release(self, lease: Lease) -> None:
        """Give a lease back."""
        if self.state.lease == lease:
            self.update(lease=None)
        await self._give_back(lease)

    async def return_unwanted(self) -> None:
        """Give back what was granted to a wish that is over, so that it blocks nobody."""
        while self._unwanted:
            await self._give_back(self._unwanted.pop())

    async def _give_back(self, lease: Lease) -> None:
        await self.call(
            leases.release_lease,
            leases.ReleaseLease(ref=self.state.ref, lease=lease),
            summary=f"release epoch {lease.epoch} of {lease.queue}",
        )
