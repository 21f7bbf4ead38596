"""Whether the merge gate is on: on everywhere, unless somebody says otherwise, and then it is said who."""

import json
from pathlib import Path

import pytest

from deploy import configuration
from workflows.model import Repository
from workflows.policy import merge_gate_off, read_policy

SHOP = Repository(owner="acme", name="shop")
ORCH_TOML = """
plane_workspace = "acme"
plane_public_url = "http://p"
gitea_public_url = "http://g"
[projects.SHOP]
plane_project_id = "6f1ed002-ab5f-42f7-9a0b-1c1f2f1f0b01"
[projects.SHOP.repository]
owner = "acme"
name = "shop"
"""


@pytest.mark.parametrize(
    ("enabled", "repositories", "policy", "because"),
    [
        (True, "", True, ""),
        (True, "acme/shop", True, ""),
        (True, "acme/other, Acme/Shop", True, ""),
        (False, "", True, "ORCH_MERGE_GATE_ENABLED"),
        (False, "acme/shop", True, "ORCH_MERGE_GATE_ENABLED"),
        (True, "acme/other", True, "ORCH_MERGE_GATE_REPOS"),
        (True, "acme/shop", False, ".orch/pipeline.toml"),
    ],
)
def test_who_switches_it_off_is_said(enabled: bool, repositories: str, policy: bool, because: str) -> None:
    """Each of the three switches turns it off by itself, and the answer names the one that did."""
    off = merge_gate_off(SHOP, enabled=enabled, repositories=repositories, policy=policy)
    assert off == (f"merge gate off for acme/shop ({because})" if because else "")


@pytest.mark.parametrize(("line", "on"), [("", True), ('[merge]\ngate = "on"', True), ('[merge]\ngate = "off"', False)])
def test_a_policy_may_switch_it_off(line: str, on: bool) -> None:
    """The policy's own word is `on` or `off`, and on where it says nothing."""
    found = read_policy(f'[commands]\ntest = "t"\nproduction = "none"\n{line}\n'.encode(), "file")
    assert found.policy is not None
    assert found.policy.merge_gate is on


def test_another_word_is_a_problem() -> None:
    """A gate that is neither on nor off is a broken policy, never a default."""
    content = b'[commands]\ntest = "t"\nproduction = "none"\n[merge]\ngate = "maybe"\n'
    assert "merge.gate" in read_policy(content, "file").problem


@pytest.mark.parametrize(
    ("enabled", "shown"), [("false", "merge gate off for acme/shop (ORCH_MERGE_GATE_ENABLED)"), ("true", "on")]
)
def test_config_show_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str, shown: str) -> None:
    """`orch config show` has a line for each project."""
    file = tmp_path / "orch.toml"
    file.write_text(ORCH_TOML)
    monkeypatch.setenv("ORCH_CONFIG", str(file))
    monkeypatch.setenv("ORCH_MERGE_GATE_ENABLED", enabled)
    monkeypatch.delenv("ORCH_MERGE_GATE_REPOS", raising=False)
    values = {one.name: one.value for one in configuration.show()}
    assert values["projects.SHOP.merge_gate"] == shown, json.dumps(values, indent=1)
