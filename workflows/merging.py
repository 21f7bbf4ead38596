"""The merge gate: a candidate on current main, tested as exactly the tree that lands, landed under one lease.

Safety comes from the ref a landing compares; the lease only gives order.
"""

from datetime import timedelta

from workflows import gating, leasing, steps
from workflows.contracts import landing, leases
from workflows.lease_state import Phase
from workflows.model import Candidate, FreezeCause, GateOutcome, Lease, Stage
from workflows.names import host_work_queue
from workflows.stages import Gate
from workflows.state import Counter, Move, RoundWork
from workflows.task_run import TaskRun


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
        ),
        queue=host_work_queue(state.host),
        summary="rebase onto current main",
        limit=timedelta(minutes=10),
    )
    if built.candidate is None:
        return await _no_candidate(run, lease, built)
    candidate = built.candidate
    run.update(candidate=candidate, head_sha=candidate.sha, work=_carried_over(run, candidate))
    run.say(f"candidate {candidate.sha[:10]} on main {candidate.base_sha[:10]}", sha=candidate.sha)
    return await _test_candidate(run, lease, candidate)


async def land(run: TaskRun) -> Move | None:
    """Land, or say where the task goes instead; the lease is given back either way."""
    state = run.next_step()
    assert state.candidate is not None
    assert state.pull is not None
    if state.lease is None:
        # Given back while the task stood still: the candidate may be old by now.
        return Move(to=Stage.DEPLOY_STAGING, reason="the merge lease was given back meanwhile")
    await leasing.phase(run, state.lease, Phase.LANDING)
    landed = await run.call(
        landing.land,
        landing.Land(
            ref=state.ref,
            repository=state.project.repository,
            pull=state.pull,
            branch=state.branch,
            candidate=state.candidate,
            lease=state.lease,
            title=f"{state.key}: {state.item.title}",
        ),
        queue=host_work_queue(state.host),
        summary=f"land {state.candidate.sha[:10]}",
        shield=True,
        limit=timedelta(minutes=10),
    )
    if landed.outcome is landing.LandOutcome.LANDED:
        # Before anything else is awaited: whoever interrupts now must find that it has landed.
        run.update(
            landed_sha=landed.sha,
            landed_at=leasing.landing_order(),
            despite_failure=FreezeCause.DEPLOY_FAILED in state.lease.passes,
        )
        run.say(f"landed on {state.project.repository.base}", sha=landed.sha)
    await leasing.release(run, state.lease)
    if landed.outcome is landing.LandOutcome.LANDED:
        await run.record(announce=f"{state.key} landed {landed.sha[:10]}")
        return None
    reason = f"not landed: {landed.reason}"
    if landed.outcome is landing.LandOutcome.HEAD_MOVED:
        return Move(to=Stage.REVIEW, reason=reason)
    if landed.outcome in {landing.LandOutcome.MAIN_MOVED, landing.LandOutcome.LEASE_LOST}:
        return _requeue(reason)
    if landed.outcome is landing.LandOutcome.WRONG_TREE:
        await leasing.freeze(run, FreezeCause.WRONG_TREE, reason)
    await run.ask_human(reason)
    return Move(to=Stage.DEPLOY_STAGING, reason="a person said retry")


async def _no_candidate(run: TaskRun, lease: Lease, built: landing.CandidateBuilt) -> Move:
    await leasing.release(run, lease)
    reason = f"no candidate: {built.reason}"
    if built.outcome is landing.CandidateOutcome.HEAD_MOVED:
        return Move(to=Stage.REVIEW, reason=reason)
    if built.outcome is landing.CandidateOutcome.LEASE_LOST:
        return _requeue(reason)
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
    await leasing.phase(run, lease, Phase.TESTING)
    tests = await steps.run_tests(run, candidate.sha)
    await leasing.phase(run, lease, Phase.CI)
    result = await gating.ask(
        run,
        lambda: gating.question(
            run,
            Gate.CANDIDATE_TESTED,
            candidate=candidate,
            test_run=tests,
        ),
    )
    let_go = run.state.lease is None
    if let_go and (result.outcome is GateOutcome.GREEN or "main moved" in result.failing):
        # Given back while a person was waited for; others may have landed since.
        return Move(to=Stage.DEPLOY_STAGING, reason=f"the merge lease was given back meanwhile: {result.reason}")
    if result.outcome is GateOutcome.GREEN:
        return Move(to=Stage.DEPLOY, reason=result.reason)
    if not let_go:
        await leasing.release(run, lease)
    if "main moved" in result.failing:
        return _requeue(result.reason)
    if "head moved" in result.failing:
        run.update(head_sha=result.sha)
        return Move(to=Stage.REVIEW, reason=result.reason)
    return back(result.reason, result.reason, result.detail, tests.tail)


def back(reason: str, *facts: str) -> Move:
    """To development with the facts."""
    return Move(to=Stage.DEVELOPMENT, reason=reason, feedback=facts, spends=Counter.DEVELOPER_RETRIES)


def _requeue(reason: str) -> Move:
    """Into the queue again: main has moved, nobody is to blame."""
    return Move(to=Stage.DEPLOY_STAGING, reason=reason, spends=Counter.MERGE_ROUNDS)
