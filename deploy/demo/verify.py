"""Looks at what the demo claims, from outside: `python -m deploy.demo.verify --help`.

It trusts nothing of Orch: it imports none of its code and reads none of its tables. It clones the repository
afresh, runs the tests itself, and asks the forge, the tracker and production over HTTP.

Prints what is true, main's newest commits, and one last line; exits 1 with a line for every fact that is false.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from deploy.demo.evidence import Clone, Rest, UnreadableError

LOG_LINES = 5


@dataclass(frozen=True)
class Claim:
    """What is said to be true."""

    gitea: str
    repository: str
    base: str
    seed: str
    """The commit that `base` stood on before anything landed; empty: its first commit."""
    pull: int
    test_command: str
    plane: str
    workspace: str
    item: str
    done_state: str
    production: str
    test_timeout: float
    gitea_token: str
    plane_token: str


class Verifier:
    """Collects the false facts of one claim."""

    def __init__(self, claim: Claim, clone: Clone) -> None:
        self._claim = claim
        self._clone = clone
        self._gitea = Rest(claim.gitea, {"Authorization": f"token {claim.gitea_token}"})
        self._plane = Rest(claim.plane, {"X-API-Key": claim.plane_token})
        self.false: list[str] = []
        self.true: list[str] = []
        self.landed = ""

    def look(self) -> None:
        """Look at every fact, also after one was found false."""
        for fact in (self._main_is_green, self._pull_request_merged, self._production_serves_it, self._item_is_done):
            try:
                fact()
            except UnreadableError as error:
                self.false.append(str(error))

    def _main_is_green(self) -> None:
        """Every tip that main has had since the seed passes the tests, and a pull request put it there."""
        claim, clone = self._claim, self._clone
        main, seed = clone.tip(), self._claim.seed or clone.first_commit()
        if not clone.contains(main, seed):
            self.false.append(f"{claim.base} was rewritten: {seed[:10]} is no longer part of it")
            return
        landed = self._landed_by_pull_requests()
        since = clone.first_parents(seed, main)
        tips = [sha for sha in since if sha in landed]
        if not since:
            self.false.append(f"nothing landed on {claim.base} after {seed[:10]}")
            return
        self.false += [
            f"{sha[:10]} of pull request #{number} is not on {claim.base}"
            for sha, number in landed.items()
            if sha not in since
        ]
        if main not in landed:
            self.false.append(f"the tip {main[:10]} of {claim.base} was not landed by a pull request")
            tips.append(main)
        for sha in tips:
            why = clone.test(sha, claim.test_command, claim.test_timeout)
            if why:
                self.false.append(f"the tests fail on {sha[:10]}, which was a tip of {claim.base}: {why}")
            else:
                self.true.append(f"the tests pass on {sha[:10]}, which was a tip of {claim.base}")

    def _landed_by_pull_requests(self) -> dict[str, int]:
        """The commits that merged pull requests put on the base branch, oldest first."""
        claim = self._claim
        rows: list[dict[str, object]] = []
        for page in range(1, 1000):
            path = f"/api/v1/repos/{claim.repository}/pulls?state=closed&limit=50&page={page}"
            more = self._gitea.read_list(path)
            rows += more
            if len(more) < 50:
                break
        merged = [row for row in rows if row.get("merged") and _at(row, "base", "ref") == claim.base]
        return {str(row["merge_commit_sha"]): int(str(row["number"])) for row in reversed(merged)}

    def _pull_request_merged(self) -> None:
        claim, clone = self._claim, self._clone
        pull = self._gitea.read_object(f"/api/v1/repos/{claim.repository}/pulls/{claim.pull}")
        if not pull.get("merged"):
            self.false.append(f"pull request #{claim.pull} is not merged: it is {pull.get('state')}")
            return
        self.landed = str(pull.get("merge_commit_sha"))
        for name, sha in (("merge commit", self.landed), ("head", _at(pull, "head", "sha"))):
            on_base = clone.contains(clone.tip(), sha)
            said = f"the {name} {sha[:10]} of pull request #{claim.pull} is {'' if on_base else 'not '}on {claim.base}"
            (self.true if on_base else self.false).append(said)

    def _production_serves_it(self) -> None:
        served = str(Rest(self._claim.production, {}).read_object("/production/healthz").get("sha"))
        main = self._clone.tip()
        if served != main:
            self.false.append(f"production serves {served[:10]}, but {self._claim.base} is at {main[:10]}")
        elif self.landed and served != self.landed:
            self.false.append(f"production serves {served[:10]}, but the item's change landed as {self.landed[:10]}")
        else:
            self.true.append(f"production serves {served[:10]}")

    def _item_is_done(self) -> None:
        claim = self._claim
        root = f"/api/v1/workspaces/{claim.workspace}"
        item = self._plane.read_object(f"{root}/work-items/{claim.item}/")
        states = self._plane.read_object(f"{root}/projects/{item['project']}/states/").get("results")
        names = {row["id"]: row["name"] for row in states} if isinstance(states, list) else {}
        state = names.get(item.get("state"), item.get("state"))
        if state != claim.done_state:
            self.false.append(f"{claim.item} is in the state {state}, not {claim.done_state}")
        else:
            self.true.append(f"{claim.item} is in the state {state}")


def _at(row: dict[str, object], *path: str) -> str:
    value: object = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return str(value)


def report(verifier: Verifier, item: str, since: float | None, say: Callable[[str], object]) -> int:
    """Say what was found; the exit code."""
    for fact in verifier.false:
        say(f"demo: FAILED: {_one_line(fact)}")
    if verifier.false:
        return 1
    took = "" if since is None else f" in {time.time() - since:.0f} s"
    say(f"demo: {item} done{took}; main green; landed {verifier.landed}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one claim."""
    options = _options().parse_args(arguments)
    claim = Claim(
        gitea=options.gitea,
        repository=options.repository,
        base=options.base,
        seed=options.seed,
        pull=options.pull,
        test_command=options.test_command,
        plane=options.plane,
        workspace=options.workspace,
        item=options.item,
        done_state=options.done_state,
        production=options.production,
        test_timeout=options.test_timeout,
        gitea_token=os.environ.get("ORCH_GITEA_TOKEN", ""),
        plane_token=os.environ.get("ORCH_PLANE_TOKEN", ""),
    )
    with tempfile.TemporaryDirectory(prefix="orch-verify-", ignore_cleanup_errors=True) as folder, _ends_cleanly():
        try:
            url = f"{claim.gitea.rstrip('/')}/{claim.repository}.git"
            clone = Clone.make(url, claim.base, claim.gitea_token, Path(folder))
        except UnreadableError as error:
            _say(f"demo: FAILED: {_one_line(str(error))}")
            return 1
        verifier = Verifier(claim, clone)
        verifier.look()
        for fact in verifier.true:
            _say(f"true: {fact}")
        for line in clone.log(LOG_LINES):
            _say(f"main: {line}")
        return report(verifier, claim.item, options.since, _say)


@contextmanager
def _ends_cleanly() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that no test is left running."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo.verify",
        description="Check from outside that an item's change is merged, tested, deployed and done.",
        epilog="Tokens are read from ORCH_GITEA_TOKEN and ORCH_PLANE_TOKEN.",
    )
    for name, what in (
        ("gitea", "the forge's address"),
        ("repository", "owner/name"),
        ("test-command", "what must pass, run by /bin/sh in a clean checkout"),
        ("plane", "the tracker's address"),
        ("workspace", "the tracker's workspace"),
        ("item", "the item's key, such as DEMO-1"),
        ("production", "the address whose /production/healthz names the served commit"),
    ):
        parser.add_argument(f"--{name}", required=True, help=what)
    parser.add_argument("--pull", type=int, required=True, help="the number of the item's pull request")
    parser.add_argument("--base", default="main", help="the branch that has to be green (main)")
    parser.add_argument("--seed", default="", help="where the branch stood before (its first commit)")
    parser.add_argument("--done-state", default="Done", help="the state the item has to be in (Done)")
    parser.add_argument("--test-timeout", type=float, default=120, help="seconds for one run of the tests (120)")
    parser.add_argument("--since", type=float, help="when the demo began, in seconds since 1970")
    return parser


if __name__ == "__main__":
    sys.exit(main())
