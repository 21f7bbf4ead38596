"""Every activity the workflows call exists, once, with the same types, on the queue it is called on."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import worker
import workflows.contracts
from activities.agents import Agents
from activities.base_tests import BaseTests
from activities.candidates import Candidates
from activities.deployments import Deployments
from activities.gates import Gates
from activities.items import Items
from activities.landing import Landing
from activities.leases import Leases
from activities.ledger import Ledger
from activities.pull_requests import PullRequests
from activities.reconcile import Reconcile
from activities.resolving import Resolving
from activities.situations import Situations
from activities.workspaces import Workspaces
from tests.fake_world import FakeWorld, activities_of
from workflows import names
from workflows.plugin import PLAIN_MODULES

ROOT = Path(worker.__file__).parent
HOST = "host-1"
DEFINITION = "__temporal_activity_definition"


def contracts() -> dict[str, Callable[..., Any]]:
    """Every stub by its activity name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(workflows.contracts.__path__):
        loaded = importlib.import_module(f"workflows.contracts.{module.name}")
        for _, function in inspect.getmembers(loaded, inspect.isfunction):
            if hasattr(function, DEFINITION):
                name = getattr(function, DEFINITION).name
                assert name not in found, f"two contracts are named {name}"
                found[name] = function
    return found


def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Callable[..., Any]]]:
    """What `worker.workers` registers: queue -> activity name -> implementation."""
    queues: dict[str, dict[str, Callable[..., Any]]] = {}

    def fake_worker(_client: object, *, task_queue: str, activities: list[Any], **_: Any) -> str:
        for implementation in activities:
            name = getattr(implementation, DEFINITION).name
            known = queues.setdefault(task_queue, {})
            assert name not in known, f"{name} is registered twice on {task_queue}"
            known[name] = implementation
        return task_queue

    monkeypatch.setattr(worker, "Worker", fake_worker)
    kinds: dict[str, type] = {
        "items": Items,
        "gates": Gates,
        "pull_requests": PullRequests,
        "workspaces": Workspaces,
        "agents": Agents,
        "base_tests": BaseTests,
        "candidates": Candidates,
        "landing": Landing,
        "deployments": Deployments,
        "leases": Leases,
        "ledger": Ledger,
        "situations": Situations,
        "reconcile": Reconcile,
        "resolving": Resolving,
    }
    made: dict[str, Any] = {name: object.__new__(kind) for name, kind in kinds.items()}
    settings = SimpleNamespace(host_name=HOST, plane_rate=1.0, agent_slots=2, work_slots=2)
    parts = SimpleNamespace(settings=settings, client=None, store=None, sender=None, **made)
    queue_names = worker.workers(cast("worker.Parts", parts))
    assert len(set(cast("list[str]", queue_names))) == len(queue_names), "one worker for each queue"
    return queues


def signature(function: Callable[..., Any]) -> tuple[object, object]:
    """An activity's one parameter type and its result type."""
    hints = typing.get_type_hints(function)
    result = hints.pop("return")
    assert len(hints) == 1, f"{function.__qualname__} takes one model"
    return next(iter(hints.values())), result


QUEUES = {
    names.SHARED_QUEUE: {
        "read_policy", "evaluate_gate", "ensure_pull_request", "post_review", "claim_host", "request_lease",
        "withdraw_lease", "release_lease", "open_lease", "close_lease", "inspect_holder", "read_queue",
        "record_queue_act", "set_freeze", "lift_freeze",
        "record_progress", "record_act", "read_acts", "resolve_rows", "settle_rows",
    },
    names.PLANE_QUEUE: {
        "begin_generation", "ask_decision", "settle_decision", "show_status", "post_comment", "move_item",
        "read_situation", "reconcile_project", "evaluate_gate",
    },
    names.host_control_queue(HOST): {"claim_host"},
    names.host_work_queue(HOST): {
        "prepare_workspace", "publish_work", "run_tests", "test_base", "remove_workspaces", "build_candidate", "land",
        "deploy", "roll_back",
    },
    names.host_agent_queue(HOST): {"run_agent"},
}  # fmt: skip
"""Plane's calls behind its rate, work on a host's disk on that host, agents in slots of their own."""


def test_each_queue_has_exactly_its_activities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every activity is registered on the queue the design gives it, and nothing else is there."""
    assert {queue: set(found) for queue, found in registered(monkeypatch).items()} == QUEUES


def test_every_contract_has_one_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stub is implemented by exactly one method, and no activity is registered that no contract names."""
    implementations: dict[str, set[object]] = {}
    for found in registered(monkeypatch).values():
        for name, method in found.items():
            implementations.setdefault(name, set()).add(method.__func__)  # type: ignore[attr-defined]
    assert set(implementations) == set(contracts())
    assert {name for name, methods in implementations.items() if len(methods) != 1} == set()


@pytest.mark.parametrize("name", sorted(contracts()))
def test_an_implementation_has_its_contracts_types(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An implementation takes and returns exactly what its contract says."""
    implementation = next(found[name] for found in registered(monkeypatch).values() if name in found)
    assert signature(implementation) == signature(contracts()[name])


def test_the_fake_world_keeps_the_contracts_too() -> None:
    """What the workflow tests run against is held to the same names and types as production."""
    fakes = activities_of(object.__new__(FakeWorld))
    assert set(fakes) == set(contracts())
    for name, contract in contracts().items():
        assert signature(fakes[name]) == signature(contract), name


def test_workflows_call_an_activity_only_on_a_queue_that_has_it() -> None:
    """In the workflows' own source every call names a queue on which the worker registers that activity."""
    places = {
        "PLANE_QUEUE": names.PLANE_QUEUE,
        "host_work_queue": names.host_work_queue(HOST),
        "host_agent_queue": names.host_agent_queue(HOST),
    }
    seen = set()
    for path in (ROOT / "workflows").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Attribute)):
                continue
            name = call.args[0].attr
            if ast.unparse(call.func).rpartition(".")[2] != "call" or name not in contracts():
                continue
            given = next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "queue"), "")
            if given == "queue":
                continue  # a gate is asked on the queue its stage names: both have it
            queue = next((queue for word, queue in places.items() if word in given), names.SHARED_QUEUE)
            assert name in QUEUES[queue], f"{path.name} calls {name} on {given or 'the shared queue'}"
            seen.add(name)
    assert seen == set(contracts()) - {"evaluate_gate"}


def test_workflows_import_only_what_is_pure() -> None:
    """A workflow module imports the standard library, temporalio, pydantic and workflows: nothing else."""
    allowed = sys.stdlib_module_names | {"temporalio", "pydantic", "workflows"}
    impure = {"os", "socket", "subprocess", "random", "time", "requests", "pathlib", "threading", "urllib", "http"}
    for path in (ROOT / "workflows").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                found = [node.module or ""]
            for module in (name.partition(".")[0] for name in found):
                assert module in allowed, f"{path.name} imports {module}"
                assert module not in impure, f"{path.name} imports {module}, which touches the world"


def test_the_import_contracts_are_kept() -> None:
    """import-linter finds every contract of pyproject.toml kept."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " 0 broken" in done.stdout


def test_plain_modules_import_only_plain_modules() -> None:
    """What the sandbox passes through imports nothing it builds anew: one enum would be two there."""
    plain = {path for module in PLAIN_MODULES for path in _files(module)}
    for path in plain:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workflows."):
                module = node.module or ""
                assert set(_files(module)) <= plain, f"{path.name} imports {module}, which is not passed through"


def _files(module: str) -> list[Path]:
    path = ROOT / module.replace(".", "/")
    return list(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
