"""Named secrets of deploy commands: who gets which, what is missing, what is struck out."""

from pathlib import Path

import pytest

from activities.deploy_secrets import HIDDEN, DeploySecrets
from deploy import configuration, environment
from workflows.policy import SECRET_PREFIX, read_policy

KEY = f"{SECRET_PREFIX}SSH_KEY"


def test_only_what_is_named_is_taken() -> None:
    """A command gets the named values under their own names, and nothing else of the worker's environment."""
    secrets = DeploySecrets({KEY: "k", f"{SECRET_PREFIX}OTHER": "o", "SSH_KEY": "outer", "ORCH_GITEA_TOKEN": "t"})
    taken = secrets.take(["SSH_KEY"])
    assert (taken.values, taken.problems) == ({"SSH_KEY": "k"}, ())
    assert "SSH_KEY': 'k" not in repr(taken)


def test_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    """A secret in a file may change while the worker runs; the end of its last line is not part of it."""
    file = tmp_path / "key"
    secrets = DeploySecrets({f"{KEY}_FILE": str(file)})
    for value in ("first", "second"):
        file.write_text(f"{value}\n")
        assert secrets.take(["SSH_KEY"]).values == {"SSH_KEY": value}


@pytest.mark.parametrize("how", ["unset", "empty", "no file", "empty file"])
def test_what_is_missing_is_said_with_its_variable(tmp_path: Path, how: str) -> None:
    """Every missing secret is one line: the variable, what is wrong, how to mend it; no value is handed over."""
    (tmp_path / "empty").write_text("\n")
    given = {
        "unset": {}, "empty": {KEY: ""},
        "no file": {f"{KEY}_FILE": str(tmp_path / "none")}, "empty file": {f"{KEY}_FILE": str(tmp_path / "empty")},
    }[how]  # fmt: skip
    taken = DeploySecrets(given).take(["SSH_KEY", "TOO"])
    assert not taken.values
    first, second = taken.problems
    assert first.startswith(KEY)
    assert "; " in first
    assert second == f"{SECRET_PREFIX}TOO: is not set; set it, or {SECRET_PREFIX}TOO_FILE, for the worker"


def test_values_are_struck_out_whole_and_by_line() -> None:
    """A longer secret that contains a shorter one leaves nothing over; of a key file single lines are found too."""
    taken = DeploySecrets({
        f"{SECRET_PREFIX}A": "abc", f"{SECRET_PREFIX}B": "abcdef", f"{SECRET_PREFIX}C": "BEGIN\nc2VjcmV0IGtleQ\nEND",
    }).take(["A", "B", "C"])  # fmt: skip
    assert taken.scrubbed("x abcdef y abc z") == f"x {HIDDEN} y {HIDDEN} z"
    assert taken.scrubbed("line: c2VjcmV0IGtleQ, END") == f"line: {HIDDEN}, END"


@pytest.mark.parametrize("name", ["ORCH_SHA", "PATH", "LD_PRELOAD", "ssh_key", "KEY_FILE", "1KEY", "A-B", ""])
@pytest.mark.parametrize("which", ["secrets", "staging_secrets"])
def test_names_that_could_steer_the_command_are_refused(which: str, name: str) -> None:
    """A secret cannot take the name of what the system or Orch says to a command."""
    text = f'[commands]\ntest = "t"\nproduction = "p"\n[deploy]\n{which} = ["{name}"]\n'
    found = read_policy(text.encode(), "f")
    assert found.policy is None
    assert f"f: deploy.{which}" in found.problem
    assert "cannot name a secret; use capitals" in found.problem


def test_deploying_is_part_of_the_policy() -> None:
    """Secrets, repeatability and rollback reach the policy; without them there are none."""
    text = '[commands]\ntest = "t"\nproduction = "p"\n'
    bare = read_policy(text.encode(), "f").policy
    assert bare is not None
    assert (bare.rollback, bare.secrets, bare.staging_secrets, bare.repeatable) == (None, (), (), False)
    more = 'rollback = "r"\n[deploy]\nsecrets = ["A"]\nstaging_secrets = ["B"]\nrepeatable = true\n'
    full = read_policy((text + more).encode(), "f").policy
    assert full is not None
    assert (full.rollback, full.secrets, full.staging_secrets, full.repeatable) == ("r", ("A",), ("B",), True)


def test_deploy_secrets_are_the_workers_alone() -> None:
    """A stack passes them to the worker and to no other process, and does not call them unknown."""
    outer = {KEY: "k", "PATH": "/bin"}
    assert [name for name in environment.SECRETS_OF if KEY in environment.for_service(name, {}, outer)] == ["worker"]
    assert configuration.warnings(outer) == []
