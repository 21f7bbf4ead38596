"""Where words go: data to stdout, everything else to stderr; one JSON document instead if that is asked for."""

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.cli.outcome import CliError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STEERING = re.compile(r"[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
PIPED_WIDTH = 200
"""Columns where nobody looks at a terminal: tables are not squeezed into 80."""


def plain(value: object) -> object:
    """A value of the database as JSON has it. Money stays a number, times are ISO 8601."""
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(data: object) -> str:
    """One JSON document on one line; letters of any language stay readable, half a letter stays the escape it was.

    What could steer a terminal is escaped: JSON itself only does that for the first 32 characters.
    """
    text = _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(data, default=plain, ensure_ascii=False))
    return text.encode("utf-8", "backslashreplace").decode()


def colours(stream_is_terminal: bool, environment: Mapping[str, str]) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR says something or the terminal is dumb."""
    return stream_is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class Output:
    """What one command says."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def data(self, value: Any, *shown: "RenderableType") -> None:
        """The answer: `value` as JSON, or else `shown` for people."""
        if self.as_json:
            sys.stdout.write(f"{to_json(value)}\n")
            return
        for part in shown:
            if isinstance(part, str):  # not broken into lines: a sentence stays one line in a pipe
                sys.stdout.write(f"{part}\n")
            else:
                self.console().print(part)

    def note(self, text: str) -> None:
        """A remark: never data."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def error(self, error: CliError) -> None:
        """What went wrong: with `--json` the one document on stdout."""
        if self.as_json:
            sys.stdout.write(f"{to_json(error.as_json())}\n")
            return
        self.note(f"orch: {error.message}")
        if error.hint:
            self.note(f"      {error.hint}")

    def console(self) -> "Console":
        """For tables on stdout."""
        from rich.console import Console

        terminal = sys.stdout.isatty()
        coloured = colours(terminal, os.environ)
        return Console(
            file=sys.stdout,
            force_terminal=coloured,
            no_color=not coloured,
            highlight=False,
            markup=False,
            width=None if terminal or "COLUMNS" in os.environ else PIPED_WIDTH,
        )
