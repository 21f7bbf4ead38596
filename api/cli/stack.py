"""`orch up`, `orch down`, `orch worker`, `orch api`: what runs."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.outcome import CliError, Exit
from api.cli.output import Output

if TYPE_CHECKING:
    from deploy.status import StackStatus

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def up(*, as_json: Json = False) -> None:
    """Start the embedded stack in ORCH_HOME, or say that it runs."""
    from deploy.embedded import EmbeddedStack
    from deploy.errors import StackError

    output = Output(as_json=as_json)
    try:
        status = asyncio.run(EmbeddedStack().up(progress=output.note))
    except StackError as error:
        raise CliError(Exit.FAILED, str(error)) from error
    output.data(_as_data(status), *_lines(status))
    for note in status.notes:
        output.note(f"note: {note}")


def down(*, as_json: Json = False) -> None:
    """Stop the embedded stack in ORCH_HOME; its data stay."""
    from deploy.embedded import EmbeddedStack
    from deploy.errors import StackError

    stack = EmbeddedStack()
    try:
        stopped = asyncio.run(stack.down())
    except StackError as error:
        raise CliError(Exit.FAILED, str(error)) from error
    value = {"home": str(stack.home.root), "was_running": stopped.was_running, "leftovers": list(stopped.leftovers)}
    what = "stopped; the data stay in" if stopped.was_running or stopped.leftovers else "nothing was running in"
    output = Output(as_json=as_json)
    output.data(value, f"{what} {stack.home.root}")
    if stopped.leftovers:
        output.note(f"had to be ended: {', '.join(stopped.leftovers)}")


def worker() -> None:
    """Run a worker until it is told to stop; its log is JSON lines."""
    _take_environment("worker")
    import worker as composition

    composition.main()


def api() -> None:
    """Run the API until it is told to stop; its log is JSON lines."""
    _take_environment("api")
    from api.__main__ import main

    main()


def _take_environment(name: str) -> None:
    """Where nothing is configured, use the embedded stack of the home, with the secrets of this service only."""
    from deploy.configuration import warnings

    for warning in warnings(os.environ):
        sys.stderr.write(f"orch {name}: warning: {warning}\n")
    if any(key in os.environ for key in ("ORCH_DATABASE_URL", "ORCH_DATABASE_URL_FILE")):
        return
    from deploy import environment
    from deploy.home import Home

    values = Home.at().environment()
    if values:
        sys.stderr.write(f"using the stack in {values.get('ORCH_HOME', '?')}\n")
        os.environ.update(environment.for_service(name, values, {}))


def _as_data(status: "StackStatus") -> dict[str, Any]:
    return {
        "home": str(status.home),
        "phase": str(status.phase),
        "urls": status.urls,
        "services": [
            {"name": service.name, "phase": str(service.phase), "pid": service.pid, "restarts": service.restarts}
            for service in status.services
        ],
        "notes": list(status.notes),
    }


def _lines(status: "StackStatus") -> list[str]:
    named = [f"  {name.replace('_', ' '):<12}{url}" for name, url in sorted(status.urls.items())]
    return [f"the stack runs in {status.home}", *named, "stop it with `orch down`"]
