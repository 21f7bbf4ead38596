"""The `orch` command line."""

import os
import sys
from collections.abc import Sequence

import typer

from api.cli import config, demo, init, merge_queue, stack, tasks, webhooks
from api.cli.outcome import CliError, Exit
from api.cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Orch: an item in Plane becomes a change deployed from Gitea, under gates no agent can talk its way past.",
    epilog="Exit codes and JSON: docs/reference/cli.md",
)
app.command()(demo.demo)
app.command()(stack.up)
app.command()(stack.down)
app.command()(init.init)
app.command()(stack.worker)
app.command()(stack.api)
app.add_typer(config.app, name="config")
app.add_typer(tasks.app, name="task")
app.add_typer(merge_queue.app, name="merge-queue")
app.add_typer(webhooks.app, name="webhooks")


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit code."""
    output = Output(as_json="--json" in arguments)
    try:
        code = app(list(arguments), prog_name="orch", standalone_mode=False)
    except CliError as error:
        output.error(error)
        return error.exit_code
    except typer.TyperException as error:
        return _usage(error, output)
    except (KeyboardInterrupt, typer.Abort):
        output.error(CliError(Exit.INTERRUPTED, "interrupted"))
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return code if isinstance(code, int) else Exit.OK


def _usage(error: typer.TyperException, output: Output) -> int:
    """A command line that is not understood."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was shown, and is the whole message
        return Exit.USAGE
    command = context.command_path if context is not None else "orch"
    output.error(CliError(Exit.USAGE, message, f"see `{command} --help`"))
    return Exit.USAGE


def main() -> None:
    """Run and leave at once: Temporal's client can abort or hang while the interpreter shuts down (sdk-python#300)."""
    code = 1
    try:
        code = int(run(sys.argv[1:]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 1
    except Exception:  # noqa: BLE001 - shown whole: it is a bug of ours
        import traceback

        traceback.print_exc()
    os._exit(code)


if __name__ == "__main__":
    main()
