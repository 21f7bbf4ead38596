"""The candidate is what the branch says, on top of main: no commit lost, none doubled, in a place that heals itself."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.adapters.errors import GitError
from activities.adapters.git import Identity, RebaseConflict, Rebased, rebase_onto, rebasing
from activities.adapters.git import command as git_command
from tests.integration.git_world import World, make_world

BOT = Identity("Orch", "orch@example.com")
WHEN = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LONG = "".join(f"line {number}\n" for number in range(40))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A remote with a long file on main, mirrored."""
    world = await make_world(tmp_path)
    world.person.commit("a long file", long__txt=LONG)
    world.publish("main")
    await world.mirror.fetch()
    return world


def edited(**lines: str) -> str:
    """The long file with other words in some lines."""
    return "".join(f"{lines.get(f'l{number}', f'line {number}')}\n" for number in range(40))


async def rebased(world: World, head: str, onto: str) -> object:
    """A rebase in the world's one place."""
    return await rebase_onto(world.mirror, world.root / "place", head=head, onto=onto, identity=BOT, date=WHEN)


async def branched(
    world: World, *commits: tuple[str, dict[str, str]], main: tuple[str, dict[str, str]]
) -> tuple[str, str]:
    """A task branch with these commits, and a main that has moved by one; answers both tips."""
    person = world.person
    base = person.head
    for message, files in commits:
        person.commit(message, **files)
    head = world.publish("task/DEMO-1")
    person.git("checkout", "-q", "-b", "moved", base)
    person.commit(main[0], **main[1])
    tip = world.publish("main")
    await world.mirror.fetch()
    return head, tip


async def subjects(world: World, base: str, head: str) -> list[str]:
    """What a range says it does, oldest first."""
    return [commit.subject for commit in reversed(await world.mirror.log(base, head))]


async def test_every_commit_comes_along_once_and_in_order(world: World) -> None:
    """A clean rebase keeps each commit, though the lines around a change are others on main now."""
    head, main = await branched(
        world,
        ("one", {"long__txt": edited(l10="mine")}),
        ("two", {"long__txt": edited(l10="mine", l20="mine too")}),
        main=("theirs", {"long__txt": edited(l12="theirs", l0="theirs")}),
    )
    result = await rebased(world, head, main)
    assert isinstance(result, Rebased)
    assert await subjects(world, main, result.sha) == ["one", "two"]
    expected = edited(l10="mine", l20="mine too", l12="theirs", l0="theirs")
    assert await world.mirror.read_file(result.sha, "long.txt", 10_000) == expected.encode()


async def test_what_main_has_already_is_left_out(world: World) -> None:
    """A commit that main has as another commit, and lines that main changed likewise, are not landed twice."""
    head, main = await branched(
        world,
        ("picked", {"long__txt": edited(l5="both")}),
        ("partly", {"long__txt": edited(l5="both", l15="both", l30="mine")}),
        main=("theirs", {"long__txt": edited(l5="both", l15="both")}),
    )
    result = await rebased(world, head, main)
    assert isinstance(result, Rebased)
    assert await subjects(world, main, result.sha) == ["partly"]
    expected = edited(l5="both", l15="both", l30="mine")
    assert await world.mirror.read_file(result.sha, "long.txt", 10_000) == expected.encode()


async def test_a_rename_on_main_is_followed(world: World) -> None:
    """A change to a file that main has renamed lands in the renamed file, and counts as the same change."""
    person = world.person
    base = person.head
    head = person.commit("mine", long__txt=edited(l3="mine"))
    world.publish("task/DEMO-1")
    person.git("checkout", "-q", "-b", "moved", base)
    person.git("mv", "long.txt", "renamed.txt")
    person.commit("renamed")
    main = world.publish("main")
    await world.mirror.fetch()
    result = await rebased(world, head, main)
    assert isinstance(result, Rebased)
    assert await world.mirror.read_file(result.sha, "renamed.txt", 10_000) == edited(l3="mine").encode()


@pytest.mark.parametrize("harm", ["lost", "doubled", "changed"])
async def test_a_rebase_that_is_not_true_is_refused(world: World, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebase that loses, doubles or changes a commit is an error of ours, and nobody is blamed."""
    head, main = await branched(
        world,
        ("one", {"c__txt": "c\n"}),
        ("two", {"d__txt": "d\n"}),
        main=("theirs", {"b__txt": "theirs\n"}),
    )
    true_rebase = rebasing._Place._rebase

    async def untrue(self: rebasing._Place, onto: str, pinned: dict[str, str]) -> git_command.Output:
        done = await true_rebase(self, onto, pinned)
        author = {name.replace("COMMITTER", "AUTHOR"): value for name, value in pinned.items()}
        if harm == "lost":
            await self._git("reset", "--hard", "--quiet", "HEAD~1")
        elif harm == "doubled":
            await self._git("commit", "--quiet", "--allow-empty", "-C", "HEAD", env=pinned | author)
            (self._tree / "d.txt").write_text("d\nd\n")
            await self._git("commit", "--quiet", "-a", "--amend", "-C", "HEAD", env=pinned)
        else:
            (self._tree / "d.txt").write_text("e\n")
            await self._git("commit", "--quiet", "-a", "--amend", "-C", "HEAD", env=pinned)
        return done

    monkeypatch.setattr(rebasing._Place, "_rebase", untrue)
    with pytest.raises(GitError, match="nothing was pushed"):
        await rebased(world, head, main)


async def test_a_branch_with_merges_keeps_how_they_were_resolved(world: World) -> None:
    """A branch that merged main and resolved a conflict is merged once more: flattened, it would conflict again."""
    person = world.person
    base = person.head
    person.git("checkout", "-q", "-b", "task", base)
    person.commit("mine", long__txt=edited(l7="mine"))
    person.git("checkout", "-q", "-b", "moved", base)
    person.commit("theirs", long__txt=edited(l7="theirs"))
    world.publish("main")
    person.git("checkout", "-q", "task")
    person.git("merge", "-q", "moved", check=False)
    person.commit("resolved", long__txt=edited(l7="both of us"))
    head = world.publish("task/DEMO-1")
    person.git("checkout", "-q", "moved")
    person.commit("later", b__txt="later\n")
    main = world.publish("main")
    await world.mirror.fetch()
    result = await rebased(world, head, main)
    assert isinstance(result, Rebased)
    assert result == await rebased(world, head, main)
    assert await world.mirror.is_ancestor(main, result.sha)
    assert await world.mirror.is_ancestor(head, result.sha)
    assert await world.mirror.read_file(result.sha, "long.txt", 10_000) == edited(l7="both of us").encode()
    assert await world.mirror.read_file(result.sha, "b.txt", 100) == b"later\n"


@pytest.mark.parametrize("left", ["rebase", "files", "lock"])
async def test_what_a_killed_rebase_left_disturbs_nobody(world: World, left: str) -> None:
    """A place in the middle of a conflict, full of files, or with git's own lock is as good as a new one."""
    head, main = await branched(world, ("mine", {"b__txt": "mine\n"}), main=("theirs", {"b__txt": "theirs\n"}))
    assert isinstance(await rebased(world, head, main), RebaseConflict)
    place = world.root / "place"
    assert (place / ".git/rebase-merge").is_dir()
    if left == "files":
        (place / "rubbish").mkdir()
        (place / "rubbish/file").write_text("x")
    if left == "lock":
        (place / ".git/index.lock").touch()
    world.person.git("checkout", "-q", "-b", "other", f"{main}~1")
    other = world.person.commit("other", c__txt="c\n")
    world.publish("task/DEMO-2")
    await world.mirror.fetch()
    result = await rebased(world, other, main)
    assert isinstance(result, Rebased)
    assert await world.mirror.list_files(result.sha) == ("a.txt", "b.txt", "c.txt", "long.txt")


@pytest.mark.parametrize("damage", ["index", "head", "config", "objects"])
async def test_a_broken_place_is_made_anew(world: World, damage: str) -> None:
    """A place that git calls corrupt is thrown away and the rebase goes on in a new one."""
    head, main = await branched(world, ("mine", {"c__txt": "c\n"}), main=("theirs", {"b__txt": "theirs\n"}))
    first = await rebased(world, head, main)
    git_dir = world.root / "place/.git"
    if damage == "index":
        (git_dir / "index").write_bytes(b"DIRC rubbish")
    elif damage == "head":
        (git_dir / "HEAD").write_bytes(b"rubbish\n")
    elif damage == "config":
        shutil.rmtree(git_dir / "refs")
    else:
        for thing in (git_dir / "objects").glob("[0-9a-f][0-9a-f]/*"):
            thing.chmod(0o644)
            thing.write_bytes(b"rubbish")
    assert await rebased(world, head, main) == first


async def test_a_place_that_stays_broken_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that is broken again and again is told as an error after two rebuilds."""
    head, main = await branched(world, ("mine", {"c__txt": "c\n"}), main=("theirs", {"b__txt": "theirs\n"}))
    tries: list[int] = []

    async def broken(self: rebasing._Place, head: str) -> None:
        tries.append(1)
        raise GitError("the index is corrupt", kind="corrupt")

    monkeypatch.setattr(rebasing._Place, "_clean", broken)
    with pytest.raises(GitError, match="corrupt"):
        await rebased(world, head, main)
    assert len(tries) == 1 + rebasing.REBUILDS
