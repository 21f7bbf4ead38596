"""Names for git: what we accept, git accepts too, and it means nothing but a name."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.adapters.errors import InvalidName
from activities.adapters.git import check_branch, check_path, check_ref, check_sha

TRICKY = "ab/.-@{}~^: \\*?[#+=,_lock\x7f\t\u202eпщ"


@given(st.text(alphabet=TRICKY, min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_every_accepted_branch_is_one_for_git(name: str) -> None:
    """Our rules are narrower than git's: git check-ref-format accepts each name that passes them."""
    try:
        check_branch(name)
    except InvalidName:
        return
    done = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False)
    assert done.returncode == 0, name


@pytest.mark.parametrize("name", ["main", "task/DEMO-1", "fix/#12", "задача/ёлка", "v1.2.3", "a@b", "user/x+y=z"])
def test_ordinary_branches_are_accepted(name: str) -> None:
    """What people and Orch really call branches passes unchanged, as a ref too."""
    assert check_branch(name) == name
    assert check_ref(f"refs/heads/{name}") == f"refs/heads/{name}"


@pytest.mark.parametrize("ref", ["main", "refs/main", "refs/", "refs/heads/", "refs/heads/-x", "refs/heads/a..b"])
def test_a_ref_must_be_full(ref: str) -> None:
    """A short name or an odd one is no full ref."""
    with pytest.raises(InvalidName):
        check_ref(ref)


@pytest.mark.parametrize("sha", ["", "HEAD", "a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 40 + "\n", "-" + "a" * 39])
def test_a_commit_id_must_be_full_lower_case_hex(sha: str) -> None:
    """Abbreviations, names and line ends are no commit id."""
    with pytest.raises(InvalidName):
        check_sha(sha)


def test_both_hash_lengths_are_commit_ids() -> None:
    """SHA-1 and SHA-256 repositories both work."""
    for length in (40, 64):
        assert check_sha("a" * length) == "a" * length


@pytest.mark.parametrize(
    "path", ["../x", "/x", "x/../y", "x//y", "x/", "./x", ".git/config", "x/.GIT/y", "a\0b", "a\nb", ""]
)
def test_paths_stay_inside_and_out_of_git(path: str) -> None:
    """No path leaves the repository or reaches into .git."""
    with pytest.raises(InvalidName):
        check_path(path)
