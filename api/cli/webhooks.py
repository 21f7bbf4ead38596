"""`orch webhooks …`: dead and past deliveries. Stands alone: mount `app` with the name `webhooks`."""

import asyncio
import contextlib
import getpass
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer

if TYPE_CHECKING:
    from api.webhook_admin import Connection, Filter

app = typer.Typer(no_args_is_help=True, help="Look at the webhooks that came in, and replay them.")

T = TypeVar("T")

USAGE, NOT_FOUND, CONFLICT, UNREACHABLE, CONFIG = 2, 3, 6, 7, 78
"""Exit codes, as everywhere in `orch`."""

CONNECT_SECONDS = 5.0
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

    wanted = _filter(status, source, since, task, as_json=as_json)
    rows = _ask(lambda connection: webhook_admin.list_rows(connection, wanted, limit), as_json=as_json)
    if as_json:
        _document(rows)
        return
    if not rows:
        sys.stdout.write("No delivery matches.\n")
    for row in rows:
        about = " ".join(filter(None, (row["task"], row["reason"])))
        when = f"{row['last_received_at']:%Y-%m-%d %H:%M:%S}Z"
        sys.stdout.write(
            _clean(f"{row['id']:>7}  {when}  {row['source']:<5}  {row['status']:<9}  {row['event']:<28}  {about}")
        )


@app.command()
def show(row: RowNumber, *, as_json: Json = False) -> None:
    """Show one delivery whole: what became of it, its headers and its body."""
    from api import webhook_admin

    found = _ask(lambda connection: webhook_admin.show_row(connection, row), as_json=as_json)
    if found is None:
        _fail(NOT_FOUND, f"there is no delivery {row}", "`orch webhooks list` shows them", as_json=as_json)
    if as_json:
        _document(found)
        return
    for name in ("id", "source", "event", "status", "reason", "task", "times_received", "attempts",
                 "received_at", "last_received_at", "next_attempt_at", "settled_at", "bytes"):  # fmt: skip
        sys.stdout.write(_clean(f"{name:<17} {found[name] if found[name] is not None else ''}"))
    for name in ("headers", "body"):
        text = found[name] if isinstance(found[name], str) else json.dumps(found[name], indent=2, ensure_ascii=False)
        sys.stdout.write(f"\n{name}:\n" + "".join(_clean(line) for line in text.split("\n")))


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
) -> None:
    """Let deliveries wake their tasks again. That changes when a task looks, never what it finds."""
    from api import webhook_admin

    if bool(rows) == dead:
        _fail(
            USAGE,
            "say which deliveries: their numbers, or --dead",
            "`orch webhooks list --status dead`",
            as_json=as_json,
        )
    if rows and (source or since):
        _fail(USAGE, "--source and --since go with --dead", "", as_json=as_json)
    wanted = _filter("dead", source, since, None, as_json=as_json)
    actor = (by or "").strip() or getpass.getuser()

    async def work(connection: "Connection") -> webhook_admin.Replay:
        ids = rows or await webhook_admin.matching(connection, wanted)
        return await webhook_admin.replay(connection, ids, actor=actor, reason=reason)

    done = _ask(work, as_json=as_json)
    if as_json:
        _document(done.model_dump())
    else:
        sys.stdout.write(f"replayed: {', '.join(map(str, done.replayed)) or 'none'}\n")
    for ids, why in ((done.busy, "being forwarded at this moment"), (done.missing, "there is no such delivery")):
        if ids and not as_json:
            sys.stderr.write(f"{', '.join(map(str, ids))}: {why}\n")
    if done.missing or done.busy:
        raise typer.Exit(NOT_FOUND if done.missing else CONFLICT)


def _filter(status: str | None, source: str | None, since: str | None, task: str | None, *, as_json: bool) -> "Filter":
    from api.inbox import Source, Status
    from api.webhook_admin import Filter

    for word, known in ((status, list(Status)), (source, list(Source))):
        if word is not None and word not in known:
            _fail(USAGE, f"{word!r} is none of {', '.join(known)}", "", as_json=as_json)
    age = _AGE.fullmatch(since) if since is not None else None
    if since is not None and age is None:
        _fail(USAGE, f"{since!r} is no age", "write a number and s, m, h or d: 30m, 12h, 7d", as_json=as_json)
    return Filter(
        status=Status(status) if status else None,
        source=Source(source) if source else None,
        task=task,
        since=timedelta(**{_UNITS[age["unit"]]: int(age["n"])}) if age else None,
    )


def _ask(work: Callable[["Connection"], Coroutine[Any, Any, T]], *, as_json: bool) -> T:
    """Do something with the database, or end with the exit code its trouble means."""
    import asyncpg

    url = _database_url(as_json=as_json)

    @contextlib.asynccontextmanager
    async def connected() -> AsyncIterator["Connection"]:
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, command_timeout=30)
        except ValueError:  # not passed on: it may quote the password
            _fail(CONFIG, "ORCH_DATABASE_URL is not an address of PostgreSQL", "", as_json=as_json)
        try:
            yield connection
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError):
                await connection.close(timeout=2)

    async def ask() -> T:
        async with connected() as connection:
            return await work(connection)

    try:
        return asyncio.run(ask())
    except asyncpg.UndefinedTableError as error:
        _fail(CONFIG, f"the database is not migrated: {error}", "start Orch on it once", as_json=as_json)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _fail(UNREACHABLE, f"PostgreSQL cannot be asked: {str(error) or type(error).__name__}", "", as_json=as_json)


def _database_url(*, as_json: bool) -> str:
    file = os.environ.get("ORCH_DATABASE_URL_FILE")
    try:
        url = Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get("ORCH_DATABASE_URL", "")
    except (OSError, UnicodeDecodeError):
        _fail(CONFIG, f"ORCH_DATABASE_URL_FILE: {file} cannot be read", "name a readable file", as_json=as_json)
    if not url:
        _fail(CONFIG, "ORCH_DATABASE_URL is not set", "set it to the address of Orch's PostgreSQL", as_json=as_json)
    return url


def _fail(code: int, message: str, hint: str, *, as_json: bool) -> NoReturn:
    words = {USAGE: "usage", NOT_FOUND: "not_found", CONFLICT: "conflict", UNREACHABLE: "unreachable", CONFIG: "config"}
    if as_json:
        _document({"code": words[code], "message": message, "hint": hint})
    else:
        sys.stderr.write(f"orch: {message}\n" + (f"      {hint}\n" if hint else ""))
    raise typer.Exit(code)


def _document(value: object) -> None:
    def plain(part: object) -> str:
        if isinstance(part, datetime):
            return part.isoformat()
        if isinstance(part, UUID):
            return str(part)
        raise TypeError(f"{type(part).__name__} has no JSON form")

    text = json.dumps(value, default=plain, ensure_ascii=False)
    # Half a surrogate pair, which JSON of a sender may hold, stays the escape it was.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def _clean(line: str) -> str:
    """One line for a terminal: what senders wrote must not steer it."""
    return "".join(character if character.isprintable() else "?" for character in line).rstrip() + "\n"
