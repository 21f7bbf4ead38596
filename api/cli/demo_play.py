"""The demo itself, on a stack that is up: Olga acts, the task is followed, a verifier looks at the end."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from api.cli import acts, connect, demo_lines, records, wording
from api.cli.demo_person import Person
from api.cli.outcome import CliError, Exit
from deploy import environment
from deploy.demo.seed import OWNER, PERSON, WORKSPACE, DemoSpec
from deploy.status import StackStatus
from workflows.names import NAMESPACE

POLL = 0.2
MESSAGE_PATIENCE = 5.0

Say = Callable[[str], None]


@dataclass
class Result:
    """What a demo came to."""

    item: str = ""
    exit_code: Exit = Exit.OK
    last: list[str] = field(default_factory=list)
    """The verifier's words; said after everything else."""
    ending: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    messages: int = 0


@dataclass
class Play:
    """One demo."""

    status: StackStatus
    spec: DemoSpec
    began: float
    say: Say
    result: Result
    alive: bool
    """Whether the stack stays up afterwards."""
    commits: set[str] = field(default_factory=set)
    """Those named already: a commit is named where it is new."""

    @property
    def repository(self) -> str:
        """`owner/name`."""
        return f"{OWNER}/{self.spec.repository}"

    def line(self, who: str, text: str, sha: str = "", at: datetime | None = None) -> None:
        """Say one line of the timeline."""
        when = time.time() if at is None else at.timestamp()
        self.say(demo_lines.line(when - self.began, who, text, sha))

    async def run(self) -> None:
        """Play it to the end.

        Raises:
            CliError: the task did not get to done.
        """
        values = self.status.environment
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
            seed = await self._main(session)
            person = Person(session, values)
            key = await person.create_item(self.spec.title, self.spec.description)
            self.result.item = key
            self.line(f"{PERSON}:", f"writes {key} “{wording.clean(self.spec.title)}” in Plane")
            await person.move(key, "In Progress")
            self.line(f"{PERSON}:", f"moves {key} to In Progress")
            async with connect.database(values) as connection:
                row = await self._follow(connection, person, key)
                await self._messages_sent(connection)
            self._check(row)
            self.result.links = self._links(row)
            messages = await self._messages(session)
            self.result.messages = len(messages)
        self.line("verifier:", "clones main afresh and tests it; reads production, pull request and item")
        lines = await self._verify(key, seed, row)
        self.result.last = [line for line in lines if line.startswith("demo: ")]
        for line in lines:
            if line.startswith("true: "):
                self.line("", f"✓ {line.removeprefix('true: ')}")
        log = [line.removeprefix("main: ") for line in lines if line.startswith("main: ")]
        self.result.ending = demo_lines.ending(
            log, self.result.links, messages, repository=self.repository, alive=self.alive
        )

    async def _main(self, session: aiohttp.ClientSession) -> str:
        """Where main stands before anything happens."""
        url = f"{self.status.environment['ORCH_GITEA_URL']}/api/v1/repos/{self.repository}/branches/main"
        headers = {"Authorization": f"token {self.status.environment['ORCH_GITEA_TOKEN']}"}
        async with session.get(url, headers=headers) as answer:
            return str((await answer.json())["commit"]["id"])

    async def _follow(self, connection: "records.Connection", person: Person, key: str) -> records.Row:
        """Show what happens until the task ends or needs more than the one decision."""
        shown, decided, stage = 0, set[str](), ""
        while True:
            rows = await records.list_tasks(connection, None, ended=True)
            row = next((row for row in rows if row["task"] == key), None)
            if row is not None:
                for event in await records.timeline(connection, key, row["generation"], after=shown):
                    shown = event["n"]
                    stage = await self._tell(connection, key, row["generation"], event, stage)
                if row["ended_at"] is not None or (row["needs_human"] and not row["spec_digest"]):
                    return row
                digest = row["spec_digest"]
                if digest and digest not in decided and await person.state(key) == "Awaiting approval":
                    await self._decide(person, key, digest, first=not decided)
                    decided.add(digest)
            await asyncio.sleep(POLL)

    async def _tell(
        self, connection: "records.Connection", key: str, generation: int, event: records.Row, stage: str
    ) -> str:
        summary = ""
        if event["text"].endswith(": pass"):
            runs = await records.agent_runs(connection, key, generation)
            said = [run["verdict"] for run in runs if (run["stage"], run["round"]) == (event["stage"], event["round"])]
            summary = said[-1].get("summary", "") if said and isinstance(said[-1], dict) else ""
        text = demo_lines.happened(event["text"], summary)
        if text is None:
            return stage
        name = event["stage"] if event["round"] == 1 else f"{event['stage']} ({event['round']})"
        news = event["sha"] not in self.commits and not demo_lines.mentions(text, event["sha"])
        self.commits.add(event["sha"])
        self.line(name if name != stage else "", text, event["sha"] if news else "", event["at"])
        return str(name)

    async def _decide(self, person: Person, key: str, digest: str, *, first: bool) -> None:
        """In the demo's own story Olga rejects the first spec, and Plane loses word of her approval."""
        link = await person.spec_link(digest)
        self.line(f"{PERSON}:", f"sees {key} in Awaiting approval and reads the spec:")
        self.line("", link)
        own_story = self.spec.import_git is None
        if own_story and first:
            reason = "say how halves are rounded"
            await acts.decide(self.status.environment, "reject", key, digest=digest, reason=reason, actor=PERSON)
            self.line(f"{PERSON}:", f"rejects it: orch task reject {key} --reason '{reason}'")
            return
        if own_story:
            await person.lose_webhooks(1)
        await person.move(key, "Approved")
        self.line(f"{PERSON}:", f"moves {key} to Approved: exactly the spec with digest {digest}")
        if own_story:
            self.line("", "that webhook is lost on the way; the next look at Plane finds out")

    def _check(self, row: records.Row) -> None:
        if row["outcome"] == "done":
            return
        sentence = wording.why(row)
        raise CliError(Exit.TASK_FAILED, f"{row['task']} did not get to done: {sentence}")

    def _links(self, row: records.Row) -> dict[str, str]:
        values = self.status.environment
        return {
            "item": row["item_url"],
            "pull request": row["pull_request_url"],
            "workflow": wording.temporal_link(values["ORCH_TEMPORAL_UI_URL"], NAMESPACE, row["task"]),
            "production": f"{self.status.urls['production']}/production/",
        }

    async def _messages_sent(self, connection: "records.Connection") -> None:
        """Give the sender a moment: it looks once a second."""
        deadline = time.monotonic() + MESSAGE_PATIENCE
        while time.monotonic() < deadline:
            if not await connection.fetchval("SELECT count(*) FROM notifications WHERE sent_at IS NULL"):
                return
            await asyncio.sleep(POLL)

    async def _messages(self, session: aiohttp.ClientSession) -> list[str]:
        async with session.get(f"{self.status.environment['ORCH_TELEGRAM_URL']}/_sandbox/messages") as answer:
            return [str(message["text"]) for message in (await answer.json())["messages"]]

    async def _verify(self, key: str, seed: str, row: records.Row) -> list[str]:
        """Let the verifier look, in a process of its own that is given addresses and tokens only."""
        values = self.status.environment
        arguments = {
            "gitea": values["ORCH_GITEA_URL"],
            "repository": self.repository,
            "seed": seed,
            "pull": str(row["pull_request"]),
            "test-command": self.spec.test_command,
            "plane": values["ORCH_PLANE_URL"],
            "workspace": WORKSPACE,
            "item": key,
            "production": f"http://127.0.0.1:{self.status.ports['production']}",
            "since": str(self.began),
        }
        argv = [f"--{name}={value}" for name, value in arguments.items()]
        env = {name: values[name] for name in ("ORCH_GITEA_TOKEN", "ORCH_PLANE_TOKEN")}
        env |= {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        async with _process(
            "-m", "deploy.demo.verify", *argv, env=env | environment.source_path(os.environ)
        ) as verifier:
            out, err = await verifier.communicate()
        lines = out.decode(errors="replace").splitlines()
        if verifier.returncode:
            self.result.exit_code = Exit.FAILED
        if not any(line.startswith("demo: ") for line in lines):
            raise CliError(
                Exit.FAILED, f"the verifier ended with {verifier.returncode}: {err.decode(errors='replace')}"
            )
        return lines


@asynccontextmanager
async def _process(*argv: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Our interpreter, ended with SIGTERM if we are interrupted, so that it can end its tests."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", *argv, env=env, stdout=pipe, stderr=pipe, cwd=Path("/"), start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def why_now(values: dict[str, str], key: str) -> str:
    """The one sentence about a task, as well as it can be had."""
    try:
        async with asyncio.timeout(5), connect.database(values) as connection:
            return wording.why(await records.find_task(connection, key))
    except (CliError, TimeoutError) as error:
        return f"nothing is known of {key or 'the task'}: {error}"


def now() -> float:
    """Seconds since 1970; the database's and the verifier's clock too."""
    return datetime.now(UTC).timestamp()
