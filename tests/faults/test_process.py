"""Processes: nothing is inherited, memory is bounded, and the whole tree is gone afterwards."""

import asyncio
import os
import resource
import signal
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psutil
import pytest

from activities.adapters.errors import LockHeld, ProcessNotStarted
from activities.adapters.locks import WorkspaceLock
from activities.adapters.process import LineSplitter, ProcessResult, run
from activities.adapters.process_tree import RUN_ID_VARIABLE, kill_run

ENV = {"PATH": os.environ["PATH"]}
REPOSITORY = Path(__file__).parents[2]

# Starts a grandchild that has its own session, another parent and no terminal, then waits for ever.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + ".tmp", "w").write(str(os.getpid()))
        os.rename(sys.argv[1] + ".tmp", sys.argv[1])
        time.sleep(600)
    os._exit(0)
os.wait()
if sys.argv[2] == "stay":
    time.sleep(600)
"""

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


async def python(script: str, *args: object, cwd: Path, **options: object) -> ProcessResult:
    """Run a Python script with our runner."""
    argv = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    return await run(argv, cwd=cwd, env=ENV, **({"timeout": 30.0, "grace": 0.3} | options))  # type: ignore[arg-type]


async def eventually(condition: object, seconds: float = 15.0) -> None:
    """Wait until the condition holds; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_result_carries_exit_code_output_and_both_streams(tmp_path: Path) -> None:
    """Exit code and output come back as they were, with the streams kept apart on request."""
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = await python(script, cwd=tmp_path, merge_stderr=False)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert not result.timed_out
    assert not result.truncated


async def test_nothing_is_inherited_but_the_given_environment(tmp_path: Path) -> None:
    """The child sees exactly the given variables and the run marker, and no secret of ours."""
    result = await python("import os; print(sorted(os.environ))", cwd=tmp_path, run_id="r1")
    names = set(eval(result.output_tail))
    assert names - {"LC_CTYPE"} == {"PATH", RUN_ID_VARIABLE}


async def test_stdin_is_delivered_and_closed(tmp_path: Path) -> None:
    """A program that reads to the end of its input gets all of it, and ends."""
    payload = b"x" * 1_000_000
    result = await python("import sys; print(len(sys.stdin.buffer.read()))", cwd=tmp_path, stdin=payload)
    assert result.output_tail.strip() == "1000000"


async def test_a_program_that_never_reads_its_input_still_ends(tmp_path: Path) -> None:
    """Input that nobody reads neither blocks nor fails the run."""
    result = await python("print('done')", cwd=tmp_path, stdin=b"x" * 1_000_000)
    assert (result.exit_code, result.output_tail) == (0, "done\n")


async def test_missing_program_and_missing_directory_are_typed(tmp_path: Path) -> None:
    """What cannot be started says so, before anything runs."""
    with pytest.raises(ProcessNotStarted):
        await run(["no-such-program-here"], cwd=tmp_path, env=ENV, timeout=5)
    with pytest.raises(ProcessNotStarted):
        await run(["true"], cwd=tmp_path / "missing", env=ENV, timeout=5)


async def test_a_relative_program_is_found_in_the_directory_it_runs_in(tmp_path: Path) -> None:
    """`./check.sh` is the one in the working directory, wherever the worker was started."""
    script = tmp_path / "check.sh"
    script.write_text("#!/bin/sh\npwd\n")
    script.chmod(0o755)
    result = await run(["./check.sh"], cwd=tmp_path, env=ENV, timeout=30)
    assert result.output_tail.strip() == str(tmp_path)


async def test_timeout_kills_a_daemonised_grandchild(tmp_path: Path) -> None:
    """A grandchild with its own session and another parent is gone when the timeout is reported."""
    mark = tmp_path / "pid"
    task = asyncio.create_task(python(DAEMON, mark, "stay", cwd=tmp_path, timeout=5.0))
    await eventually(mark.exists)
    assert alive(int(mark.read_text()))
    result = await task
    assert result.timed_out
    assert result.exit_code < 0
    assert not alive(int(mark.read_text()))


async def test_a_daemon_left_behind_by_a_finished_program_is_swept(tmp_path: Path) -> None:
    """A program that ended well leaves no background process, and its open pipe does not hang the run."""
    mark = tmp_path / "pid"
    result = await python(DAEMON, mark, "go", cwd=tmp_path)
    assert (result.exit_code, result.timed_out) == (0, False)
    assert not alive(int(mark.read_text()))


async def test_cancellation_kills_the_tree_before_it_is_passed_on(tmp_path: Path) -> None:
    """A cancelled run, cancelled twice even, ends only when its whole tree has ended."""
    mark = tmp_path / "pid"
    task = asyncio.create_task(python(DAEMON, mark, "stay", cwd=tmp_path))
    await eventually(mark.exists)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(mark.read_text()))


async def test_a_program_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    """TERM comes first; what ignores it is killed when the grace is over."""
    seen: list[bytes] = []
    result = await python(STUBBORN, cwd=tmp_path, timeout=5.0, grace=0.3, on_output=seen.append)
    assert b"".join(seen) == b"ready\n"
    assert (result.exit_code, result.timed_out) == (-signal.SIGKILL, True)


CAGE = """\
#!/bin/sh
{python} -c 'import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("graceful", flush=True), sys.exit(0)))
print("ready", flush=True)
time.sleep(600)' &
child=$!
trap 'kill -9 $child; exit 9' TERM
wait $child
"""


async def test_what_is_in_a_cage_may_end_gracefully(tmp_path: Path) -> None:
    """A cage ends all it holds when it gets TERM, so first only what is in it gets one."""
    cage, stop = tmp_path / "bwrap", asyncio.Event()
    cage.write_text(CAGE.format(python=sys.executable))
    cage.chmod(0o755)
    result = await run([cage], cwd=tmp_path, env=ENV, timeout=30, grace=10, stop=stop, on_output=lambda _: stop.set())
    assert result.stdout == b"ready\ngraceful\n"
    assert result.exit_code == 0


async def test_endless_output_is_bounded_in_memory(tmp_path: Path) -> None:
    """A program that prints for ever costs a bounded tail, and the tail is its newest output."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    script = "import sys\nline = b'y' * 1023 + b'\\n'\nwhile True: sys.stdout.buffer.write(line)"
    result = await python(script, cwd=tmp_path, timeout=1.5, max_output_bytes=64 * 1024)
    assert result.timed_out
    assert result.truncated
    assert len(result.stdout) == 64 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


async def test_huge_lines_and_bad_utf8_are_tolerated(tmp_path: Path) -> None:
    """A line of ten million bytes and bytes that are no UTF-8 pass through unharmed."""
    splitter = LineSplitter(max_line_bytes=16)
    lines: list[bytes] = []
    script = r"import sys; sys.stdout.buffer.write(b'a' * 10_000_000 + b'\n\xff\xfe\n')"
    result = await python(
        script, cwd=tmp_path, max_output_bytes=100, on_output=lambda chunk: lines.extend(splitter.feed(chunk))
    )
    assert lines == [b"a" * 16, b"\xff\xfe"]
    assert result.output_tail.endswith("\ufffd\ufffd\n")


def test_lines_survive_any_chunking() -> None:
    """However the stream is cut, the lines are the same; the unfinished rest comes with the flush."""
    text = b"one\n\nthree\nrest"
    for size in range(1, len(text) + 1):
        splitter = LineSplitter(100)
        lines = [line for at in range(0, len(text), size) for line in splitter.feed(text[at : at + size])]
        assert [*lines, *splitter.flush()] == [b"one", b"", b"three", b"rest"]


async def test_a_run_that_is_told_to_stop_ends_without_having_timed_out(tmp_path: Path) -> None:
    """Who watches a program can end it and everything it started, and gets its result."""
    mark, stop = tmp_path / "pid", asyncio.Event()
    task = asyncio.create_task(python(DAEMON, mark, "stay", cwd=tmp_path, stop=stop))
    await eventually(mark.exists)
    stop.set()
    result = await task
    assert (result.exit_code, result.timed_out) == (-signal.SIGTERM, False)
    assert not alive(int(mark.read_text()))


async def test_an_error_in_the_callback_ends_the_run_and_comes_back(tmp_path: Path) -> None:
    """A callback that fails stops the program and gives its own error to the caller."""

    def refuse(chunk: bytes) -> None:
        raise ValueError("enough")

    pids: list[int] = []
    with pytest.raises(ValueError, match="enough"):
        await python(STUBBORN, cwd=tmp_path, on_output=refuse, on_start=pids.append)
    assert not alive(pids[0])


PARENT = """
import asyncio, sys
from pathlib import Path
from activities.adapters.locks import WorkspaceLock
from activities.adapters.process import run

async def main():
    mark, lock_path, run_id, script = sys.argv[1:]
    lock = WorkspaceLock(Path(lock_path), run_id)
    await lock.acquire(5)
    await run([sys.executable, "-c", script, mark, "stay"], cwd=Path("."), env={"PATH": "/usr/bin:/bin"},
              timeout=600, lock=lock, run_id=run_id, on_start=lambda pid: print(pid, flush=True))

asyncio.run(main())
"""


async def test_a_killed_worker_takes_its_child_along_and_the_orphan_keeps_the_lock(tmp_path: Path) -> None:
    """SIGKILL of the parent kills the child; an outliving daemon holds the lock until it is swept."""
    mark, lock_path, run_id = tmp_path / "pid", tmp_path / "work.lock", uuid.uuid4().hex
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(mark),
        str(lock_path),
        run_id,
        DAEMON,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env=ENV | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    await eventually(mark.exists)
    daemon = int(mark.read_text())
    parent.kill()
    await parent.wait()
    await eventually(lambda: not alive(child))

    lock = WorkspaceLock(lock_path)
    assert alive(daemon)
    with pytest.raises(LockHeld) as held:
        await lock.acquire(0.2)
    assert held.value.owner is not None
    assert held.value.owner["pid"] == parent.pid
    owner = lock.owner()
    assert owner is not None
    assert not owner.alive

    assert await kill_run(owner.run_id, grace=0.3) == 1
    assert not alive(daemon)
    await lock.acquire(5)
    lock.release()


async def test_sweeping_an_unknown_run_touches_nothing() -> None:
    """A run id that no process carries ends nothing."""
    assert await kill_run(uuid.uuid4().hex, grace=0.1) == 0


async def test_the_lock_excludes_a_second_holder_in_the_same_process(tmp_path: Path) -> None:
    """Two holders never overlap, and a released lock can be taken again."""
    first, second = WorkspaceLock(tmp_path / "l", "r1"), WorkspaceLock(tmp_path / "l")
    await first.acquire(1)
    with pytest.raises(LockHeld):
        await second.acquire(0)
    owner = second.owner()
    assert owner is not None
    assert (owner.pid, owner.run_id, owner.alive) == (os.getpid(), "r1", True)
    first.release()
    await second.acquire(1)
    second.release()
