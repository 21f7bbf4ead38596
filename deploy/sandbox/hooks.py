"""Outgoing webhooks: a stored queue, each vendor's way of delivering, and a log anyone may read."""

import asyncio
import time
import uuid
from typing import Any, Literal, Protocol

import aiohttp
from aiohttp import web
from pydantic import BaseModel, Field

from deploy.sandbox.faults import FaultPlan, Faults
from deploy.sandbox.store import Record, Store, Table
from deploy.sandbox.web import CONTROL, control_body

KEPT = 2000  # finished deliveries in the log
PARALLEL = 4  # neither vendor keeps the order: more than one worker sends


class Attempt(BaseModel):
    """One POST: its delivery id, and what came back."""

    delivery_id: str
    at: float
    status: int | None = None
    error: str | None = None


class Delivery(Record):
    """One webhook on its way to one receiver."""

    hook: str
    url: str
    event: str
    payload: dict[str, Any]
    body: str | None = None
    state: Literal["queued", "delivered", "failed", "dropped", "gone"] = "queued"
    created_at: float
    due_at: float
    attempts: list[Attempt] = Field(default_factory=list)


class Vendor(Protocol):
    """How one vendor delivers."""

    timeout: float
    retries: int

    def active(self, delivery: Delivery) -> bool:
        """Whether the hook still exists and is switched on."""

    def render(self, delivery: Delivery) -> str | None:
        """The JSON text, or None if its object is gone."""

    def headers(self, delivery: Delivery, body: bytes, delivery_id: str) -> dict[str, str]:
        """The headers of one attempt."""

    def retry_wait(self) -> float:
        """Seconds until the next attempt."""

    def gave_up(self, delivery: Delivery) -> None:
        """The last retry failed."""


class Dispatcher:
    """Sends what is queued, also what a killed process left behind."""

    def __init__(self, store: Store, name: str, vendor: Vendor) -> None:
        self.log = Table(store, f"{name}.delivery", Delivery)
        self.faults = Faults()
        self._vendor = vendor
        self._slots = asyncio.Semaphore(PARALLEL)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client and take up what is still queued."""
        timeout = aiohttp.ClientTimeout(total=self._vendor.timeout)
        self._session = aiohttp.ClientSession(timeout=timeout, skip_auto_headers={"User-Agent"})
        for delivery in self.log.all():
            if delivery.state == "queued":
                self._spawn(delivery)

    async def stop(self) -> None:
        """Stop sending; what is queued stays queued."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def send(self, *, hook: str, url: str, event: str, payload: dict[str, Any], delay: float = 0) -> None:
        """Queue one webhook, or what the faults in force leave of it."""
        copies = self.faults.copies(event)
        for copy in range(max(copies, 1)):
            now = time.time()
            delivery = Delivery(
                id=str(uuid.uuid4()), hook=hook, url=url, event=event, payload=payload, created_at=now,
                due_at=now + delay + self.faults.lateness(event),
                state="queued" if copy < copies else "dropped",
            )  # fmt: skip
            self.log.put(delivery)
            if delivery.state == "queued":
                self._spawn(delivery)
        self._trim()

    def add_routes(self, app: web.Application) -> None:
        """Serve the log and the faults under the control API."""

        async def deliveries(_request: web.Request) -> web.Response:
            return web.json_response({"deliveries": [delivery.model_dump() for delivery in self.log.all()]})

        async def read(_request: web.Request) -> web.Response:
            return web.json_response(self.faults.plan.model_dump())

        async def replace(request: web.Request) -> web.Response:
            self.faults.replace(await control_body(request, FaultPlan))
            return await read(request)

        app.router.add_get(f"{CONTROL}/deliveries", deliveries)
        app.router.add_get(f"{CONTROL}/faults", read)
        app.router.add_put(f"{CONTROL}/faults", replace)

    def _trim(self) -> None:
        if len(self.log) <= KEPT:
            return
        finished = [delivery for delivery in self.log.all() if delivery.state != "queued"]
        for delivery in finished[: len(self.log) - KEPT]:
            self.log.delete(delivery)

    def _spawn(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        while delivery.state == "queued":
            await asyncio.sleep(max(0.0, delivery.due_at - time.time()))
            if not self._vendor.active(delivery):
                delivery.state = "dropped"
            else:
                async with self._slots:
                    await self._attempt(delivery)
            self.log.put(delivery)

    async def _attempt(self, delivery: Delivery) -> None:
        body = delivery.body = delivery.body or self._vendor.render(delivery)
        if body is None:
            delivery.state = "gone"
            return
        attempt = Attempt(delivery_id=str(uuid.uuid4()), at=time.time())
        delivery.attempts.append(attempt)
        raw = body.encode()
        assert self._session, "start() comes first"
        try:
            headers = self._vendor.headers(delivery, raw, attempt.delivery_id)
            async with self._session.post(delivery.url, data=raw, headers=headers) as response:
                attempt.status = response.status
                delivery.state = "delivered" if response.status < 300 else "failed"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            attempt.error = f"{type(error).__name__}: {error}"
            self._retry_or_give_up(delivery)

    def _retry_or_give_up(self, delivery: Delivery) -> None:
        if len(delivery.attempts) <= self._vendor.retries:
            delivery.due_at = time.time() + self._vendor.retry_wait()
            return
        delivery.state = "failed"
        self._vendor.gave_up(delivery)
