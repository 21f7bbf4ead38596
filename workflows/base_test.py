"""Testing a red base branch again, on whichever host answers first."""

from datetime import timedelta

from temporalio.exceptions import ActivityError

from workflows.calls import call
from workflows.contracts import leases, workspaces
from workflows.model import GateOutcome, Repository
from workflows.names import base_of_queue, host_work_queue

LIMIT = timedelta(minutes=50)
PATIENCE = timedelta(hours=2)
"""After that long a host that does not answer is given up, and another one asked."""


async def run(queue: str) -> leases.BaseTested:
    """Test the base branch of a merge queue. Whatever keeps it from being tested is `unknown`, never red."""
    base = base_of_queue(queue)
    if base is None:
        return leases.BaseTested(outcome=GateOutcome.UNKNOWN, reason=f"{queue} has no base branch")
    owner, name, branch = base
    try:
        claim = await call(workspaces.claim_host, workspaces.ClaimHost(), summary="which host tests the base?")
        return await call(
            leases.test_base,
            leases.TestBase(repository=Repository(owner=owner, name=name, base=branch)),
            queue=host_work_queue(claim.host),
            summary=f"test {branch} again",
            limit=LIMIT,
            patience=PATIENCE,
        )
    except ActivityError as error:
        return leases.BaseTested(outcome=GateOutcome.UNKNOWN, reason=str(error.cause or error))
