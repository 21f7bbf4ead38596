"""Asking for a lease, waiting for it without holding any slot, and giving it back."""

import contextlib
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.contracts import leases
from workflows.lease_standing import waits_for
from workflows.lease_state import Phase, PhaseReport
from workflows.model import FreezeCause, Lease, Priority, Waiting, WaitingOn
from workflows.names import environment_workflow_id, merge_queue_workflow_id
from workflows.state import Wish
from workflows.task_run import TaskRun


def note_grant(run: TaskRun, lease: Lease) -> None:
    """Take a grant; called by the signal handler. One that nobody waits for any more is given back."""
    state = run.state_or_none
    if lease.ticket == run.wanted_ticket:
        run.granted = lease
    elif state is None or lease != state.lease:
        run.unwanted.append(lease)


def note_dropped(run: TaskRun, dropped: leases.LeaseDropped) -> None:
    """Take a person's word that this task shall not wait; called by the signal handler."""
    if dropped.ticket == run.wanted_ticket:
        run.dropped = dropped


async def acquire(run: TaskRun, kind: leases.LeaseKind) -> Lease:
    """Queue for a lease and wait for it; whom a person drops from the queue asks a person whether to queue again."""
    if kind is leases.LeaseKind.MERGE and run.state.place is None:
        run.update(place=workflow.now())
    while True:
        lease = await _queued(run, kind)
        if lease is not None:
            return lease
        dropped, run.dropped = run.dropped, None
        assert dropped is not None
        said = f": {dropped.reason}" if dropped.reason else ""
        await run.ask_human(f"dropped from the {kind} queue by {dropped.by}{said}; retry queues it again")


async def phase(run: TaskRun, lease: Lease, begins: Phase) -> None:
    """Tell the queue what the lease is used for now. A queue that has ended grants nobody else without a look at us."""
    report = PhaseReport(holder=workflow.info().workflow_id, epoch=lease.epoch, phase=begins)
    run.stop_if_told()
    with contextlib.suppress(ApplicationError):
        await workflow.get_external_workflow_handle(lease.queue).signal("phase", report)


def landing_order() -> datetime:
    """What production is given in the order of: when a task landed, of one queue one after another."""
    return workflow.now()


async def release(run: TaskRun, lease: Lease) -> None:
    """Give a lease back; it is ours until that is done, so that whoever is broken off here tries again."""
    await _give_back(run, lease)
    if run.state.lease == lease:
        run.update(lease=None)


async def release_all(run: TaskRun) -> None:
    """Give back whatever this task holds or was granted without wanting it any more, and wish for nothing."""
    if run.state.wish is not None:
        await _withdraw(run, run.state.wish)
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
    return _queue_of(run, leases.LeaseKind.MERGE)


def _queue_of(run: TaskRun, kind: leases.LeaseKind) -> str:
    repository = run.state.project.repository
    if kind is leases.LeaseKind.MERGE:
        return merge_queue_workflow_id(repository.owner, repository.name, repository.base)
    return environment_workflow_id(repository.owner, repository.name, kind)


async def _queued(run: TaskRun, kind: leases.LeaseKind) -> Lease | None:
    """Asked again at every look: the queue ignores repeats, a lost request heals. None: a person dropped the wish."""
    since, queue = workflow.now(), _queue_of(run, kind)
    wish = _wish(run, queue)
    try:
        while run.granted is None and run.dropped is None:
            if run.state.wish is None:
                wish = _wish(run, queue)  # it was withdrawn while a person was waited for
            request = _request(run, kind, wish.ticket)
            standing = await run.call(leases.request_lease, request, summary=f"queue for the {kind} lease")
            if run.granted is None and run.dropped is None:
                await _await_grant(run, waits_for(kind, standing), since)
    finally:
        run.wanted_ticket = 0
        lease, run.granted = run.granted, None
        if lease is not None:
            run.update(waiting=None, lease=lease, wish=None)
    if lease is None:
        run.update(waiting=None, wish=None)
    return lease


def _wish(run: TaskRun, queue: str) -> Wish:
    """A new wish: nothing said of an earlier one counts for it."""
    wish = Wish(queue=queue, ticket=run.next_step().step)
    run.wanted_ticket, run.dropped = wish.ticket, None
    run.update(wish=wish)
    return wish


def _request(run: TaskRun, kind: leases.LeaseKind, ticket: int) -> leases.RequestLease:
    """Production takes what has landed in the order in which it landed, whatever is urgent."""
    state = run.state
    production = kind is leases.LeaseKind.PRODUCTION
    return leases.RequestLease(
        ref=state.ref,
        kind=kind,
        repository=state.project.repository,
        ticket=ticket,
        priority=Priority.NONE if production else state.item.priority,
        place=state.landed_at if production else state.place,
    )


async def _withdraw(run: TaskRun, wish: Wish) -> None:
    await run.call(
        leases.withdraw_lease,
        leases.WithdrawLease(ref=run.state.ref, queue=wish.queue, ticket=wish.ticket),
        summary=f"leave {wish.queue}",
    )
    if run.state.wish == wish:
        run.update(wish=None)


async def _await_grant(run: TaskRun, reason: str, since: datetime) -> None:
    await run.take_answers()
    run.pending.clear()
    await run.wait(Waiting(on=WaitingOn.MERGE_QUEUE, reason=reason, since=since, next_check=workflow.now() + run.grace))


async def _give_back(run: TaskRun, lease: Lease) -> None:
    await run.call(
        leases.release_lease,
        leases.ReleaseLease(ref=run.state.ref, lease=lease),
        summary=f"release epoch {lease.epoch} of {lease.queue}",
    )
