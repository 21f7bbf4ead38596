"""Around the demo: its home, its stack, interruptions, and that nothing is left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli import demo_lines
from api.cli.demo_play import Play, Result, Say, now, why_now
from api.cli.outcome import CliError, Exit
from api.cli.wording import clean
from deploy import ports
from deploy.demo import copy
from deploy.demo.seed import DemoSpec
from deploy.embedded import EmbeddedStack
from deploy.errors import StackError
from deploy.home import Home, write_private

_QUIET_STEPS = {"cleaning up", "preparing postgres"}


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    repository: Path | None
    title: str | None
    test_command: str | None
    keep: bool
    timeout: float


class StageManager:
    """Runs one demo."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self._began = now()
        self._temporary = not os.environ.get("ORCH_HOME")
        self._result = Result()
        self._play: asyncio.Task[None] | None = None
        self._interrupted = 0
        self._stack: EmbeddedStack | None = None
        self._failed = False

    async def run(self) -> int:
        """Play, clean up, say the last line; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt, number)
        error: CliError | None = None
        self._play = asyncio.create_task(self._whole())
        try:
            await self._play
        except CliError as problem:
            error = problem
        except StackError as problem:
            error = CliError(Exit.FAILED, str(problem))
        except asyncio.CancelledError:
            error = CliError(Exit.INTERRUPTED, "interrupted")
        except Exception as problem:  # noqa: BLE001 - whatever it is, nothing may be left running
            error = CliError(Exit.FAILED, f"{type(problem).__name__}: {problem}")
        self._failed = error is not None or self._result.exit_code is not Exit.OK
        await self._clean_up()
        if error is not None:
            hint = f" ({error.hint})" if error.hint else ""
            self._result.last = [
                "demo: interrupted" if self._interrupted else f"demo: FAILED: {clean(error.message)}{hint}"
            ]
        for line in self._result.last:
            self._say(line)
        if self._interrupted:
            return 128 + self._interrupted
        return error.exit_code if error is not None else self._result.exit_code

    def as_json(self, exit_code: int) -> dict[str, Any]:
        """The demo as one object."""
        result = self._result
        kept = self._stack is not None and self._stack.home.root.exists()
        return {
            "item": result.item,
            "exit_code": exit_code,
            "verdict": result.last,
            "links": result.links,
            "telegram_messages": result.messages,
            "home": str(self._stack.home.root) if kept and self._stack else None,
            "running": self._stays_up,
        }

    @property
    def _stays_up(self) -> bool:
        return self._options.keep and not self._interrupted

    async def _whole(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._stage_and_play()
        except TimeoutError:
            raise await self._too_long() from None

    async def _stage_and_play(self) -> None:
        options = self._options
        home = self._make_home()
        owner = None if options.keep else os.getpid()
        prefer = {"production": ports.choose(("production",), {})[0]["production"]}
        self._stack = EmbeddedStack(home.root, prefer_ports=prefer, owner_pid=owner)
        name = str(options.repository) if options.repository else None
        self._say(demo_lines.story(str(home.root), options.title or "", name))
        self._say("")
        spec = DemoSpec()
        if options.repository is not None:
            spec = await self._copy(options.repository, home, prefer["production"])
        status = await self._stack.up(timeout=options.timeout, progress=self._progress)
        if options.repository is not None and status.ports["production"] != prefer["production"]:
            raise CliError(Exit.FAILED, "another program took the port that was chosen for production", "run it again")
        self._line("stack", f"is up; watch it in Temporal's Web UI: {status.urls['temporal_ui']}")
        await Play(status, spec, self._began, self._say, self._result, alive=options.keep).run()

    def _make_home(self) -> Home:
        """A temporary home, or the one ORCH_HOME names if no stack was ever in it."""
        if not self._temporary:
            home = Home.at()
            if home.secrets_file.exists() or home.stack_file.exists():
                raise CliError(
                    Exit.CONFLICT,
                    f"ORCH_HOME ({home.root}) holds a stack already, and the demo begins with an empty one",
                    "unset ORCH_HOME, or name a folder that does not exist yet",
                )
            home.create()
            return home
        root = Path(tempfile.mkdtemp(prefix="orch-demo-"))
        # Only for root: PostgreSQL's own account has to pass through this new folder of ours.
        root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return Home.at(root)

    async def _copy(self, repository: Path, home: Home, port: int) -> DemoSpec:
        """Copy somebody's repository into the home and seed the stack with it."""
        options = self._options
        assert options.title is not None
        assert options.test_command is not None
        made = await copy.prepare(
            repository, home.root / "import", f"http://{ports.LOOPBACK}:{port}", options.test_command
        )
        self._line("copy", f"of {repository} at {made.head[:10]}; yours is not touched")
        if made.uncommitted:
            self._line("", "what you have not committed is not in it")
        why = await copy.failing_tests(made.folder, options.test_command, home.root / "tests", options.timeout / 3)
        if why:
            self._line("tests", f"FAIL in your repository as it is, before any change: {why}")
            self._line("", "so no change can pass either; expect Orch to land nothing and to ask a person")
        else:
            self._line("tests", "pass in your repository as it is")
        await copy.clean(made.folder)
        spec = DemoSpec(
            repository=made.name,
            title=options.title,
            description="",
            test_command=options.test_command,
            import_git=made.folder,
        )
        write_private(home.root / "demo.json", spec.model_dump_json(indent=2) + "\n")
        return spec

    def _progress(self, step: str) -> None:
        if step not in _QUIET_STEPS:
            self._line("stack", step)

    def _line(self, who: str, text: str) -> None:
        self._say(demo_lines.line(now() - self._began, who, text))

    async def _too_long(self) -> CliError:
        """What can be said when time is up."""
        stack, item = self._stack, self._result.item
        if stack is None:
            return CliError(Exit.PENDING, f"nothing was started within {self._options.timeout:.0f} s")
        if not item:
            step = stack.status().step or "starting"
            return CliError(Exit.PENDING, f"the stack is still {step} after {self._options.timeout:.0f} s")
        self._say("orch task why:")
        self._say(f"  {await why_now(dict(stack.status().environment), item)}")
        return CliError(Exit.PENDING, f"{item} is not done after {self._options.timeout:.0f} s")

    def _interrupt(self, number: int) -> None:
        """Ctrl-C and its relatives: the first one ends the demo; cleaning up goes on whatever comes."""
        with contextlib.suppress(OSError):
            self._say("stopping everything; a moment")
        if self._interrupted:
            return
        self._interrupted = number
        if self._play is not None:
            self._play.cancel()

    async def _clean_up(self) -> None:
        """Leave nothing running; leave no files either unless they explain a failure."""
        with contextlib.suppress(BrokenPipeError):
            for line in self._result.ending:
                self._say(line)
        stack = self._stack
        if stack is None:
            return
        root = stack.home.root
        lines: list[str] = []
        if self._stays_up:
            lines = demo_lines.kept(str(root), temporary=self._temporary)
        elif self._failed and not self._interrupted:
            await stack.down()
            lines = [
                "",
                f"everything is stopped; logs are in {stack.home.logs}",
                f"look again: ORCH_HOME={root} orch up",
            ]
            lines += [f"or forget it: rm -r {root}"] if self._temporary else []
        elif self._temporary:
            await stack.destroy()
            await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
        else:
            await stack.down()
            lines = [f"everything is stopped; its files are in {root}"]
        with contextlib.suppress(BrokenPipeError):
            for line in lines:
                self._say(line)
