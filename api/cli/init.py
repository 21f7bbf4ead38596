"""`orch init`: a commented start of the configuration, and what a person has to make in Plane and Gitea."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.outcome import CliError, Exit
from api.cli.output import Output

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write; made if it is missing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def init(folder: Folder = Path(), *, as_json: Json = False) -> None:
    """Write a commented orch.toml and .env to start from; what exists is left alone."""
    from deploy.configuration_text import NEXT_STEPS, starts

    written: list[str] = []
    existing: list[str] = []
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in starts(folder).items():
            (written if _write_new(path, text) else existing).append(str(path))
    except OSError as error:
        raise CliError(
            Exit.FAILED, f"{error.filename or folder}: {error.strerror}", "choose a folder you may write to"
        ) from error
    lines = [f"wrote {path}" for path in written] + [f"exists, left as it is: {path}" for path in existing]
    value = {"written": written, "existing": existing, "next_steps": NEXT_STEPS}
    Output(as_json=as_json).data(value, *lines, "", NEXT_STEPS.rstrip())


def _write_new(path: Path, text: str) -> bool:
    """Write a file that nobody else may read, for secrets will be in it; False if something has that name."""
    import os

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True
