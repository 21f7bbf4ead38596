"""What a Temporal cluster must have before Orch runs on it: safe to run again, on any cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import cast

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from deploy.errors import StackError
from workflows.names import NAMESPACE, SEARCH_ATTRIBUTES

RETENTION = timedelta(days=30)
"""How long the history of a finished task can be read at the least."""
_SPREAD_TIMEOUT = 60.0
"""Servers of a cluster learn of a new namespace or attribute from a cache they refresh now and then."""
_REFUSED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED}


async def ensure_namespace(client: Client, namespace: str = NAMESPACE, retention: timedelta = RETENTION) -> None:
    """Register the namespace, or lengthen its retention; a longer one is left as it is.

    Raises:
        StackError: the cluster does not let this client do it.
    """
    try:
        kept = await _retention(client, namespace)
        if kept is None:
            await _register(client, namespace, retention)
            await _once_known(lambda: _search_attributes(client, namespace))
        elif kept < retention:
            change = UpdateNamespaceRequest(
                namespace=namespace,
                config=NamespaceConfig(workflow_execution_retention_ttl=_duration(retention)),
            )
            await _once_known(lambda: client.workflow_service.update_namespace(change))
    except RPCError as error:
        if error.status not in _REFUSED:
            raise
        raise StackError(
            f"the Temporal cluster refuses to make or change namespace {namespace} ({error.message}); make it"
            f" with your own tools, with a retention of {retention.days} days, and run this again"
        ) from error


async def ensure_search_attributes(client: Client, namespace: str = NAMESPACE) -> None:
    """Register the search attributes that are missing, and wait until they can be used.

    Raises:
        StackError: an attribute exists with another type, or the cluster does not let this client add it.
    """
    wanted = {key.name: cast("IndexedValueType.ValueType", key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
    deadline = time.monotonic() + _SPREAD_TIMEOUT
    while True:
        try:
            present = await _search_attributes(client, namespace)
            missing = {name: kind for name, kind in wanted.items() if name not in present}
            _refuse_other_types(wanted, present, namespace)
            if not missing:
                return
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
            )
            continue_waiting = f"{', '.join(missing)} cannot be used yet"
        except RPCError as error:
            if error.status in _REFUSED:
                raise StackError(
                    f"the Temporal cluster refuses to add search attributes to namespace {namespace}"
                    f" ({error.message}); add {', '.join(wanted)} with your own tools and run this again"
                ) from error
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            continue_waiting = error.message
        if time.monotonic() > deadline:
            raise StackError(f"search attributes of namespace {namespace}: {continue_waiting}")
        await asyncio.sleep(0.2)


async def _once_known(call: Callable[[], Awaitable[object]]) -> None:
    """Make a call about a namespace that exists, as soon as the server that is asked has heard of it."""
    deadline = time.monotonic() + _SPREAD_TIMEOUT
    while True:
        try:
            await call()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


def _refuse_other_types(
    wanted: dict[str, IndexedValueType.ValueType],
    present: dict[str, IndexedValueType.ValueType],
    namespace: str,
) -> None:
    """The server takes a second registration with another type without a word, and keeps the first."""
    for name, kind in wanted.items():
        if present.get(name, kind) != kind:
            raise StackError(
                f"search attribute {name} of namespace {namespace} is {IndexedValueType.Name(present[name])},"
                f" but Orch needs {IndexedValueType.Name(kind)}; remove it (temporal operator"
                f" search-attribute remove --name {name}) or use another namespace"
            )


async def _search_attributes(client: Client, namespace: str) -> dict[str, IndexedValueType.ValueType]:
    answer = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))
    return dict(answer.custom_attributes)


async def _retention(client: Client, namespace: str) -> timedelta | None:
    """How long histories are kept, or None where there is no such namespace."""
    try:
        answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
    return answer.config.workflow_execution_retention_ttl.ToTimedelta()


async def _register(client: Client, namespace: str, retention: timedelta) -> None:
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=namespace,
                description="Orch: one workflow for each task",
                workflow_execution_retention_period=_duration(retention),
            )
        )
    except RPCError as error:
        if error.status != RPCStatusCode.ALREADY_EXISTS:
            raise


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
