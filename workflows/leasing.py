"""Asking for a lease, waiting for it without holding any slot, and giving it back."""

from datetime import datetime

from temporalio import workflow

from workflows.contracts import leases
from workflows.model import FreezeCause, Lease, Waiting, WaitingOn
from workflows.names import merge_queue_workflow_id
from workflows.task_run import TaskRun


def note_grant(run: TaskRun, lease: Lease) -> None:
    """Take a grant; called by the signal handler. One that nobody waits for any more is given back."""
    state = run.state_or_none
    if lease.ticket == run.wanted_ticket:
        run.granted = lease
    elif state is None or lease != state.lease:
        run.unwanted.append(lease)


async def acquire(run: TaskRun, kind: leases.LeaseKind) -> Lease:
    """Queue for a lease and wait for it. Asked again at every look: the queue ignores repeats, a lost request heals."""
    state = run.next_step()
    run.wanted_ticket = state.step
    request = leases.RequestLease(
        ref=state.ref, kind=kind, repository=state.project.repository, ticket=run.wanted_ticket
    )
    since = workflow.now()
    try:
        while run.granted is None:
            await run.call(leases.request_lease, request, summary=f"queue for the {kind} lease")
            if run.granted is None:
                await _await_grant(run, kind, since)
    finally:
        run.wanted_ticket = 0
        lease, run.granted = run.granted, None
        if lease is not None:
            run.update(waiting=None, lease=lease)
    assert lease is not None
    return lease


async def release(run: TaskRun, lease: Lease) -> None:
    """Give a lease back; it is ours until that is done, so that whoever is broken off here tries again."""
    await _give_back(run, lease)
    if run.state.lease == lease:
        run.update(lease=None)


async def release_all(run: TaskRun) -> None:
    """Give back whatever this task holds or was granted without wanting it any more."""
    if run.state.lease is not None:
        await release(run, run.state.lease)
    await return_unwanted(run)


async def return_unwanted(run: TaskRun) -> None:
    """Give back what was granted to a wish that is over: it would block others."""
    while run.unwanted:
        lease = run.unwanted[0]
        await _give_back(run, lease)
        run.unwanted = [other for other in run.unwanted if other != lease]


async def freeze(run: TaskRun, cause: FreezeCause, reason: str) -> None:
    """Stop everybody's landing on this task's base branch for a cause that this task has seen."""
    state = run.state
    await run.call(
        leases.set_freeze,
        leases.SetFreeze(queue=_merge_queue(run), cause=cause, reason=reason, by=state.key),
        summary=f"freeze: {cause}",
    )
    run.say(f"landing on {state.project.repository.base} is frozen: {reason}")


async def lift(run: TaskRun, cause: FreezeCause, reason: str) -> None:
    """This task has shown that a cause is over."""
    await run.call(
        leases.lift_freeze,
        leases.LiftFreeze(queue=_merge_queue(run), cause=cause, reason=reason, by=run.state.key),
        summary=f"lift the freeze: {cause}",
    )


def _merge_queue(run: TaskRun) -> str:
    repository = run.state.project.repository
    return merge_queue_workflow_id(repository.owner, repository.name, repository.base)


async def _await_grant(run: TaskRun, kind: leases.LeaseKind, since: datetime) -> None:
    await run.take_answers()
    run.pending.clear()
    await run.wait(
        Waiting(
            on=WaitingOn.MERGE_QUEUE,
            reason=f"queued for the {kind} lease",
            since=since,
            next_check=workflow.now() + run.grace,
        )
    )


async def _give_back(run: TaskRun, lease: Lease) -> None:
    await run.call(
        leases.release_lease,
        leases.ReleaseLease(ref=run.state.ref, lease=lease),
        summary=f"release epoch {lease.epoch} of {lease.queue}",
    )
