"""The process behind the `scripted` runner. Runs alone, inside the cage: standard library only.

A playbook is `{role: [round, round, …]}`; the last round is repeated. A round is a list of steps:
`{"write": path, "text": …}`, `{"replace": path, "old": …, "new": …}`, `{"commit": message}`,
`{"sleep": seconds}`, `{"usage": {…}, "cost": usd}` and `{"verdict": outcome, "summary": …, "findings": […]}`.
`{key}`, `{title}` and `{round}` are filled in everywhere.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """Play one round of one role in the current folder."""
    parser = argparse.ArgumentParser()
    for name in ("role", "key", "title", "playbook", "verdict", "nonce"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--round", type=int, required=True)
    arguments = parser.parse_args()
    rounds = json.loads(Path(arguments.playbook).read_text(encoding="utf-8"))[arguments.role]
    steps = rounds[min(arguments.round, len(rounds)) - 1]
    player = Player(arguments)
    for step in steps:
        player.play(step)
    sys.stdout.write(json.dumps({"type": "result", "usage": player.usage, "total_cost_usd": player.cost}) + "\n")
    return 0


class Player:
    """Carries out steps."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.usage: dict[str, int] = {}
        self.cost = 0.0
        self._acts: dict[str, Callable[[dict[str, Any]], None]] = {
            "write": self._write,
            "replace": self._replace,
            "commit": self._commit,
            "sleep": lambda step: time.sleep(float(step["sleep"])),
            "usage": self._use,
            "verdict": self._verdict,
        }

    def play(self, step: dict[str, Any]) -> None:
        """One step; what it does is named by its first key."""
        name = next(iter(step))
        if name not in self._acts:
            raise SystemExit(f"the playbook has an unknown step {name!r}; known: {', '.join(self._acts)}")
        sys.stdout.write(f"{name} {str(step[name])[:80]}\n")
        sys.stdout.flush()
        self._acts[name](step)

    def _fill(self, text: str) -> str:
        known = self._arguments
        filled = text.replace("{key}", known.key).replace("{title}", known.title)
        return filled.replace("{round}", str(known.round))

    def _write(self, step: dict[str, Any]) -> None:
        path = Path(self._fill(step["write"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._fill(step["text"]), encoding="utf-8")

    def _replace(self, step: dict[str, Any]) -> None:
        path = Path(self._fill(step["replace"]))
        text = path.read_text(encoding="utf-8")
        old, new = self._fill(step["old"]), self._fill(step["new"])
        # Playing the same step again, after a kill, finds it done; `new` often contains `old`.
        if new not in text:
            path.write_text(text.replace(old, new), encoding="utf-8")

    def _commit(self, step: dict[str, Any]) -> None:
        subprocess.run(["git", "add", "-A"], check=True)
        staged = subprocess.run(["git", "diff", "--cached", "--quiet"], check=False)
        if staged.returncode:
            subprocess.run(["git", "commit", "-q", "-m", self._fill(step["commit"])], check=True)

    def _use(self, step: dict[str, Any]) -> None:
        for bucket, tokens in step["usage"].items():
            self.usage[bucket] = self.usage.get(bucket, 0) + int(tokens)
        self.cost += float(step.get("cost", 0))

    def _verdict(self, step: dict[str, Any]) -> None:
        verdict = {
            "nonce": self._arguments.nonce,
            "outcome": step["verdict"],
            "summary": self._fill(step.get("summary", "")),
            "findings": step.get("findings", []),
        }
        Path(self._arguments.verdict).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
