"""How a command ends: documented exit codes, and errors that say how to mend them."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; docs/reference/cli.md is the contract."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    TASK_FAILED = 5
    CONFLICT = 6
    UNREACHABLE = 7
    PENDING = 8
    CONFIG = 78
    INTERRUPTED = 130

    @property
    def word(self) -> str:
        """What `code` says in a JSON error."""
        return self.name.lower()


class CliError(Exception):
    """Ends a command; what happened and how to mend it are shown to a person as they are."""

    def __init__(self, exit_code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, str]:
        """The error as one object."""
        return {"code": self.exit_code.word, "message": self.message, "hint": self.hint}
