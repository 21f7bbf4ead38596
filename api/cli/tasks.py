"""`orch task …`: looking at tasks and deciding on them."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from api.cli.output import Output

app = typer.Typer(no_args_is_help=True, help="Look at tasks and decide on them.")

T = TypeVar("T")

Key = Annotated[str, typer.Argument(help="The task's key, such as DEMO-1, or the beginning of it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; agents and people read it.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides (default: the user of this system).")]
Digest = Annotated[str | None, typer.Option("--digest", help="Decide only if exactly this spec is asked about.")]
StageName = Annotated[str | None, typer.Option("--stage", help="Only tasks in this stage.")]


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@app.command("list")
def list_(
    *,
    stage: StageName = None,
    everything: Annotated[bool, typer.Option("--all", help="Also tasks that have ended.")] = False,
    needs_human: Annotated[bool, typer.Option("--needs-human", help="Only tasks that wait for a person.")] = False,
    as_json: Json = False,
) -> None:
    """Show tasks: stage, what they wait for, since when, cost."""
    from datetime import UTC, datetime

    from api.cli import connect, records, tables
    from api.cli.outcome import CliError, Exit
    from workflows.model import Stage

    if stage is not None and stage not in set(Stage):
        raise CliError(Exit.USAGE, f"there is no stage {stage}", f"stages: {', '.join(Stage)}")

    async def read() -> list[records.Row]:
        async with connect.database(connect.stack_environment()) as connection:
            return await records.list_tasks(connection, stage, ended=everything, needs_human=needs_human)

    rows = _run(read())
    output = Output(as_json=as_json)
    if as_json:
        output.data(rows)
    else:
        output.data(rows, tables.task_list(rows, datetime.now(UTC)))


@app.command()
def show(key: Key, *, as_json: Json = False) -> None:
    """Show one task: where it stands, what happened, what gates and agents said."""
    from api.cli import acts, connect, records, tables, wording
    from workflows.names import NAMESPACE

    environment = connect.stack_environment()

    async def read() -> tuple[records.Row, list[list[records.Row]]]:
        async with connect.database(environment) as connection:
            row = await records.find_task(connection, key)
            parts = (records.timeline, records.gates, records.agent_runs, records.acts)
            return row, [await part(connection, row["task"], row["generation"]) for part in parts]

    row, (lines, gates, runs, told) = _run(read())
    gitea = acts.gitea_address(environment)
    namespace = environment.get("TEMPORAL_NAMESPACE", NAMESPACE)
    links = {
        "item": row["item_url"],
        "pull request": row["pull_request_url"],
        "spec": wording.spec_link(gitea, row) if row["spec_digest"] else "",
        "temporal": wording.temporal_link(environment.get("ORCH_TEMPORAL_UI_URL", ""), namespace, row["task"]),
    }
    links = {name: link for name, link in links.items() if link}
    value = {**row, "why": wording.why(row), "links": links, "timeline": lines, "gates": gates, "agent_runs": runs,
             "acts": told}  # fmt: skip
    output = Output(as_json=as_json)
    output.data(value, tables.task_details(row, lines, gates, runs, links, acts=told, gitea=gitea))


@app.command()
def why(key: Key, *, as_json: Json = False) -> None:
    """Say in one sentence what a task does or waits for."""
    from api.cli import connect, records, wording

    async def read() -> records.Row:
        async with connect.database(connect.stack_environment()) as connection:
            return await records.find_task(connection, key)

    row = _run(read())
    output = Output(as_json=as_json)
    output.data({"task": row["task"], "why": wording.why(row)}, wording.why(row))
    if not as_json and (step := wording.next_step(row)):
        output.note(step)


@app.command()
def approve(key: Key, *, digest: Digest = None, reason: Reason = "", by: By = None, as_json: Json = False) -> None:
    """Approve the spec that is asked about."""
    _decide("approve", key, digest, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def reject(key: Key, *, digest: Digest = None, reason: Reason = "", by: By = None, as_json: Json = False) -> None:
    """Reject the spec that is asked about; the analyst reads the reason and writes another."""
    output = Output(as_json=as_json)
    if not reason:
        output.note("no --reason: the analyst will not know what to change")
    _decide("reject", key, digest, reason=reason, by=by, output=output)


def _decide(act: str, key: str, digest: str | None, *, reason: str, by: str | None, output: Output) -> None:
    from api.cli import acts, connect, wording

    environment = connect.stack_environment()
    answer = _run(acts.decide(environment, act, key, digest=digest, reason=reason, actor=acts.operator(by)))
    done = {"approve": "approved", "reject": "rejected"}[act]
    again = " (already on record)" if answer.get("repeated") else ""
    lines = [f"{answer['task']}: spec {answer['digest']} {done} by {wording.clean(answer['actor'])}{again}"]
    if digest is None:
        lines += [f"  {wording.clean(answer['title'])}", f"  {answer['spec']}" if answer["spec"] else ""]
    output.data(answer, *filter(None, lines))
    output.note(answer["note"] or wording.afterwards(act, answer["task"]))


@app.command()
def retry(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> int:
    """Try again what a task needs a person for."""
    return _tell("retry", key, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def rollback(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> int:
    """Bring back what production served before a task's deployment failed."""
    return _tell("rollback", key, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def accept(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> int:
    """Take production as it is after a task's deployment failed; the task ends and others go on."""
    return _tell("accept", key, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def pause(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> int:
    """Let a task stand still until `resume`; its agent is stopped and its round played again."""
    return _tell("pause", key, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def resume(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> int:
    """Let a paused task go on, whoever or whatever paused it."""
    return _tell("resume", key, reason=reason, by=by, output=Output(as_json=as_json))


@app.command()
def cancel(
    key: Key,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: Reason = "",
    by: By = None,
    as_json: Json = False,
) -> int:
    """End a task: cancelled, or landed and not deployed if it has landed. Asks first."""
    from api.cli import acts, connect, wording
    from api.cli.outcome import CliError, Exit

    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CliError(
            Exit.USAGE, "cancelling asks first, and there is no terminal to ask on", "say --yes to cancel unasked"
        )
    environment, output = connect.stack_environment(), Output(as_json=as_json)
    row = _run(acts.running(environment, "cancel", key))
    if not yes:
        output.note(wording.cancelling(row))
        if not typer.confirm(f"Cancel {row['task']}?", err=True):
            raise CliError(Exit.FAILED, f"{row['task']} was not cancelled: you did not want it", "nothing was changed")
    answer = _run(acts.tell(environment, "cancel", row, reason=reason, actor=acts.operator(by)))
    return _said({**answer, "ends_as": wording.cancelled_as(row)}, output)


def _tell(act: str, key: str, *, reason: str, by: str | None, output: Output) -> int:
    from api.cli import acts, connect

    environment, actor = connect.stack_environment(), acts.operator(by)
    row = _run(acts.running(environment, act, key))
    return _said(_run(acts.tell(environment, act, row, reason=reason, actor=actor)), output)


def _said(answer: dict[str, Any], output: Output) -> int:
    """Show what became of an act; the exit code."""
    from api.cli import wording
    from api.cli.outcome import Exit

    taken = bool(answer["outcome"])
    said = f"{answer['act']} by {wording.clean(answer['actor'])} {'taken' if taken else 'recorded'}"
    output.data(answer, f"{answer['task']}: {said}", *([f"  {answer['why']}"] if taken else []))
    if note := answer["note"] or wording.afterwards(answer["act"], answer["task"]):
        output.note(note)
    return Exit.OK if taken else Exit.PENDING
