"""The named secrets of deploy commands: `ORCH_DEPLOY_SECRET_<NAME>` of the worker's environment, or `…_FILE`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workflows.policy import SECRET_PREFIX
from workflows.problems import cause

HIDDEN = "***"
_TELLING = 8
"""A shorter line of a key file says nothing by itself."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Secrets by the names their commands know them under; `problems` says what is missing and how to mend it."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()

    def scrubbed(self, text: str) -> str:
        """A text without their values, and without the lines of those that have several."""
        lines = {line for value in self.values.values() for line in value.splitlines() if len(line) >= _TELLING}
        for value in sorted({*self.values.values(), *lines}, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text


class DeploySecrets:
    """Reads them when a command is about to run, so that a file may be changed while the worker runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {name: value for name, value in environment.items() if name.startswith(SECRET_PREFIX)}

    def take(self, names: Iterable[str]) -> Taken:
        """Exactly the named ones."""
        values: dict[str, str] = {}
        problems = []
        for name in names:
            value, problem = self._read(name)
            if problem:
                problems.append(problem)
            else:
                values[name] = value
        return Taken(values, tuple(problems))

    def _read(self, name: str) -> tuple[str, str]:
        variable = f"{SECRET_PREFIX}{name}"
        path = self._environment.get(f"{variable}_FILE", "")
        if not path:
            value = self._environment.get(variable, "")
            return value, "" if value else f"{variable}: is not set; set it, or {variable}_FILE, for the worker"
        try:
            value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            return "", f"{variable}_FILE: {path} can not be read ({cause(error)}); name a readable file"
        return value, "" if value else f"{variable}_FILE: {path} is empty; write the secret into it"
