"""The merge gate: a candidate on current main, tested as exactly the tree that lands, under one lease.

Safety comes from the ref a landing compares; the lease only gives order. What follows each outcome is the table of
docs/explanation/merge-gate.md.
"""

from datetime import timedelta

from temporalio import workflow

from workflows import gating, leasing, steps
from workflows.contracts import landing, leases
from workflows.contracts.landing import CandidateOutcome
from workflows.hints import Topic
from workflows.lease_state import Phase
from workflows.model import Candidate, FreezeCause, GateOutcome, GateResult, Lease, Stage, TestRun, Waiting, WaitingOn
from workflows.names import host_work_queue
from workflows.stages import Gate
from workflows.state import Counter, Move, RoundWork
from workflows.task_run import TaskRun

AGAIN = "a person said retry"


async def pass_gate(run: TaskRun) -> Move:
    """Under the merge lease, build and test the exact commit that will become main's tip."""
    lease = await leasing.acquire(run, leases.LeaseKind.MERGE)
    run.say(f"holds the merge lease, epoch {lease.epoch}")
    await leasing.phase(run, lease, Phase.REBASING)
    state = run.next_step()
    built = await run.call(
        landing.build_candidate,
        landing.BuildCandidate(
            ref=state.ref,
            repository=state.project.repository,
            branch=state.branch,
            head_sha=state.head_sha,
            lease=lease,
            before=state.candidate,
            policy_gate=state.policy.merge_gate,
        ),
        queue=host_work_queue(state.host),
        summary="rebase onto current main",
        limit=timedelta(minutes=10),
    )
    if built.candidate is None:
        return await _no_candidate(run, lease, built)
    candidate = built.candidate
    staged = candidate.sha if state.staged_sha == candidate.replaces else state.staged_sha
    run.update(
        candidate=candidate,
        head_sha=candidate.sha,
        staged_sha=staged,
        work=_carried_over(run, candidate),
        gate_off=built.gate_off,
    )
    if not candidate.gated:
        run.say(f"{built.gate_off}: {candidate.sha[:10]} lands without a re-test", sha=candidate.sha)
        return Move(to=Stage.DEPLOY, reason=built.gate_off)
    run.say(f"candidate {candidate.sha[:10]} on main {candidate.base_sha[:10]}", sha=candidate.sha)
    return await _test_candidate(run, lease, candidate)


def back(reason: str, *facts: str) -> Move:
    """To development with the facts."""
    return Move(to=Stage.DEVELOPMENT, reason=reason, feedback=facts, spends=Counter.DEVELOPER_RETRIES)


def main_moved(reason: str) -> Move:
    """Into the queue again: nobody is to blame, but not for ever."""
    return Move(to=Stage.DEPLOY_STAGING, reason=reason, spends=Counter.MERGE_ROUNDS)


def stopped(reason: str) -> Move:
    """Into the queue again, which keeps the place and grants nothing while it is frozen."""
    return Move(to=Stage.DEPLOY_STAGING, reason=reason)


def to_review(run: TaskRun, sha: str, reason: str) -> Move:
    """Somebody else's head wants a review."""
    if sha:
        run.update(head_sha=sha)
    return Move(to=Stage.REVIEW, reason=reason)


async def rewound(run: TaskRun, reason: str) -> Move:
    """Main has lost commits: nobody lands until a person has looked."""
    # Built on what main no longer has: the next candidate must not be measured by it.
    run.update(candidate=None)
    await leasing.freeze(run, FreezeCause.BASE_REWOUND, reason)
    await run.ask_human(reason)
    return stopped(AGAIN)


async def by_hand(run: TaskRun, reason: str) -> Move:
    """Somebody else landed it: the watch ends the task as soon as it sees the merged pull request."""
    run.say(reason)
    run.unsurveyed.add(Topic.PULL_REQUEST)
    run.pending.clear()
    await run.wait(
        Waiting(on=WaitingOn.SOURCE, reason=reason, since=workflow.now(), next_check=workflow.now() + run.grace)
    )
    run.update(waiting=None)
    await run.ask_human(f"{reason}, yet its pull request is not merged; cancel the task, or push what is missing")
    return stopped(AGAIN)


async def _no_candidate(run: TaskRun, lease: Lease, built: landing.CandidateBuilt) -> Move:
    if built.outcome is CandidateOutcome.ALREADY_LANDED:
        # Before anything else is awaited: whoever interrupts now must find that it has landed.
        run.update(landed_sha=built.sha)
        run.say(built.reason, sha=built.sha)
    await leasing.release(run, lease)
    match built.outcome:
        case CandidateOutcome.ALREADY_LANDED:
            return Move(to=Stage.DEPLOY, reason=built.reason)
        case CandidateOutcome.BASE_REWOUND:
            return await rewound(run, built.reason)
        case CandidateOutcome.ON_MAIN_BY_HAND:
            return await by_hand(run, built.reason)
        case CandidateOutcome.NOTHING_TO_LAND:
            await run.ask_human(f"{built.reason}; cancel the task to end it, or push what is missing and say retry")
        case CandidateOutcome.REFUSED:
            await run.ask_human(f"no candidate: {built.reason}")
        case _:
            return _way(run, built)
    return stopped(AGAIN)


def _way(run: TaskRun, built: landing.CandidateBuilt) -> Move:
    """Where a missing candidate leads that no person has to look at."""
    reason = f"no candidate: {built.reason}"
    match built.outcome:
        case CandidateOutcome.HEAD_MOVED:
            return to_review(run, built.sha, reason)
        case CandidateOutcome.LEASE_LOST:
            return main_moved(reason)
        case CandidateOutcome.FROZEN:
            return stopped(reason)
        case CandidateOutcome.BROKEN_POLICY:
            return back(f"the candidate's own policy is invalid: {built.reason}", built.reason)
    return back(reason, reason, "files in conflict:", *built.conflicts)


def _carried_over(run: TaskRun, candidate: Candidate) -> RoundWork:
    """A clean rebase of ours changes nothing that staging and its judge have seen."""
    work = run.state.work
    changes: dict[str, object] = {}
    if work.claim is not None and work.claim.sha == candidate.replaces:
        changes["claim"] = work.claim.model_copy(update={"sha": candidate.sha})
    if work.deployed == candidate.replaces:
        changes["deployed"] = candidate.sha
    return work.model_copy(update=changes)


async def _test_candidate(run: TaskRun, lease: Lease, candidate: Candidate) -> Move:
    tests, failed = await _tests(run, lease, candidate)
    await leasing.phase(run, lease, Phase.CI)
    result = await gating.ask(
        run,
        lambda: gating.question(run, Gate.CANDIDATE_TESTED, candidate=candidate, test_run=tests, failed_runs=failed),
    )
    let_go = run.state.lease is None
    if let_go and (result.outcome is GateOutcome.GREEN or "main moved" in result.failing):
        # Given back while a person was waited for; others may have landed since.
        return stopped(f"the merge lease was given back meanwhile: {result.reason}")
    if result.outcome is GateOutcome.GREEN:
        return Move(to=Stage.DEPLOY, reason=result.reason)
    if "combined tree red" in result.failing:
        return await _red(run, lease, candidate, tests, result)
    if not let_go:
        await leasing.release(run, lease)
    if "main moved" in result.failing:
        return main_moved(result.reason)
    if "head moved" in result.failing:
        return to_review(run, result.sha, result.reason)
    return back(result.reason, result.reason, result.detail, tests.tail)


async def _tests(run: TaskRun, lease: Lease, candidate: Candidate) -> tuple[TestRun, int]:
    """The tests of exactly this candidate, and how often they failed before; red once may be flaky."""
    known = run.state.tested
    if known is not None and known.sha == candidate.sha:
        run.say(f"{candidate.sha[:10]} was tested green before, and is unchanged", sha=candidate.sha)
        return known, 0
    await leasing.phase(run, lease, Phase.TESTING)
    tests, failed = await steps.run_tests(run, candidate.sha), 0
    if not tests.passed:
        await leasing.phase(run, lease, Phase.TESTING)
        again = await steps.run_tests(run, candidate.sha)
        if again.passed:
            run.say("flaky: failed once, passed on re-run", sha=candidate.sha)
        tests, failed = again, 1
    if tests.passed:
        # The tree is what was tested: whatever keeps it from landing now, it need not be tested again.
        run.update(tested=tests.model_copy(update={"tail": ""}))
    return tests, failed


async def _red(run: TaskRun, lease: Lease, candidate: Candidate, tests: TestRun, result: GateResult) -> Move:
    """A combined tree that is red twice: the branch's fault only if main alone is green."""
    base = run.state.base_tests
    if base is None or base.sha != candidate.base_sha:
        await leasing.phase(run, lease, Phase.TESTING)
        base = await steps.run_tests(run, candidate.base_sha)
        run.update(base_tests=base)
    if base.passed:
        await leasing.release(run, lease)
        return back(result.reason, result.reason, "main alone passes the same tests", tests.tail)
    reason = f"main alone fails its tests at {candidate.base_sha[:10]} (exit {base.exit_code})"
    if FreezeCause.BASE_RED in lease.passes:
        # A person let it through to mend main, and it does not.
        await leasing.release(run, lease)
        return back(f"{result.reason}; it was let through to mend main", f"{result.reason}; {reason}", tests.tail)
    await leasing.freeze(run, FreezeCause.BASE_RED, reason)
    await leasing.release(run, lease)
    # Whatever main is made of when it is green again, it is not what was seen now.
    run.update(base_tests=None)
    return stopped(f"nobody's fault: {reason}")
