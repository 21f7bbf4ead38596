"""How much the webhook receiver costs over the least that would be durable, and over signalling in the handler.

`python -m tests.bench.webhook_ack` starts a PostgreSQL, a Temporal and three servers, each in a process of its own:

- `ack`: the product's receiver (HMAC, dedupe, durable insert, 202);
- `bare`: an aiohttp handler that appends the body to a file and calls fdatasync once;
- `signal`: HMAC, then signal-with-start inside the handler, as a receiver without an inbox would do.

Blocks of requests are interleaved ABBA in one run, after a warm-up. Printed are ratios with a 95 % bootstrap interval.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from api.__main__ import log_as_json
from api.app import SERVER_OPTIONS, make_app
from api.inbox import Inbox, open_pool
from api.webhooks.reading import signature_matches
from deploy.embedded import servers
from deploy.ports import LOOPBACK
from tests.recorded import plane_bytes, recorded
from workflows.hints import Hint, Source, Topic
from workflows.names import SHARED_QUEUE, task_workflow_id
from workflows.plugin import orch_plugin
from workflows.state import TaskInput

SECRET = b"bench"
PATH = "/webhooks/plane"
TASKS = 100
"""How many tasks the deliveries are about."""
WARM_UP = 100
IN_PARALLEL = 16
RESAMPLES = 1000
GOALS = {"p50": 1.5, "p99": 2.0, "rate": 5.0}
VARIANTS = ("ack", "bare", "signal")


# -- the three servers -----------------------------------------------------------------------------------------


async def _ack() -> web.Application:
    """The product's own application over its own pool."""
    inbox = Inbox(await open_pool(os.environ["ORCH_DATABASE_URL"]))
    return make_app(inbox, plane_secrets=(SECRET,), gitea_secrets=(SECRET,), checks={})


async def _bare() -> web.Application:
    """The floor: one append, one fdatasync."""
    file = os.open(os.environ["BENCH_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def receive(request: web.Request) -> web.Response:
        os.write(file, await request.read())
        os.fdatasync(file)
        return web.json_response({"status": "accepted"}, status=202)

    app = web.Application()
    app.router.add_post(PATH, receive)
    return app


async def _signal() -> web.Application:
    """No inbox: the handler itself tells Temporal."""
    client = await Client.connect(
        os.environ["TEMPORAL_ADDRESS"], namespace=os.environ["TEMPORAL_NAMESPACE"], plugins=[orch_plugin()]
    )
    hint = Hint(topic=Topic.ITEM, source=Source.PLANE)

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        if not signature_matches(body, request.headers["X-Plane-Signature"], (SECRET,)):
            return web.Response(status=401)
        key = f"BENCH-{json.loads(body)['data']['sequence_id']}"
        await client.start_workflow(
            "TaskWorkflow",
            TaskInput(key=key),
            id=task_workflow_id(key),
            task_queue=SHARED_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="hint",
            start_signal_args=[hint],
        )
        return web.json_response({"status": "accepted"}, status=202)

    app = web.Application()
    app.router.add_post(PATH, receive)
    return app


async def serve(variant: str) -> None:
    """Serve one variant until the parent goes away; the first line of standard output is the port."""
    log_as_json()  # as the product does: a line for each delivery
    app = await {"ack": _ack, "bare": _bare, "signal": _signal}[variant]()
    runner = web.AppRunner(app, **SERVER_OPTIONS)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.asynccontextmanager
async def served(variant: str, environment: dict[str, str]) -> AsyncIterator[int]:
    """A variant in a process of its own; its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.webhook_ack", "--serve", variant,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


# -- the load --------------------------------------------------------------------------------------------------


class Load:
    """Sends deliveries that nobody has sent before."""

    def __init__(self, http: aiohttp.ClientSession, ports: dict[str, int]) -> None:
        self._http = http
        self._ports = ports
        self._sent = 0
        self._payload = json.loads(plane_bytes(recorded("plane/webhook_issue_updated_state_via_api.json")["body"]))

    async def once(self, variant: str) -> float:
        """One delivery; the seconds until it was acknowledged."""
        self._sent += 1
        self._payload["data"]["sequence_id"] = self._sent % TASKS + 1
        self._payload["data"]["updated_at"] = f"delivery {self._sent}"
        body = json.dumps(self._payload).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Plane-Event": "issue",
            "X-Plane-Delivery": str(self._sent),
            "X-Plane-Signature": hmac.new(SECRET, body, hashlib.sha256).hexdigest(),
        }
        url = f"http://{LOOPBACK}:{self._ports[variant]}{PATH}"
        begun = time.perf_counter()
        async with self._http.post(url, data=body, headers=headers) as answer:
            await answer.read()
            took = time.perf_counter() - begun
            if answer.status != 202:
                raise SystemExit(f"{variant} answered {answer.status}")
        return took

    async def one_by_one(self, variant: str, count: int) -> list[float]:
        """The seconds of each of `count` deliveries, one after the other."""
        return [await self.once(variant) for _ in range(count)]

    async def at_once(self, variant: str, count: int) -> float:
        """Deliveries a second with 16 senders."""
        left = iter(range(count))

        async def send() -> None:
            for _ in left:
                await self.once(variant)

        begun = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(IN_PARALLEL)))
        return count / (time.perf_counter() - begun)


# -- the figures -----------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratio(
    above: Sequence[float], below: Sequence[float], statistic: Callable[[Sequence[float]], float]
) -> tuple[float, float, float]:
    """The ratio of a statistic of two samples, with a 95 % bootstrap interval."""
    dice = random.Random(0)
    drawn = sorted(
        statistic(dice.choices(above, k=len(above))) / statistic(dice.choices(below, k=len(below)))
        for _ in range(RESAMPLES)
    )
    return statistic(above) / statistic(below), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]


def by_round(blocks: dict[str, list[list[float]]], share: float) -> list[float]:
    """Each round's own ratio: what it compares ran within seconds of each other, whatever else the machine did."""
    paired = [
        {name: found[at] + found[at + 1] for name, found in blocks.items()} for at in range(0, len(blocks["ack"]), 2)
    ]
    return [percentile(pair["ack"], share) / percentile(pair["bare"], share) for pair in paired]


def abba(first: str, second: str, rounds: int) -> list[str]:
    """Blocks in an order that a slow drift of the machine does not favour."""
    return [first, second, second, first] * rounds


async def measure(rounds: int, block: int) -> str:
    """Run everything; the report."""
    lines = [f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"]
    lines.append("load average before: " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    async with contextlib.AsyncExitStack() as stack:
        status = await stack.enter_async_context(servers())
        # In the temporary folder, as the servers' data are: a memory disk would favour both alike.
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-"))) / "bodies"
        environment = {**status.environment, "BENCH_FILE": str(file)}
        ports = {name: await stack.enter_async_context(served(name, environment)) for name in VARIANTS}
        http = await stack.enter_async_context(aiohttp.ClientSession())
        load = Load(http, ports)
        for name in VARIANTS:
            await load.one_by_one(name, WARM_UP)
            await load.at_once(name, WARM_UP)
        lines.append(f"warm-up: {2 * WARM_UP} requests each; then {rounds} ABBA rounds of blocks of {block}")
        seconds: dict[str, list[float]] = {"ack": [], "bare": []}
        blocks: dict[str, list[list[float]]] = {"ack": [], "bare": []}
        for name in abba("ack", "bare", rounds):
            blocks[name].append(await load.one_by_one(name, block))
            seconds[name] += blocks[name][-1]
        rates: dict[str, list[float]] = {"ack": [], "signal": []}
        for name in abba("ack", "signal", rounds):
            rates[name].append(await load.at_once(name, block))
    for name, sample in seconds.items():
        p50, p99 = percentile(sample, 0.5) * 1000, percentile(sample, 0.99) * 1000
        lines.append(f"{name:7} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {len(sample)} requests, one at a time")
    for name, rate in rates.items():
        lines.append(f"{name:7} {statistics.median(rate):9.0f} requests a second, {IN_PARALLEL} at a time")
    found = {
        "p50": ratio(seconds["ack"], seconds["bare"], lambda sample: percentile(sample, 0.5)),
        "p99": ratio(seconds["ack"], seconds["bare"], lambda sample: percentile(sample, 0.99)),
        "rate": ratio(rates["ack"], rates["signal"], statistics.median),
    }
    over = {"p50": "bare, goal at most", "p99": "bare, goal at most", "rate": "signal, goal at least"}
    for name, (value, low, high) in found.items():
        lines.append(f"{name:5} ack / {over[name]} {GOALS[name]:g}: {value:.2f} (95 %: {low:.2f} to {high:.2f})")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        each = by_round(blocks, share)
        spread = f"{min(each):.2f} to {max(each):.2f}"
        lines.append(
            f"{name:5} ack / bare, median of the rounds: {statistics.median(each):.2f} (they range from {spread})"
        )
    lines.append("load average after:  " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or serve one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="ABBA rounds (default: 5)")
    parser.add_argument("--block", type=int, default=200, help="requests in a block (default: 200)")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    sys.stdout.write(asyncio.run(measure(arguments.rounds, arguments.block)) + "\n")


if __name__ == "__main__":
    main()
