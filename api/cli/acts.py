"""What a person tells a task.

Decisions are on record in PostgreSQL before Temporal is told. Everything else is an update of the workflow and needs a
worker: workflows read no other rows.
"""

import asyncio
import getpass
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from api.cli import connect, records, wording
from api.cli.outcome import CliError, Exit

if TYPE_CHECKING:
    from api.cli.records import Connection, Row

HINT_SECONDS = 8.0
UPDATE_SECONDS = 10.0
_LATER = "on record, and it counts; Temporal cannot be reached now ({}), so it takes effect later"
_NOTHING_DONE = "nothing was recorded; when it answers again, say it again"


def operator(by: str | None) -> str:
    """Who acts: the name given, else the user of this system."""
    name = (by or "").strip()
    if name:
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise CliError(Exit.USAGE, "this system does not say who you are", "say it: --by NAME") from error


async def decide(
    environment: Mapping[str, str], act: str, key: str, *, digest: str | None, reason: str, actor: str
) -> dict[str, Any]:
    """Approve or reject the spec that is asked about.

    Raises:
        CliError: nothing is asked, or about another spec, or it is decided otherwise.
    """
    async with connect.database(environment) as connection:
        row = await records.find_task(connection, key)
        asked = _asked(row, act, digest)
        answer = await _earlier(connection, row, act, asked)
        if answer is None:
            answer = {"act_id": str(uuid.uuid4()), "task": row["task"], "act": act, "actor": actor,
                      "digest": asked, "reason": reason}  # fmt: skip
            if not await records.insert_decision(connection, answer):
                fresh = await records.find_task(connection, str(row["task"]))
                _asked(fresh, act, asked)
                raise CliError(Exit.CONFLICT, f"{row['task']} moved on meanwhile", wording.why(fresh))
    told = await _hint(environment, str(row["task"]))
    spec = wording.spec_link(gitea_address(environment), row)
    return {**answer, "title": row["title"], "spec": spec, "told": not told, "note": told}


def _asked(row: "Row", act: str, digest: str | None) -> str:
    """The digest that is decided on, if it is the one asked about."""
    task, current = row["task"], str(row["spec_digest"])
    if row["ended_at"] is not None or not current:
        raise CliError(
            Exit.CONFLICT,
            f"there is nothing to {act}: {wording.why(row)}",
            "an ended task starts anew when its item is moved to In Progress"
            if row["ended_at"] is not None
            else "a decision is asked for when the analyst has written a spec",
        )
    if digest is not None and digest.strip() != current:
        raise CliError(
            Exit.CONFLICT,
            f"{task} asks about the spec with digest {current}, not {digest}",
            f"read the spec again, then: orch task {act} {task} --digest {current}",
        )
    return current


async def _earlier(connection: "Connection", row: "Row", act: str, digest: str) -> dict[str, Any] | None:
    """The same decision taken before by an operator: the earliest counts, another row would only be noise."""
    known = await records.decisions(connection, str(row["task"]), digest)
    if not known:
        return None
    first = known[0]
    if first["act"] != act:
        raise CliError(
            Exit.CONFLICT,
            f"{first['actor']} has said {first['act']} to this spec by {first['via']} at {first['at']:%H:%M:%S}Z",
            "the earliest decision counts; `orch task why` says what becomes of it",
        )
    return {"act_id": first["act_id"], "task": row["task"], "act": act, "actor": first["actor"],
            "digest": digest, "repeated": True}  # fmt: skip


async def _hint(environment: Mapping[str, str], task: str) -> str:
    """Wake the task; why that was not possible, or nothing. The decision stands either way."""
    from temporalio.service import RPCError, RPCStatusCode

    from workflows.hints import Hint, Source, Topic
    from workflows.names import task_workflow_id

    hint = Hint(topic=Topic.DECISION, source=Source.OPERATOR)
    try:
        async with asyncio.timeout(HINT_SECONDS):
            client = await connect.temporal(environment)
            handle = client.get_workflow_handle(task_workflow_id(task))
            await handle.signal("hint", hint, rpc_timeout=connect.RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return "on record, but Temporal knows no running workflow of this task"
        return _LATER.format(error.status.name)
    except TimeoutError:
        return _LATER.format(f"no answer within {HINT_SECONDS:.0f} s")
    except (RuntimeError, OSError) as error:  # the SDK's word for a refused connection
        return _LATER.format(_cause(error))
    except CliError as error:
        return _LATER.format(error.message)
    return ""


async def running(environment: Mapping[str, str], act: str, key: str) -> "Row":
    """The task that is to be told something.

    Raises:
        CliError: there is none, or it has ended.
    """
    async with connect.database(environment) as connection:
        row = await records.find_task(connection, key)
    if row["ended_at"] is not None:
        raise CliError(Exit.CONFLICT, f"there is nothing to {act}: {wording.why(row)}", "move its item to In Progress")
    return row


async def tell(environment: Mapping[str, str], act: str, row: "Row", *, reason: str, actor: str) -> dict[str, Any]:
    """Tell a task by an update: retry, pause, and so on. No row stands for it until the workflow has taken it.

    Raises:
        CliError: the task refuses it, or nobody answers.
    """
    from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
    from temporalio.service import RPCError, RPCStatusCode

    from workflows.interface import OperatorCommand
    from workflows.names import task_workflow_id

    task, act_id = str(row["task"]), str(uuid.uuid4())
    client = await connect.temporal(environment)
    command = OperatorCommand(by=actor, reason=reason, act_id=act_id)
    try:
        async with asyncio.timeout(UPDATE_SECONDS):
            handle = client.get_workflow_handle(task_workflow_id(task))
            said = await handle.execute_update(act, command, id=act_id, result_type=str)
    except WorkflowUpdateFailedError as error:
        refused = getattr(error.cause, "message", None) or str(error.cause)
        raise CliError(Exit.CONFLICT, refused, f"orch task why {task}") from error
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise CliError(
            Exit.UNREACHABLE,
            f"no worker took the {act} of {task} within {UPDATE_SECONDS:.0f} s; nothing was recorded",
            f"a worker that comes back may still be given it: see `orch task why {task}`, else say it again",
        ) from error
    except (RuntimeError, OSError) as error:
        raise CliError(Exit.UNREACHABLE, f"Temporal cannot be reached: {_cause(error)}", _NOTHING_DONE) from error
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise CliError(Exit.CONFLICT, f"Temporal runs no workflow of {task}", wording.why(row)) from error
        raise CliError(Exit.UNREACHABLE, f"Temporal cannot be reached: {error.message}", _NOTHING_DONE) from error
    return {"act_id": act_id, "task": task, "act": act, "actor": actor, "reason": reason, "answer": said}


def _cause(error: BaseException) -> str:
    """What the SDK says, without the names of its own types around it."""
    found = re.search(r'message: "([^"]+)"', str(error))
    return found[1] if found else str(error).partition(":")[0]


def gitea_address(environment: Mapping[str, str]) -> str:
    """Gitea's public address from `orch.toml`, or nothing where that cannot be read: only links need it."""
    import tomllib
    from pathlib import Path

    try:
        with Path(environment["ORCH_CONFIG"]).open("rb") as file:
            return str(tomllib.load(file).get("gitea_public_url", ""))
    except (KeyError, OSError, tomllib.TOMLDecodeError):
        return ""
