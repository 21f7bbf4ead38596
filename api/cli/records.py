"""Reading tasks and writing acts: every SQL statement of the command line."""

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from api.cli.outcome import CliError, Exit

if TYPE_CHECKING:
    import asyncpg

    Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

Row = dict[str, Any]

_FULL_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[1-9][0-9]*")
_MANY = 8

_COLUMNS = """
    task, generation, project, title, repo, branch, stage, round, status, waiting_on, waiting_reason, waiting_since,
    next_check_at, wait_ends_at, needs_human, spec_digest, head_sha, pull_request, pull_request_url, item_url,
    landed_sha, deployed_sha, merge_gate, cost_usd, paused_since, paused_reason, started_at, updated_at, ended_at,
    outcome
"""


def pick(wanted: str, keys: list[str]) -> str:
    """The task that is meant: the key itself in any case, or the only one that begins like this.

    A whole key never means a longer one: `DEMO-1` is not `DEMO-12`.

    Raises:
        CliError: there is none, or more than one.
    """
    folded = wanted.casefold()
    exact = [key for key in keys if key.casefold() == folded]
    if exact:
        return exact[0]
    near = sorted((key for key in keys if key.casefold().startswith(folded)), key=_natural)
    shown = ", ".join(near[:_MANY]) + (" …" if len(near) > _MANY else "")
    if not near or _FULL_KEY.fullmatch(wanted):
        hint = f"did you mean {shown}?" if near else "`orch task list --all` shows every task"
        raise CliError(Exit.NOT_FOUND, f"there is no task {wanted}", hint)
    if len(near) > 1:
        raise CliError(Exit.USAGE, f"{wanted!r} may be {shown}", "give the whole key")
    return near[0]


def _natural(key: str) -> tuple[str, int]:
    project, _, number = key.rpartition("-")
    return project, int(number) if number.isdigit() else 0


async def find_task(connection: "Connection", wanted: str) -> Row:
    """The newest generation of the task that is meant.

    Raises:
        CliError: there is none, or more than one.
    """
    # Only where the beginning is right: a big installation is not read whole for one task.
    keys = await connection.fetch(
        "SELECT DISTINCT task FROM tasks WHERE starts_with(lower(task), lower($1))", wanted.strip()
    )
    key = pick(wanted.strip(), [str(row["task"]) for row in keys])
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM tasks WHERE task = $1 ORDER BY generation DESC LIMIT 1",  # noqa: S608 - our columns
        key,
    )
    assert row is not None, "tasks are never deleted"
    return dict(row)


async def list_tasks(
    connection: "Connection", stage: str | None, *, ended: bool, needs_human: bool = False
) -> list[Row]:
    """The newest generation of each task: who waits for a person first, then the longest wait."""
    rows = await connection.fetch(
        f"""
        SELECT * FROM (SELECT DISTINCT ON (task) {_COLUMNS} FROM tasks ORDER BY task, generation DESC) AS newest
        WHERE ($1::text IS NULL OR stage = $1) AND ($2 OR ended_at IS NULL)
          AND (NOT $3 OR (needs_human AND ended_at IS NULL))
        ORDER BY ended_at IS NOT NULL, NOT needs_human, coalesce(waiting_since, updated_at), task
        """,  # noqa: S608 - our columns
        stage,
        ended,
        needs_human,
    )
    return [dict(row) for row in rows]


async def timeline(connection: "Connection", task: str, generation: int, after: int = 0) -> list[Row]:
    """What happened, oldest first."""
    rows = await connection.fetch(
        """
        SELECT n, at, stage, round, text, sha, source FROM transitions
        WHERE task = $1 AND generation = $2 AND n > $3 ORDER BY n
        """,
        task,
        generation,
        after,
    )
    return [dict(row) for row in rows]


async def gates(connection: "Connection", task: str, generation: int) -> list[Row]:
    """What the gates found, in the order they were first looked at."""
    rows = await connection.fetch(
        """
        SELECT stage, round, gate, outcome, reason, sha, links, looks, first_at, last_at FROM gate_results
        WHERE task = $1 AND generation = $2 ORDER BY id
        """,
        task,
        generation,
    )
    return [dict(row) for row in rows]


async def agent_runs(connection: "Connection", task: str, generation: int) -> list[Row]:
    """The agents' runs, oldest first."""
    rows = await connection.fetch(
        """
        SELECT stage, round, attempt, role, runner, host, outcome, verdict, reason, head_sha, input_tokens,
               cache_read_tokens, cache_creation_tokens, output_tokens, cost_usd, cost_source, started_at, ended_at
        FROM agent_runs WHERE task = $1 AND generation = $2 ORDER BY started_at, attempt
        """,
        task,
        generation,
    )
    return [dict(row) for row in rows]


async def decisions(connection: "Connection", task: str, digest: str) -> list[Row]:
    """What operators have decided on a spec, earliest first."""
    rows = await connection.fetch(
        """
        SELECT act_id, act, actor, via, at FROM operator_acts
        WHERE task = $1 AND digest = $2 AND act IN ('approve', 'reject') ORDER BY at, act_id
        """,
        task,
        digest,
    )
    return [dict(row) for row in rows]


async def insert_decision(connection: "Connection", act: dict[str, str]) -> bool:
    """Put a decision on record if exactly this spec is still asked about; False if it is not.

    The task's row is locked, so that a task that moves on at the same moment either sees this act or refuses it.
    """
    status = await connection.execute(
        """
        INSERT INTO operator_acts (act_id, task, generation, act, actor, digest, reason, via)
        SELECT $1, task, generation, $3, $4, spec_digest, $6, 'orch'
        FROM tasks WHERE task = $2 AND ended_at IS NULL AND spec_digest = $5
        ORDER BY generation DESC LIMIT 1 FOR SHARE
        """,
        act["act_id"],
        act["task"],
        act["act"],
        act["actor"],
        act["digest"],
        act["reason"],
    )
    return status == "INSERT 0 1"


async def insert_act(connection: "Connection", act: dict[str, str], generation: int) -> bool:
    """Put an act on record for a generation; False if it has ended.

    The task's row is locked: a task that ends at the same moment either refuses this act or has ended before it.
    """
    status = await connection.execute(
        """
        INSERT INTO operator_acts (act_id, task, generation, act, actor, reason, via)
        SELECT $1, task, generation, $3, $4, $5, 'orch'
        FROM tasks WHERE task = $2 AND generation = $6 AND ended_at IS NULL FOR SHARE
        """,
        act["act_id"],
        act["task"],
        act["act"],
        act["actor"],
        act["reason"],
        generation,
    )
    return status == "INSERT 0 1"


async def act_outcome(connection: "Connection", act_id: str) -> str:
    """What became of an act; nothing while nobody has taken or refused it."""
    return str(await connection.fetchval("SELECT outcome FROM operator_acts WHERE act_id = $1", act_id))


async def acts(connection: "Connection", task: str, generation: int, limit: int = 10) -> list[Row]:
    """The last things people told a generation, oldest first, and what became of each."""
    rows = await connection.fetch(
        """
        SELECT act_id, at, act, actor, via, reason, digest, outcome, settled_at FROM operator_acts
        WHERE task = $1 AND generation = $2 ORDER BY at DESC, act_id LIMIT $3
        """,
        task,
        generation,
        limit,
    )
    return [dict(row) for row in reversed(rows)]
