"""Preparing a Temporal cluster, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client

from deploy import setup
from deploy.embedded import servers
from deploy.errors import StackError
from workflows.names import SEARCH_ATTRIBUTES

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[Client]:
    """A client of a server of its own."""
    async with servers(services=("temporal",)) as status:
        yield await Client.connect(status.temporal_address)


async def test_a_new_namespace_is_made_once_by_several_at_once(client: Client) -> None:
    """Several that prepare the same new namespace all succeed; it keeps histories for 30 days."""
    await asyncio.gather(*(setup.ensure_namespace(client, "fresh") for _ in range(3)))
    await asyncio.gather(*(setup.ensure_search_attributes(client, "fresh") for _ in range(3)))
    assert await setup._retention(client, "fresh") == timedelta(days=30)
    assert set(await setup._search_attributes(client, "fresh")) == {key.name for key in SEARCH_ATTRIBUTES}


async def test_a_longer_retention_is_left_alone(client: Client) -> None:
    """A shorter retention is lengthened, a longer one that an operator chose stays."""
    await setup.ensure_namespace(client, "chosen", timedelta(days=2))
    await setup.ensure_namespace(client, "chosen", timedelta(days=90))
    await setup.ensure_namespace(client, "chosen")
    assert await setup._retention(client, "chosen") == timedelta(days=90)


async def test_an_attribute_of_another_type_is_refused(client: Client) -> None:
    """An attribute of our name but another type is an error that says how to remove it."""
    await setup.ensure_namespace(client, "taken")
    wrong = AddSearchAttributesRequest(
        namespace="taken", search_attributes={"OrchItem": IndexedValueType.INDEXED_VALUE_TYPE_BOOL}
    )
    await setup._once_known(lambda: client.operator_service.add_search_attributes(wrong))
    with pytest.raises(StackError, match=r"OrchItem of namespace taken is .*BOOL.* search-attribute remove"):
        await setup.ensure_search_attributes(client, "taken")
