"""A task's own test suite as an attacker: what it can take, and what of what it leaves can reach us."""

import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import workspaces as workspaces_module
from activities.adapters.git import Identity, Rebased, checkout_clean, command, rebase_onto
from activities.fencing import Fence
from activities.runners.isolation import Cage, Isolation
from activities.workspaces import Workspaces
from tests.integration.git_world import World, make_world
from workflows.contracts.workspaces import RunTests
from workflows.model import Repository, Stage, TaskRef, TestRun

TOKEN = "t0ken-of-the-bot"
WHEN = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
BOT = Identity("Orch", "orch@example.com")


class Bench:
    """`run_tests` over real git and real processes, in a worker whose environment holds a token."""

    def __init__(self, world: World, isolation: Isolation) -> None:
        self.world, self.marks = world, world.root / "marks"
        self.marks.mkdir(exist_ok=True)
        self.marks.chmod(0o777)
        mirrors = SimpleNamespace(fetched=self._fetched)
        settings = SimpleNamespace(home=world.root / "home", host_name="host")
        self.workspaces = Workspaces(cast("Any", mirrors), isolation, cast("Any", None), cast("Any", settings))

    async def _fetched(self, _: Repository) -> Any:
        await self.world.mirror.fetch()
        return self.world.mirror

    async def attack(self, script: str) -> TestRun:
        """Run a suite that somebody wrote into a task branch, under a policy that says `python3 attack.py`."""
        self.world.person.git("checkout", "-q", "-B", "attack", "main")
        sha = self.world.person.commit("attack", attack__py=script)
        self.world.publish("task/DEMO-1")
        arg = RunTests(
            ref=TaskRef(key="DEMO-1", generation=1, stage=Stage.DEPLOY_STAGING, round=1, step=1),
            repository=Repository(owner="acme", name="shop"),
            sha=sha,
            command="python3 attack.py",
        )
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, attempt=1)
        run = await environment.run(self.workspaces.run_tests, arg)
        assert isinstance(run, TestRun)
        assert run.passed, run.tail  # the attack itself ran to its end
        return run

    async def everything_we_do(self) -> None:
        """Fetch, check out, rebase and push, as the worker does after the attack."""
        world = self.world
        base = world.person.git("rev-parse", "main")
        world.person.git("checkout", "-q", "-B", "ours", base)
        head = world.person.commit("ours", ours__txt="o\n")
        world.publish("task/DEMO-2")
        world.person.git("checkout", "-q", "-B", "main2", base)
        onto = world.person.commit("main2", theirs__txt="t\n")
        world.publish("main")
        await world.mirror.ensure()
        await world.mirror.fetch()
        await checkout_clean(world.mirror, world.root / "checkout", onto)
        result = await rebase_onto(world.mirror, world.root / "place", head=head, onto=onto, identity=BOT, date=WHEN)
        assert isinstance(result, Rebased)
        await world.mirror.push(result.sha, "task/DEMO-2", head)

    def reached(self) -> list[str]:
        """Which planted programs of the attacker have run."""
        return sorted(path.name for path in self.marks.iterdir())


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A worker with secrets in its environment, without bubblewrap: the weaker form of the cage."""
    monkeypatch.setenv("ORCH_GITEA_TOKEN", TOKEN)
    monkeypatch.setenv("GIT_AUTHOR_NAME", TOKEN)

    async def take(*_: object) -> Fence:
        return cast("Fence", None)

    monkeypatch.setattr(workspaces_module.Fence, "take", take)
    isolation = Isolation(required=False)
    monkeypatch.setattr(isolation, "_asked", True)
    return Bench(await make_world(tmp_path), isolation)


ENVIRONMENT = "import os\nprint(sorted(os.environ))\nprint(os.environ)\n"


async def test_no_token_is_in_the_environment_of_tests(bench: Bench) -> None:
    """Neither a token nor any variable of git's or ours reaches the suite, but the mark of its own run."""
    tail = (await bench.attack(ENVIRONMENT)).tail
    assert TOKEN not in tail
    names = {name.strip("'[] ") for name in tail.splitlines()[0].split(",")}
    assert {name for name in names if name.startswith(("ORCH_", "GIT_", "TEMPORAL_"))} == {"ORCH_RUN_ID"}


async def test_an_inherited_environment_would_have_given_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the worker's own environment the very same suite reads the token."""

    async def open_cage(*_: object, **__: object) -> Cage:
        return Cage((), dict(os.environ))

    monkeypatch.setattr(bench.workspaces._isolation, "cage", open_cage)
    assert TOKEN in (await bench.attack(ENVIRONMENT)).tail


PLANT = """\
import os, pathlib, stat
marks = {marks!r}
def program(name):
    path = pathlib.Path({root!r}) / ("evil-" + name)
    path.write_text("#!/bin/sh\\ntouch " + marks + "/" + name + "\\nexit 0\\n")
    path.chmod(0o755)
    return str(path)
mirror = pathlib.Path({mirror!r})
"""

PLANTS = {
    "hooks in the mirror": """
(mirror / "hooks").mkdir(exist_ok=True)
for name in ("pre-push", "post-checkout", "post-rewrite", "reference-transaction", "pre-rebase", "post-commit"):
    os.symlink(program(name), mirror / "hooks" / name)
""",
    "configuration of the mirror": """
with open(mirror / "config", "a") as config:
    config.write("[core]\\n\\tfsmonitor = " + program("fsmonitor") + "\\n\\thooksPath = " + {root!r} + "\\n")
    config.write("\\tsshCommand = " + program("ssh") + "\\n\\tpager = " + program("pager") + "\\n")
    config.write("\\teditor = " + program("editor") + "\\n")
    config.write("[credential]\\n\\thelper = " + program("credential") + "\\n")
    config.write("[gpg]\\n\\tprogram = " + program("gpg") + "\\n[commit]\\n\\tgpgSign = true\\n")
""",
    "global configuration": """
for home in (os.environ["HOME"], {root!r}):
    pathlib.Path(home, ".gitconfig").write_text("[core]\\n\\tfsmonitor = " + program("global") + "\\n")
""",
    "its own .git": """
pathlib.Path(".git/hooks").mkdir(exist_ok=True)
for name in ("post-checkout", "pre-push", "pre-commit"):
    os.symlink(program(name), pathlib.Path(".git/hooks", name))
pathlib.Path(".git/config").write_text("[core]\\n\\tfsmonitor = " + program("own") + "\\n")
""",
    "attributes and filters": """
(mirror / "info").mkdir(exist_ok=True)
(mirror / "info/attributes").write_text("* filter=evil diff=evil merge=evil\\n")
with open(mirror / "config", "a") as config:
    config.write("[diff]\\n\\texternal = " + program("diff") + "\\n")
""",
}
"""What a suite of the same user can write where there is no bubblewrap."""


@pytest.mark.parametrize("plant", PLANTS)
async def test_what_a_suite_plants_is_never_run_by_us(bench: Bench, plant: str) -> None:
    """Hooks, programs in configuration and filters that a suite leaves are not run by anything we do afterwards."""
    names = {"marks": str(bench.marks), "root": str(bench.world.root), "mirror": str(bench.world.mirror.path)}
    script = PLANT.format(**names) + PLANTS[plant].replace("{root!r}", repr(names["root"]))
    await bench.attack(script)
    await bench.everything_we_do()
    assert bench.reached() == []


@pytest.mark.parametrize("plant", ["hooks in the mirror", "configuration of the mirror"])
async def test_it_is_our_configuration_that_disarms_it(
    bench: Bench, plant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the hardened configuration the same plants are run by our own git."""
    names = {"marks": str(bench.marks), "root": str(bench.world.root), "mirror": str(bench.world.mirror.path)}
    script = PLANT.format(**names) + PLANTS[plant].replace("{root!r}", repr(names["root"]))
    script += (
        f'\nfor name in ("post-rewrite", "reference-transaction"):\n    shut = pathlib.Path({names["root"]!r}, name)\n'
    )
    script += "    os.path.lexists(shut) or os.symlink(program(name), shut)\n"
    await bench.attack(script)
    kept = tuple(pair for pair in command.HARDENED if pair[0] not in {"core.hooksPath", "core.fsmonitor"})
    monkeypatch.setattr(command, "HARDENED", kept)
    await bench.world.mirror.fetch()
    await command.git(("update-ref", "refs/orch/x", "main"), git_dir=bench.world.mirror.path, ok=(0, 1, 128))
    assert bench.reached()


async def test_the_cage_shows_neither_other_processes_nor_the_mirror(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bubblewrap a suite is given namespaces of its own, and of our folders only its checkout and its home."""
    isolation = Isolation(required=True)
    monkeypatch.setattr(isolation, "_asked", True)
    monkeypatch.setattr(isolation, "_bwrap", "/usr/bin/bwrap")
    tree, home = bench.world.root / "home/work/tree", bench.world.root / "home/work/tree.home"
    cage = await isolation.cage(tree, (home,), {})
    assert {"--unshare-all", "--die-with-parent"} <= set(cage.argv)
    assert cage.argv[cage.argv.index("--proc") + 1] == "/proc"
    root = str(bench.world.root)
    shown = {cage.argv[at + 1] for at, word in enumerate(cage.argv) if "bind" in word}
    assert {path for path in shown if path.startswith(root)} == {str(tree), str(home)}
    assert not {path for path in shown if root.startswith(f"{path}/")}
    assert TOKEN not in cage.env.values()
