"""Parts of the embedded stack that need no server: ports, home, secrets, environments, records, logs."""

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from temporalio.envconfig import ClientConfig

from deploy import environment, logs, ports, processes
from deploy.catalogue import SERVICES, in_order
from deploy.errors import StackError
from deploy.home import Home, default_home, write_private
from deploy.services import sandbox_config
from deploy.state import Phase, ProcessRecord, StackState
from deploy.status import read_status

SECRET_VALUES = {name: f"value of {name}" for name in (*environment.SECRETS_OF["sandbox"],)}
PORTS = {
    name: 20_000 + number
    for number, name in enumerate(
        ("postgres", "temporal", "temporal_ui", "plane", "gitea", "telegram", "production", "api")
    )
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A new home."""
    made = Home.at(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def values(home: Home) -> dict[str, str]:
    """What `orch.env` says of a whole stack."""
    return environment.describe(home, PORTS, SECRET_VALUES, services=SERVICES, database_url="postgresql://x")


def test_home_is_orch_home_or_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`ORCH_HOME` wins; without it the system's folder for user data is taken."""
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    assert Home.at().root == tmp_path.resolve()
    monkeypatch.delenv("ORCH_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home().name == "orch"


def test_home_that_is_a_file_is_explained(tmp_path: Path) -> None:
    """A home that cannot be made is an error that names the place and the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"file/home: Not a directory; choose another folder with ORCH_HOME"):
        Home.at(tmp_path / "file" / "home").create()


def test_existing_folders_keep_their_permissions(tmp_path: Path) -> None:
    """Making a home changes no permission of a folder that was there."""
    tmp_path.chmod(0o750)
    Home.at(tmp_path).create()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_secrets_are_made_once_and_kept_private(home: Home) -> None:
    """Every secret is random, the same at the next start, and in a file for the owner alone."""
    first = home.secrets()
    assert len(set(first.values())) == len(first) == 7
    assert home.secrets() == first
    assert stat.S_IMODE(home.secrets_file.stat().st_mode) == 0o600


def test_broken_secrets_are_not_replaced(home: Home) -> None:
    """A file of secrets that cannot be read is an error: the database's password is in it."""
    home.secrets_file.write_text("{")
    with pytest.raises(StackError, match="holds the database's password"):
        home.secrets()
    assert home.secrets_file.read_text() == "{"


def test_private_file_is_replaced_at_once(tmp_path: Path) -> None:
    """A file is private even if it was open before, and no half-written one is left."""
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o644)
    write_private(target, "new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_environment_file_gives_back_what_was_written(home: Home, values: dict[str, str]) -> None:
    """`orch.env` round-trips, values with equals signs included, and is private."""
    environment.write(home, values | {"ORCH_X": "a=b=c"})
    assert home.environment() == values | {"ORCH_X": "a=b=c"}
    assert stat.S_IMODE(home.env_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("service", ["worker", "api"])
def test_each_process_is_given_its_own_secrets_only(service: str, values: dict[str, str]) -> None:
    """Worker and API are started without each other's secrets, whether made by the stack or inherited."""
    others = set(SECRET_VALUES) - set(environment.SECRETS_OF[service])
    outer = dict.fromkeys(SECRET_VALUES, "inherited") | {f"{name}_FILE": "/file" for name in SECRET_VALUES}
    outer |= {"ORCH_SMTP_PASSWORD": "x", "PATH": "/bin"}
    given = environment.for_service(service, values, outer)
    assert not others & set(given)
    assert not {f"{name}_FILE" for name in others} & set(given)
    assert "ORCH_SMTP_PASSWORD" not in given
    for name in environment.SECRETS_OF[service]:
        assert given[name] == f"value of {name}"
    assert given["ORCH_DATABASE_URL"] == "postgresql://x"
    assert given["TEMPORAL_ADDRESS"] == f"127.0.0.1:{PORTS['temporal']}"


def test_the_worker_keeps_what_agents_need_and_the_api_does_not(values: Mapping[str, str]) -> None:
    """Settings of ours reach both; the keys of model providers reach the worker, which starts the agents."""
    outer = {
        "PATH": "/bin",
        "ORCH_AGENT_SLOTS": "2",
        "ORCH_MAX_TOKENS": "9",
        "ANTHROPIC_API_KEY": "key",
        processes.MARKER: "/another",
    }
    worker = environment.for_service("worker", values, outer)
    api = environment.for_service("api", values, outer)
    assert worker["ORCH_AGENT_SLOTS"] == api["ORCH_AGENT_SLOTS"] == "2"
    assert worker["ORCH_MAX_TOKENS"] == api["ORCH_MAX_TOKENS"] == "9"
    assert worker["ANTHROPIC_API_KEY"] == "key"
    assert "ANTHROPIC_API_KEY" not in api
    assert processes.MARKER not in worker


def test_the_sandbox_has_both_ends_secrets_but_no_database(values: Mapping[str, str]) -> None:
    """The sandbox checks tokens and signs webhooks, and has nothing to do with our database."""
    sandbox = environment.for_service("sandbox", values, {"ORCH_DATABASE_URL": "postgresql://outer"})
    assert set(SECRET_VALUES) <= set(sandbox)
    assert "ORCH_DATABASE_URL" not in sandbox


def test_without_the_sandbox_a_persons_own_servers_are_used(home: Home) -> None:
    """A stack without sandbox passes on the addresses and tokens of Plane and Gitea that it was given."""
    values = environment.describe(
        home, PORTS, SECRET_VALUES, services=("postgres", "temporal", "worker"), database_url="postgresql://x"
    )
    assert not any("PLANE" in key or "GITEA" in key for key in values)
    outer = {"ORCH_PLANE_URL": "https://plane.example", "ORCH_PLANE_TOKEN": "own"}
    worker = environment.for_service("worker", values, outer)
    assert worker["ORCH_PLANE_URL"] == "https://plane.example"
    assert worker["ORCH_PLANE_TOKEN"] == "own"


def test_the_users_own_temporal_configuration_stays_out(home: Home, values: Mapping[str, str]) -> None:
    """Certificates and profiles for other servers do not reach processes that use the embedded one."""
    outer = {"TEMPORAL_ADDRESS": "cloud:7233", "TEMPORAL_PROFILE": "prod", "TEMPORAL_API_KEY": "key"}
    for service in ("worker", "api"):
        given = environment.for_service(service, values, outer)
        assert {key for key in given if key.startswith("TEMPORAL_")} == {
            *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_CONFIG_FILE"),
        }
    environment.write(home, values)
    config = ClientConfig.load_client_connect_config(config_file=str(home.temporal_config), override_env_vars={})
    assert config["target_host"] == values["TEMPORAL_ADDRESS"]
    assert config["namespace"] == "orch"


def test_without_the_server_the_users_temporal_configuration_is_used(home: Home) -> None:
    """A stack without Temporal passes on how to reach the user's own cluster, key included."""
    values = environment.describe(home, PORTS, SECRET_VALUES, services=("api",), database_url="")
    outer = {"TEMPORAL_ADDRESS": "cloud:7233", "TEMPORAL_API_KEY": "key"}
    given = environment.for_service("api", values, outer)
    assert outer.items() <= given.items()


def test_sandbox_configuration(home: Home) -> None:
    """Programs reach the sandbox by address, people by name."""
    config = sandbox_config(home, PORTS)
    assert set(config) == {
        *("home", "host", "plane_port", "gitea_port", "telegram_port", "production_port"),
        *("plane_public_url", "gitea_public_url", "plane_rate_limit"),
    }
    assert config["gitea_public_url"] == f"http://localhost:{PORTS['gitea']}"
    assert config["host"] == "127.0.0.1"


def test_services_start_in_one_order_only() -> None:
    """However they are asked for, services come in the order they depend on each other."""
    assert in_order(("worker", "temporal", "postgres")) == ("postgres", "temporal", "worker")
    with pytest.raises(StackError, match="no such service: redis; there are postgres, temporal"):
        in_order(("redis", "postgres"))


def test_ports_are_remembered_and_replaced_only_when_taken() -> None:
    """A free remembered port stays, a taken one is replaced with a note, and no two services share one."""
    first, notes = ports.choose(("a", "b"), {})
    assert notes == []
    assert first["a"] != first["b"]
    assert ports.choose(("a", "b"), first) == (first, [])
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first["a"]))
        squatter.listen()
        second, notes = ports.choose(("a", "b"), first)
    assert second["b"] == first["b"]
    assert second["a"] not in first.values()
    assert len(notes) == 1
    assert notes[0].startswith(f"port {first['a']} of a is taken by ")
    assert f"(pid {os.getpid()})" in notes[0]


def test_preferred_port_is_taken_if_nothing_is_remembered() -> None:
    """A preferred port is used at the first start, and a remembered one is stronger."""
    (free,) = ports.choose(("a",), {})[0].values()
    assert ports.choose(("a",), {}, {"a": free})[0] == {"a": free}
    (other,) = ports.choose(("b",), {"a": free})[0].keys() - {"a"}
    assert ports.choose(("a",), {"a": free}, {"a": free + 1})[0]["a"] == free
    assert other == "b"


def test_a_reused_process_id_is_not_ours() -> None:
    """A record matches a process only together with the moment it was created."""
    own = processes.record(os.getpid())
    assert own is not None
    assert processes.find(own) is not None
    assert processes.find(ProcessRecord(pid=own.pid, create_time=own.create_time - 60)) is None
    assert processes.find(None) is None


def test_unreadable_state_counts_as_none_and_is_said(home: Home) -> None:
    """A broken `stack.json` does not stop anything: it is begun anew with a note."""
    home.stack_file.write_text("not json")
    state = StackState.read(home)
    assert state.phase is Phase.STOPPED
    assert "was not readable" in state.notes[0]


def test_status_of_a_home_that_never_ran(tmp_path: Path) -> None:
    """Asking for the status touches nothing and answers that nothing runs."""
    status = read_status(Home.at(tmp_path / "none"))
    assert status.phase is Phase.STOPPED
    assert status.urls == {}
    assert not (tmp_path / "none").exists()


def test_status_with_a_dead_supervisor_is_abandoned(home: Home) -> None:
    """A stack that says it runs, but whose supervisor is gone, is abandoned."""
    dead = ProcessRecord(pid=os.getpid(), create_time=1.0)
    StackState(phase=Phase.RUNNING, supervisor=dead).write(home)
    assert read_status(home).phase is Phase.ABANDONED


def test_long_logs_are_cut_while_they_are_written(tmp_path: Path) -> None:
    """A log past its limit moves to `.1`, and a program that has it open goes on at the start."""
    path = tmp_path / "a.log"
    descriptor = logs.open_log(path)
    os.write(descriptor, b"old\n" * 10)
    assert not logs.trim(path, limit=40)
    assert logs.trim(path, limit=39)
    os.write(descriptor, b"new\n")
    os.close(descriptor)
    assert path.read_text() == "new\n"
    assert (tmp_path / "a.log.1").read_text() == "old\n" * 10


def test_tail_of_a_log(tmp_path: Path) -> None:
    """The end of a log is shown whatever bytes are in it, and its absence is said."""
    path = tmp_path / "a.log"
    assert logs.tail(path) == "(no log was written)"
    path.write_bytes(b"first\n\xff\nlast\n")
    assert logs.tail(path, lines=2) == "\ufffd\nlast"
