"""Locks that a killed git left in an agent's clone."""

from pathlib import Path

from activities.agents import remove_git_locks


def test_locks_of_a_killed_git_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Locks in the clone go, wherever git puts them; other files, objects and what links lead to stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    git = tmp_path / "clone" / ".git"
    (git / "refs/heads/task").mkdir(parents=True)
    (git / "objects/ab").mkdir(parents=True)
    gone = [git / "index.lock", git / "refs/heads/task/DEMO-1.lock"]
    kept = [git / "index", git / "objects/ab/cd.lock", outside / "index.lock", tmp_path / "clone" / "poetry.lock"]
    for path in (*gone, *kept):
        path.touch()
    (git / "link").symlink_to(outside)
    remove_git_locks(tmp_path / "clone")
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_clone_whose_git_folder_is_a_link_is_left_alone(tmp_path: Path) -> None:
    """An agent that replaced `.git` by a link does not make us delete elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.lock").touch()
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / ".git").symlink_to(outside)
    remove_git_locks(tmp_path / "clone")
    assert (outside / "index.lock").exists()
