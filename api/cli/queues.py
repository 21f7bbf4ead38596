"""Merge queues from the command line: their rows, what they say of themselves, and freezes.

A freeze is a row before the queue is told, so it holds with no worker and no Temporal. Waiting, order and passes are
the queue's own: they need a worker.
"""

import asyncio
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli import acts, connect
from api.cli.outcome import CliError, Exit
from workflows.lease_standing import WHO_LIFTS
from workflows.lease_state import QueueState
from workflows.model import FreezeCause, Repository
from workflows.names import SHARED_QUEUE, merge_queue_workflow_id, task_key_of
from workflows.policy import merge_gate_off
from workflows.projects import OrchConfig, parse_orch_toml

if TYPE_CHECKING:
    from api.cli.records import Connection, Row

SECONDS = 5.0
"""How long the queue may take to answer, or Temporal to be told of a freeze."""
_ANNOUNCE = "INSERT INTO notifications (intent_key, task, text) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


def find_repository(environment: Mapping[str, str], wanted: str | None, base: str | None) -> Repository:
    """The repository that is meant: the one named, or the only one that is configured.

    Raises:
        CliError: it is not named and not the only one, or the name is none.
    """
    known = _configured(environment)
    if wanted is None:
        if len(known) == 1:
            found = known[0]
            return found.model_copy(update={"base": base}) if base else found
        names = ", ".join(sorted(str(repository) for repository in known))
        why = f"several repositories are configured: {names}" if known else "no repository can be read from orch.toml"
        raise CliError(Exit.USAGE, why, "name it: OWNER/REPOSITORY")
    owner, slash, name = wanted.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise CliError(Exit.USAGE, f"{wanted!r} is no repository", "name it as Gitea does: OWNER/REPOSITORY")
    configured = next((repository for repository in known if str(repository) == wanted), None)
    return Repository(owner=owner, name=name, base=base or (configured.base if configured else "main"))


def _configured(environment: Mapping[str, str]) -> list[Repository]:
    """Each repository of `orch.toml` once; none where that cannot be read."""
    config = _config(environment)
    found = {project.repository for project in config.projects.values()} if config else set()
    return sorted(found, key=str)


def _config(environment: Mapping[str, str]) -> OrchConfig | None:
    try:
        text = Path(environment["ORCH_CONFIG"]).read_text(encoding="utf-8")
    except (KeyError, OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    return parse_orch_toml(text, environment["ORCH_CONFIG"])[0]


def queue_of(repository: Repository) -> str:
    """The workflow id of a repository's merge queue."""
    return merge_queue_workflow_id(repository.owner, repository.name, repository.base)


def gate_note(environment: Mapping[str, str], repository: Repository) -> str:
    """Where the merge gate is off for a repository as far as the environment says; empty where it is on."""
    enabled = environment.get("ORCH_MERGE_GATE_ENABLED", "true").strip().lower() not in {"false", "0", "no", "off"}
    names = environment.get("ORCH_MERGE_GATE_REPOS", "")
    return merge_gate_off(repository, enabled=enabled, repositories=names, policy=True)


async def show(environment: Mapping[str, str], repository: Repository) -> dict[str, Any]:
    """A merge queue: holder and freezes from the rows, order and phase from the queue itself if it answers."""
    queue = queue_of(repository)
    async with connect.database(environment) as connection:
        lease, freezes = await _open_lease(connection, queue), await standing(connection, queue)
        waiting = await _waiting_rows(connection, repository)
    state, note = await _ask(environment, queue)
    return {
        "queue": queue,
        "repository": str(repository),
        "base": repository.base,
        "gate": gate_note(environment, repository),
        "holder": _holder(lease, state),
        "waiting": waiting if state is None else _waiting(state),
        "freezes": [{**row, "who_may_lift": _who_lifts(row["cause"])} for row in freezes],
        "passes": [given.model_dump(mode="json") for given in state.passes] if state else [],
        "base_test_at": state.base_test_at if state else None,
        "note": note,
    }


def _holder(lease: "Row | None", state: QueueState | None) -> dict[str, Any] | None:
    """The row says who; the queue, if it answers and means the same epoch, what it does."""
    if lease is None:
        return None
    holding = state.holding if state else None
    same = holding if holding and holding.epoch == lease["epoch"] else None
    return {
        "task": task_key_of(lease["holder"]) or lease["holder"],
        "generation": lease["generation"],
        "epoch": lease["epoch"],
        "since": lease["granted_at"],
        "phase": same.phase if same else None,
        "phase_since": same.since if same else None,
        "phase_deadline": same.deadline if same else None,
        "passes": list(same.passes) if same else [],
        "landing": lease["landing"],
    }


def _waiting(state: QueueState) -> list[dict[str, Any]]:
    return [
        {
            "position": position,
            "task": request.task,
            "priority": request.priority,
            "since": request.place or request.at,
        }
        for position, request in enumerate(state.waiting, 1)
    ]


def _who_lifts(cause: str) -> str:
    return WHO_LIFTS[FreezeCause(cause)] if cause in set(FreezeCause) else "a person"


async def _ask(environment: Mapping[str, str], queue: str) -> tuple[QueueState | None, str]:
    """What the queue says of itself, or why it does not."""
    from temporalio.client import WorkflowQueryFailedError
    from temporalio.service import RPCError, RPCStatusCode

    try:
        async with asyncio.timeout(SECONDS):
            client = await connect.temporal(environment)
            handle = client.get_workflow_handle(queue)
            return await handle.query("show", result_type=QueueState, rpc_timeout=connect.RPC_TIMEOUT), ""
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return QueueState(), ""
        return None, f"no worker answers for the queue ({error.status.name}); order and phase are not known"
    except (TimeoutError, WorkflowQueryFailedError):
        return None, f"no worker answers for the queue within {SECONDS:.0f} s; order and phase are not known"
    except (RuntimeError, OSError) as error:
        return None, f"Temporal cannot be reached ({acts.cause_of(error)}); order and phase are not known"
    except CliError as error:
        return None, f"{error.message}; order and phase are not known"


async def freeze(environment: Mapping[str, str], repository: Repository, *, reason: str, actor: str) -> dict[str, Any]:
    """Write the row, then wake the queue; a freeze that stands gets the newer reason."""
    queue, cause = queue_of(repository), FreezeCause.OPERATOR
    async with connect.database(environment) as connection, connection.transaction():
        row_id = await connection.fetchval(
            """
            INSERT INTO freezes (queue, cause, reason, by_whom) VALUES ($1, $2, $3, $4)
            ON CONFLICT (queue, cause) WHERE lifted_at IS NULL DO UPDATE SET reason = $3 RETURNING id
            """,
            queue,
            cause,
            reason,
            actor,
        )
        await connection.execute(
            _ANNOUNCE, f"freeze/{row_id}", queue, f"{queue} is frozen by {actor}: {cause} ({reason})"
        )
    note = await _wake(environment, queue)
    return {"queue": queue, "cause": cause, "by": actor, "reason": reason, "told": not note, "note": note}


async def unfreeze(
    environment: Mapping[str, str], repository: Repository, *, cause: str, reason: str, actor: str
) -> dict[str, Any]:
    """Settle the row, then wake the queue.

    Raises:
        CliError: the cause does not stand.
    """
    queue = queue_of(repository)
    async with connect.database(environment) as connection, connection.transaction():
        row_id = await connection.fetchval(
            """
            UPDATE freezes SET lifted_at = now(), lifted_by = $4, lifted_reason = $3
            WHERE queue = $1 AND cause = $2 AND lifted_at IS NULL RETURNING id
            """,
            queue,
            cause,
            reason,
            actor,
        )
        if row_id is None:
            causes = [row["cause"] for row in await standing(connection, queue)]
            raise CliError(
                Exit.CONFLICT,
                f"{queue} is not frozen for: {cause}",
                f"what stands is lifted with --cause '{causes[0]}'" if causes else "it is not frozen at all",
            )
        said = f"{queue}: {actor} lifted {cause} ({reason})"
        await connection.execute(_ANNOUNCE, f"freeze/{row_id}/lifted", queue, said)
        left = [row["cause"] for row in await standing(connection, queue)]
    note = await _wake(environment, queue)
    return {
        "queue": queue,
        "cause": cause,
        "by": actor,
        "reason": reason,
        "still": left,
        "told": not note,
        "note": note,
    }


async def _wake(environment: Mapping[str, str], queue: str) -> str:
    """Let the queue read its rows, starting it if needed; why that was not possible, or nothing."""
    from temporalio.common import WorkflowIDConflictPolicy
    from temporalio.service import RPCError

    later = "on record, and it counts for every landing; the queue could not be told ({}) and reads it at its next look"
    try:
        async with asyncio.timeout(SECONDS):
            client = await connect.temporal(environment)
            await client.start_workflow(
                "MergeQueueWorkflow",
                {},
                id=queue,
                task_queue=SHARED_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="refresh",
                rpc_timeout=connect.RPC_TIMEOUT,
            )
    except RPCError as error:
        return later.format(error.status.name)
    except TimeoutError:
        return later.format(f"no answer within {SECONDS:.0f} s")
    except (RuntimeError, OSError) as error:
        return later.format(acts.cause_of(error))
    except CliError as error:
        return later.format(error.message)
    return ""


async def standing(connection: "Connection", queue: str) -> "list[Row]":
    """The causes that stand, oldest first."""
    rows = await connection.fetch(
        """
        SELECT cause, reason, since, by_whom AS by FROM freezes
        WHERE queue = $1 AND lifted_at IS NULL ORDER BY since, id
        """,
        queue,
    )
    return [dict(row) for row in rows]


async def _open_lease(connection: "Connection", queue: str) -> "Row | None":
    row = await connection.fetchrow(
        """
        SELECT holder, generation, epoch, granted_at,
               (SELECT status FROM merge_landings WHERE merge_landings.epoch = leases.epoch
                ORDER BY opened_at DESC LIMIT 1) AS landing
        FROM leases WHERE queue = $1 AND released_at IS NULL
        """,
        queue,
    )
    return dict(row) if row else None


async def _waiting_rows(connection: "Connection", repository: Repository) -> "list[Row]":
    """Who waits as the tasks last said it; the order is the queue's own."""
    rows = await connection.fetch(
        """
        SELECT task, waiting_since AS since, waiting_reason AS reason FROM tasks
        WHERE repo = $1 AND waiting_on = 'merge queue' AND ended_at IS NULL
        ORDER BY waiting_since, task
        """,
        str(repository),
    )
    return [{"position": None, **dict(row)} for row in rows]
