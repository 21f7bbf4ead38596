"""The reducer with one thing wrong in it: each such reducer is found out by its unit tests or by the gate's model."""

import inspect
import types
from collections.abc import Iterable, Iterator

import pytest

from tests.proof import gate_cases
from tests.unit import test_lease_rules
from workflows import lease_rules

CASES = 400
SLOW = "test_the_rules_hold"
"""Hypothesis takes its time; it is asked last."""

MUTANTS = {
    "a release ignores the epoch": ("released", " or holding.epoch != epoch", ""),
    "a release ignores the holder": ("released", " or holding.request.holder != holder", ""),
    "a released wish is not settled": (
        "released",
        "return _settle(freed, holder, holding.request.turn)",
        "return freed",
    ),
    "a released epoch is not closed": ("released", "to_close=(*state.to_close, epoch)", "to_close=state.to_close"),
    "somebody is granted while another holds": ("next_request", "state.holding is not None", "False"),
    "the first who may pass is not the first in order": ("next_request", "in state.waiting", "in state.waiting[::-1]"),
    "a freeze stops nobody": ("_may_pass", "if not state.freezes:", "if True:"),
    "a pass covers later causes": ("_may_pass", " and set(state.causes) <= set(given.causes)", ""),
    "a pass is for every generation": ("_may_pass", " and given.generation == request.generation", ""),
    "the order ignores priority and place": ("_in_order", "key=lambda request: request.order", "key=lambda request: 0"),
    "what is settled is asked again": (
        "requested",
        "state.settled.get(request.holder, (0, 0)) >= request.turn",
        "False",
    ),
    "a repeated wish of the holder ends its lease": (
        "requested",
        "state.holding.request.turn >= request.turn",
        "False",
    ),
    "a newer wish does not end the older": ("requested", "known.holder != request.holder", "True"),
    "a withdrawal leaves a grant on its way": ("withdrawn", "holding.request.turn <= turn", "False"),
    "a withdrawn wish is not settled": ("withdrawn", "return _settle(", "return (lambda s, *_: s)("),
    "a granted wish still waits": ("granted", "if known != request", ""),
    "a stuck holder is never reclaimed": ("inspected", "holding.extensions >= EXTENSIONS", "False"),
    "a dead holder keeps the lease": ("inspected", " or not running", ""),
    "who has landed keeps the lease": ("inspected", "landed or ", ""),
    "an unwanted epoch stays open": ("not_granted", "(*state.to_close, epoch)", "state.to_close"),
    "passes outlive the last cause": ("refreshed", "state.passes if freezes else ()", "state.passes"),
    "a red base is never tested again": ("refreshed", "base_test_at=now + BASE_TEST_FIRST", "base_test_at=None"),
    "a fresh queue forgets an open lease": ("took_over", "return _with(state, holding=holding)", "return state"),
    "a phase is believed of anybody": ("entered_phase", " or holding.epoch != epoch", ""),
}
"""Name: the function, what is in it, and what is there instead."""


def mutated(function: str, old: str, new: str) -> types.FunctionType:
    """The function with one thing changed, in its own module's namespace."""
    source = inspect.getsource(getattr(lease_rules, function))
    assert old in source, f"{function} does not say {old!r} any more; say what it says now"
    names: dict[str, types.FunctionType] = {}
    code = compile(source.replace(old, new), "<mutant>", "exec", flags=0, dont_inherit=True)
    exec(code, vars(lease_rules), names)
    return names[function]


def test_a_release_by_somebody_else_changes_nothing() -> None:
    """Whoever knows the epoch but is not its holder clears nothing."""
    state = test_lease_rules.holding(test_lease_rules.queue_of(test_lease_rules.wish("task/T-1", 1)))
    assert lease_rules.released(state, "task/T-2", 1) == state


def examples() -> Iterator[tuple[str, types.FunctionType]]:
    """The unit tests that take no arguments."""
    for name, test in vars(test_lease_rules).items():
        if name.startswith("test_") and name != SLOW and not inspect.signature(test).parameters:
            yield name, test
    yield "test_a_release_by_somebody_else_changes_nothing", test_a_release_by_somebody_else_changes_nothing


def unit_finds(tests: Iterable[tuple[str, types.FunctionType]]) -> str:
    """The first unit test that fails."""
    for name, test in tests:
        try:
            test()
        except Exception:  # noqa: BLE001 - however a reducer is found out
            return name
    return ""


def model_finds() -> str:
    """The first case of the gate's model that fails."""
    for seed in range(CASES):
        try:
            gate_cases.run_case(seed)
        except Exception as error:  # noqa: BLE001 - however a reducer is found out
            return f"case {seed}: {str(error)[:60]}"
    return ""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_reducer_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with the reducer, a unit test or the gate's model fails."""
    function, old, new = MUTANTS[name]
    monkeypatch.setattr(lease_rules, function, mutated(function, old, new))
    by_unit, by_model = unit_finds(examples()), model_finds()
    if not (by_unit or by_model):
        by_unit = unit_finds([(SLOW, getattr(test_lease_rules, SLOW))])
    print(f"\n{name}: unit: {by_unit or 'no'}; model: {by_model or 'no'}")  # noqa: T201
    assert by_unit or by_model


def test_the_reducer_itself_passes() -> None:
    """What finds mutants out finds nothing wrong with the reducer."""
    assert len(list(examples())) > 20
    assert (unit_finds(examples()), model_finds()) == ("", "")
