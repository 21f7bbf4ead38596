"""Finding places for PostgreSQL that the account which runs it can reach."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import postgres_files
from deploy.accounts import Account, server_account
from deploy.errors import StackError
from deploy.home import Home
from deploy.postgres import Cluster

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root uses another account")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can pass through."""
    path = Path(tempfile.mkdtemp(prefix="orch-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def test_programs_are_found_without_importing_the_package() -> None:
    """The installed package's folder holds the server program."""
    assert (postgres_files.package_folder() / "pginstall" / "bin" / "initdb").exists()


@as_root
def test_programs_behind_a_closed_folder_are_copied_and_work(tmp_path: Path, open_folder: Path) -> None:
    """If the account cannot reach the virtual environment, a copy of the programs works for it."""
    tmp_path.chmod(0o700)
    installed = postgres_files.package_folder()
    closed = tmp_path / installed.name
    shutil.copytree(installed, closed)
    shutil.copytree(installed.with_name(f"{installed.name}.libs"), tmp_path / f"{installed.name}.libs")
    account = server_account()
    elsewhere = (open_folder / "orch",)
    programs = postgres_files.binaries(account, closed, elsewhere)
    assert programs.is_relative_to(elsewhere[0])
    inode = (programs / "postgres").stat().st_ino
    assert postgres_files.binaries(account, closed, elsewhere) == programs
    assert (programs / "postgres").stat().st_ino == inode
    cluster = Cluster(open_folder / "data", programs, account, port=1, password="secret")
    cluster.initialise({})
    assert (open_folder / "data" / "PG_VERSION").read_text().strip() == "18"
    assert (open_folder / "data").stat().st_uid == account.uid
    assert not (open_folder / "password.new").exists()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@as_root
def test_a_folder_others_can_write_is_not_trusted(open_folder: Path) -> None:
    """A folder that somebody else made or can write, or a link, is never used for data."""
    account = server_account()
    writable = open_folder / "writable"
    writable.mkdir()
    writable.chmod(0o777)
    foreign = open_folder / "foreign"
    foreign.mkdir(mode=0o711)
    os.chown(foreign, account.uid, account.gid)
    link = open_folder / "link"
    link.symlink_to(open_folder)
    with pytest.raises(StackError, match="choose a home folder that others can pass through"):
        postgres_files.own_folder(account, (writable, foreign, link))
    good = open_folder / "good"
    assert postgres_files.own_folder(account, (writable, foreign, link, good)) == good
    assert stat.S_IMODE(good.stat().st_mode) == 0o711


@as_root
def test_data_stay_with_the_account_that_owns_them(open_folder: Path) -> None:
    """Data made by one account are served by that account, whatever account would be chosen today."""
    home = Home.at(open_folder / "home")
    home.create()
    nobody = Account.by_uid(65534)
    data = home.postgres / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    nobody.give(data)
    found, _, account = postgres_files.locate(home)
    assert found == data
    assert account == nobody


@as_root
def test_unreachable_data_are_explained(open_folder: Path) -> None:
    """Data behind a folder that was closed later give an error that names the folder and the remedy."""
    home = Home.at(open_folder / "home")
    home.create()
    data = home.postgres / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    server_account().give(data)
    home.root.chmod(0o700)
    with pytest.raises(StackError, match=r"cannot enter .*/data: a folder above it is closed"):
        postgres_files.locate(home)


def test_cut_short_initialisation_is_begun_again(open_folder: Path) -> None:
    """Leftovers of an interrupted first start are removed; data of another major version are refused."""
    (open_folder / "data.new").mkdir()
    (open_folder / "data.new" / "half").touch()
    (open_folder / "password.new").touch()
    account = server_account()
    programs = postgres_files.binaries(account, postgres_files.package_folder())
    cluster = Cluster(open_folder / "data", programs, account, port=1, password="secret")
    cluster.initialise({})
    assert sorted(path.name for path in open_folder.iterdir()) == ["data"]
    cluster.initialise({})
    (open_folder / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match=r"was made by PostgreSQL 17, installed is 18"):
        cluster.initialise({})
    method = subprocess.run(
        ["grep", "-vE", "^#|^$", str(open_folder / "data" / "pg_hba.conf")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split()[-1] for line in method.stdout.splitlines()} == {"scram-sha-256"}
