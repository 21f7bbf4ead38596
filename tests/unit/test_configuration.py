"""The configuration as a whole: everything wrong is said at once, with source and mending, and no secret is shown."""

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.settings import WorkerSettings
from api.settings import ApiSettings
from deploy import configuration, configuration_text
from deploy.home import SECRETS as HOME_SECRETS
from tests.unit.configured import ORCH_TOML, SECRETS, UUID_1, UUID_2, configure
from workflows.model import Repository
from workflows.problems import nearest, secrets, unknown_variables, variable
from workflows.projects import OrchConfig, parse_orch_toml

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"[^:;]+: .+; .+")
"""SOURCE: what; how to mend."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A complete environment."""
    configure(monkeypatch, tmp_path)
    return monkeypatch


def problems_of(text: str) -> list[str]:
    """What is wrong with this orch.toml."""
    config, problems = parse_orch_toml(text, "orch.toml")
    assert (config is None) == bool(problems)
    return problems


# -- orch.toml ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("plane_workspace =", "plane_worksapce =", "plane_worksapce: unknown, meant plane_workspace?"),
        ('plane_workspace = "acme"', "", "plane_workspace: missing: the workspace's name in Plane's addresses"),
        ("done =", "doen =", "PAY.states.doen: unknown, meant done?"),
        ('name = "payments"', 'name = "pay ments"', "PAY.repository.name: 'pay ments' is no name in Gitea"),
        ('owner = "acme"', 'owner = "-acme"', "PAY.repository.owner: '-acme' is no name in Gitea"),
        ('name = "payments"', 'name = "p"\nbase = "-f"', "PAY.repository.base: '-f' is no branch"),
        ('name = "payments"', 'name = "p"\nbase = "a b"', "PAY.repository.base: 'a b' is no branch"),
        ('name = "payments"', 'name = "p"\nbsae = "x"', "PAY.repository.bsae: unknown, meant base?"),
        ('name = "payments"', 'name = "p"\nzzz = 1', "PAY.repository.zzz: is not known; known here: owner, name, base"),
        ("[projects.PAY.states]", "[projects.PAY.states", "is not TOML: "),
        ('plane_workspace = "acme"', "plane_workspace = 1", "plane_workspace: input should be a valid string; "),
    ],
)  # fmt: skip
def test_each_fault_of_orch_toml_says_where_what_and_how(old: str, new: str, said: str) -> None:
    """A fault is one line: the file and the key, what is wrong, how to mend it."""
    said = said.replace("unknown, meant", "is not known; did you mean").replace("missing: ", "is missing; add it: ")
    found = [problem for problem in problems_of(ORCH_TOML.replace(old, new)) if said in problem]
    assert len(found) == 1
    assert LINE.fullmatch(found[0])


def test_all_faults_of_orch_toml_are_said_at_once() -> None:
    """Three faults in three tables are three lines."""
    text = ORCH_TOML.replace("acme", "a b").replace("done", "doen") + "[projects.TWO]\n"
    found = [problem.split(":")[1].strip() for problem in problems_of(text)]
    assert found == [
        "projects.PAY.repository.owner",
        "projects.PAY.states.doen",
        "projects.TWO.plane_project_id",
        "projects.TWO.repository",
    ]


def test_a_bot_approves_nothing() -> None:
    """An id among bots and approvers is an error, in whatever case of letters."""
    (problem,) = problems_of(ORCH_TOML.replace("bots =", f'approvers = ["{UUID_2.upper()}"]\nbots ='))
    assert UUID_2 in problem
    assert "take it out of `approvers`" in problem


def test_one_plane_project_is_one_project() -> None:
    """The same plane_project_id twice is an error that names both projects, in whatever case of letters."""
    again = f'[projects.OPS]\nplane_project_id = "{UUID_1.upper()}"\nrepository = {{ owner = "a", name = "b" }}\n'
    (problem,) = problems_of(ORCH_TOML + again)
    assert "PAY, OPS" in problem


def test_ids_are_compared_without_case() -> None:
    """A UUID written in capitals is found by the one Plane sends, and the other way round."""
    config, _ = parse_orch_toml(ORCH_TOML.replace(UUID_1, UUID_1.upper()), "orch.toml")
    assert config is not None
    assert config.project_of_plane_id(UUID_1) == config.project_of_plane_id(UUID_1.upper()) == "PAY"


def test_a_repository_is_the_plain_type() -> None:
    """What comes out of orch.toml equals any other Repository, whether read as a table or handed in."""
    config, _ = parse_orch_toml(ORCH_TOML, "orch.toml")
    assert config is not None
    assert config.projects["PAY"].repository == Repository(owner="acme", name="payments", base="main")
    assert OrchConfig.model_validate(config.model_dump()) == config


# -- both processes ----------------------------------------------------------------------------------------


def test_a_complete_configuration_has_no_problems(environment: pytest.MonkeyPatch) -> None:
    """Nothing is complained of where nothing is wrong."""
    assert configuration.check() == ([], [])


def test_everything_wrong_is_said_once_with_source_and_mending(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Problems of worker, API and orch.toml come together; what both processes miss is one line."""
    environment.delenv("ORCH_DATABASE_URL")
    environment.delenv("ORCH_GITEA_TOKEN")
    environment.setenv("ORCH_PLANE_URL", "plane.internal")
    environment.setenv("ORCH_AGENT_SLOTS", "many")
    environment.setenv("ORCH_API_PORT", "99999")
    environment.setenv("ORCH_ISOLATION", "none")
    environment.setenv("ORCH_PLANE_TOKEN", " ")
    environment.delenv("ORCH_GITEA_WEBHOOK_SECRET")
    environment.setenv("ORCH_GITEA_WEBHOOK_SECRET_FILE", "/nowhere")
    (tmp_path / "orch.toml").write_text(ORCH_TOML.replace("done", "doen"))
    found = configuration.check().problems
    assert found == [
        (
            "ORCH_DATABASE_URL: is not set; set it (or ORCH_DATABASE_URL_FILE) to PostgreSQL's address, such as"
            " postgresql://orch@127.0.0.1/orch"
        ),
        "ORCH_PLANE_URL: is no address; it starts with http:// or https://",
        "ORCH_PLANE_TOKEN: is empty; set it to the API key of the bot's account in Plane",
        (
            "ORCH_GITEA_TOKEN: is not set; set it (or ORCH_GITEA_TOKEN_FILE) to the token of the account in Gitea that"
            " pushes, opens pull requests and merges"
        ),
        (
            "ORCH_AGENT_SLOTS: input should be a valid integer, unable to parse string as an integer; set it to the"
            " number of agents at once on this host"
        ),
        "ORCH_ISOLATION: input should be 'required' or 'preferred'; set it to required or preferred",
        f"{tmp_path}/orch.toml: projects.PAY.states.doen: is not known; did you mean done?",
        "ORCH_GITEA_WEBHOOK_SECRET_FILE: /nowhere can not be read (No such file or directory); name a readable file",
        "ORCH_API_PORT: input should be less than or equal to 65535; set it to the port the API listens on",
    ]
    assert all(LINE.fullmatch(problem) for problem in found)


def test_an_empty_environment_names_every_required_setting(environment: pytest.MonkeyPatch) -> None:
    """With nothing set, each required setting of both processes is one line."""
    for name in [name for name in os.environ if name.startswith("ORCH_")]:
        environment.delenv(name)
    models = (WorkerSettings, ApiSettings)
    required = {variable(name) for model in models for name, field in model.model_fields.items() if field.is_required()}
    found = configuration.check().problems
    assert sorted(problem.split(":")[0] for problem in found) == sorted(required)


def test_a_missing_orch_toml_is_said(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path that leads nowhere is one line that names it."""
    environment.setenv("ORCH_CONFIG", str(tmp_path / "none.toml"))
    assert configuration.check().problems == [
        f"ORCH_CONFIG: {tmp_path}/none.toml can not be read (No such file or directory); name a readable file"
    ]


def test_an_id_that_is_no_uuid_is_said(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name in place of a UUID would match nobody, so the check names it."""
    (tmp_path / "orch.toml").write_text(ORCH_TOML.replace(UUID_2, "olga"))
    (problem,) = configuration.check().problems
    assert "projects.PAY.bots: 'olga' is no UUID; " in problem


def test_an_unknown_variable_is_a_warning(environment: pytest.MonkeyPatch) -> None:
    """A variable nobody reads is no problem, but it is told, with the one that was probably meant and no value."""
    environment.setenv("ORCH_PLANE_TOKNE", "hunter2")
    environment.setenv("ORCH_QQQ", "1")
    environment.setenv("ORCH_GITEA_TOKEN_FLIE", "x")
    environment.setenv("ORCH_STACK_HOME", "/x")
    checked = configuration.check()
    assert checked.problems == []
    assert checked.warnings == [
        "ORCH_GITEA_TOKEN_FLIE: is not known and has no effect; did you mean ORCH_GITEA_TOKEN_FILE?",
        "ORCH_PLANE_TOKNE: is not known and has no effect; did you mean ORCH_PLANE_TOKEN?",
        "ORCH_QQQ: is not known and has no effect; unset it, or see `orch config show` for all there are",
    ]


@pytest.mark.parametrize(("word", "meant"), [("ruunner", "runner"), ("TEST", "test"), ("zzz", "")])
def test_what_was_meant_is_guessed_only_where_it_is_close(word: str, meant: str) -> None:
    """A near miss names its neighbour; a far one names nobody."""
    assert nearest(word, ["runner", "test"]) == meant
    assert unknown_variables(["PATH", "HOME"], []) == []


def test_each_process_holds_its_own_secrets_only() -> None:
    """The database's address is the one secret both read; together they are all the secrets there are."""
    worker, api = set(secrets(WorkerSettings)), set(secrets(ApiSettings))
    assert worker & api == {"database_url"}
    assert {variable(name) for name in worker | api} == set(SECRETS)
    assert {name for name in HOME_SECRETS if name.startswith("ORCH_")} <= set(SECRETS)


def test_no_secret_has_a_default() -> None:
    """A secret is required, or nothing."""
    for model in (WorkerSettings, ApiSettings):
        for name in secrets(model):
            field = model.model_fields[name]
            assert field.is_required() or field.default is None


# -- show --------------------------------------------------------------------------------------------------


def shown() -> dict[str, tuple[str, str]]:
    """Value and source by name."""
    return {one.name: (one.value, one.source) for one in configuration.show()}


def test_every_setting_has_its_value_and_source(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The source is the environment, a file, orch.toml or the default; credentials in addresses are masked."""
    (tmp_path / "token").write_text("from-a-file")
    environment.delenv("ORCH_GITEA_TOKEN")
    environment.setenv("ORCH_GITEA_TOKEN_FILE", str(tmp_path / "token"))
    found = shown()
    assert found["ORCH_AGENT_SLOTS"] == ("7", "environment")
    assert found["ORCH_API_PORT"] == ("8700", "default")
    assert found["ORCH_RECONCILE_ENABLED"] == ("true", "default")
    assert found["ORCH_PLANE_TOKEN"] == ("set", "environment")
    assert found["ORCH_GITEA_TOKEN"] == ("set", f"file {tmp_path}/token")
    assert found["ORCH_TELEGRAM_TOKEN"] == ("not set", "-")
    assert found["ORCH_PLANE_URL"] == ("https://***@plane.internal/", "environment")
    assert found["plane_workspace"] == ("acme", "orch.toml")
    assert found["projects.PAY.repository.base"] == ("main", "default")
    assert found["projects.PAY.states.done"] == ("Shipped", "orch.toml")
    assert found["projects.PAY.states.approved"] == ("Approved", "default")
    assert found["projects.PAY.bots"] == (UUID_2, "orch.toml")


def test_every_setting_says_what_it_means(environment: pytest.MonkeyPatch) -> None:
    """No setting is without its one line."""
    assert all(one.meaning and "\n" not in one.meaning for one in configuration.show())


def test_the_environment_wins_over_the_default() -> None:
    """What show calls the source is what the process uses."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        configure(patch, Path(folder))
        assert WorkerSettings().agent_slots == 7  # type: ignore[call-arg]
        patch.delenv("ORCH_AGENT_SLOTS")
        assert WorkerSettings().agent_slots == 2  # type: ignore[call-arg]
        assert shown()["ORCH_AGENT_SLOTS"] == ("2", "default")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("abcXYZ019@:/-_", min_size=12, max_size=40), min_size=len(SECRETS), max_size=len(SECRETS)))
def test_no_secret_is_ever_shown(values: list[str]) -> None:
    """Whatever the secrets are and whatever else is wrong, neither check nor show lets one out."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        configure(patch, Path(folder))
        for name, value in zip(SECRETS, values, strict=True):
            patch.setenv(name, value)
        patch.setenv("ORCH_API_PORT", values[0])
        patch.setenv("ORCH_TELEGRAM_CHAT", values[1])
        (Path(folder) / "orch.toml").write_text("broken")
        said = "\n".join([*configuration.check().problems, *configuration.check().warnings])
        patch.delenv("ORCH_API_PORT")
        patch.delenv("ORCH_TELEGRAM_CHAT")
        said += repr(configuration.show())
        assert not [value for value in values if value in said]


# -- what is generated -------------------------------------------------------------------------------------


def test_env_example_is_as_generated() -> None:
    """`.env.example` is what `python -m deploy.configuration --env-example` writes."""
    assert (ROOT / ".env.example").read_text() == configuration_text.env_example()


def test_the_reference_is_as_generated() -> None:
    """The tables of docs/reference/configuration.md are what `python -m deploy.configuration --write` writes."""
    text = (ROOT / "docs/reference/configuration.md").read_text()
    assert configuration_text.with_tables(text) == text
    assert all(f"| `{one.name}`" in text for one in configuration.described())


def test_every_variable_is_in_env_example() -> None:
    """Required ones are to be filled in, the others are comments; a secret is never given a value."""
    lines = configuration_text.env_example().splitlines()
    for one in configuration.described():
        start = f"{one.name}=" if one.info.is_required() else f"# {one.name}="
        (line,) = [line for line in lines if line.startswith(start)]
        assert not one.secret or line == start
