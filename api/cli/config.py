"""`orch config check|show`: what is set, where, and everything that is wrong with it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.outcome import Exit
from api.cli.output import Output

if TYPE_CHECKING:
    from deploy.configuration import Setting

app = typer.Typer(no_args_is_help=True, help="What is configured, and what is wrong with it.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
File = Annotated[Path | None, typer.Argument(metavar="[PATH]", help="A .orch/pipeline.toml or an orch.toml.")]


@app.command()
def check(path: File = None, *, as_json: Json = False) -> int:
    """Check a file, or the environment of worker and API with its orch.toml; every problem at once."""
    from deploy import configuration

    output = Output(as_json=as_json)
    if path is None:
        _take_home()
        checked = configuration.check()
    else:
        checked = configuration.check_file(path)
    ok = not checked.problems
    value: dict[str, Any] = {"ok": ok, "problems": checked.problems, "warnings": checked.warnings}
    output.data(value, *checked.problems)
    if not as_json:
        for warning in checked.warnings:
            output.note(f"warning: {warning}")
        output.note("the configuration can be used" if ok else f"{len(checked.problems)} to mend")
    return Exit.OK if ok else Exit.CONFIG


@app.command()
def show(*, as_json: Json = False) -> None:
    """Show every setting with its value, where it comes from and what it means; secrets are only `set` or `not set`."""
    from deploy import configuration

    settings = configuration.show(_take_home())
    Output(as_json=as_json).data([setting.as_json() for setting in settings], *_lines(settings))


def _lines(settings: "list[Setting]") -> list[str]:
    return [f"{one.name} = {one.value}  [{one.source}]  {one.meaning}" for one in settings]


def _take_home() -> dict[str, str]:
    """Where the environment names no database, what `orch up` left counts; the file each variable then comes from."""
    if any(key in os.environ for key in ("ORCH_DATABASE_URL", "ORCH_DATABASE_URL_FILE")):
        return {}
    from deploy.home import Home

    home = Home.at()
    values = home.environment()
    os.environ.update(values)
    return dict.fromkeys(values, str(home.env_file))
