"""The account PostgreSQL runs as: it refuses root, so root hands it to an account without rights."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from deploy.errors import StackError

_PREFERRED = ("postgres", "nobody")


class RunAs(TypedDict, total=False):
    """Keyword arguments of `subprocess`."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A system account."""

    name: str
    uid: int
    gid: int

    @classmethod
    def by_uid(cls, uid: int) -> "Account":
        """The account with this number, whether or not it has a name."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(str(uid), uid, uid)
        return cls(entry.pw_name, uid, entry.pw_gid)

    @property
    def run_as(self) -> RunAs:
        """What makes `subprocess` start a program as this account."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make this account the owner of one file or folder of ours."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        """Whether this account can really get into the folder; asked by trying."""
        return self.succeeds(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)])

    def succeeds(self, argv: list[str]) -> bool:
        """Whether a program started as this account exits with 0."""
        try:
            result = subprocess.run(
                argv,
                check=False,
                capture_output=True,
                cwd="/",
                env={"LC_ALL": "C"},
                timeout=30,
                **self.run_as,
            )
        except (PermissionError, FileNotFoundError):
            return False
        return result.returncode == 0


def server_account() -> Account:
    """Who runs PostgreSQL: ourselves, or for root an account without rights.

    Raises:
        StackError: we are root and there is no such account.
    """
    if os.geteuid() != 0:
        return Account.by_uid(os.geteuid())
    for name in _PREFERRED:
        try:
            return Account.by_uid(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StackError(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(_PREFERRED)} to run it as;"
        " make one (useradd --system postgres) or run orch as an ordinary user"
    )
