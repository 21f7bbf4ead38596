"""`/healthz` and `/readyz`: who asks is told whether each dependency is well and what kind of trouble it has.

The port is open to whoever reaches it, so texts of errors, which name addresses and people, go to the log only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import asyncpg
import structlog
from aiohttp import web
from temporalio.service import RPCError, RPCStatusCode

PROBE_SECONDS = 3.0

log = structlog.get_logger("api.health")


class Cause(StrEnum):
    """Every kind of trouble that is told; the values are part of the answer's contract."""

    NONE = ""
    SILENT = "no answer in time"
    UNREACHABLE = "can not be reached"
    REFUSED = "refuses our login"
    MISSING = "a table or a namespace is missing"
    FAILED = "failed; the log says how"


@dataclass(frozen=True)
class Check:
    """A dependency asked by `/readyz`. Without a required one, no webhook could be accepted."""

    probe: Callable[[], Awaitable[None]]
    required: bool


class Health:
    """The two answers, over the dependencies to ask."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._last = dict.fromkeys(checks, Cause.NONE)

    def add_routes(self, app: web.Application) -> None:
        """Serve both."""
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)

    async def healthz(self, _: web.Request) -> web.Response:
        """The process answers. Nothing is asked of anyone."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether webhooks can be accepted, and what kind of trouble each dependency has."""
        causes = dict(zip(self._checks, await asyncio.gather(*map(self._ask, self._checks)), strict=True))
        failing = [name for name, cause in causes.items() if cause]
        ready = not any(self._checks[name].required for name in failing)
        status = "not ready" if not ready else "degraded" if failing else "ready"
        dependencies = {name: {"ok": not cause, "cause": cause.value} for name, cause in causes.items()}
        return web.json_response({"status": status, "dependencies": dependencies}, status=200 if ready else 503)

    async def _ask(self, name: str) -> Cause:
        detail = ""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._checks[name].probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the cause
            cause, detail = cause_of(error), f"{type(error).__name__}: {error}"[:300]
        else:
            cause = Cause.NONE
        if cause is not self._last[name]:  # whoever asks without end fills no log
            self._last[name] = cause
            log.warning("dependency is well again" if not cause else "dependency is in trouble",
                        dependency=name, cause=cause.value, detail=detail)  # fmt: skip
        return cause


def cause_of(error: Exception) -> Cause:
    """What kind of trouble an error of PostgreSQL or Temporal is."""
    if isinstance(error, RPCError):
        return _RPC.get(error.status, Cause.FAILED)
    if isinstance(error, RuntimeError) and "Failed client connect" in str(error):
        return Cause.UNREACHABLE
    return next((cause for kinds, cause in _KINDS if isinstance(error, kinds)), Cause.FAILED)


_KINDS: tuple[tuple[tuple[type[Exception], ...], Cause], ...] = (
    ((TimeoutError,), Cause.SILENT),
    ((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError), Cause.REFUSED),
    ((asyncpg.UndefinedTableError, asyncpg.InvalidCatalogNameError), Cause.MISSING),
    ((OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError), Cause.UNREACHABLE),
)
"""The first that fits counts: a timeout is an OSError too."""

_RPC = {
    RPCStatusCode.UNAVAILABLE: Cause.UNREACHABLE,
    RPCStatusCode.DEADLINE_EXCEEDED: Cause.SILENT,
    RPCStatusCode.CANCELLED: Cause.SILENT,
    RPCStatusCode.UNAUTHENTICATED: Cause.REFUSED,
    RPCStatusCode.PERMISSION_DENIED: Cause.REFUSED,
    RPCStatusCode.NOT_FOUND: Cause.MISSING,
}
