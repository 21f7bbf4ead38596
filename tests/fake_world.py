"""The world of the workflow tests: every activity contract under its own name, over a state in memory.

By default everything goes well. A test changes what a source says (`gate`, `says`), or scripts the next answers of
an activity (`script`): a value is returned, an exception is raised, a function is called with the argument.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, TypeVar

from temporalio import activity
from temporalio.client import Client

from activities.adapters.store import FreezeRow, LeaseRow
from activities.leases import Leases
from workflows.contracts import gates, items, landing, leases, ledger, pull_requests, reconcile, resolving, workspaces
from workflows.lease_standing import Standing
from workflows.model import (
    Candidate,
    Done,
    GateOutcome,
    GateResult,
    Item,
    Policy,
    Priority,
    PullRequest,
    Repository,
    Role,
    TestRun,
    WaitingOn,
)
from workflows.projects import ProjectFacts
from workflows.situation import PersonMove, PullStanding, Situation, StateKind
from workflows.stages import Gate, decision_digest
from workflows.state import Act, OperatorAct
from workflows.usage import Usage
from workflows.verdicts import AgentRun, Binding, RunOutcome, Verdict, VerdictOutcome

Arg = TypeVar("Arg")
Result = TypeVar("Result")

HOST = "fake-host"
LEDGER = {"record_progress", "record_act", "read_acts"}
WATCH = {"read_situation"}
"""What the watch reads beside a stage, whenever it is woken."""
LEASE_QUEUE = {"open_lease", "close_lease", "inspect_holder", "read_queue", "record_queue_act", "test_base"}
"""Activities of the lease queues, which run beside the tasks."""
WAITING_ON = {Gate.SPEC_DECIDED: WaitingOn.PERSON, Gate.CI_GREEN: WaitingOn.CI, Gate.CANDIDATE_TESTED: WaitingOn.CI}
PATIENCE = 10.0
"""Seconds after which something awaited is taken for something that never happens."""


def a_sha(text: str) -> str:
    """A commit id as good as any."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass
class _Epoch:
    epoch: int
    granted_at: datetime


@dataclass
class _Epochs:
    """What `Leases` needs of a store: numbers that only grow, and who has which open."""

    last: int = 0
    open: dict[str, int] = field(default_factory=dict)
    granted: list[tuple[str, str, int]] = field(default_factory=list)
    released: set[int] = field(default_factory=set)
    landed: set[int] = field(default_factory=set)

    async def open_lease(self, queue: str, holder: str, generation: int) -> _Epoch:
        self.last += 1
        self.open[queue] = self.last
        self.granted.append((queue, holder, self.last))
        return _Epoch(self.last, datetime(2026, 1, 1, tzinfo=UTC))

    async def close_lease(self, queue: str, epoch: int) -> None:
        if self.open.get(queue) == epoch:
            del self.open[queue]

    async def open_lease_of(self, queue: str) -> LeaseRow | None:
        epoch = self.open.get(queue)
        if epoch is None:
            return None
        holder = next(holder for _, holder, granted in self.granted if granted == epoch)
        return LeaseRow(epoch, holder, 1, datetime.now(UTC), None)

    async def has_landed(self, epoch: int) -> bool:
        return epoch in self.landed


@dataclass
class _Freezes:
    """Rows of freezes: which causes stand in which queue."""

    rows: dict[tuple[str, str], FreezeRow] = field(default_factory=dict)

    async def open(self, queue: str, cause: str, *, reason: str, by: str) -> None:
        self.rows.setdefault((queue, cause), FreezeRow(cause, reason, datetime(2026, 1, 1, tzinfo=UTC), by))

    async def lift(self, queue: str, cause: str, *, reason: str, by: str) -> bool:
        return self.rows.pop((queue, cause), None) is not None

    async def standing(self, queue: str) -> tuple[FreezeRow, ...]:
        return tuple(row for (frozen, _), row in self.rows.items() if frozen == queue)


@dataclass
class _Fences:
    """How far each task has come, as a test arranges it."""

    marks: dict[str, tuple[int, str]] = field(default_factory=dict)

    async def progress(self, task: str) -> tuple[int, str] | None:
        return self.marks.get(task)


@dataclass
class _Acts:
    """Acts on lease queues."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    async def settle(self, values: dict[str, Any]) -> None:
        if all(known["act_id"] != values["act_id"] for known in self.rows):
            self.rows.append(values)


@dataclass
class _LeaseStore:
    landings: _Epochs
    freezes: _Freezes = field(default_factory=_Freezes)
    fences: _Fences = field(default_factory=_Fences)
    acts: _Acts = field(default_factory=_Acts)


class FakeWorld:
    """Plane, Gitea, the host's disk, agents and the ledger of one test."""

    def __init__(self, client: Client, number: int) -> None:
        self.number = number
        self.held_epoch = 1000
        """The merge lease of a task that a test starts at deploy."""
        self.repository = Repository(owner="acme", name=f"shop-{number}")
        self.policy = Policy(test="make test", staging="make staging", production="make production", runner="scripted")
        self.calls: list[tuple[str, Any]] = []
        """Every activity that began, with its argument, in order."""
        self.progress: list[ledger.RecordProgress] = []
        self.acts: list[ledger.RecordAct] = []
        self.on_record: list[OperatorAct] = []
        """Acts that the command line has put on record and no task has taken."""
        self.outcomes: dict[str, str] = {}
        """What became of acts, by their ids."""
        self.epochs = _Epochs()
        self.cancelled: list[str] = []
        """Activities whose attempt was really broken off."""
        self.ended: list[str] = []
        """Activities whose attempt has ended well."""
        self.situation = Situation()
        """What people have done besides moving items: closed, merged, deleted; or why that cannot be read."""
        self.moves: list[tuple[str, PersonMove]] = []
        """Moves by people, with the keys of their items; Plane has them as activities, numbered from 2."""
        self.heads: dict[str, str] = {}
        """Task branch -> head, as the remote has it."""
        self.priorities: dict[str, Priority] = {}
        """What Plane says of items that are not of the lowest class."""
        self._commits = 0
        self.lease_rows = _LeaseStore(self.epochs)
        self._leases = Leases(client, self.lease_rows)  # type: ignore[arg-type]
        self._says: dict[Gate, GateResult | GateOutcome] = {}
        self._scripts: dict[str, deque[Any]] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._stubborn: set[str] = set()
        self._changed = asyncio.Condition()

    # -- steering --------------------------------------------------------------------------------------------

    def key(self, which: int = 1) -> str:
        """The key of one of this world's tasks."""
        return f"T{self.number}-{which}"

    def says(self, gate: Gate, outcome: GateOutcome | GateResult) -> None:
        """What a gate answers from now on."""
        self._says[gate] = outcome

    def script(self, name: str, *answers: Any) -> None:
        """The next answers of an activity, before it goes back to its usual ones."""
        self._scripts.setdefault(name, deque()).extend(answers)

    def script_gate(self, gate: Gate, *answers: Any) -> None:
        """The next answers of one gate."""
        self.script(f"gate: {gate}", *answers)

    def script_role(self, role: Role, *answers: Any) -> None:
        """The next answers of one agent."""
        self.script(f"agent: {role}", *answers)

    def person_moves(self, to: StateKind, which: int = 1, state: str = "") -> None:
        """A person moves an item in Plane; nobody is told."""
        self.moves.append((self.key(which), PersonMove(to=to, state=state or to.title(), by="olga")))

    def find(self, **changes: object) -> None:
        """What the sources say of item, pull request and branch from now on; nobody is told."""
        self.situation = Situation.model_validate(changes)

    @contextmanager
    def holding(self, name: str, *, stubborn: bool = False) -> Iterator[None]:
        """Let an activity stand still inside its attempt while the block runs.

        One that is stubborn does not hear of its cancellation: it succeeds when the block ends.
        """
        self._held[name] = asyncio.Event()
        if stubborn:
            self._stubborn.add(name)
        try:
            yield
        finally:
            self._held.pop(name).set()
            self._stubborn.discard(name)

    # -- seeing ----------------------------------------------------------------------------------------------

    def names(self, which: int | None = None) -> list[str]:
        """What tasks did, in order, without the ledger; only one task's if it is named."""
        return [
            _shown(name, arg)
            for name, arg in self.calls
            if name not in LEDGER | LEASE_QUEUE | WATCH and (which is None or _key_of(arg) in {"", self.key(which)})
        ]

    def of(self, name: str) -> list[Any]:
        """The arguments of every call of an activity."""
        return [arg for called, arg in self.calls if called == name]

    def gate_calls(self, gate: Gate) -> list[gates.GateQuestion]:
        """The questions a gate was asked."""
        return [question for question in self.of("evaluate_gate") if question.gate is gate]

    def begun(self, name: str) -> int:
        """How often an activity was begun."""
        return len(self.of(name))

    def agent_calls(self, role: Role) -> list[workspaces.RunAgent]:
        """The jobs a role was given."""
        return [job for job in self.of("run_agent") if job.role is role]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something has been called."""
        try:
            async with self._changed, asyncio.timeout(PATIENCE):
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"never happened: {what}; seen: {self.names()[-12:]}") from None

    async def called(self, name: str, times: int = 1) -> None:
        """Wait until an activity has been called that often."""
        await self.until(lambda: len(self.of(name)) >= times, f"{times} calls of {name}")

    async def waiting(self, on: WaitingOn, *, key: str | None = None, reason: str = "", after: int = 0) -> int:
        """Wait until a task has recorded that it waits for `on`; answer a mark to wait for the next time."""

        def found() -> int:
            for index, row in enumerate(self.progress[after:], after):
                ours = row.ref.key == (key or self.key())
                if ours and row.waiting and row.waiting.on is on and reason in row.waiting.reason:
                    return index + 1
            return 0

        await self.until(lambda: found() > 0, f"waiting on {on} {reason}")
        return found()

    # -- Plane -----------------------------------------------------------------------------------------------

    def item(self, key: str) -> Item:
        """The item of a task."""
        return Item(
            id=f"item-{key}",
            project_id="project",
            key=key,
            title=f"Title of {key}",
            url=f"http://p/{key}",
            priority=self.priorities.get(key, Priority.NONE),
        )

    def beginning(self, key: str, **changes: Any) -> items.Beginning:
        """A person started the task."""
        known = items.Beginning(
            start=items.Start.STARTED,
            reason=f"a person moved {key} to In Progress",
            generation=1,
            start_activity="activity-1",
            item=self.item(key),
            project=ProjectFacts(key=key.rpartition("-")[0], repository=self.repository),
        )
        return known.model_copy(update=changes)

    @activity.defn
    async def begin_generation(self, arg: items.BeginGeneration) -> items.Beginning:
        """Started, unless scripted."""
        return await self._answer("begin_generation", arg, lambda: self.beginning(arg.key))

    @activity.defn
    async def ask_decision(self, arg: items.AskDecision) -> Done:
        """Asked."""
        return await self._answer("ask_decision", arg, Done)

    @activity.defn
    async def post_comment(self, arg: items.PostComment) -> Done:
        """Posted."""
        return await self._answer("post_comment", arg, lambda: Done(reference="comment"))

    @activity.defn
    async def move_item(self, arg: items.MoveItem) -> items.MoveResult:
        """Moved."""
        return await self._answer("move_item", arg, lambda: items.MoveResult(outcome=items.Moved.MOVED))

    @activity.defn
    async def settle_decision(self, arg: items.SettleDecision) -> Done:
        """Told."""
        return await self._answer("settle_decision", arg, Done)

    @activity.defn
    async def show_status(self, arg: items.ShowStatus) -> Done:
        """Shown."""
        return await self._answer("show_status", arg, Done)

    @activity.defn
    async def read_situation(self, arg: items.ReadSituation) -> Situation:
        """What the test arranged, and the newest move of the item that was not seen before."""
        return await self._answer("read_situation", arg, lambda: self._look(arg))

    def _look(self, arg: items.ReadSituation) -> Situation:
        if self.situation.problem:
            return self.situation
        seen = int(arg.seen_activity.rpartition("-")[2])
        fresh = [move for number, (key, move) in enumerate(self.moves, 2) if number > seen and key == arg.ref.key]
        found = {"move": fresh[-1] if fresh else None, "seen_activity": f"activity-{max(seen, len(self.moves) + 1)}"}
        if arg.pull is None:
            found["pull"] = PullStanding.NONE
        return self.situation.model_copy(update=found)

    # -- reconcile -------------------------------------------------------------------------------------------

    @activity.defn
    async def reconcile_project(self, arg: reconcile.ReconcileProject) -> reconcile.Pass:
        """Nothing changed."""
        return await self._answer("reconcile_project", arg, reconcile.Pass)

    # -- gates -----------------------------------------------------------------------------------------------

    @activity.defn
    async def read_policy(self, arg: gates.ReadPolicy) -> gates.PolicyReading:
        """The world's policy."""
        return await self._answer("read_policy", arg, lambda: gates.PolicyReading(policy=self.policy))

    @activity.defn
    async def evaluate_gate(self, arg: gates.GateQuestion) -> GateResult:
        """Green, unless the gate was told to say otherwise or a person has decided on exactly this spec."""
        return await self._answer("evaluate_gate", arg, lambda: self._judge(arg), also=f"gate: {arg.gate}")

    def _judge(self, arg: gates.GateQuestion) -> GateResult:
        if arg.gate is Gate.SPEC_DECIDED:
            for record in self.acts:
                if record.ref.key == arg.ref.key and record.act.digest == arg.digest:
                    approved = record.act.act is Act.APPROVE
                    said = f"{'approved' if approved else 'rejected'} by {record.act.by}: {record.act.reason}"
                    return judged(arg.gate, GateOutcome.GREEN if approved else GateOutcome.RED, said, arg.head_sha)
        answer = self._says.get(arg.gate, GateOutcome.GREEN)
        if isinstance(answer, GateResult):
            return answer.model_copy(update={"sha": answer.sha or arg.head_sha})
        return judged(arg.gate, answer, sha=arg.head_sha)

    # -- Gitea -----------------------------------------------------------------------------------------------

    @activity.defn
    async def ensure_pull_request(self, arg: pull_requests.EnsurePullRequest) -> PullRequest:
        """The branch's pull request."""
        return await self._answer(
            "ensure_pull_request",
            arg,
            lambda: PullRequest(number=7, head_sha=self.heads[arg.branch], url="http://gitea/pulls/7"),
        )

    @activity.defn
    async def post_review(self, arg: pull_requests.PostReview) -> Done:
        """Posted."""
        return await self._answer("post_review", arg, Done)

    # -- the host --------------------------------------------------------------------------------------------

    @activity.defn
    async def claim_host(self, arg: workspaces.ClaimHost) -> workspaces.HostClaim:
        """The only host."""
        return await self._answer("claim_host", arg, lambda: workspaces.HostClaim(host=HOST))

    @activity.defn
    async def prepare_workspace(self, arg: workspaces.PrepareWorkspace) -> workspaces.Workspace:
        """A clone at the branch's head."""
        return await self._answer(
            "prepare_workspace",
            arg,
            lambda: workspaces.Workspace(
                path="/clone", base_sha=a_sha("main"), head_sha=self.heads.get(arg.branch, a_sha("main"))
            ),
        )

    @activity.defn
    async def run_agent(self, arg: workspaces.RunAgent) -> AgentRun:
        """Every agent passes, unless scripted."""
        return await self._answer("run_agent", arg, lambda: agent_run(arg), also=f"agent: {arg.role}")

    @activity.defn
    async def publish_work(self, arg: workspaces.PublishWork) -> workspaces.Published:
        """One new commit, with the artifact where one is wanted."""
        return await self._answer("publish_work", arg, lambda: self._push(arg))

    def _push(self, arg: workspaces.PublishWork) -> workspaces.Published:
        head = self.foreign_push(arg.branch)
        artifact = None
        if arg.artifact_path:
            digest = decision_digest(arg.ref, head.encode())
            artifact = workspaces.Artifact(path=arg.artifact_path, digest=digest)
        return workspaces.Published(
            outcome=workspaces.Publish.PUSHED, head_sha=head, commits=1, changed=("a.py",), artifact=artifact
        )

    def foreign_push(self, branch: str) -> str:
        """Move a branch to a commit nobody has seen."""
        self._commits += 1
        self.heads[branch] = a_sha(f"{branch} {self._commits}")
        return self.heads[branch]

    @activity.defn
    async def run_tests(self, arg: workspaces.RunTests) -> TestRun:
        """Tests pass."""
        return await self._answer(
            "run_tests", arg, lambda: TestRun(sha=arg.sha, passed=True, exit_code=0, tail="3 passed")
        )

    @activity.defn
    async def remove_workspaces(self, arg: workspaces.RemoveWorkspaces) -> Done:
        """Removed."""
        return await self._answer("remove_workspaces", arg, Done)

    # -- landing ---------------------------------------------------------------------------------------------

    @activity.defn
    async def build_candidate(self, arg: landing.BuildCandidate) -> landing.CandidateBuilt:
        """A rebase that always works."""
        return await self._answer("build_candidate", arg, lambda: self._rebase(arg))

    def _rebase(self, arg: landing.BuildCandidate) -> landing.CandidateBuilt:
        sha = self.foreign_push(arg.branch)
        candidate = Candidate(sha=sha, tree=a_sha(f"tree {sha}"), base_sha=a_sha("main"), replaces=arg.head_sha)
        return landing.CandidateBuilt(outcome=landing.CandidateOutcome.READY, candidate=candidate)

    @activity.defn
    async def land(self, arg: landing.Land) -> landing.Landed:
        """Landed."""
        return await self._answer(
            "land", arg, lambda: landing.Landed(outcome=landing.LandOutcome.LANDED, sha=arg.candidate.sha)
        )

    @activity.defn
    async def deploy(self, arg: landing.Deploy) -> landing.Deployed:
        """Deployed."""
        return await self._answer(
            "deploy",
            arg,
            lambda: landing.Deployed(outcome=landing.DeployOutcome.SUCCEEDED, sha=arg.sha, output="deployed"),
        )

    @activity.defn
    async def roll_back(self, arg: landing.RollBack) -> landing.Deployed:
        """Rolled back."""
        return await self._answer(
            "roll_back",
            arg,
            lambda: landing.Deployed(outcome=landing.DeployOutcome.SUCCEEDED, sha=arg.sha, output="rolled back"),
        )

    # -- leases: the real activities over epochs in memory ---------------------------------------------------

    @activity.defn
    async def request_lease(self, arg: leases.RequestLease) -> Standing:
        """Signal with start, as in production."""
        return await self._pass_on("request_lease", arg, self._leases.request_lease)

    @activity.defn
    async def withdraw_lease(self, arg: leases.WithdrawLease) -> Done:
        """Signal, as in production."""
        return await self._pass_on("withdraw_lease", arg, self._leases.withdraw_lease)

    @activity.defn
    async def read_queue(self, arg: leases.ReadQueue) -> leases.QueueRows:
        """The rows in memory."""
        return await self._pass_on("read_queue", arg, self._leases.read_queue)

    @activity.defn
    async def record_queue_act(self, arg: leases.RecordQueueAct) -> Done:
        """Kept, once for each id."""
        return await self._pass_on("record_queue_act", arg, self._leases.record_queue_act)

    @activity.defn
    async def test_base(self, arg: leases.TestBase) -> leases.BaseTested:
        """The base passes its tests."""
        tested = leases.BaseTested(outcome=GateOutcome.GREEN, sha=a_sha("main"))
        return await self._answer("test_base", arg, lambda: tested)

    @activity.defn
    async def release_lease(self, arg: leases.ReleaseLease) -> Done:
        """Signal, as in production."""
        self.epochs.released.add(arg.lease.epoch)
        return await self._pass_on("release_lease", arg, self._leases.release_lease)

    @activity.defn
    async def open_lease(self, arg: leases.OpenLease) -> leases.OpenedLease:
        """The next epoch."""
        return await self._pass_on("open_lease", arg, self._leases.open_lease)

    @activity.defn
    async def close_lease(self, arg: leases.CloseLease) -> Done:
        """The end of an epoch."""
        return await self._pass_on("close_lease", arg, self._leases.close_lease)

    @activity.defn
    async def inspect_holder(self, arg: leases.InspectHolder) -> leases.HolderState:
        """Describe the holder, as in production."""
        return await self._pass_on("inspect_holder", arg, self._leases.inspect_holder)

    @activity.defn
    async def set_freeze(self, arg: leases.SetFreeze) -> Done:
        """A row in memory, and the queue is woken as in production."""
        return await self._pass_on("set_freeze", arg, self._leases.set_freeze)

    @activity.defn
    async def lift_freeze(self, arg: leases.LiftFreeze) -> Done:
        """As in production, over rows in memory."""
        return await self._pass_on("lift_freeze", arg, self._leases.lift_freeze)

    # -- ledger ----------------------------------------------------------------------------------------------

    @activity.defn
    async def record_progress(self, arg: ledger.RecordProgress) -> Done:
        """Kept."""
        answer = await self._answer("record_progress", arg, Done)
        self.progress.append(arg)
        await self._tell()
        return answer

    @activity.defn
    async def record_act(self, arg: ledger.RecordAct) -> Done:
        """Kept, once for each id."""
        answer = await self._answer("record_act", arg, Done)
        if arg.outcome:
            self.outcomes[arg.act.act_id] = arg.outcome
            self.on_record = [act for act in self.on_record if act.act_id != arg.act.act_id]
            await self._tell()
        if all(known.act.act_id != arg.act.act_id for known in self.acts):
            self.acts.append(arg)
        return answer

    @activity.defn
    async def read_acts(self, arg: ledger.ReadActs) -> ledger.OpenActs:
        """What operators put on record and nobody has taken or refused."""
        return await self._answer("read_acts", arg, lambda: ledger.OpenActs(acts=tuple(self.on_record)))

    # -- resolving -------------------------------------------------------------------------------------------

    @activity.defn
    async def resolve_rows(self, arg: resolving.UnknownCommit) -> resolving.Resolutions:
        """Nobody is concerned unless the script says so."""
        nobodys = [
            resolving.Resolution(
                row=row.row, times_received=row.times_received, end=resolving.RowEnd.IGNORED, reason="nobody's"
            )
            for row in arg.rows
        ]
        return await self._answer("resolve_rows", arg, lambda: resolving.Resolutions(rows=tuple(nobodys)))

    @activity.defn
    async def settle_rows(self, arg: resolving.Resolutions) -> Done:
        """Nothing is kept."""
        return await self._answer("settle_rows", arg, Done)

    # -- how all of them answer ------------------------------------------------------------------------------

    async def _pass_on(self, name: str, arg: Arg, real: Callable[[Arg], Awaitable[Result]]) -> Result:
        scripted: Result | None = await self._answer(name, arg, lambda: None)
        return await real(arg) if scripted is None else scripted

    async def _answer(self, name: str, arg: object, usual: Callable[[], Result], also: str = "") -> Result:
        self.calls.append((name, arg))
        await self._tell()
        try:
            await self._stand(
                self._held.get(also) or self._held.get(name), stubborn=bool({also, name} & self._stubborn)
            )
            answer = self._next(name, also, arg, usual)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            await self._tell()
            raise
        self.ended.append(name)
        await self._tell()
        return answer

    @staticmethod
    async def _stand(held: asyncio.Event | None, *, stubborn: bool) -> None:
        while held is not None and not held.is_set():
            try:
                await held.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    def _next(self, name: str, also: str, arg: object, usual: Callable[[], Result]) -> Result:
        for script in (also, name):
            answers = self._scripts.get(script)
            if answers:
                answer = answers.popleft()
                if isinstance(answer, BaseException):
                    raise answer
                given: Result = answer(arg) if callable(answer) else answer
                return given
        return usual()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def judged(
    gate: Gate, outcome: GateOutcome, reason: str = "", sha: str = "", *, failing: tuple[str, ...] = ()
) -> GateResult:
    """A gate's answer."""
    on = WaitingOn.SOURCE if outcome is GateOutcome.UNKNOWN else WAITING_ON.get(gate, WaitingOn.NOTHING)
    return GateResult(
        gate=gate,
        outcome=outcome,
        reason=reason or f"{gate} is {outcome}",
        waiting_on=on if outcome in {GateOutcome.PENDING, GateOutcome.UNKNOWN} else WaitingOn.NOTHING,
        sha=sha,
        failing=failing,
    )


def agent_run(
    arg: workspaces.RunAgent, outcome: VerdictOutcome = VerdictOutcome.PASS, summary: str = "", **changes: Any
) -> AgentRun:
    """A bound verdict of a scripted agent."""
    run = AgentRun(
        binding=Binding(ref=arg.ref, head_sha=arg.workspace.head_sha, nonce=arg.nonce),
        runner=arg.runner,
        session_id=arg.session_id,
        outcome=RunOutcome.OK,
        verdict=Verdict(nonce=arg.nonce, outcome=outcome, summary=summary or f"{arg.role} says {outcome}"),
        usage=Usage(input=10, cache_read=100, output=5),
        cost_usd=0.01,
        cost_source="reported",
    )
    return run.model_copy(update=changes)


def verdict(outcome: VerdictOutcome, summary: str = "") -> Callable[[workspaces.RunAgent], AgentRun]:
    """A scripted answer of an agent."""
    return lambda arg: agent_run(arg, outcome, summary)


def activities_of(world: FakeWorld) -> dict[str, Callable[..., Any]]:
    """Every activity of the world by its name."""
    methods = (getattr(world, name) for name in dir(type(world)))
    found = {}
    for method in methods:
        definition = getattr(method, "__temporal_activity_definition", None)
        if definition is not None:
            found[definition.name] = method
    return found


def _key_of(arg: Any) -> str:
    ref = getattr(arg, "ref", None)
    return str(ref.key) if ref else str(getattr(arg, "key", ""))


def _shown(name: str, arg: Any) -> str:
    if name == "evaluate_gate":
        return f"gate: {arg.gate}"
    if name == "run_agent":
        return f"agent: {arg.role}"
    if name == "request_lease":
        return f"request {arg.kind} lease"
    if name == "deploy":
        return f"deploy to {arg.environment}"
    if name == "move_item":
        return f"move item to {arg.to}"
    return name
