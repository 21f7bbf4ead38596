"""The cage for everything that runs a task branch's code: agents and project test commands.

The environment is built from nothing, so no secret of the orchestrator is in it. Where bubblewrap works the
process also gets its own namespaces, a read-only system and no home but its own (contracts/agents/agents.md, 5).
"""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from activities.adapters.process import run

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache")
"""What a program needs of the host, read-only; of /etc only what starts programs and checks certificates."""
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
"""What turns names into addresses, for a program that has the network."""


class IsolationMissing(Exception):  # noqa: N818 - a fact of the host
    """Bubblewrap is required and does not work here; the text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Cage:
    """A command ready to run: prefix it with `argv`, give it exactly `env`."""

    argv: tuple[str, ...]
    env: dict[str, str]


class Isolation:
    """Knows what this host can do; asked once."""

    def __init__(self, *, required: bool) -> None:
        self._required = required
        self._bwrap: str | None = None
        self._asked = False

    async def cage(
        self,
        workspace: Path,
        writable: Sequence[Path],
        env: dict[str, str],
        *,
        readable: Sequence[Path] = (),
        network: bool = False,
    ) -> Cage:
        """Confine a program to `workspace` and `writable`; it also sees `readable`.

        Raises:
            IsolationMissing: bubblewrap is required and does not work here.
        """
        complete = {**_clean(writable[0] if writable else workspace), **env}
        if not await self._available():
            return Cage((), complete)
        words = self._arguments(workspace, writable, (*readable, *map(Path, NAMES if network else ())), network=network)
        return Cage(tuple(words), complete)

    async def confines(self) -> bool:
        """Whether programs are confined here, rather than only given a clean environment.

        Raises:
            IsolationMissing: bubblewrap is required and does not work here.
        """
        return await self._available()

    async def _available(self) -> bool:
        if not self._asked:
            found = shutil.which("bwrap")
            self._bwrap = found if found and await _works(found) else None
            self._asked = True
        if self._bwrap is None and self._required:
            raise IsolationMissing(
                "bubblewrap is missing or not allowed here; install it (Debian: apt-get install bubblewrap) "
                "and allow user namespaces, or set ORCH_ISOLATION=preferred to run agents without it"
            )
        return self._bwrap is not None

    def _arguments(
        self, workspace: Path, writable: Sequence[Path], readable: Sequence[Path], *, network: bool
    ) -> list[str]:
        assert self._bwrap is not None
        words = [self._bwrap, "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
        words += ["--share-net"] if network else []
        words += ["--tmpfs", "/tmp"]  # noqa: S108 - its own, not the host's
        for shown in (*SYSTEM, sys.prefix, sys.base_prefix, str(_source()), *map(str, readable)):
            words += ["--ro-bind-try", shown, shown]
        for path in (workspace, *writable):
            words += ["--bind", str(path), str(path)]
        return [*words, "--chdir", str(workspace), "--"]


def _clean(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return {
        "PATH": path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _source() -> Path:
    """The folder our packages are imported from; the scripted agent is one of them."""
    return Path(__file__).resolve().parents[2]


async def _works(bwrap: str) -> bool:
    probe = [bwrap, "--unshare-all", "--ro-bind", "/", "/", "true"]
    result = await asyncio.wait_for(run(probe, cwd=Path("/"), env={"PATH": "/usr/bin:/bin"}, timeout=10), 20)
    return result.exit_code == 0
