"""Orch's own repository is a project of Orch like any other."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_demo import ROOT, demo
from workflows.policy import PATH, read_policy

NOT_OURS = shutil.ignore_patterns(".git", ".venv", "venv", ".*_cache", "__pycache__", ".hypothesis", "*.egg-info")
QUICK_CHECKS = "ruff check --no-cache activities api deploy workflows && python -m compileall -q workflows"
"""The quick part of what CI runs, on the candidate's checkout."""


@pytest.fixture
def own_repository(tmp_path: Path) -> Path:
    """Orch's sources as a repository with one commit."""
    folder = tmp_path / "orch"
    shutil.copytree(ROOT, folder, ignore=NOT_OURS)
    person = ("-c", "user.name=Olga", "-c", "user.email=olga@example.com", "-c", "commit.gpgsign=false")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), (*person, "commit", "-q", "-m", "Orch")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_our_own_policy_is_valid() -> None:
    """The policy that stands in this repository is one that Orch takes."""
    found = read_policy((ROOT / PATH).read_bytes(), PATH)
    assert found.problems == []
    assert found.policy is not None
    assert (found.policy.test, found.policy.production) == (".ci/run", None)


@pytest.mark.embedded
@pytest.mark.timeout(300)
def test_orch_lands_a_change_to_orch(own_repository: Path) -> None:
    """A task on a copy of this repository lands a change on which the quick part of Orch's own checks passes."""
    title = "Note what Orch can do for itself"
    process = demo("--repo", str(own_repository), "--title", title, "--test-command", QUICK_CHECKS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert re.search(r"^demo: DEMO-1 done in \d+ s; main green; landed [0-9a-f]{40}$", output, re.MULTILINE), output
