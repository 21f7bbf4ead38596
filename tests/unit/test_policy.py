"""`.orch/pipeline.toml`: caps and graces by name, every fault with its place and mending."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import configuration
from deploy.demo import shop
from workflows.model import Policy, Role, Stage, Terms
from workflows.policy import read_policy
from workflows.stages import REGISTRY
from workflows.state import Counter

ROOT = Path(__file__).parents[2]
GOOD = '[commands]\ntest = "make test"\nproduction = "none"\n'


def policy(more: str = "") -> Policy:
    """The policy of a file that is right."""
    found = read_policy((GOOD + more).encode(), "f")
    assert found.policy is not None, found.problems
    return found.policy


def test_every_counter_has_its_cap_by_name() -> None:
    """Each counter of a task can be capped, and only they can."""
    assert set(policy().caps) == {counter.value for counter in Counter}
    text = "[limits]\n" + "".join(f"{counter} = {n}\n" for n, counter in enumerate(Counter))
    assert {counter: policy(text).cap(counter) for counter in Counter} == {c: n for n, c in enumerate(Counter)}


def test_a_grace_is_of_one_stage() -> None:
    """A grace counts for its stage; the others keep the registry's."""
    assert policy('[grace]\nanalysis = "1h30m"\ndeploy-staging = "90s"\n').graces == {
        Stage.ANALYSIS: timedelta(minutes=90),
        Stage.DEPLOY_STAGING: timedelta(seconds=90),
    }
    assert policy().graces == {}


def test_a_policy_survives_its_way_through_json() -> None:
    """A pinned policy is read back as it was, and one that was pinned before there were graces has none."""
    pinned = policy('[grace]\nreview = "15m"\n')
    assert Policy.model_validate_json(pinned.model_dump_json()) == pinned
    assert Policy.model_validate({"test": "t"}).graces == {}


def test_terms_are_said_for_all_roles_or_for_one() -> None:
    """What a role does not say itself it has from all; what nobody says is the default."""
    text = '[agents]\nmodel = "m-1"\nmax_turns = 50\n[agents.roles]\ntester = "command"\n'
    text += '[agents.roles.reviewer]\nrunner = "claude"\nmodel = "m-2"\neffort = "high"\nmax_budget_usd = 2.5\n'
    found = policy(text)
    assert found.terms_for(Role.DEVELOPER) == Terms(model="m-1", max_turns=50)
    assert found.terms_for(Role.TESTER) == Terms(model="m-1", max_turns=50)
    assert found.terms_for(Role.REVIEWER) == Terms(model="m-2", effort="high", max_turns=50, max_budget_usd=2.5)
    assert [found.runner_for(role) for role in (Role.DEVELOPER, Role.TESTER)] == ["claude", "command"]
    assert policy().terms_for(Role.DEVELOPER) == Terms()


@given(st.integers(10, 86_400))
def test_a_duration_is_the_sum_of_its_parts(seconds: int) -> None:
    """Hours, minutes and seconds add up."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    text = "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if number)
    assert policy(f'[grace]\ntesting = "{text}"\n').graces[Stage.TESTING] == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[grace]\nreview = "soon"\n', "grace.review: 'soon' is no duration; write it as"),
        ("[grace]\nreview = 15\n", "grace.review: 15 is no duration; write it as"),
        ('[grace]\nreview = "1s"\n', "grace.review: 1s is out of range; choose between 10s and 24h"),
        ('[grace]\nreview = "25h"\n', "grace.review: 25h is out of range; choose between 10s and 24h"),
        ('[grace]\nreview = "15 m"\n', "grace.review: '15 m' is no duration; write it as"),
        ('[grace]\ndone = "15m"\n', "grace.done: nothing waits in done; take the line out"),
        ('[grace]\nreveiw = "15m"\n', "grace.reveiw: input should be 'analysis', "),
        ("[limits]\nci_round = 1\n", "limits.ci_round: is not known; did you mean ci_rounds?"),
        ("[limits]\nci_rounds = 99\n", "limits.ci_rounds: input should be less than or equal to 50; mend it there"),
        ('[agents]\nrunner = "Claude Code"\n', "agents.runner: string should match pattern"),
        ('[agents]\neffort = "lots"\n', "agents.effort: input should be 'low', "),
        ('[agents]\nmodel = "--resume"\n', "agents.model: string should match pattern"),
        ("[agents]\nmax_turns = 0\n", "agents.max_turns: input should be greater than or equal to 1"),
        ("[agents]\nmax_budget_usd = 0\n", "agents.max_budget_usd: input should be greater than 0"),
        ("[agents]\nattempts = 99\n", "agents.attempts: input should be less than or equal to 50"),
        ('[agents.roles.tester]\nmodell = "m"\n', "agents.roles.tester.modell: is not known; did you mean model?"),
        ('[agents.roles]\ntester = "Claude Code"\n', "agents.roles.tester.runner: string should match pattern"),
        ("[agents.roles]\ntester = 5\n", "agents.roles.tester: "),
        ('[probe]\nstaging = "x"\n', "probe: is not known; did you mean probes?"),
        ('staging = " "\n', "commands.staging: is empty; write a command, or take the line out"),
        ("[commands]\n", "is not TOML: "),
    ],
)
def test_each_fault_says_where_what_and_how(more: str, said: str) -> None:
    """A fault is one line: the file and the key, what is wrong, how to mend it."""
    (problem,) = read_policy((GOOD + more).encode(), "f").problems
    assert problem.startswith(f"f: {said}")
    assert re.fullmatch(r"[^:;]+: .+; .+", problem)


def test_all_faults_are_said_at_once_and_in_one_line_for_a_task() -> None:
    """A check gets a list; a task that waits gets one sentence that names the file once."""
    found = read_policy(b'ci = "no"\n[commands]\ntest = "t"\n[limits]\nrounds = 1\n', ".orch/pipeline.toml on main")
    assert [problem.split(": ")[1] for problem in found.problems] == ["commands.production", "limits.rounds", "ci"]
    assert found.problem.count("on main") == 1
    assert "\n" not in found.problem
    assert found.problem.count(" | ") == 2


def test_the_reference_shows_a_valid_file_with_the_defaults() -> None:
    """The example of docs/reference/policy.md can be used, and the defaults it names are the defaults."""
    text = (ROOT / "docs/reference/policy.md").read_text().split("```toml\n")[1].split("```")[0]
    found = read_policy(text.encode(), "f").policy
    assert found is not None
    assert found.caps == policy().caps
    assert found.graces == {spec.stage: spec.grace for spec in REGISTRY.values()}


def test_the_demos_policy_is_valid(tmp_path: Path) -> None:
    """What the demo commits passes the check people use."""
    (tmp_path / "pipeline.toml").write_text(shop.policy("http://localhost:1", 'python3 -c "print(1)"'))
    assert configuration.check_file(tmp_path / "pipeline.toml") == ([], [])
