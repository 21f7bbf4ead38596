"""`orch webhooks …`: dead and past deliveries, looked at and replayed."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from api.cli.outcome import CliError, Exit
from api.cli.output import Output

if TYPE_CHECKING:
    from api.cli.records import Connection
    from api.webhook_admin import Filter, Replay

app = typer.Typer(no_args_is_help=True, help="Look at the webhooks that came in, and replay them.")

T = TypeVar("T")

LAST_ROW = (1 << 63) - 1
_AGE = re.compile(r"(?P<n>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StatusName = Annotated[str | None, typer.Option("--status", help="new, forwarded, ignored or dead.")]
SourceName = Annotated[str | None, typer.Option("--source", help="plane or gitea.")]
Since = Annotated[str | None, typer.Option("--since", help="Received no longer ago than this: 30m, 12h, 7d.")]
RowNumber = Annotated[int, typer.Argument(min=1, max=LAST_ROW, help="The delivery's number, from `list`.")]
RowNumbers = Annotated[list[int] | None, typer.Argument(min=1, max=LAST_ROW, help="The deliveries' numbers.")]
TaskKey = Annotated[str | None, typer.Option("--task", help="Only what woke this task, such as DEMO-1.")]


def _ask(work: Callable[["Connection"], Coroutine[Any, Any, T]]) -> T:
    """Do something with the stack's database."""
    from api.cli import connect

    async def ask() -> T:
        async with connect.database(connect.stack_environment()) as connection:
            return await work(connection)

    return asyncio.run(ask())


@app.command("list")
def list_(
    *,
    status: StatusName = None,
    source: SourceName = None,
    since: Since = None,
    task: TaskKey = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Show deliveries, the newest first, and what became of each."""
    from api import webhook_admin
    from api.cli import tables

    wanted = _filter(status, source, since, task)
    rows = _ask(lambda connection: webhook_admin.list_rows(connection, wanted, limit))
    Output(as_json=as_json).data(rows, tables.webhook_list(rows))


@app.command()
def show(row: RowNumber, *, as_json: Json = False) -> None:
    """Show one delivery whole: what became of it, its headers and its body."""
    from api import webhook_admin
    from api.cli import tables

    found = _ask(lambda connection: webhook_admin.show_row(connection, row))
    if found is None:
        raise CliError(Exit.NOT_FOUND, f"there is no delivery {row}", "`orch webhooks list` shows them")
    Output(as_json=as_json).data(found, *tables.webhook_details(found))


@app.command()
def replay(
    rows: RowNumbers = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead delivery.")] = False,
    source: SourceName = None,
    since: Since = None,
    by: Annotated[str | None, typer.Option("--by", help="Who does it (default: the user of this system).")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    as_json: Json = False,
) -> int:
    """Let deliveries wake their tasks again. That changes when a task looks, never what it finds."""
    from api import webhook_admin
    from api.cli import acts

    if bool(rows) == dead:
        raise CliError(
            Exit.USAGE, "say which deliveries: their numbers, or --dead", "`orch webhooks list --status dead`"
        )
    if rows and (source or since):
        raise CliError(Exit.USAGE, "--source and --since go with --dead", "leave them out, or the numbers")
    wanted = _filter("dead", source, since, None)
    actor = acts.operator(by)

    async def work(connection: "Connection") -> "Replay":
        ids = rows or await webhook_admin.matching(connection, wanted)
        return await webhook_admin.replay(connection, ids, actor=actor, reason=reason)

    done = _ask(work)
    output = Output(as_json=as_json)
    output.data(done.model_dump(), f"replayed: {_numbers(done.replayed) or 'none'}")
    if done.busy:
        output.note(f"{_numbers(done.busy)}: being forwarded at this moment")
    if done.missing:
        output.note(f"{_numbers(done.missing)}: there is no such delivery")
    return Exit.NOT_FOUND if done.missing else Exit.CONFLICT if done.busy else Exit.OK


def _numbers(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids))


def _filter(status: str | None, source: str | None, since: str | None, task: str | None) -> "Filter":
    from datetime import timedelta

    from api.inbox import Source, Status
    from api.webhook_admin import Filter

    for option, word, known in (("--status", status, list(Status)), ("--source", source, list(Source))):
        if word is not None and word not in known:
            raise CliError(Exit.USAGE, f"{option}: there is no {word!r}", f"there are: {', '.join(known)}")
    age = _AGE.fullmatch(since) if since is not None else None
    if since is not None and age is None:
        raise CliError(Exit.USAGE, f"--since: {since!r} is no age", "write a number and s, m, h or d: 30m, 12h, 7d")
    return Filter(
        status=Status(status) if status else None,
        source=Source(source) if source else None,
        task=task,
        since=timedelta(**{_UNITS[age["unit"]]: int(age["n"])}) if age else None,
    )
