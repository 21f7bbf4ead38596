"""A stand-in for the two calls of Temporal's client that wake tasks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from temporalio.api.common.v1 import GrpcStatus
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workflows.contracts.resolving import UnknownCommit
from workflows.hints import Hint


def rpc_error(status: RPCStatusCode, message: str = "made up") -> RPCError:
    """What the SDK raises for a gRPC status."""
    return RPCError(message, status, GrpcStatus(code=status.value, message=message).SerializeToString())


@dataclass
class FakeTemporal:
    """Records signals; `running` workflows take plain ones, a start makes one run."""

    running: set[str] = field(default_factory=set)
    signals: list[tuple[str, Hint]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    resolving: list[tuple[str, Any]] = field(default_factory=list)
    """Rows handed to the resolving workflow: an unknown commit with all rows of one signal."""
    error: Callable[[str], Exception | None] = lambda _: None
    reconciled: list[tuple[str, object]] = field(default_factory=list)
    """Schedules triggered, with the overlap policy asked for."""
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited in each call: a test's way into the moment between claim and settling."""

    @property
    def client(self) -> Client:
        """Itself, as what it stands in for."""
        return cast("Client", self)

    async def start_workflow(self, workflow: str, arg: object, **options: Any) -> None:
        """Signal with start."""
        workflow_id: str = options["id"]
        await self._enter(workflow_id)
        if options["start_signal"] == "rows":
            assert isinstance(arg, UnknownCommit)
            self.resolving.append((workflow_id, arg.model_copy(update={"rows": options["start_signal_args"][0]})))
            return
        if workflow_id not in self.running:
            self.starts.append({"workflow": workflow, "arg": arg, **options})
            self.running.add(workflow_id)
        assert options["start_signal"] == "hint"
        self.signals.append((workflow_id, *options["start_signal_args"]))

    def get_workflow_handle(self, workflow_id: str) -> "FakeHandle":
        """A handle that may lead nowhere, as the real one."""
        return FakeHandle(self, workflow_id)

    def get_schedule_handle(self, schedule_id: str) -> "FakeSchedule":
        """A handle of a Schedule, whether or not it is there."""
        return FakeSchedule(self, schedule_id)

    async def _enter(self, workflow_id: str) -> None:
        if self.before is not None:
            await self.before()
        error = self.error(workflow_id)
        if error is not None:
            raise error


@dataclass
class FakeHandle:
    """One workflow."""

    temporal: FakeTemporal
    workflow_id: str

    async def signal(self, name: str, hint: Hint, **_: Any) -> None:
        """A plain signal."""
        assert name == "hint"
        await self.temporal._enter(self.workflow_id)
        if self.workflow_id not in self.temporal.running:
            raise rpc_error(RPCStatusCode.NOT_FOUND, "workflow not found")
        self.temporal.signals.append((self.workflow_id, hint))


@dataclass
class FakeSchedule:
    """One Schedule."""

    temporal: FakeTemporal
    schedule_id: str

    async def trigger(self, *, overlap: object, **_: Any) -> None:
        """Run it now."""
        await self.temporal._enter(self.schedule_id)
        self.temporal.reconciled.append((self.schedule_id, overlap))
