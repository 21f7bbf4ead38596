"""Gates: each reads its sources itself and answers green, red, pending or unknown, with a reason."""

from collections.abc import Awaitable, Callable

from temporalio import activity

from activities.adapters.errors import AdapterError, Rejected, Unauthorized
from activities.adapters.gitea_models import CombinedStatus, Run
from activities.adapters.plane import PlaneClient
from activities.adapters.store import Store
from activities.decisions import Decisions
from activities.forge import Forge
from activities.projects import Projects
from activities.reviews import objection
from activities.switches import MergeGate
from workflows.contracts import gates as contract
from workflows.model import GateOutcome, GateResult, WaitingOn, fingerprint
from workflows.policy import PATH, read_policy
from workflows.stages import Gate, decision_digest, missing_headings
from workflows.verdicts import VerdictOutcome

HEAD_MOVED = "head moved"
"""Named among a red's failing facts when somebody else pushed: the new head wants a review."""
MAIN_MOVED = "main moved"
TREE_RED = "combined tree red"
FLAKY = "flaky: failed once, passed on re-run"


class Gates:
    """Judges, by reading Plane and Gitea at the moment it is asked."""

    def __init__(self, plane: PlaneClient, forge: Forge, store: Store, projects: Projects, switch: MergeGate) -> None:
        self._forge = forge
        self._switch = switch
        self._store = store
        self._projects = projects
        self._decisions = Decisions(plane, store)
        self._rules: dict[Gate, Callable[[contract.GateQuestion], Awaitable[GateResult]]] = {
            Gate.SPEC_DECIDED: self._spec_decided,
            Gate.DESIGN_PRESENT: self._design_present,
            Gate.CI_GREEN: self._ci_green,
            Gate.REVIEW_PASSED: self._review_passed,
            Gate.TESTS_PASSED: self._tests_passed,
            Gate.CANDIDATE_TESTED: self._candidate_tested,
            Gate.DEPLOYED: self._deployed,
        }

    @activity.defn
    async def read_policy(self, arg: contract.ReadPolicy) -> contract.PolicyReading:
        """Read the policy from the tip of the base branch."""
        repository = arg.repository
        content = await self._forge.client(repository).get_file(PATH, repository.base)
        found = read_policy(content, f"{PATH} on {repository.base} of {repository}")
        off = self._switch.off(repository, policy=found.policy is None or found.policy.merge_gate)
        return contract.PolicyReading(policy=found.policy, problem=found.problem, gate_off=off)

    @activity.defn
    async def evaluate_gate(self, arg: contract.GateQuestion) -> GateResult:
        """Judge, and note the answer in the ledger. An unreachable source is `unknown`, never red."""
        try:
            result = await self._rules[arg.gate](arg)
        except Unauthorized as error:
            result = _unknown(arg, f"access refused: {error}; check the token")
        except Rejected:
            raise
        except AdapterError as error:
            result = _unknown(arg, str(error))
        if result.outcome is GateOutcome.RED:
            mark = fingerprint(arg.ref, arg.gate, result.sha, result.failing)
            result = result.model_copy(update={"fingerprint": mark})
        await self._store.tasks.record_gate(
            {
                "task": arg.ref.key,
                "generation": arg.ref.generation,
                "stage": arg.ref.stage,
                "round": arg.ref.round,
                "gate": result.gate,
                "outcome": result.outcome,
                "reason": result.reason,
                "sha": result.sha,
                "fingerprint": result.fingerprint,
                "links": list(result.links),
            }
        )
        return result

    async def _spec_decided(self, arg: contract.GateQuestion) -> GateResult:
        project = self._projects.of(arg.ref.key)
        spec = await self._forge.client(arg.project.repository).get_file(arg.artifact_path, arg.branch)
        if spec is None or decision_digest(arg.ref, spec) != arg.digest:
            return _red(arg, f"{arg.artifact_path} changed after the decision was asked for", "spec changed")
        answers = await self._decisions.read(arg.ref, arg.ask_effect, arg.item, project, arg.digest)
        decision = answers.decision
        if decision is None:
            if not answers.asked:
                # Nobody can answer yet, so nobody is called: it is looked at again soon.
                return _unknown(arg, "Plane has not recorded yet that we asked for a decision")
            names = project.states
            reason = f"an approver moves the item to {names.approved} or {names.rejected} (spec {arg.digest})"
            return _pending(arg, WaitingOn.PERSON, reason)
        if decision.approved:
            return _green(arg, f"approved by {decision.by} via {decision.via}")
        said = f": {decision.reason}" if decision.reason else ""
        return _red(arg, f"rejected by {decision.by} via {decision.via}{said}", "rejected")

    async def _design_present(self, arg: contract.GateQuestion) -> GateResult:
        client = self._forge.client(arg.project.repository)
        design = await client.get_file(arg.artifact_path, arg.head_sha)
        if design is None:
            return _red(arg, f"{arg.artifact_path} is missing", "artifact missing")
        lacking = missing_headings(design.decode(errors="replace"), arg.headings)
        if lacking:
            return _red(arg, f"{arg.artifact_path} lacks {', '.join(lacking)}", *lacking)
        return _green(arg, f"{arg.artifact_path} has the required headings")

    async def _ci_green(self, arg: contract.GateQuestion) -> GateResult:
        if arg.head_sha == arg.baseline_sha:
            return _red(arg, "no new commit since the round began", "no evidence")
        moved = await self._head_moved(arg, arg.head_sha)
        return moved or await self._ci(arg, arg.head_sha)

    async def _review_passed(self, arg: contract.GateQuestion) -> GateResult:
        moved = await self._head_moved(arg, arg.head_sha)
        if moved:
            return moved
        claim = _claimed(arg, arg.head_sha)
        if claim:
            return claim
        assert arg.pull is not None
        against = await objection(self._forge, arg.project.repository, arg.pull.number, arg.head_sha)
        if against and against.current:
            return _red(
                arg,
                f"{against.login} requests changes: {against.text}",
                f"changes requested by {against.login}",
            )
        if against:
            reason = f"{against.login} requested changes on an older commit and must look again"
            return _pending(arg, WaitingOn.PERSON, reason)
        return _green(arg, "the reviewer passed this commit and nobody requests changes")

    async def _tests_passed(self, arg: contract.GateQuestion) -> GateResult:
        moved = await self._head_moved(arg, arg.head_sha)
        if moved:
            return moved
        tests = arg.test_run
        if tests is None or tests.sha != arg.head_sha:
            return _red(arg, "the tests were not run on this commit", "no evidence")
        if not tests.passed:
            return _red(arg, f"the tests fail (exit {tests.exit_code})", "tests fail")
        return _claimed(arg, arg.head_sha) or _green(arg, "the tests pass and the tester agrees")

    async def _candidate_tested(self, arg: contract.GateQuestion) -> GateResult:
        candidate, tests = arg.candidate, arg.test_run
        assert candidate is not None
        if tests is None or tests.sha != candidate.sha:
            return _red(arg, "the candidate was not tested", "no evidence")
        # Whoever moved head or main makes what was tested moot: a red of it is nobody's.
        moved = await self._head_moved(arg, candidate.sha)
        if moved is not None:
            return moved
        repository = arg.project.repository
        main = await self._forge.client(repository).get_branch(repository.base)
        if main is None or main.sha != candidate.base_sha:
            return _red(arg, f"{repository.base} moved while the candidate was tested", MAIN_MOVED)
        if not tests.passed:
            runs = f", {arg.failed_runs + 1} times" if arg.failed_runs else ""
            return _red(arg, f"the combined tree fails its tests (exit {tests.exit_code}{runs})", TREE_RED)
        result = await self._ci(arg, candidate.sha)
        if arg.failed_runs and result.outcome is GateOutcome.GREEN:
            return result.model_copy(update={"reason": f"{FLAKY}; {result.reason}"})
        return result

    async def _deployed(self, arg: contract.GateQuestion) -> GateResult:
        if arg.policy.production and arg.policy.probe_production and arg.deployed_sha != arg.landed_sha:
            served = arg.deployed_sha[:10] or "nothing"
            return _red(arg, f"production serves {served}, not {arg.landed_sha[:10]}", "production differs")
        return _claimed(arg, arg.landed_sha) or _green(arg, f"production serves {arg.landed_sha[:10]}")

    async def _head_moved(self, arg: contract.GateQuestion, expected: str) -> GateResult | None:
        branch = await self._forge.client(arg.project.repository).get_branch(arg.branch)
        if branch is None:
            await self._forge.client(arg.project.repository).get_repo()  # else this is not about the branch
            return _pending(arg, WaitingOn.PERSON, f"the branch {arg.branch} is gone; push it again to go on")
        if branch.sha == expected:
            return None
        moved = _red(arg, f"somebody pushed {branch.sha[:10]} to {arg.branch}", HEAD_MOVED)
        return moved.model_copy(update={"sha": branch.sha})

    async def _ci(self, arg: contract.GateQuestion, sha: str) -> GateResult:
        if arg.policy.ci == "none":
            return _at(_green(arg, "this repository has no CI, as its policy says"), sha)
        client = self._forge.client(arg.project.repository)
        result = _of_ci(arg, await client.combined_status(sha))
        if result.outcome is GateOutcome.RED and _all_cancelled(await client.list_runs(sha)):
            # Gitea maps a cancelled run to `failure` (contracts/gitea.md, 3): it is neither red nor green.
            again = f"CI was cancelled on {sha[:10]}; run it again"
            result = _pending(arg, WaitingOn.PERSON, again).model_copy(update={"links": result.links})
        if result.outcome is GateOutcome.RED:
            result = result.model_copy(update={"detail": await client.failing_log(sha)})
        return _at(result, sha)


def _of_ci(arg: contract.GateQuestion, status: CombinedStatus) -> GateResult:
    contexts = ", ".join(sorted(one.context for one in status.statuses))
    if not status.statuses:
        return _pending(arg, WaitingOn.CI, "CI has not reported on this commit")
    failing = tuple(one.context for one in status.statuses if one.state not in {"success", "skipped", "pending"})
    links = tuple(one.target_url for one in status.statuses if one.target_url)
    if failing:
        result = _red(arg, f"CI is red: {', '.join(sorted(failing))}", *failing)
    elif status.state == "success":
        result = _green(arg, f"CI is green: {contexts}")
    else:
        result = _pending(arg, WaitingOn.CI, f"CI runs: {contexts}")
    return result.model_copy(update={"links": links})


def _all_cancelled(runs: tuple[Run, ...] | None) -> bool:
    """Whether nothing that ended badly was more than cancelled; a server that cannot say counts as red."""
    bad = [run.conclusion for run in runs or () if run.conclusion not in {None, "success", "skipped"}]
    return bool(bad) and set(bad) == {"cancelled"}


def _claimed(arg: contract.GateQuestion, sha: str) -> GateResult | None:
    """What an accepted verdict leaves to say: None if it passes exactly this commit."""
    claim = arg.claim
    if claim is None or claim.sha != sha:
        return _red(arg, "no verdict speaks of this commit", "no verdict")
    if claim.outcome is not VerdictOutcome.PASS:
        return _red(arg, f"{claim.outcome}: {claim.summary}", claim.outcome)
    return None


def _result(arg: contract.GateQuestion, outcome: GateOutcome, reason: str, **more: object) -> GateResult:
    known: dict[str, object] = {
        "gate": arg.gate,
        "outcome": outcome,
        "reason": reason[:1000],
        "sha": arg.head_sha,
    }
    return GateResult.model_validate({**known, **more})


def _green(arg: contract.GateQuestion, reason: str) -> GateResult:
    return _result(arg, GateOutcome.GREEN, reason)


def _red(arg: contract.GateQuestion, reason: str, *failing: str) -> GateResult:
    return _result(arg, GateOutcome.RED, reason, failing=tuple(failing))


def _pending(arg: contract.GateQuestion, on: WaitingOn, reason: str) -> GateResult:
    return _result(arg, GateOutcome.PENDING, reason, waiting_on=on)


def _unknown(arg: contract.GateQuestion, reason: str) -> GateResult:
    return _result(arg, GateOutcome.UNKNOWN, f"could not find out: {reason}", waiting_on=WaitingOn.SOURCE)


def _at(result: GateResult, sha: str) -> GateResult:
    return result.model_copy(update={"sha": sha})
