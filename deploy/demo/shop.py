"""The demo's repository: a small shop with a failing test that the change makes pass."""

import json

POLICY = """\
# How Orch works on this repository; read from the base branch only.
ci = "required"

[commands]
test = "{test}"
staging = "python3 .orch/deploy.py deploy {production_url}/staging"
production = "python3 .orch/deploy.py deploy {production_url}/production"

[probes]
staging = "python3 .orch/deploy.py probe {production_url}/staging"
production = "python3 .orch/deploy.py probe {production_url}/production"

[agents]
runner = "scripted"
"""

DEPLOY_SCRIPT = '''\
"""Deploy the commit in ORCH_SHA to an environment, or print the commit it serves."""

import json
import os
import sys
import urllib.request


def deploy(url):
    owner, _, repo = os.environ["ORCH_REPOSITORY"].partition("/")
    body = json.dumps({"owner": owner, "repo": repo, "sha": os.environ["ORCH_SHA"]}).encode()
    request = urllib.request.Request(url + "/deploy", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(answer.read().decode())


def probe(url):
    with urllib.request.urlopen(url + "/healthz", timeout=10) as answer:
        print(json.load(answer)["sha"])


if __name__ == "__main__":
    {"deploy": deploy, "probe": probe}[sys.argv[1]](sys.argv[2])
'''

TEST_COMMAND = "python3 -m unittest -q"
TITLE = "Round order totals to whole cents"
DESCRIPTION = (
    "<p>A customer was charged <strong>10.014999999999999</strong>. "
    "Totals must be whole cents, rounded half up, as the test says.</p>"
)

_ORDERS = '''\
"""Orders of a small shop."""


def total(prices, vat):
    """The sum of the prices with value added tax, in the shop's currency."""
    return sum(prices) * (1 + vat)
'''

_EXACT = "    return sum(prices) * (1 + vat)\n"
_ROUNDED_BY_FLOAT = "    return round(sum(prices) * (1 + vat), 2)\n"

_ROUNDED = """\
    exact = sum(Decimal(str(price)) for price in prices) * (1 + Decimal(str(vat)))
    return float(exact.quantize(Decimal("0.01"), ROUND_HALF_UP))
"""

_TESTS = """\
import unittest

from orders import total


class Totals(unittest.TestCase):
    def test_an_empty_order_costs_nothing(self):
        self.assertEqual(total([], 0.19), 0)

    def test_totals_are_whole_cents_rounded_half_up(self):
        self.assertEqual(total([8.345, 0.07], 0.19), 10.01)
        self.assertEqual(total([0.125], 0), 0.13)


if __name__ == "__main__":
    unittest.main()
"""


def policy(production_url: str, test_command: str) -> str:
    """`.orch/pipeline.toml` for a copy of a repository that deploys to the demo's environments."""
    # JSON's strings are TOML's, with one exception: TOML wants DEL escaped.
    quoted = json.dumps(test_command, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")
    return POLICY.format(test=quoted, production_url=production_url)


def files(production_url: str) -> dict[str, str]:
    """The repository as it is before the change."""
    return {
        "README.md": "# shop\n\nA small shop. `python3 -m unittest` runs its tests.\n",
        "orders.py": _ORDERS,
        "test_orders.py": _TESTS,
        ".gitignore": "__pycache__/\n",
        ".orch/deploy.py": DEPLOY_SCRIPT,
        ".orch/pipeline.toml": policy(production_url, TEST_COMMAND),
    }


FIRST_TRY: list[dict[str, object]] = [
    {"replace": "orders.py", "old": _EXACT, "new": _ROUNDED_BY_FLOAT},
    {"commit": "{key}: round totals"},
]
"""The developer's first steps in the demo's own repository: binary floats, so that CI is red."""

CHANGE: list[dict[str, object]] = [
    {
        "replace": "orders.py",
        "old": '"""Orders of a small shop."""\n',
        "new": '"""Orders of a small shop."""\n\nfrom decimal import ROUND_HALF_UP, Decimal\n',
    },
    {"replace": "orders.py", "old": _ROUNDED_BY_FLOAT, "new": _ROUNDED},
    {"commit": "{key}: round totals to whole cents, half up"},
]
"""The developer's second try, with the failing test's words at hand."""

NOTE: list[dict[str, object]] = [
    {"write": "docs/tasks/{key}/change.md", "text": "# {title}\n\nThe scripted agent leaves this note.\n"},
    {"commit": "{key}: note the change"},
]
"""The developer's steps in a repository that the script knows nothing about."""
