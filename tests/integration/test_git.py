"""Git against real repositories: reading, importing from a hostile clone, pushing under a lease, rebasing."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.adapters.errors import GitError, InvalidName, NotFound
from activities.adapters.git import (
    AlreadyLanded,
    DiffStat,
    Empty,
    FileChange,
    GitAuth,
    Identity,
    Mirror,
    Pushed,
    RebaseConflict,
    Rebased,
    Refused,
    StaleHead,
    checkout_clean,
    clone_for_task,
    rebase_onto,
)
from activities.adapters.git.command import environment
from tests.integration.git_world import Repo, World, make_world, names_in

BOT = Identity("Orch", "orch@example.com")
WHEN = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOBODY = "0" * 39 + "1"


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A remote with one commit on main, mirrored."""
    return await make_world(tmp_path)


async def agent(world: World, branch: str = "task/DEMO-1", start: str = "main") -> Repo:
    """A task clone at the tip of a branch, as an agent gets it."""
    sha = await world.mirror.resolve(start)
    assert sha is not None
    dest = world.root / "agents" / branch.replace("/", "-")
    await clone_for_task(world.mirror, dest, branch, sha, BOT)
    return Repo(dest)


# Reading.


async def test_resolve_knows_branches_refs_and_commits_and_says_none_otherwise(world: World) -> None:
    """A branch, a full ref and a commit id lead to the commit; a missing one is None, not an error."""
    main = world.person.head
    for name in ("main", "refs/heads/main", main):
        assert await world.mirror.resolve(name) == main
    for name in ("missing", "refs/orch/missing", NOBODY):
        assert await world.mirror.resolve(name) is None


async def test_cyrillic_paths_and_renames_come_back_as_written(world: World) -> None:
    """Paths, authors and subjects that are not ASCII survive listing, reading, diffing and the log."""
    base = world.person.head
    world.person.git("mv", "b.txt", "документ.txt")
    world.person.write("папка/файл с пробелом.txt", "содержимое\n")
    head = world.person.commit("Задача: добавить «файл»")
    world.publish("main")
    await world.mirror.fetch()
    mirror = world.mirror

    assert await mirror.list_files(head) == ("a.txt", "документ.txt", "папка/файл с пробелом.txt")
    assert await mirror.list_files(head, "папка/") == ("папка/файл с пробелом.txt",)
    assert await mirror.read_file(head, "папка/файл с пробелом.txt", 100) == "содержимое\n".encode()
    assert await mirror.diff_names(base, head) == (
        FileChange("R", "документ.txt", "b.txt"),
        FileChange("A", "папка/файл с пробелом.txt"),
    )
    (commit,) = await mirror.log(base, head)
    assert (commit.sha, commit.parents, commit.author_name) == (head, (base,), "Анна")
    assert commit.subject == "Задача: добавить «файл»"


async def test_read_file_gives_regular_files_only_and_never_too_much(world: World) -> None:
    """A link, a directory and a missing file read as None; a file over the limit is refused by its size."""
    (world.person.path / "link").symlink_to("/etc/passwd")
    sha = world.person.commit("files", big__bin=b"x" * 2000)
    world.publish("main")
    await world.mirror.fetch()
    assert await world.mirror.read_file(sha, "link", 10_000) is None
    assert await world.mirror.read_file(sha, "missing", 10_000) is None
    with pytest.raises(GitError) as error:
        await world.mirror.read_file(sha, "big.bin", 1999)
    assert error.value.kind == "too_large"
    for path in ("../x", "/etc/passwd", "a/../b", ".git/config", "a//b", "", "a\nb"):
        with pytest.raises(InvalidName):
            await world.mirror.read_file(sha, path, 10)


async def test_history_questions_have_exact_answers(world: World) -> None:
    """Ancestry, merge base, tree, log order and the size of a change are as git knows them."""
    base = world.person.head
    first = world.person.commit("first", a__txt="one\n2\nthree\n")
    second = world.person.commit("second", c__txt="c\nc\n")
    world.publish("main")
    await world.mirror.fetch()
    mirror = world.mirror
    assert await mirror.is_ancestor(base, second)
    assert await mirror.is_ancestor(base, base)
    assert not await mirror.is_ancestor(second, base)
    assert await mirror.merge_base(first, second) == first
    assert await mirror.tree(second) == world.person.git("rev-parse", "HEAD^{tree}")
    assert [commit.subject for commit in await mirror.log(base, second)] == ["second", "first"]
    assert await mirror.log(second, base) == ()
    assert await mirror.diff_stat(base, second) == DiffStat(files=2, insertions=3, deletions=1)


async def test_patch_id_survives_a_clean_rebase_but_sees_indentation_and_binaries(world: World) -> None:
    """The digest is equal after a clean rebase, and differs for white space alone and for binary contents."""
    person, mirror = world.person, world.mirror
    base = person.head
    person.commit("many", a__txt="\n".join(f"line {n}" for n in range(40)) + "\n")
    start = person.head
    body = [f"line {n}" for n in range(40)]
    body[35] = "  changed"
    head = person.commit("change", a__txt="\n".join(body) + "\n", x__bin=b"\0one")
    world.publish("task/A-1")
    person.git("checkout", "-q", "-b", "other", start)
    moved = person.commit("move", a__txt="new first line\n" + "\n".join(f"line {n}" for n in range(40)) + "\n")
    world.publish("main")
    await mirror.fetch()
    rebased = await rebase_onto(mirror, world.root / "w", head=head, onto=moved, identity=BOT, date=WHEN)
    assert isinstance(rebased, Rebased)
    wanted = await mirror.patch_id(start, head)
    assert await mirror.patch_id(moved, rebased.sha) == wanted

    for files in (
        {"a__txt": "\n".join(body).replace("  changed", "changed") + "\n", "x__bin": b"\0one"},
        {"a__txt": "\n".join(body) + "\n", "x__bin": b"\0two"},
    ):
        person.git("checkout", "-q", "-B", "variant", start)
        other = person.commit("variant", **files)
        world.publish("task/A-2")
        await mirror.fetch()
        assert await mirror.patch_id(start, other) != wanted
    assert await mirror.patch_id(base, base) != wanted


async def test_merge_conflicts_name_the_paths(world: World) -> None:
    """Branches that conflict are told by the conflicting paths, branches that do not by none."""
    person, mirror = world.person, world.mirror
    base = person.head
    ours = person.commit("ours", a__txt="ours\n", b__txt="ours\n")
    world.publish("main")
    person.git("checkout", "-q", "-b", "t", base)
    clean = person.commit("clean", c__txt="c\n")
    theirs = person.commit("theirs", a__txt="theirs\n", b__txt="theirs\n")
    world.publish("task/A-1")
    await mirror.fetch()
    assert await mirror.merge_conflicts(ours, theirs) == ("a.txt", "b.txt")
    assert await mirror.merge_conflicts(ours, clean) == ()
    with pytest.raises(GitError):
        await mirror.merge_conflicts(ours, NOBODY)


# The mirror's own health.


async def test_fetch_follows_the_remote_and_keeps_our_own_refs(world: World) -> None:
    """New, moved and deleted branches are followed, whatever is under refs/orch/ stays."""
    clone = await agent(world)
    mine = clone.commit("mine", m__txt="m\n")
    await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/tasks/DEMO-1")
    world.person.commit("two", d__txt="d\n")
    world.publish("feature")
    await world.mirror.fetch()
    assert await world.mirror.resolve("feature") == world.person.head
    Repo(world.remote).git("update-ref", "-d", "refs/heads/feature")
    await world.mirror.fetch()
    assert await world.mirror.resolve("feature") is None
    assert await world.mirror.resolve("refs/orch/tasks/DEMO-1") == mine


@pytest.mark.parametrize("damage", ["emptied", "half", "truncated pack", "other remote"])
async def test_a_broken_mirror_is_thrown_away_and_cloned_again(world: World, damage: str) -> None:
    """Whatever a crash left in the mirror's place, ensure gives a whole mirror of the right remote."""
    path = world.mirror.path
    match damage:
        case "emptied":
            for file in path.iterdir():
                file.unlink() if file.is_file() else None
        case "half":
            (path / "HEAD").unlink()
        case "truncated pack":
            (pack,) = path.glob("objects/pack/*.pack") if list(path.glob("objects/pack/*.pack")) else [None]
            if pack is None:
                for loose in path.glob("objects/??/*"):
                    loose.chmod(0o600)
                    loose.write_bytes(b"")
            else:
                pack.chmod(0o600)
                pack.write_bytes(pack.read_bytes()[:40])
        case _:
            Repo(path).git("config", "remote.origin.url", "/elsewhere")
    await world.mirror.ensure()
    assert await world.mirror.resolve("main") == world.person.head
    assert await world.mirror.read_file(world.person.head, "b.txt", 10) == b"b\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["repo.git", "repo.git.lock"]


async def test_corruption_seen_while_reading_is_healed_by_the_next_ensure(world: World) -> None:
    """An error that says corrupt makes the next ensure clone anew, even if the quick check passes."""
    error = GitError("object is corrupt", kind="corrupt")
    await world.mirror.discard_if_corrupt(error)
    inode = world.mirror.path.stat().st_ino
    await world.mirror.ensure()
    assert world.mirror.path.stat().st_ino != inode
    assert await world.mirror.resolve("main") == world.person.head


async def test_a_damaged_object_found_by_reading_is_healed_by_ensure(world: World) -> None:
    """Damage that the quick check cannot see dooms the mirror when it is met, and ensure clones it anew."""
    blob = world.person.git("rev-parse", "HEAD:b.txt")
    mirror = world.mirror
    Repo(mirror.path).unpack()
    loose = mirror.path / f"objects/{blob[:2]}/{blob[2:]}"
    loose.chmod(0o600)
    loose.write_bytes(b"damaged")
    with pytest.raises(GitError) as error:
        await mirror.read_file(world.person.head, "b.txt", 10)
    assert error.value.kind == "corrupt"
    await mirror.ensure()
    assert await mirror.read_file(world.person.head, "b.txt", 10) == b"b\n"


async def test_asking_for_an_unknown_commit_does_not_doom_the_mirror(world: World) -> None:
    """A commit id that is not here is an error of the question: the mirror and its imports stay."""
    mirror, head = world.mirror, world.person.head
    inode = mirror.path.stat().st_ino
    for question in (
        mirror.tree(NOBODY),
        mirror.log(NOBODY, head),
        mirror.diff_names(head, NOBODY),
        mirror.patch_id(NOBODY, head),
        mirror.is_ancestor(NOBODY, head),
        mirror.merge_base(NOBODY, head),
        mirror.merge_conflicts(head, NOBODY),
        mirror.read_file(NOBODY, "a.txt", 10),
        mirror.list_files(NOBODY),
        checkout_clean(mirror, world.root / "c", NOBODY),
        rebase_onto(mirror, world.root / "w", head=head, onto=NOBODY, identity=BOT, date=WHEN),
    ):
        with pytest.raises(GitError) as error:
            await question
        assert error.value.kind == "failed", str(error.value)
    await mirror.ensure()
    assert mirror.path.stat().st_ino == inode


async def test_a_healthy_mirror_is_left_alone(world: World) -> None:
    """Ensure does not clone what is whole."""
    inode = world.mirror.path.stat().st_ino
    await world.mirror.ensure()
    assert world.mirror.path.stat().st_ino == inode


async def test_only_old_git_locks_are_removed(world: World) -> None:
    """A git lock file a killed command left is removed once it is old; a young one is not touched."""
    old, young = world.mirror.path / "packed-refs.lock", world.mirror.path / "config.lock"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    await world.mirror.ensure()
    assert (old.exists(), young.exists()) == (False, True)


async def test_a_missing_remote_is_told_as_such(tmp_path: Path) -> None:
    """A remote that does not exist raises NotFound and leaves nothing in the mirror's place."""
    mirror = Mirror(tmp_path / "m.git", str(tmp_path / "nowhere.git"))
    with pytest.raises(NotFound):
        await mirror.ensure()
    assert names_in(tmp_path) == ["m.git.lock"]


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "EXT::sh", "ssh://host/x", "git@host:x", "https://user:pw@host/x", "-oProxyCommand=x"],
)
def test_other_transports_and_credentials_in_urls_are_refused(url: str, tmp_path: Path) -> None:
    """Only https, http and local paths are spoken, and never a URL with a password in it."""
    with pytest.raises(GitError) as error:
        Mirror(tmp_path / "m.git", url)
    assert error.value.kind == "unsafe"


def test_the_token_goes_to_its_server_only_and_is_in_no_text() -> None:
    """The header is configured for the base URL alone; the token is not in repr nor sent for files."""
    auth = GitAuth("https://gitea.example.com", "s3cret")
    env = environment("https", auth)
    key = next(value for value in env.values() if "extraHeader" in value)
    assert key == "http.https://gitea.example.com/.extraHeader"
    assert "s3cret" not in repr(auth)
    assert not any("extraHeader" in value for value in environment("file", auth).values())
    assert not any(name in env for name in ("GIT_SSH", "GIT_ASKPASS", "SSH_AUTH_SOCK"))


# Clones for agents.


async def test_a_task_clone_stands_alone(world: World) -> None:
    """An agent's clone has its branch, files and author, but no remote, no hooks and no shared object."""
    clone = await agent(world)
    assert clone.git("rev-parse", "--abbrev-ref", "HEAD") == "task/DEMO-1"
    assert clone.head == world.person.head
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("remote") == ""
    assert clone.git("rev-parse", "origin/main") == world.person.head
    assert clone.git("config", "user.email") == "orch@example.com"
    assert not (clone.path / ".git/objects/info/alternates").exists()
    assert not list((clone.path / ".git").glob("hooks/*"))
    ours = {file.stat().st_ino for file in world.mirror.path.rglob("objects/**/*") if file.is_file()}
    theirs = {file.stat().st_ino for file in clone.path.rglob(".git/objects/**/*") if file.is_file()}
    assert not ours & theirs
    assert str(world.mirror.path) not in (clone.path / ".git/config").read_text()


async def test_a_clone_never_replaces_what_is_there(world: World) -> None:
    """An occupied destination is refused and left as it was; nothing half stays beside it."""
    clone = await agent(world)
    clone.write("work.txt", "precious")
    with pytest.raises(GitError) as error:
        await agent(world)
    assert error.value.kind == "exists"
    assert (clone.path / "work.txt").read_text() == "precious"
    assert [path.name for path in clone.path.parent.iterdir()] == ["task-DEMO-1"]


async def test_a_clean_checkout_has_exactly_the_files_of_its_commit(world: World) -> None:
    """A test run's checkout holds the commit's files, an own .git without other branches, and is clean."""
    world.person.commit("other", o__txt="o\n")
    other = world.publish("feature")
    await world.mirror.fetch()
    base = world.remote_sha("main")
    dest = world.root / "check" / "out"
    await checkout_clean(world.mirror, dest, base)
    checkout = Repo(dest)
    assert sorted(path.name for path in dest.iterdir()) == [".git", "a.txt", "b.txt"]
    assert (checkout.head, checkout.git("status", "--porcelain")) == (base, "")
    assert checkout.git("cat-file", "-e", other, check=False) == ""
    assert checkout.git("rev-parse", "--verify", "-q", f"{other}^{{commit}}", check=False) == ""


async def test_repository_hooks_and_filters_do_not_run_in_a_checkout(world: World) -> None:
    """Attributes that ask for a filter are inert, because no configuration defines one."""
    marker = world.root / "marker"
    world.person.write(".gitattributes", "* filter=evil diff=evil merge=evil\n*.bin filter=lfs\n")
    sha = world.person.commit("attributes", big__bin=b"version https://git-lfs.github.com/spec/v1\n")
    world.publish("main")
    await world.mirror.fetch()
    await checkout_clean(world.mirror, world.root / "c", sha)
    assert (world.root / "c/big.bin").read_bytes().startswith(b"version https://git-lfs")
    assert not marker.exists()


# Importing from a clone that an agent has tampered with.


async def test_import_takes_the_commit_and_all_it_needs(world: World) -> None:
    """Commits made by the agent are in the mirror afterwards, loose or packed refs alike."""
    clone = await agent(world)
    sha = clone.commit("work", w__txt="w\n")
    ref = "refs/heads/task/DEMO-1"
    assert await world.mirror.import_from(clone.path, ref, "refs/orch/t") == sha
    clone.git("commit", "-q", "--amend", "-m", "again")
    clone.git("pack-refs", "--all")
    clone.git("gc", "-q")
    assert await world.mirror.import_from(clone.path, ref, "refs/orch/t") == clone.head
    assert await world.mirror.read_file(clone.head, "w.txt", 10) == b"w\n"
    with pytest.raises(GitError):
        await world.mirror.import_from(clone.path, "refs/heads/none", "refs/orch/t")
    assert not list(world.mirror.path.parent.glob(".*"))


async def test_a_hostile_clone_runs_nothing_when_it_is_imported_from(world: World) -> None:
    """Hooks, fsmonitor, filters, ssh and upload-pack commands and a lazy promisor leave no marker."""
    clone = await agent(world)
    marker = world.root / "marker"
    script = world.root / "evil.sh"
    script.write_text(f"#!/bin/sh\necho run >> {marker}\nexit 0\n")
    script.chmod(0o755)
    clone.write(".gitattributes", "* filter=evil diff=evil merge=evil\n")
    sha = clone.commit("work", w__txt="w\n")
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.editor",
        "core.pager",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "uploadpack.packObjectsHook",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.external",
        "merge.evil.driver",
        "credential.helper",
        "gpg.program",
        "remote.evil.uploadpack",
        "alias.upload-pack",
        "trailer.x.command",
        "interactive.diffFilter",
    ):
        clone.git("config", key, str(script))
    clone.git("config", "core.hooksPath", str(clone.path / "hooks"))
    clone.git("config", "protocol.ext.allow", "always")
    clone.git("config", "extensions.partialClone", "evil")
    clone.git("config", "remote.evil.promisor", "true")
    clone.git("config", "remote.evil.url", f"ext::{script}")
    for directory in (clone.path / "hooks", clone.path / ".git/hooks"):
        directory.mkdir(exist_ok=True)
        for hook in (
            "post-checkout",
            "pre-push",
            "reference-transaction",
            "post-index-change",
            "pre-auto-gc",
            "post-rewrite",
            "fsmonitor-watchman",
            "pre-receive",
            "update",
            "post-receive",
            "upload-pack",
        ):
            (directory / hook).symlink_to(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_SSH_COMMAND", str(script))
        assert await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t") == sha
    assert not marker.exists()
    # The control: the trap is armed, so git inside the clone would have sprung it.
    clone.git("status", check=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "attack",
    [
        "gitfile",
        "git link",
        "alternates",
        "objects link",
        "object link",
        "object fifo",
        "ref link",
        "symref",
        "fifo",
    ],
)
async def test_a_clone_that_points_elsewhere_is_refused(world: World, attack: str) -> None:
    """A clone whose .git, objects or ref leads out of it is unsafe and imports nothing."""
    clone = await agent(world)
    clone.commit("work", w__txt="w\n")
    git_dir = clone.path / ".git"
    ref = git_dir / "refs/heads/task/DEMO-1"
    match attack:
        case "gitfile":
            git_dir.rename(world.root / "elsewhere")
            git_dir.write_text(f"gitdir: {world.root / 'elsewhere'}\n")
        case "git link":
            git_dir.rename(world.root / "elsewhere")
            git_dir.symlink_to(world.root / "elsewhere")
        case "alternates":
            (git_dir / "objects/info").mkdir(exist_ok=True)
            (git_dir / "objects/info/alternates").write_text(f"{world.mirror.path}/objects\n")
        case "objects link":
            (git_dir / "objects").rename(world.root / "elsewhere")
            (git_dir / "objects").symlink_to(world.root / "elsewhere")
        case "object link":
            (git_dir / "objects/ab").symlink_to(world.mirror.path / "objects")
        case "object fifo":
            os.mkfifo(git_dir / "objects/info/packs")
        case "ref link":
            ref.rename(world.root / "elsewhere")
            ref.symlink_to(world.root / "elsewhere")
        case "symref":
            ref.write_text("ref: refs/remotes/origin/main\n")
        case _:
            ref.unlink()
            os.mkfifo(ref)
    with pytest.raises(GitError) as error:
        await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    assert error.value.kind == "unsafe"
    assert await world.mirror.resolve("refs/orch/t") is None


async def test_a_ref_to_a_missing_or_damaged_object_is_not_imported(world: World) -> None:
    """A made-up commit id and a damaged object are errors of the clone, and the mirror stays whole."""
    clone = await agent(world)
    clone.commit("work", w__txt="w\n")
    ref = clone.path / ".git/refs/heads/task/DEMO-1"
    good = ref.read_text()
    ref.write_text(NOBODY + "\n")
    with pytest.raises(GitError):
        await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    ref.write_text(good)
    blob = clone.git("rev-parse", "HEAD:w.txt")
    loose = clone.path / f".git/objects/{blob[:2]}/{blob[2:]}"
    loose.chmod(0o600)
    loose.write_bytes(b"damaged")
    with pytest.raises(GitError) as error:
        await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    assert error.value.kind == "failed"
    assert await world.mirror.resolve("refs/orch/t") is None
    assert await world.mirror.resolve("main") == world.person.head


async def test_imports_land_under_our_own_refs_only(world: World) -> None:
    """A branch of the mirror can never be overwritten by an import."""
    clone = await agent(world)
    with pytest.raises(GitError) as error:
        await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/heads/main")
    assert error.value.kind == "unsafe"


# Names.


@pytest.mark.parametrize(
    "name",
    [
        "--upload-pack=touch /tmp/x",
        "-x",
        "",
        "a..b",
        "a@{1}",
        "a b",
        "a\nb",
        "a\x00b",
        "a~1",
        "a^",
        "a:b",
        "a?b",
        "a*b",
        "a[b",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a.lock/b",
        "HEAD",
        "@",
        "z" * 300,
        "task/-x",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "a'b",
        'a"b',
    ],
)
async def test_names_that_could_mean_more_are_refused_everywhere(world: World, name: str) -> None:
    """No method lets such a name come near git, whether it is a branch to read, to push or to clone."""
    for attempt in (
        world.mirror.resolve(name),
        world.mirror.remote_head(name),
        world.mirror.push(world.person.head, name, None),
        clone_for_task(world.mirror, world.root / "x", name, world.person.head, BOT),
    ):
        with pytest.raises(InvalidName):
            await attempt
    for text in (name, name[:40], f"{world.person.head[:-1]}g"):
        with pytest.raises(InvalidName):
            await world.mirror.tree(text)


# Pushing.


async def test_push_creates_and_moves_a_task_branch_under_a_lease(world: World) -> None:
    """A new branch, then a forced move from the known old commit, and a repeat of either are all Pushed."""
    clone = await agent(world)
    one = clone.commit("one", w__txt="1\n")
    await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    assert await world.mirror.push(one, "task/DEMO-1", None) == Pushed()
    assert world.remote_sha("task/DEMO-1") == one
    assert await world.mirror.push(one, "task/DEMO-1", None) == Pushed()
    clone.git("commit", "-q", "--amend", "-m", "two")
    await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    assert await world.mirror.push(clone.head, "task/DEMO-1", one) == Pushed()
    assert await world.mirror.push(clone.head, "task/DEMO-1", one) == Pushed()
    assert await world.mirror.remote_head("task/DEMO-1") == clone.head


async def test_a_push_over_somebody_elses_work_is_refused_with_its_head(world: World) -> None:
    """If the branch is not where we saw it, nothing is pushed and the real head comes back."""
    theirs = world.person.commit("theirs", t__txt="t\n")
    world.publish("task/DEMO-1")
    clone = await agent(world)
    mine = clone.commit("mine", w__txt="1\n")
    await world.mirror.import_from(clone.path, "refs/heads/task/DEMO-1", "refs/orch/t")
    # A fetch in between must not help: this is what defeats the bare form of the lease.
    await world.mirror.fetch()
    base = world.remote_sha("main")
    assert await world.mirror.push(mine, "task/DEMO-1", base) == StaleHead(theirs)
    assert await world.mirror.push(mine, "task/DEMO-1", None) == StaleHead(theirs)
    assert await world.mirror.push(mine, "task/DEMO-2", theirs) == StaleHead(None)
    assert world.remote_sha("task/DEMO-1") == theirs


@pytest.mark.parametrize("branch", ["main", "master", "MAIN", "develop", "tasks/x", "task", "task/keep", "Task/DEMO-1"])
async def test_protected_and_foreign_branches_are_refused_in_code(world: World, branch: str) -> None:
    """Nothing but an unprotected task branch is ever pushed, whatever the server would allow."""
    before = Repo(world.remote).git("for-each-ref")
    assert isinstance(await world.mirror.push(world.person.head, branch, None), Refused)
    assert Repo(world.remote).git("for-each-ref") == before


async def test_a_refusal_by_the_server_carries_its_reason(world: World) -> None:
    """A hook of the server that declines is a value with the server's words."""
    hook = world.remote / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'branch is frozen' >&2\nexit 1\n")
    hook.chmod(0o755)
    outcome = await world.mirror.push(world.person.head, "task/DEMO-1", None)
    assert isinstance(outcome, Refused)
    assert "branch is frozen" in outcome.reason


async def test_remote_head_is_none_for_a_missing_branch(world: World) -> None:
    """Asking for a branch that does not exist is an answer, not an error."""
    assert await world.mirror.remote_head("task/none") is None


# Rebasing.


async def diverged(world: World, **task_files: str) -> tuple[str, str]:
    """A task branch and a main that have both moved on; returns (task head, main)."""
    base = world.person.head
    world.person.commit("main moved", b__txt="b\nmain\n")
    main = world.publish("main")
    world.person.git("checkout", "-q", "-b", "t", base)
    world.person.commit("first", **task_files)
    head = world.person.commit("second", extra__txt="e\n")
    world.publish("task/DEMO-1")
    await world.mirror.fetch()
    return head, main


async def test_a_rebase_gives_the_same_commit_every_time(world: World) -> None:
    """Repeating a rebase elsewhere and later gives the identical id, on top of the base, author untouched."""
    head, main = await diverged(world, c__txt="c\n")
    first, second = [
        await rebase_onto(world.mirror, world.root / place, head=head, onto=main, identity=BOT, date=WHEN)
        for place in ("one", "two")
    ]
    assert first == second
    assert isinstance(first, Rebased)
    assert first.tree == await world.mirror.tree(first.sha)
    log = await world.mirror.log(main, first.sha)
    assert [commit.subject for commit in log] == ["second", "first"]
    assert (log[0].author_name, log[0].committed_at) == ("Анна", WHEN)
    assert await world.mirror.is_ancestor(main, first.sha)
    assert await world.mirror.read_file(first.sha, "b.txt", 100) == b"b\nmain\n"


async def test_a_branch_that_is_on_top_already_keeps_its_commit(world: World) -> None:
    """If the base is contained in the branch, the candidate is the branch's own head."""
    main = world.person.head
    head = world.person.commit("next", c__txt="c\n")
    world.publish("task/DEMO-1")
    await world.mirror.fetch()
    outcome = await rebase_onto(world.mirror, world.root / "w", head=head, onto=main, identity=BOT, date=WHEN)
    assert outcome == Rebased(head, await world.mirror.tree(head))


async def test_a_conflict_names_the_paths_and_spoils_nothing(world: World) -> None:
    """A rebase that does not apply is a value with the paths, and the next one in the same place works."""
    base = world.person.head
    world.person.write("папка/файл.txt", "main\n")
    world.person.commit("main", b__txt="main\n")
    main = world.publish("main")
    world.person.git("checkout", "-q", "-b", "t", base)
    world.person.write("папка/файл.txt", "task\n")
    head = world.person.commit("task", b__txt="task\n")
    world.publish("task/DEMO-1")
    await world.mirror.fetch()
    outcome = await rebase_onto(world.mirror, world.root / "w", head=head, onto=main, identity=BOT, date=WHEN)
    assert outcome == RebaseConflict(("b.txt", "папка/файл.txt"))
    world.person.git("checkout", "-q", "-b", "other", base)
    other = world.person.commit("other", c__txt="c\n")
    world.publish("task/DEMO-2")
    await world.mirror.fetch()
    after = await rebase_onto(world.mirror, world.root / "w", head=other, onto=main, identity=BOT, date=WHEN)
    assert isinstance(after, Rebased)
    assert await world.mirror.list_files(after.sha) == ("a.txt", "b.txt", "c.txt", "папка/файл.txt")


async def test_landed_and_empty_branches_are_told_apart(world: World) -> None:
    """A branch contained in or cherry-picked into the base has landed; one without changes is empty."""
    mirror, person = world.mirror, world.person
    base = person.head
    head = person.commit("work", c__txt="c\n")
    world.publish("task/DEMO-1")
    person.git("checkout", "-q", "-b", "m", base)
    person.commit("main", d__txt="d\n")
    person.git("cherry-pick", head)
    main = world.publish("main")
    person.git("checkout", "-q", "-b", "e", base)
    empty = person.commit("nothing")
    world.publish("task/DEMO-2")
    await mirror.fetch()

    async def rebase(commit: str) -> object:
        return await rebase_onto(mirror, world.root / "w", head=commit, onto=main, identity=BOT, date=WHEN)

    assert await rebase(base) == AlreadyLanded()
    assert await rebase(head) == AlreadyLanded()
    assert await rebase(empty) == Empty()


async def test_a_rebase_that_cannot_be_tried_is_an_error(world: World) -> None:
    """An unknown base is an error, never a conflict."""
    with pytest.raises(GitError):
        await rebase_onto(world.mirror, world.root / "w", head=world.person.head, onto=NOBODY, identity=BOT, date=WHEN)
    with pytest.raises(ValueError, match="time zone"):
        await rebase_onto(
            world.mirror,
            world.root / "w",
            head=world.person.head,
            onto=NOBODY,
            identity=BOT,
            date=datetime(2026, 1, 1),
        )
