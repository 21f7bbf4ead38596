"""Pushing anything but a task branch, in every spelling, against a server that would allow all of it."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import activities
from activities.adapters.errors import InvalidName
from activities.adapters.git import Mirror, Pushed, Refused, mirror
from activities.adapters.git.command import Output, git
from tests.integration.git_world import Repo, World, make_world

NAMES = [
    "main",
    "master",
    "Main",
    "MAIN",
    "mаin",
    "ｍａｉｎ",
    "main\u200b",
    "release",
    "Release",
    "task/keep",
    "TASK/KEEP",
    "task/KEEP",
    "HEAD",
    "@",
    "head",
    "refs/heads/main",
    "refs/heads/task/DEMO-1",
    "refs/tags/v1",
    "refs/orch/x",
    "refs/pull/1/head",
    "tags/v1",
    "heads/main",
    "task",
    "task/",
    "task//main",
    "task/../main",
    "task/./main",
    "task/.",
    "task/main.",
    "task/main.lock",
    "task/main.lock/x",
    "task/-main",
    "task/DEMO-1:main",
    "task/DEMO-1:refs/heads/main",
    "+task/DEMO-1",
    "+main",
    ":main",
    "task/*",
    "task/DEMO-1 main",
    "task/DEMO-1\nmain",
    "task/DEMO-1\0main",
    "task/DEMO-1^{}",
    "task/DEMO-1~0",
    "task/@{-1}",
    "tаsk/DEMO-1",
    "task/DЕMO-1",
    "task\u2215DEMO-1",
    "task\uff0fDEMO-1",
    "Task/DEMO-1",
    "TASK/DEMO-1",
    "tasks/DEMO-1",
    " task/DEMO-1",
    "task/DEMO-1 ",
    "--all",
    "--mirror",
    "--force",
    "-f",
]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A remote that allows everything, with a branch that we were told is protected."""
    world = await make_world(tmp_path)
    for name in ("release", "task/keep"):
        world.publish(name)
    guarded = Mirror(world.mirror.path, str(world.remote), protected=frozenset({"release", "task/keep"}))
    await guarded.ensure()
    return World(world.remote, world.person, guarded, world.root)


@pytest.mark.parametrize("name", NAMES)
async def test_only_task_branches_are_ever_pushed(world: World, name: str) -> None:
    """No spelling of another branch, a tag or HEAD moves or makes any ref of the remote."""
    sha = world.person.commit("theirs", x__txt="x\n")
    world.publish("task/SOURCE-1")
    await world.mirror.fetch()
    remote = Repo(world.remote)
    before, head = remote.git("for-each-ref"), remote.git("symbolic-ref", "HEAD")
    for expected in (None, world.remote_sha("main")):
        with contextlib.suppress(InvalidName):
            assert isinstance(await world.mirror.push(sha, name, expected), Refused)
    assert (remote.git("for-each-ref"), remote.git("symbolic-ref", "HEAD")) == (before, head)


@pytest.mark.parametrize("name", ["main", "release", "tasks/DEMO-1", "task/keep"])
async def test_it_is_our_refusal_that_protects(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the refusal in code the very same push would go through: the server here forbids nothing."""
    sha = world.person.commit("theirs", x__txt="x\n")
    world.publish("task/SOURCE-1")
    await world.mirror.fetch()
    monkeypatch.setattr(Mirror, "refusal", lambda _self, _branch: None)
    assert await world.mirror.push(sha, name, world.remote_sha(name) or None) == Pushed()
    assert world.remote_sha(name) == sha


async def test_a_push_names_the_old_commit_in_full_and_never_just_forces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every push says `--force-with-lease=<full ref>:<full sha>`: the bare form is undone by any fetch in between."""
    said: list[Sequence[str]] = []

    async def listening(args: Sequence[str], **more: Any) -> Output:
        said.append(args)
        return await git(args, **more)

    one = world.person.commit("one", x__txt="1\n")
    world.publish("task/SOURCE-1")
    await world.mirror.fetch()
    monkeypatch.setattr(mirror, "git", listening)
    assert await world.mirror.push(one, "task/DEMO-1", None) == Pushed()
    assert await world.mirror.push(one, "task/DEMO-1", one) == Pushed()
    pushes = [args for args in said if args[0] == "push"]
    assert len(pushes) == 2
    for args, old in zip(pushes, ("", one), strict=True):
        assert f"--force-with-lease=refs/heads/task/DEMO-1:{old}" in args
        assert not [word for word in args if word.startswith(("-f", "+", "--force")) and "=" not in word]
        assert args[-1] == f"{one}:refs/heads/task/DEMO-1"


def test_plain_force_is_nowhere() -> None:
    """No line of ours pushes with plain force or with the bare lease."""
    folder = Path(activities.__file__).parent
    found = []
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"""["'](?:--force|-f|--force-with-lease|--mirror|--all|--force-if-includes)["']""", text)
        if '"push"' in text:
            assert path.name == "mirror.py"
    assert not found
