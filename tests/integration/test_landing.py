"""Candidates and landings against a real Gitea-compatible server, git and PostgreSQL: every answer, what it leaves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from activities import landing as landing_module
from activities.adapters.store import Store
from activities.adapters.store import open_pool as open_store
from tests.contract.sandbox_harness import eventually, harness
from tests.integration.conftest import Postgres
from tests.integration.test_faulty_sources import BRANCH, REPOSITORY, World
from workflows.contracts.landing import BuildCandidate, CandidateBuilt, CandidateOutcome, Land, Landed, LandOutcome
from workflows.model import Candidate, FreezeCause, Lease, PullRequest

QUEUE = "merge/acme/payments/main"
GOOD_POLICY = '[commands]\ntest = "true"\nproduction = "none"\n'


class Gate:
    """One task at the merge gate."""

    def __init__(self, world: World, clone: Path, lease: Lease) -> None:
        self.world, self.clone, self.lease = world, clone, lease
        self.number, self.head = 0, ""
        self.before: Candidate | None = None
        self.policy_gate = True

    async def git(self, *args: str) -> str:
        """Run git as a person with a clone."""
        return await self.world.sandbox.git(*args, cwd=self.clone)

    async def commit(self, branch: str, start: str, *options: str, **files: str) -> str:
        """Put files on a branch that begins at `start`, and push it (`__` in a name is a dot, `_slash_` a slash)."""
        await self.git("checkout", "--quiet", "--force", "-B", branch, start)
        for name, text in files.items():
            path = self.clone / name.replace("__", ".").replace("_slash_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        await self.git("add", "--all")
        await self.git("commit", "--quiet", "--message", f"change {', '.join(files)}")
        await self.git("push", "--quiet", *options, "origin", branch)
        return await self.git("rev-parse", "HEAD")

    async def begin(self, **files: str) -> None:
        """A task branch with a pull request."""
        self.head = await self.commit(BRANCH, "origin/main", **(files or {"retry__py": "x = 1\n"}))
        self.number = (await self.world.sandbox.open_pull())["number"]

    async def main(self, **files: str) -> str:
        """Somebody moves main."""
        await self.git("fetch", "--quiet", "origin")
        return await self.commit("main", "origin/main", **files)

    async def tip(self, branch: str = "main") -> str:
        """Where a branch of the server is."""
        return str((await self.world.sandbox.gitea("GET", f"branches/{branch}")).body["commit"]["id"])

    def step(self) -> None:
        """The workflow takes its next step."""
        self.world.ref = self.world.ref.model_copy(update={"step": self.world.ref.step + 1})

    async def build(self) -> CandidateBuilt:
        """Build a candidate."""
        self.step()
        arg = BuildCandidate(
            ref=self.world.ref,
            repository=REPOSITORY,
            branch=BRANCH,
            head_sha=self.head,
            lease=self.lease,
            before=self.before,
            policy_gate=self.policy_gate,
        )
        built, _ = await self.world.until_done(self.world.candidates.build_candidate, arg)
        assert isinstance(built, CandidateBuilt)
        return built

    async def candidate(self) -> Candidate:
        """A candidate that is ready."""
        built = await self.build()
        assert built.candidate is not None, built
        return built.candidate

    async def land(self, candidate: Candidate) -> Landed:
        """Land it."""
        self.step()
        arg = Land(
            ref=self.world.ref,
            repository=REPOSITORY,
            pull=PullRequest(number=self.number, head_sha=candidate.sha, url=""),
            branch=BRANCH,
            candidate=candidate,
            lease=self.lease,
            title="PAY-1",
            policy_gate=self.policy_gate,
        )
        landed, _ = await self.world.until_done(self.world.landing.land, arg)
        assert isinstance(landed, Landed)
        return landed

    async def intents(self) -> list[tuple[str, str]]:
        """Every landing intent and where it stands."""
        rows = await self.world.store.pool.fetch("SELECT candidate, status FROM merge_landings ORDER BY epoch")
        return [tuple(row) for row in rows]

    async def refuse(self, status: int, message: str, times: int = 1, effect: str = "before") -> None:
        """Let Gitea answer the next merge calls so."""
        body = '{"message": "' + message + '", "url": ""}'
        fault = {"status": status, "body": body, "times": times, "effect": effect}
        await self.world.fault("gitea", "POST", "/merge$", fault)


@pytest.fixture
async def gate(tmp_path: Path, postgres: Postgres, pool: asyncpg.Pool) -> AsyncIterator[Gate]:
    """A task that holds the merge lease."""
    await pool.execute("TRUNCATE fences, leases, merge_landings, freezes, pushed_shas")
    store_pool = await open_store(postgres.url)
    try:
        async with harness(tmp_path / "sandbox") as sandbox, aiohttp.ClientSession() as session:
            await sandbox.seed(allow_fast_forward_only_merge=True)
            world = World(sandbox, Store(store_pool), session, tmp_path)
            row = await world.store.landings.open_lease(QUEUE, "task/PAY-1", 1)
            clone = await sandbox.clone(tmp_path / "clone")
            yield Gate(world, clone, Lease(queue=QUEUE, epoch=row.epoch, ticket=1, granted_at=datetime.now(UTC)))
    finally:
        await store_pool.close()


async def test_a_branch_behind_main_lands_on_top_of_it(gate: Gate) -> None:
    """The candidate stands on current main, is pushed to the task branch, and lands as exactly that commit."""
    await gate.begin()
    main = await gate.main(other__py="y = 1\n")
    candidate = await gate.candidate()
    assert (candidate.base_sha, candidate.replaces) == (main, gate.head)
    assert await gate.tip(BRANCH) == candidate.sha
    landed = await gate.land(candidate)
    assert (landed.outcome, landed.sha) == (LandOutcome.LANDED, candidate.sha)
    assert await gate.tip() == candidate.sha
    assert await gate.intents() == [(candidate.sha, "landed")]
    assert await gate.world.store.landings.last_landed(QUEUE) == candidate.sha


async def test_a_conflict_is_seen_before_any_workspace(gate: Gate) -> None:
    """A branch that conflicts is answered with its files by a probe; nothing is checked out and nothing pushed."""
    await gate.begin(README__md="mine\n")
    await gate.main(README__md="theirs\n")
    built = await gate.build()
    assert (built.outcome, built.conflicts) == (CandidateOutcome.CONFLICT, ("README.md",))
    assert not (gate.world.settings.home / "candidates").exists()
    assert await gate.tip(BRANCH) == gate.head


async def test_what_landed_unseen_is_found(gate: Gate) -> None:
    """A head that an intent of ours brought to main is told as landed, whatever became of the answer."""
    await gate.begin()
    candidate = await gate.candidate()
    await gate.land(candidate)
    await gate.world.store.pool.execute("UPDATE merge_landings SET status = 'open', landed_sha = '', settled_at = NULL")
    built = await gate.build()
    assert (built.outcome, built.sha) == (CandidateOutcome.ALREADY_LANDED, candidate.sha)
    assert await gate.intents() == [(candidate.sha, "landed")]


async def test_what_a_person_brought_to_main_is_not_ours(gate: Gate) -> None:
    """A head on main without an intent of ours is a person's act."""
    await gate.begin()
    await gate.git("push", "--quiet", "origin", f"{gate.head}:refs/heads/main")
    assert (await gate.build()).outcome is CandidateOutcome.ON_MAIN_BY_HAND


async def test_a_branch_without_anything_new_is_told(gate: Gate) -> None:
    """A branch whose change main has as another commit leaves nothing to land, and nobody is blamed."""
    await gate.begin()
    await gate.main(other__py="y = 1\n")
    await gate.git("cherry-pick", gate.head)
    await gate.git("push", "--quiet", "origin", "main")
    assert (await gate.build()).outcome is CandidateOutcome.NOTHING_TO_LAND


@pytest.mark.parametrize("moved", ["before", "behind"])
async def test_a_head_that_somebody_moved_is_theirs(gate: Gate, moved: str) -> None:
    """A branch that somebody else moved is answered with its new head, and their commit stays."""
    await gate.begin()
    theirs = await gate.commit(BRANCH, gate.head, theirs__py="z = 1\n")
    if moved == "behind":
        await gate.main(other__py="y = 1\n")
    built = await gate.build()
    assert (built.outcome, built.sha) == (CandidateOutcome.HEAD_MOVED, theirs)
    assert await gate.tip(BRANCH) == theirs


async def rewind(gate: Gate, to: str) -> None:
    """Somebody forces main to another commit."""
    await gate.git("push", "--quiet", "--force", "origin", f"{to}:refs/heads/main")


async def test_a_main_without_the_last_landing_is_rewound(gate: Gate) -> None:
    """Main without what landed last is told until a person accepts it: then it is as good as any main."""
    await gate.begin()
    before = await gate.tip()
    await gate.land(await gate.candidate())
    await rewind(gate, before)
    gate.head = await gate.commit("task/PAY-2", before, new__py="n = 1\n")
    await gate.git("push", "--quiet", "--force", "origin", f"{gate.head}:refs/heads/{BRANCH}")
    assert (await gate.build()).outcome is CandidateOutcome.BASE_REWOUND
    freezes = gate.world.store.freezes
    await freezes.open(QUEUE, FreezeCause.BASE_REWOUND, reason="lost", by="PAY-1")
    await freezes.lift(QUEUE, FreezeCause.BASE_REWOUND, reason="wanted", by="olga")
    assert (await gate.build()).outcome is CandidateOutcome.READY


async def test_a_main_without_the_candidates_base_is_rewound(gate: Gate) -> None:
    """A main that lost the commit a candidate was built on is told at the landing and at the next build."""
    await gate.begin()
    before = await gate.tip()
    await gate.main(other__py="y = 1\n")
    candidate = await gate.candidate()
    await rewind(gate, before)
    assert (await gate.land(candidate)).outcome is LandOutcome.BASE_REWOUND
    gate.before, gate.head = candidate, candidate.sha
    assert (await gate.build()).outcome is CandidateOutcome.BASE_REWOUND


async def test_a_freeze_stops_all_but_whom_it_lets_through(gate: Gate) -> None:
    """A freeze set at any time stops building and landing; a pass names the causes that do not count."""
    await gate.begin()
    candidate = await gate.candidate()
    await gate.world.store.freezes.open(QUEUE, FreezeCause.BASE_RED, reason="main is red", by="PAY-9")
    landed = await gate.land(candidate)
    assert (landed.outcome, landed.reason) == (LandOutcome.FROZEN, "base red: main is red")
    assert (await gate.build()).outcome is CandidateOutcome.FROZEN
    gate.lease = gate.lease.model_copy(update={"passes": (FreezeCause.BASE_RED,)})
    await gate.world.store.freezes.open(QUEUE, FreezeCause.OPERATOR, reason="release day", by="olga")
    assert (await gate.land(candidate)).reason == "operator: release day"
    await gate.world.store.freezes.lift(QUEUE, FreezeCause.OPERATOR, reason="over", by="olga")
    assert (await gate.land(candidate)).outcome is LandOutcome.LANDED


@pytest.mark.parametrize("change", ["broken", "removed"])
async def test_a_candidate_that_would_break_the_policy_is_red(gate: Gate, change: str) -> None:
    """An invalid or removed policy on the candidate is red with the file's problem, and is never pushed."""
    await gate.main(_slash___slash_x="x")
    await gate.commit("main", "main", __orch_slash_pipeline__toml=GOOD_POLICY)
    await gate.git("fetch", "--quiet", "origin")
    if change == "broken":
        await gate.begin(__orch_slash_pipeline__toml="[commands]\nproduction = 'none'\n")
    else:
        await gate.git("checkout", "--quiet", "--force", "-B", BRANCH, "origin/main")
        await gate.git("rm", "--quiet", ".orch/pipeline.toml")
        await gate.git("commit", "--quiet", "--message", "remove")
        await gate.git("push", "--quiet", "origin", BRANCH)
        gate.head = await gate.git("rev-parse", "HEAD")
    built = await gate.build()
    assert built.outcome is CandidateOutcome.BROKEN_POLICY
    assert ("commands.test" if change == "broken" else "is missing") in built.reason


async def test_a_task_branch_that_gitea_protects_is_not_pushed(gate: Gate) -> None:
    """A branch that Gitea lists as protected is refused before any push, whatever it is called."""
    await gate.begin()
    await gate.main(other__py="y = 1\n")
    made = await gate.world.sandbox.gitea(
        "POST", "branch_protections", {"rule_name": "task/*", "enable_push": True}, "root"
    )
    assert made.status == 201, made.body
    built = await gate.build()
    assert built.outcome is CandidateOutcome.REFUSED
    assert "protected" in built.reason
    assert await gate.tip(BRANCH) == gate.head


async def test_a_main_that_moved_is_never_landed_on(gate: Gate) -> None:
    """A main that moved since the test is found before the merge call: nothing is merged, nothing intended."""
    await gate.begin()
    candidate = await gate.candidate()
    main = await gate.main(other__py="y = 1\n")
    assert (await gate.land(candidate)).outcome is LandOutcome.MAIN_MOVED
    assert await gate.tip() == main
    assert await gate.intents() == []


async def test_a_head_that_moved_is_never_landed(gate: Gate) -> None:
    """A head that moved since the test is answered with the new head, and nothing is merged."""
    await gate.begin()
    candidate = await gate.candidate()
    main = await gate.tip()
    theirs = await gate.commit(BRANCH, candidate.sha, theirs__py="z = 1\n")
    landed = await gate.land(candidate)
    assert (landed.outcome, landed.sha) == (LandOutcome.HEAD_MOVED, theirs)
    assert await gate.tip() == main


async def test_another_hands_merge_is_seen_as_that(gate: Gate) -> None:
    """A pull request that a person squashed while we held the lease is theirs, and our intent is abandoned."""
    await gate.begin()
    candidate = await gate.candidate()
    store = gate.world.store.landings
    await store.open_landing(
        str(REPOSITORY), candidate.sha, gate.lease.epoch, queue=QUEUE, task="PAY-1", generation=1, base_sha="", tree=""
    )
    form = {"Do": "squash", "head_commit_id": candidate.sha}
    merged = await gate.world.sandbox.gitea("POST", f"pulls/{gate.number}/merge", form, user="root")
    assert merged.status == 200, merged.body
    landed = await gate.land(candidate)
    assert landed.outcome is LandOutcome.MERGED_BY_HAND
    assert "root merged" in landed.reason
    assert await gate.intents() == [(candidate.sha, "abandoned")]


@pytest.mark.parametrize("moved", [False, True])
async def test_what_our_own_merge_left_is_measured_by_its_tree(gate: Gate, moved: bool) -> None:
    """A merge of ours that made another commit has landed if its tree is the tested one, and is an alarm if not."""
    await gate.begin()
    candidate = await gate.candidate()
    await gate.world.store.landings.open_landing(
        str(REPOSITORY), candidate.sha, gate.lease.epoch, queue=QUEUE, task="PAY-1", generation=1, base_sha="", tree=""
    )
    if moved:
        await gate.main(other__py="y = 1\n")
    form = {"Do": "squash", "head_commit_id": candidate.sha}

    async def merged() -> bool:
        """Gitea answers 405 for as long as it checks for conflicts."""
        return (await gate.world.sandbox.gitea("POST", f"pulls/{gate.number}/merge", form)).status == 200

    await eventually(merged)
    landed = await gate.land(candidate)
    assert landed.outcome is (LandOutcome.WRONG_TREE if moved else LandOutcome.LANDED)
    if not moved:
        assert landed.sha == await gate.tip()


async def test_an_unmet_protection_is_named(gate: Gate) -> None:
    """A merge that protection refuses is told with what it wants and lacks, and the intent is abandoned."""
    await gate.begin()
    rule = {"rule_name": "main", "required_approvals": 2, "enable_status_check": True}
    made = await gate.world.sandbox.gitea(
        "POST", "branch_protections", {**rule, "status_check_contexts": ["audit*"]}, "root"
    )
    assert made.status == 201, made.body
    candidate = await gate.candidate()
    landed = await gate.land(candidate)
    assert landed.outcome is LandOutcome.NOT_ALLOWED
    assert "2 approval(s)" in landed.reason
    assert "no success of audit*" in landed.reason
    assert await gate.intents() == [(candidate.sha, "abandoned")]


async def test_a_gitea_that_still_checks_is_asked_again(gate: Gate) -> None:
    """`Please try again later` is asked again shortly, and the merge then goes through."""
    await gate.begin()
    candidate = await gate.candidate()
    await gate.refuse(405, "Please try again later", times=2)
    assert (await gate.land(candidate)).outcome is LandOutcome.LANDED
    assert [delay and delay.total_seconds() for delay in gate.world.delays] == [2.0, 2.0]


async def test_a_check_that_never_ends_is_told(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check for conflicts that does not end is a person's to look at, after a bounded number of questions."""
    monkeypatch.setattr(landing_module, "CHECKS", 3)
    await gate.begin()
    candidate = await gate.candidate()
    await gate.refuse(405, "Please try again later", times=50)
    landed = await gate.land(candidate)
    assert landed.outcome is LandOutcome.NOT_ALLOWED
    assert len(gate.world.delays) == 2
    assert await gate.intents() == [(candidate.sha, "abandoned")]


REFUSALS: list[tuple[int, str, str, LandOutcome]] = [
    (409, "merge push out of date", "before", LandOutcome.MAIN_MOVED),
    (409, "merge push out of date", "after", LandOutcome.LANDED),
    (409, "head out of date", "before", LandOutcome.HEAD_MOVED),
    (405, "The PR is already merged", "after", LandOutcome.LANDED),
    (405, "fast-forward-only is not an allowed merge style", "before", LandOutcome.NOT_ALLOWED),
    (405, "", "after", LandOutcome.LANDED),
    (500, "", "after", LandOutcome.LANDED),
    (500, "", "before", LandOutcome.LANDED),
]


@pytest.mark.parametrize(("status", "message", "effect", "outcome"), REFUSALS)
async def test_no_answer_is_believed_unread(
    gate: Gate, status: int, message: str, effect: str, outcome: LandOutcome
) -> None:
    """Whatever Gitea answers, main and the pull request say what happened, and only that settles the intent."""
    await gate.begin()
    candidate = await gate.candidate()
    await gate.refuse(status, message, effect=effect)
    assert (await gate.land(candidate)).outcome is outcome
    landed = outcome is LandOutcome.LANDED
    assert await gate.intents() == [(candidate.sha, "landed" if landed else "abandoned")]
    assert (await gate.tip() == candidate.sha) is landed


@pytest.mark.parametrize("of", ["candidate", "replaced", "older"])
async def test_a_change_request_stops_the_landing(gate: Gate, of: str) -> None:
    """A person's change request of what would land stops it; one of an older commit waits for their second look."""
    await gate.begin()
    older = gate.head
    gate.head = await gate.commit(BRANCH, older, more__py="m = 1\n")
    replaced = gate.head
    await gate.main(other__py="y = 1\n")
    candidate = await gate.candidate()
    sha = {"candidate": candidate.sha, "replaced": replaced, "older": older}[of]
    review = {"event": "REQUEST_CHANGES", "body": "no", "commit_id": sha}
    made = await gate.world.sandbox.gitea("POST", f"pulls/{gate.number}/reviews", review, user="root")
    assert made.status == 200, made.body
    landed = await gate.land(candidate)
    assert landed.outcome is (LandOutcome.REVIEW_WAITS if of == "older" else LandOutcome.CHANGES_REQUESTED)
    assert await gate.tip() == candidate.base_sha


def switched_off(gate: Gate, how: str) -> None:
    """Switch the merge gate off."""
    if how == "policy":
        gate.policy_gate = False
    else:
        changes = {"enabled": {"merge_gate_enabled": False}, "repos": {"merge_gate_repos": "acme/shop"}}[how]
        gate.world.use(gate.world.settings.model_copy(update=changes))


@pytest.mark.parametrize("how", ["policy", "enabled", "repos"])
async def test_without_the_gate_a_branch_lands_as_it_is(gate: Gate, how: str) -> None:
    """Switched off, the reviewed head lands by a style the repository allows, also on a main that moved."""
    await gate.begin()
    switched_off(gate, how)
    main = await gate.main(other__py="y = 1\n")
    built = await gate.build()
    assert built.candidate is not None
    assert (built.candidate.sha, built.candidate.gated) == (gate.head, False)
    assert built.gate_off.startswith("merge gate off for acme/payments")
    landed = await gate.land(built.candidate)
    assert landed.outcome is LandOutcome.LANDED
    assert landed.sha == await gate.tip() != main
    assert await gate.intents() == [(gate.head, "landed")]
    assert await gate.world.store.landings.last_landed(QUEUE) == landed.sha


async def test_a_gate_that_is_switched_on_meanwhile_counts(gate: Gate) -> None:
    """A branch let through without the gate does not land once the gate is on."""
    await gate.begin()
    settings = gate.world.settings
    switched_off(gate, "enabled")
    candidate = await gate.candidate()
    gate.world.use(settings)
    main = await gate.tip()
    assert (await gate.land(candidate)).outcome is LandOutcome.GATE_ON
    assert await gate.tip() == main


async def test_without_the_gate_a_conflict_is_told(gate: Gate) -> None:
    """Switched off, a branch that Gitea could not merge is answered as a conflict."""
    await gate.begin(README__md="mine\n")
    switched_off(gate, "policy")
    candidate = await gate.candidate()
    await gate.main(README__md="theirs\n")
    landed = await gate.land(candidate)
    assert landed.outcome is LandOutcome.CONFLICT
    assert "README.md" in landed.reason
