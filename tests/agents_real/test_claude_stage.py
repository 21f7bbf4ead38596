"""A whole task on the embedded stack whose developer is the real claude."""

import base64
import json

import pytest

from tests.agents_real.conftest import CLAUDE, MODEL
from tests.e2e.auditor import Auditor
from tests.e2e.harness import WORK, running_stack
from tests.fake_messages_api import Turn, bash, fake_messages_api, verdict

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(400)]

EDIT = """python3 - <<'END'
import json, pathlib
for step in json.loads({steps!r}):
    name = pathlib.Path(step.get("write") or step.get("replace") or "/dev/null")
    if "write" in step:
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(step["text"])
    elif "replace" in step:
        name.write_text(name.read_text().replace(step["old"], step["new"]))
END
git add -A && git commit -q -m 'Round totals'"""


async def test_a_task_whose_developer_is_claude_is_deployed() -> None:
    """Temporal runs the developer's stage with the real claude; its commit goes all the way to production."""
    steps = [step for step in WORK if "commit" not in step]
    async with fake_messages_api() as api:
        api.turns = [Turn((bash(EDIT.format(steps=json.dumps(steps))),)), verdict(summary="Totals are whole cents.")]
        settings = {
            "ORCH_ANTHROPIC_API_KEY": "sk-not-a-key",
            "ORCH_ANTHROPIC_BASE_URL": api.url,
            "ORCH_CLAUDE_PATH": str(CLAUDE),
        }
        async with running_stack(**settings) as orch:
            found = await orch.gitea("/contents/.orch/pipeline.toml")
            text = base64.b64decode(found["content"]).decode()
            roles = f'\n[agents.roles.developer]\nrunner = "claude"\nmodel = "{MODEL}"\n'
            await orch.commit_to_main(".orch/pipeline.toml", text + roles)
            key = await orch.carry_through("Round order totals to whole cents")
            (run,) = await orch.rows("SELECT * FROM agent_runs WHERE task = $1 AND role = 'developer'", key)
            assert (run["runner"], run["outcome"], run["cost_source"]) == ("claude", "ok", "reported")
            assert run["output_tokens"] == api.told["output_tokens"]
            assert list(json.loads(run["models"])) == [MODEL]
            await Auditor(orch).check(key)
