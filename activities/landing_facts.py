"""What must hold of main and its queue while something lands, read anew each time."""

from activities.adapters.errors import Unavailable
from activities.adapters.git import Mirror
from activities.adapters.store import Store
from workflows.model import Candidate, FreezeCause, Lease, Repository


async def tip(mirror: Mirror, repository: Repository) -> str:
    """Main's tip, as fetched.

    Raises:
        Unavailable: there is no such branch.
    """
    main = await mirror.resolve(f"refs/heads/{repository.base}")
    if main is None:
        raise Unavailable(f"{repository} has no branch {repository.base}; push it to go on", ambiguous=False)
    return main


async def standing(store: Store, lease: Lease) -> str:
    """The causes that stop this holder, in words; empty if it may land. A pass names the causes that do not."""
    rows = await store.freezes.standing(lease.queue)
    return "; ".join(f"{row.cause}: {row.reason}" for row in rows if row.cause not in lease.passes)


async def rewound(store: Store, mirror: Mirror, main: str, lease: Lease, before: Candidate | None) -> str:
    """What main has lost although it was there: main was forced back or aside. Empty if it has only grown."""
    if FreezeCause.BASE_REWOUND in lease.passes:
        return ""
    landed = await store.landings.last_landed(lease.queue)
    if landed and not await contains(mirror, main, landed):
        return f"main is at {main[:10]} and no longer has {landed[:10]}, which landed last: it was forced back or aside"
    if before is None or await contains(mirror, main, before.base_sha):
        return ""
    if before.built_at and await store.landings.rewind_accepted(lease.queue, before.built_at):
        return ""
    return (
        f"main is at {main[:10]} and no longer has {before.base_sha[:10]}, its tip before: it was forced back or aside"
    )


async def contains(mirror: Mirror, main: str, sha: str) -> bool:
    """Whether main has a commit; one that is not even known any more it has not."""
    return await mirror.resolve(sha) is not None and await mirror.is_ancestor(sha, main)
