"""The script the demo's agents play (its words are explained in activities/runners/scripted_agent.py)."""

from typing import Any

_SPEC = """\
# {title}

## Problem

{title}: what happens today is not what the test suite asks for.

## Acceptance

- The test that fails today passes.
- No other behaviour changes.
"""

_DESIGN = """\
# Design of {key}

## Decision

Change the one function that is wrong, in decimal arithmetic; no new dependency.

## Consequences

Callers see the same types as before. Nothing is migrated.
"""

Step = dict[str, Any]


_REJECTED_ONCE = """\

## Answer to the rejection

Halves are rounded up, away from zero: 0.125 becomes 0.13.
"""


def playbook(*changes: list[Step], rejected_once: bool = False) -> dict[str, list[list[Step]]]:
    """What every role does, round by round.

    Args:
        changes: the developer's rounds; CI is the judge of each.
        rejected_once: the person rejects the first spec, so the analyst has a second one.
    """
    analyst = [_spec_round(_SPEC, "The spec says what is wrong and how we will know that it is right.")]
    if rejected_once:
        analyst.append(_spec_round(_SPEC + _REJECTED_ONCE, "The spec now says how halves are rounded, as asked."))
    return {
        "analyst": analyst,
        "architect": [
            [
                {"write": "docs/tasks/{key}/design.md", "text": _DESIGN},
                {"commit": "{key}: design"},
                _usage(11_000, 31_000, 1_100, 0.044),
                _passed("One function changes; nothing else has to know."),
            ]
        ],
        "developer": [
            [*change, _usage(15_000, 84_000, 3_200, 0.118), _passed("Done as designed; CI has the word.")]
            for change in changes
        ],
        "reviewer": [[_usage(8_000, 40_000, 700, 0.036), _passed("The change does what the spec asks, no more.")]],
        "tester": [[_usage(6_000, 18_000, 500, 0.022), _passed("All tests pass on the reviewed commit.")]],
        "deployer": [[_usage(3_000, 9_000, 300, 0.011), _passed("The environment serves the commit it was given.")]],
    }


def _spec_round(text: str, summary: str) -> list[Step]:
    return [
        {"write": "docs/tasks/{key}/spec.md", "text": text},
        {"commit": "{key}: spec, round {round}"},
        _usage(9_000, 22_000, 900, 0.031),
        _passed(summary),
    ]


def _usage(fresh: int, cached: int, out: int, cost: float) -> Step:
    return {"usage": {"input": fresh, "cache_read": cached, "output": out}, "cost": cost}


def _passed(summary: str) -> Step:
    return {"verdict": "pass", "summary": summary}
