"""Real git repositories for the tests: a remote, a second user's clone of it, and our mirror."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from activities.adapters.git import Mirror

_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Анна",
    "GIT_AUTHOR_EMAIL": "anna@example.com",
    "GIT_COMMITTER_NAME": "Анна",
    "GIT_COMMITTER_EMAIL": "anna@example.com",
}


@dataclass(frozen=True)
class Repo:
    """A working copy driven by plain git, as a person or an agent would."""

    path: Path

    def git(self, *args: str, check: bool = True) -> str:
        """Run git here and return what it prints."""
        done = subprocess.run(["git", *args], cwd=self.path, env=_ENV, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file, with its directories."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str, **files: str | bytes) -> str:
        """Write files (`__` in a name is a dot), commit everything, and return the commit id."""
        for name, content in files.items():
            self.write(name.replace("__", "."), content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    def unpack(self) -> None:
        """Turn every pack of this bare repository into loose objects."""
        for pack in list(self.path.glob("objects/pack/*.pack")):
            moved = pack.rename(self.path / pack.name)
            with moved.open("rb") as stream:
                subprocess.run(["git", "unpack-objects", "-q"], cwd=self.path, env=_ENV, stdin=stream, check=True)

    @property
    def head(self) -> str:
        """The commit checked out."""
        return self.git("rev-parse", "HEAD")


@dataclass(frozen=True)
class World:
    """A bare remote, a person's clone of it with one commit on main, and our mirror."""

    remote: Path
    person: Repo
    mirror: Mirror
    root: Path

    def publish(self, branch: str) -> str:
        """Push what the person has checked out to a branch of the remote."""
        self.person.git("push", "-q", "-f", "origin", f"HEAD:refs/heads/{branch}")
        return self.person.head

    def remote_sha(self, branch: str) -> str:
        """Where a branch of the remote is; empty if it does not exist."""
        return Repo(self.remote).git("rev-parse", "--verify", "-q", f"refs/heads/{branch}", check=False)


def names_in(directory: Path) -> list[str]:
    """What is in a directory, hidden files too, in order."""
    return sorted(path.name for path in directory.iterdir())


async def make_world(root: Path) -> World:
    """A remote with one commit on main, mirrored."""
    world = _unmirrored(root)
    await world.mirror.ensure()
    return world


def _unmirrored(root: Path) -> World:
    remote, person = root / "remote.git", root / "person"
    for args in (
        ["init", "-q", "--bare", "-b", "main", str(remote)],
        ["init", "-q", "-b", "main", str(person)],
    ):
        subprocess.run(["git", *args], env=_ENV, check=True)
    repo = Repo(person)
    repo.git("remote", "add", "origin", str(remote))
    repo.commit("начало", a__txt="one\ntwo\nthree\n", b__txt="b\n")
    mirror = Mirror(root / "mirrors/repo.git", str(remote), protected=frozenset({"task/keep"}))
    world = World(remote, repo, mirror, root)
    world.publish("main")
    return world
