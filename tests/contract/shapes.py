"""Compare an answer with a recorded payload by shape: the same keys and types, whatever the values."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAYLOADS = Path(__file__).parents[1] / "payloads"


def recorded(vendor: str, name: str) -> dict[str, Any]:
    """A recorded payload, as the whole file: request, status, headers, body."""
    loaded: dict[str, Any] = json.loads((PAYLOADS / vendor / f"{name}.json").read_text())
    return loaded


def differences(actual: object, expected: object, at: str = "$") -> Iterator[str]:
    """Where two JSON values differ in shape; null fits everything, as one recording cannot tell more."""
    if actual is None or expected is None:
        return
    if type(actual) is not type(expected):
        yield f"{at}: {type(actual).__name__} instead of {type(expected).__name__}"
    elif isinstance(actual, dict) and isinstance(expected, dict):
        yield from (f"{at}: unrecorded key {key}" for key in sorted(set(actual) - set(expected)))
        yield from (f"{at}: missing key {key}" for key in sorted(set(expected) - set(actual)))
        for key in set(actual) & set(expected):
            yield from differences(actual[key], expected[key], f"{at}.{key}")
    elif isinstance(actual, list) and isinstance(expected, list) and expected:
        for place, item in enumerate(actual):
            yield from differences(item, expected[0], f"{at}[{place}]")


def assert_same_shape(actual: object, expected: object) -> None:
    """Fail with every difference at once."""
    found = list(differences(actual, expected))
    assert not found, "\n".join(found)
