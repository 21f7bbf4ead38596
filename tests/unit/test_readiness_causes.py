"""What `/readyz` tells of an error: its kind, never its text."""

import asyncpg
import pytest
from temporalio.service import RPCStatusCode

from api.health import Cause, cause_of
from tests.fake_temporal import rpc_error

SECRET = "postgresql://orch:s3cret@db.internal:5432/orch"

KINDS: list[tuple[Exception, Cause]] = [
    (TimeoutError(SECRET), Cause.SILENT),
    (OSError(SECRET), Cause.UNREACHABLE),
    (asyncpg.CannotConnectNowError(SECRET), Cause.UNREACHABLE),
    (asyncpg.ConnectionDoesNotExistError(SECRET), Cause.UNREACHABLE),
    (asyncpg.InvalidPasswordError(SECRET), Cause.REFUSED),
    (asyncpg.InsufficientPrivilegeError(SECRET), Cause.REFUSED),
    (asyncpg.UndefinedTableError(SECRET), Cause.MISSING),
    (asyncpg.InvalidCatalogNameError(SECRET), Cause.MISSING),
    (RuntimeError(f"Failed client connect: {SECRET}"), Cause.UNREACHABLE),
    (rpc_error(RPCStatusCode.UNAVAILABLE, SECRET), Cause.UNREACHABLE),
    (rpc_error(RPCStatusCode.DEADLINE_EXCEEDED, SECRET), Cause.SILENT),
    (rpc_error(RPCStatusCode.PERMISSION_DENIED, SECRET), Cause.REFUSED),
    (rpc_error(RPCStatusCode.NOT_FOUND, SECRET), Cause.MISSING),
    (rpc_error(RPCStatusCode.INTERNAL, SECRET), Cause.FAILED),
    (ValueError(SECRET), Cause.FAILED),
]


@pytest.mark.parametrize(("error", "cause"), KINDS, ids=lambda value: type(value).__name__)
def test_an_error_is_told_as_its_kind(error: Exception, cause: Cause) -> None:
    """Every error of a dependency becomes one of a few fixed words, whatever its text holds."""
    assert cause_of(error) is cause
    assert "internal" not in cause.value
