"""The cage's words; bubblewrap itself is a stand-in that always works."""

from itertools import pairwise
from pathlib import Path

import pytest

from activities.runners.isolation import Isolation, IsolationMissing


@pytest.fixture
def bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bubblewrap on the PATH."""
    program = tmp_path / "bin/bwrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


async def test_an_agent_sees_its_program_and_only_writes_what_is_its_own(bwrap: Path, tmp_path: Path) -> None:
    """The workspace and what belongs to the run are writable, its program is shown read-only."""
    own, program = tmp_path / "own", tmp_path / "opt/claude"
    cage = await Isolation(required=True).cage(tmp_path / "work", (own,), {}, readable=(program,), network=True)
    pairs = list(pairwise(cage.argv))
    assert cage.argv[0] == str(bwrap)
    assert {path for option, path in pairs if option == "--bind"} == {str(tmp_path / "work"), str(own)}
    assert ("--ro-bind-try", str(program)) in pairs
    assert ("--ro-bind-try", "/etc/resolv.conf") in pairs
    assert "--share-net" in cage.argv
    assert "--die-with-parent" in cage.argv


async def test_what_needs_no_network_has_none(bwrap: Path, tmp_path: Path) -> None:
    """Test commands of a project neither get the network nor what finds names in it."""
    cage = await Isolation(required=True).cage(tmp_path / "work", (), {})
    assert "--share-net" not in cage.argv
    assert "/etc/resolv.conf" not in cage.argv


async def test_where_confinement_is_required_and_missing_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without bubblewrap says how to mend that; one that only prefers it knows that it confines nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IsolationMissing, match="apt-get install bubblewrap"):
        await Isolation(required=True).confines()
    assert await Isolation(required=False).confines() is False
