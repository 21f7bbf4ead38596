"""Steerable trouble: webhooks get lost, doubled, late or out of order, and answers lie about what happened.

Faults live in memory only: a restarted sandbox is a healthy one.
"""

import asyncio
import random
import re
from typing import Literal, NoReturn

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.web import CONTROL, Handler


class WebhookFaults(BaseModel):
    """What happens to outgoing webhooks. `events` limits it to these event names."""

    model_config = ConfigDict(extra="forbid")

    events: list[str] = Field(default_factory=list)
    drop_next: int = Field(default=0, ge=0)
    drop_probability: float = Field(default=0, ge=0, le=1)
    double_next: int = Field(default=0, ge=0)
    double_probability: float = Field(default=0, ge=0, le=1)
    delay_seconds: float = Field(default=0, ge=0)
    reorder_seconds: float = Field(default=0, ge=0, description="Each delivery waits a random time up to this.")
    seed: int = 0


class RouteFault(BaseModel):
    """A wrong answer to matching requests. `effect` says whether the request does its work nevertheless."""

    model_config = ConfigDict(extra="forbid")

    method: str = "*"
    path: str = Field(default=".*", description="A regular expression, searched in the path.")
    times: int | None = Field(default=1, ge=1, description="null: until the faults are replaced.")
    effect: Literal["before", "after"] = "before"
    delay_seconds: float = Field(default=0, ge=0)
    status: int | None = Field(default=None, description="null: the connection is cut without an answer.")
    half_body: bool = Field(
        default=False,
        description="The answer (without a status: the real one) stops in the middle of its announced length.",
    )
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = Field(default="{}", description="Sent as JSON unless headers say otherwise.")

    def matches(self, request: web.Request) -> bool:
        """Whether this request is hit."""
        return self.method in {"*", request.method} and re.search(self.path, request.path) is not None


class FaultPlan(BaseModel):
    """All faults of one server; PUT replaces the whole plan."""

    model_config = ConfigDict(extra="forbid")

    webhooks: WebhookFaults = Field(default_factory=WebhookFaults)
    routes: list[RouteFault] = Field(default_factory=list)


class Faults:
    """The plan in force and its dice."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self._dice = random.Random(0)  # noqa: S311 - repeatable on purpose

    def replace(self, plan: FaultPlan) -> None:
        """Put a new plan in force, with fresh dice."""
        self.plan = plan
        self._dice = random.Random(plan.webhooks.seed)  # noqa: S311 - repeatable on purpose

    def copies(self, event: str) -> int:
        """How often this webhook is sent: 0 lost, 1 as it should be, 2 doubled."""
        plan = self.plan.webhooks
        if plan.events and event not in plan.events:
            return 1
        if plan.drop_next:
            plan.drop_next -= 1
            return 0
        if plan.drop_probability and self._dice.random() < plan.drop_probability:
            return 0
        if plan.double_next:
            plan.double_next -= 1
            return 2
        return 2 if plan.double_probability and self._dice.random() < plan.double_probability else 1

    def lateness(self, event: str) -> float:
        """Seconds by which this webhook is held back."""
        plan = self.plan.webhooks
        if plan.events and event not in plan.events:
            return 0
        return plan.delay_seconds + self._dice.random() * plan.reorder_seconds

    def take(self, request: web.Request) -> RouteFault | None:
        """The fault that hits this request, counted down."""
        fault = next((fault for fault in self.plan.routes if fault.matches(request)), None)
        if fault and fault.times is not None:
            fault.times -= 1
            if not fault.times:
                self.plan.routes.remove(fault)
        return fault

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Apply route faults; the control API is never hit."""
        fault = None if request.path.startswith(CONTROL) else self.take(request)
        if fault is None:
            return await handler(request)
        real = await handler(request) if fault.effect == "after" else None
        await asyncio.sleep(fault.delay_seconds)
        if fault.half_body and isinstance(real, web.Response) and fault.status is None:
            return await _half(request, real)
        if fault.status is None:
            _cut(request)
        headers = {"Content-Type": "application/json", **fault.headers}
        answer = web.Response(status=fault.status, headers=headers, text=fault.body)
        return await _half(request, answer) if fault.half_body else answer


def _cut(request: web.Request) -> NoReturn:
    if request.transport:
        request.transport.abort()
    raise web.HTTPServiceUnavailable


async def _half(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Announce the whole body, send half of it, close. An answer without a body is not sent at all."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    if not body:
        _cut(request)
    half = web.StreamResponse(status=whole.status, headers=whole.headers)
    half.content_length = len(body)
    half.force_close()
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    return half
