"""Deployments with real git, a real PostgreSQL and real commands: run once, in order, with their own secrets only."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import asyncpg
import pytest
from temporalio.testing import ActivityEnvironment

from activities.adapters.git import Mirror
from activities.adapters.store import Store
from activities.deploy_commands import DeployCommands
from activities.deploy_secrets import HIDDEN, DeploySecrets
from activities.deployments import Deployments
from activities.mirrors import Mirrors
from activities.runners.isolation import Isolation
from activities.settings import WorkerSettings
from tests.integration.git_world import World, make_world
from workflows.contracts.landing import Deploy, Deployed, DeployOutcome, RollBack
from workflows.model import Environment, FreezeCause, Lease, Repository, Stage, TaskRef
from workflows.policy import PATH, SECRET_PREFIX

REPOSITORY = Repository(owner="acme", name="shop")
QUEUE = "env/acme/shop/production"
LANDING = "merge/acme/shop/main"
TOKEN = "tok-3n-of-production"


@dataclass
class Shop:
    """A repository whose commands write into a folder: what is served, and what was run."""

    world: World
    store: Store
    root: Path
    deployments: Deployments

    @property
    def served(self) -> Path:
        """What the environment serves."""
        return self.root / "served"

    @property
    def ran(self) -> list[str]:
        """Every command that ran, in order."""
        log = self.root / "log"
        return log.read_text().split() if log.exists() else []

    def commit(self, what: str, *, deploy: str = "", probe: bool = True, more: str = "", branch: str = "main") -> str:
        """A commit on a branch whose policy deploys by writing the sha, or by `deploy`."""
        command = deploy or f"echo $ORCH_SHA > {self.served}"
        policy = f"""
[commands]
test = "true"
staging = '''echo {what} >> {self.root}/log; {command}'''
production = '''echo {what} >> {self.root}/log; {command}'''
{more}
"""
        if probe:
            policy += f'[probes]\nproduction = "cat {self.served}"\nstaging = "cat {self.served}"\n'
        self.world.person.write(PATH, policy)
        sha = self.world.person.commit(what)
        self.world.publish(branch)
        return sha

    async def lease(self) -> Lease:
        """The current right to deploy."""
        row = await self.store.landings.open_lease(QUEUE, "task/DEMO-1", 1)
        return Lease(queue=QUEUE, epoch=row.epoch, ticket=1, granted_at=datetime.now(UTC))

    async def deploy(
        self, sha: str, key: str = "DEMO-1", where: Environment = Environment.PRODUCTION, **more: object
    ) -> Deployed:
        """Deploy as a task does; a step later than everything before."""
        given = {"ref": ref(key), "repository": REPOSITORY, "environment": where, "sha": sha}
        arg = Deploy.model_validate({**given, "lease": await self.lease(), **more})
        return await ActivityEnvironment().run(self.deployments.deploy, arg)

    async def roll_back(self, sha: str, failed: str, attempt: int = 1) -> Deployed:
        """Roll back as a task does."""
        arg = RollBack(
            ref=ref(), repository=REPOSITORY, sha=sha, failed_sha=failed, attempt=attempt, lease=await self.lease()
        )
        return await ActivityEnvironment().run(self.deployments.roll_back, arg)

    async def begin(self, sha: str, previous: str) -> None:
        """A command of DEMO-1 whose result was lost."""
        await self.store.deployments.begin(
            ref().intent("deploy-production"), task="DEMO-1", generation=1, repo=str(REPOSITORY),
            environment="production", sha=sha, previous_sha=previous, kind="deploy",
        )  # fmt: skip

    async def statuses(self) -> list[tuple[str, str]]:
        """Kind and status of every command on record, in order."""
        rows = await self.store.pool.fetch("SELECT kind, status FROM deployments ORDER BY started_at")
        return [(row["kind"], row["status"]) for row in rows]


class OneMirror:
    """The world's mirror, fetched."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    async def fetched(self, _: Repository) -> Mirror:
        """As new as the remote."""
        await self._mirror.fetch()
        return self._mirror


def ref(key: str = "DEMO-1", round_: int = 1) -> TaskRef:
    """Who deploys."""
    return TaskRef(key=key, generation=1, stage=Stage.DEPLOY, round=round_, step=1)


@pytest.fixture
async def shop(pool: asyncpg.Pool, tmp_path: Path) -> Shop:
    """Nothing is deployed yet."""
    await pool.execute("TRUNCATE deployments, leases, freezes, fences")
    world = await make_world(tmp_path)
    store = Store(pool)
    secrets = DeploySecrets({f"{SECRET_PREFIX}API_TOKEN": TOKEN, f"{SECRET_PREFIX}OTHER": "not-asked-for"})
    commands = DeployCommands(NoCage(), secrets)
    settings = WorkerSettings.model_construct(home=tmp_path / "home")
    mirrors = cast("Mirrors", OneMirror(world.mirror))
    return Shop(world, store, tmp_path, Deployments(mirrors, commands, store, settings))


class NoCage(Isolation):
    """The environment is built from nothing, but the test's folder can be written to."""

    def __init__(self) -> None:
        super().__init__(required=False)

    async def _available(self) -> bool:
        return False


@pytest.mark.parametrize("probe", [True, False])
async def test_the_older_commit_that_comes_later_is_already_deployed(shop: Shop, probe: bool) -> None:
    """In the wrong order of speed production stays on the newer commit, with a probe and without one."""
    older = shop.commit("older", probe=probe)
    newer = shop.commit("newer", probe=probe)
    assert (await shop.deploy(newer, "DEMO-2")).outcome is DeployOutcome.SUCCEEDED
    late = await shop.deploy(older)
    assert (late.outcome, late.sha) == (DeployOutcome.ALREADY_DEPLOYED, older)
    assert newer in late.output
    assert ("there is no probe" in late.output) is not probe
    assert shop.served.read_text().strip() == newer
    assert shop.ran == ["newer"]


async def test_staging_replaces_a_branch_that_has_gone_another_way(shop: Shop) -> None:
    """A staged commit that does not contain ours is replaced, whichever is newer; one that does is left there."""
    base = shop.commit("base")
    one = shop.commit("base-one", branch="task/DEMO-1")
    shop.world.person.git("reset", "-q", "--hard", base)
    two = shop.commit("base-two", branch="task/DEMO-2")
    for key, sha in (("DEMO-1", one), ("DEMO-2", two)):
        assert (await shop.deploy(sha, key, Environment.STAGING)).outcome is DeployOutcome.SUCCEEDED
    assert (await shop.deploy(base, "DEMO-3", Environment.STAGING)).outcome is DeployOutcome.ALREADY_DEPLOYED
    assert shop.served.read_text().strip() == two


async def test_a_branch_does_not_say_how_it_is_staged(shop: Shop) -> None:
    """Staging runs the command of the base branch's tip; production that of the commit that landed."""
    shop.commit("base")
    branch = shop.commit("branch", branch="task/DEMO-1")
    assert (await shop.deploy(branch, where=Environment.STAGING)).outcome is DeployOutcome.SUCCEEDED
    assert shop.ran == ["base"]
    shop.served.unlink()
    shop.world.publish("main")
    assert (await shop.deploy(branch)).outcome is DeployOutcome.SUCCEEDED
    assert shop.ran == ["base", "branch"]


async def test_a_broken_policy_runs_nothing(shop: Shop) -> None:
    """What cannot be read is never a default: nothing is run, nothing is on record, the reason says where."""
    sha = shop.commit("broken", more="[nonsense]\n")
    done = await shop.deploy(sha)
    assert done.outcome is DeployOutcome.REFUSED
    assert f"{PATH} at {sha[:10]} of acme/shop" in done.reason
    assert (shop.ran, await shop.statuses()) == ([], [])


async def test_a_policy_may_say_that_nothing_is_deployed(shop: Shop) -> None:
    """`production = "none"` at the commit that landed means that nothing is run there."""
    shop.world.person.write(PATH, '[commands]\ntest = "true"\nproduction = "none"\n')
    sha = shop.world.person.commit("none")
    shop.world.publish("main")
    assert (await shop.deploy(sha)).outcome is DeployOutcome.NOT_WANTED


SECRETS = '[deploy]\nsecrets = ["API_TOKEN"]\n'


async def test_a_command_gets_its_named_secrets_and_nobody_sees_them(shop: Shop) -> None:
    """Only the named ones, only the command and not the probe; of what it says their values are struck out."""
    show = f"echo key=$API_TOKEN other=$OTHER; echo $API_TOKEN > {shop.root}/seen; echo $ORCH_SHA > {shop.served}"
    sha = shop.commit("secret", deploy=show, probe=False, more=SECRETS)
    done = await shop.deploy(sha)
    assert done.outcome is DeployOutcome.SUCCEEDED
    assert (shop.root / "seen").read_text().strip() == TOKEN
    assert f"key={HIDDEN} other=\n" in done.output
    recorded = await shop.store.pool.fetchval("SELECT output_tail FROM deployments")
    assert TOKEN not in recorded
    assert TOKEN not in done.model_dump_json()


async def test_staging_does_not_get_the_secrets_of_production(shop: Shop) -> None:
    """A branch's code runs in staging: it is given what the policy names for staging alone."""
    show = f"echo key=$API_TOKEN other=$OTHER; echo $ORCH_SHA > {shop.served}"
    more = '[deploy]\nsecrets = ["API_TOKEN"]\nstaging_secrets = ["OTHER"]\n'
    sha = shop.commit("secret", deploy=show, more=more)
    assert f"key= other={HIDDEN}\n" in (await shop.deploy(sha, where=Environment.STAGING)).output


async def test_a_missing_secret_fails_before_anything_runs(shop: Shop) -> None:
    """The reason names the variable to set; nothing is run and nothing is on record."""
    sha = shop.commit("secret", more='[deploy]\nsecrets = ["API_TOKEN", "NOT_THERE"]\n')
    done = await shop.deploy(sha)
    assert done.outcome is DeployOutcome.REFUSED
    assert f"{SECRET_PREFIX}NOT_THERE: is not set; set it" in done.reason
    assert (shop.ran, await shop.statuses()) == ([], [])


REPEATABLE = "[deploy]\nrepeatable = true\n"


@pytest.mark.parametrize(
    ("more", "served", "previous", "outcome", "runs"),
    [
        ("", "nothing", "nothing", DeployOutcome.UNKNOWN, 0),
        (REPEATABLE, "nothing", "nothing", DeployOutcome.SUCCEEDED, 1),
        ("", "before", "before", DeployOutcome.SUCCEEDED, 1),
        (REPEATABLE, "other", "nothing", DeployOutcome.UNKNOWN, 0),
        (REPEATABLE, "nothing", "before", DeployOutcome.UNKNOWN, 0),
        ("", "ours", "nothing", DeployOutcome.SUCCEEDED, 0),
    ],
)
async def test_a_lost_result_is_resolved_by_the_probe(
    shop: Shop, more: str, served: str, previous: str, outcome: DeployOutcome, runs: int
) -> None:
    """Ours is served: success. What was served before still is: run again, also nothing if declared repeatable."""
    before = shop.commit("before", more=more)
    sha = shop.commit("ours", more=more)
    known = {"nothing": "", "before": before, "ours": sha, "other": "f" * 40}
    if known[served]:
        shop.served.write_text(known[served])
    await shop.begin(sha, known[previous])
    done = await shop.deploy(sha)
    assert done.outcome is outcome
    assert len(shop.ran) == runs
    lost = outcome is DeployOutcome.UNKNOWN
    assert await shop.statuses() == [("deploy", "lost" if lost else "succeeded")]


async def test_without_a_probe_a_lost_result_is_a_persons(shop: Shop) -> None:
    """Without a probe nothing is run again, however repeatable it is; what once got lost stays lost."""
    sha = shop.commit("ours", probe=False, more=REPEATABLE)
    await shop.begin(sha, "")
    for _ in range(2):
        done = await shop.deploy(sha)
        assert done.outcome is DeployOutcome.UNKNOWN
        assert "there is no probe" in done.reason
    assert shop.ran == []


async def test_a_result_is_told_again_and_nothing_is_run_twice(shop: Shop) -> None:
    """A repeated attempt reads what the first one came to, good or bad."""
    bad = shop.commit("bad", deploy="echo broken; exit 3")
    for _ in range(2):
        failed = await shop.deploy(bad)
        assert (failed.outcome, failed.output.strip()) == (DeployOutcome.FAILED, "broken")
    assert shop.ran == ["bad"]


async def test_another_tasks_failure_stops_production_and_only_that(shop: Shop) -> None:
    """While a failure stands only the task that froze, or one a person lets through, may deploy to production."""
    sha = shop.commit("one")
    await shop.store.freezes.open(LANDING, FreezeCause.DEPLOY_FAILED, reason="exit 1", by="DEMO-1")
    stopped = await shop.deploy(sha, "DEMO-2")
    assert stopped.outcome is DeployOutcome.FROZEN
    assert "DEMO-1 has failed to deploy since" in stopped.reason
    assert (shop.ran, await shop.statuses()) == ([], [])
    assert (await shop.deploy(sha, "DEMO-2", Environment.STAGING)).outcome is DeployOutcome.SUCCEEDED
    assert (await shop.deploy(sha, "DEMO-2", despite_failure=True)).outcome is DeployOutcome.ALREADY_DEPLOYED
    assert (await shop.deploy(sha, "DEMO-1")).outcome is DeployOutcome.ALREADY_DEPLOYED
    await shop.store.freezes.open(LANDING, FreezeCause.BASE_RED, reason="red", by="DEMO-9")
    await shop.store.freezes.lift(LANDING, FreezeCause.DEPLOY_FAILED, reason="fixed", by="olga")
    assert (await shop.deploy(sha, "DEMO-3")).outcome is DeployOutcome.ALREADY_DEPLOYED


async def test_a_lease_that_was_taken_back_deploys_nothing(shop: Shop) -> None:
    """An epoch that is over runs nothing."""
    sha = shop.commit("one")
    old = await shop.lease()
    await shop.lease()
    assert (await shop.deploy(sha, lease=old)).outcome is DeployOutcome.LEASE_LOST
    assert shop.ran == []


async def fails_after(shop: Shop, rollback: str) -> tuple[str, str]:
    """A good commit is served, then one whose command fails half-way."""
    good = shop.commit("good")
    assert (await shop.deploy(good, "DEMO-0")).outcome is DeployOutcome.SUCCEEDED
    more = f"rollback = '''{rollback}'''\n" if rollback else ""
    bad = shop.commit("bad", deploy=f"echo half > {shop.served}; exit 1", more=more + SECRETS)
    failed = await shop.deploy(bad)
    assert (failed.outcome, failed.previous_sha) == (DeployOutcome.FAILED, good)
    return good, bad


async def test_a_rollback_brings_back_what_was_served(shop: Shop) -> None:
    """It runs once for each time a person says so, knows both commits, and the record says what is served since."""
    says = f"echo $ORCH_FAILED_SHA $API_TOKEN; echo back >> {shop.root}/log; echo $ORCH_SHA > {shop.served}"
    good, bad = await fails_after(shop, says)
    for _ in range(2):
        done = await shop.roll_back(good, bad)
        assert (done.outcome, done.sha, done.output.strip()) == (DeployOutcome.SUCCEEDED, good, f"{bad} {HIDDEN}")
    assert (shop.served.read_text().strip(), shop.ran) == (good, ["good", "bad", "back"])
    assert await shop.store.deployments.last(str(REPOSITORY), "production") == good
    assert await shop.statuses() == [("deploy", "succeeded"), ("deploy", "failed"), ("rollback", "succeeded")]
    assert (await shop.roll_back(good, bad, attempt=2)).outcome is DeployOutcome.SUCCEEDED
    assert shop.ran[-2:] == ["back", "back"]


async def test_a_rollback_that_fails_or_is_not_there_says_so(shop: Shop) -> None:
    """Exit codes and the probe are believed; without a command nothing is run."""
    good, bad = await fails_after(shop, "exit 4")
    assert "exit 4" in (await shop.roll_back(good, bad)).reason
    lacking = shop.commit("lacking")
    done = await shop.roll_back(good, lacking)
    assert done.outcome is DeployOutcome.REFUSED
    assert "has no commands.rollback" in done.reason


async def test_a_rollback_never_undoes_what_somebody_deployed_since(shop: Shop) -> None:
    """Once a newer commit that contains the failed one is served, there is nothing to go back from."""
    good, bad = await fails_after(shop, f"echo $ORCH_SHA > {shop.served}")
    fix = shop.commit("fix")
    assert (await shop.deploy(fix, "DEMO-2")).outcome is DeployOutcome.SUCCEEDED
    done = await shop.roll_back(good, bad)
    assert (done.outcome, "somebody has deployed over" in done.reason) == (DeployOutcome.REFUSED, True)
    assert shop.served.read_text().strip() == fix


async def test_a_command_that_is_broken_off_is_not_begun_twice(shop: Shop) -> None:
    """A command killed in the middle leaves its intent; the next attempt asks the probe first."""
    sha = shop.commit("slow", deploy=f"echo $ORCH_SHA > {shop.served}; sleep 60")
    attempt = asyncio.create_task(shop.deploy(sha))
    async with asyncio.timeout(20):
        while not shop.served.exists() or not shop.served.read_text():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
    attempt.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attempt
    assert (await shop.deploy(sha)).outcome is DeployOutcome.SUCCEEDED
    assert shop.ran == ["slow"]
