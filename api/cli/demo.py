"""`orch demo`: a stack of its own, one task from item to production, and nothing left behind."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.outcome import CliError, Exit
from api.cli.output import Output

if TYPE_CHECKING:
    from api.cli.demo_stage import Options

Repo = Annotated[Path | None, typer.Option("--repo", help="A git repository; the demo works on a copy of it.")]
Title = Annotated[str | None, typer.Option("--title", help="What Olga asks for.")]
TestCommand = Annotated[str | None, typer.Option("--test-command", help="What must pass, run by /bin/sh.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards (also: KEEP=1).")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which the demo gives up.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; the timeline goes to stderr.")]


def demo(
    *,
    repo: Repo = None,
    title: Title = None,
    test_command: TestCommand = None,
    keep: Keep = False,
    timeout: Timeout = 180,
    as_json: Json = False,
) -> int:
    """Take a real item through a real repository to deployed and done, and watch."""
    from api.cli.demo_stage import Options, StageManager

    options = Options(
        repository=repo,
        title=title,
        test_command=test_command,
        keep=keep or os.environ.get("KEEP", "") not in {"", "0"},
        timeout=timeout,
    )
    _refuse(options)
    output = Output(as_json=as_json)
    stream = sys.stderr if as_json else sys.stdout

    def say(line: str) -> None:
        stream.write(f"{line}\n")
        stream.flush()

    manager = StageManager(options, say)
    exit_code = asyncio.run(manager.run())
    if as_json:
        output.data(manager.as_json(exit_code))
    return exit_code


def _refuse(options: "Options") -> None:
    """What cannot be meant."""
    from deploy.demo import copy
    from deploy.errors import StackError

    if options.repository is None and (options.title or options.test_command):
        raise CliError(Exit.USAGE, "--title and --test-command go with --repo", "or leave all three out")
    if options.repository is not None and not (options.title and options.title.strip() and options.test_command):
        raise CliError(
            Exit.USAGE,
            "--repo needs --title and --test-command",
            'for instance: orch demo --repo . --title "Say hello" --test-command "python3 -m pytest -q"',
        )
    if options.repository is not None:
        try:
            asyncio.run(copy.check(options.repository))
        except StackError as error:
            raise CliError(Exit.USAGE, str(error)) from error
