"""Finding the stack and connecting to it."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.outcome import CliError, Exit

if TYPE_CHECKING:
    import asyncpg
    from temporalio.client import Client

CONNECT_SECONDS = 5.0
RPC_TIMEOUT = timedelta(seconds=5)


def stack_environment(outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """How to reach the stack: the environment if it names a database, else what `orch up` left in the home.

    Never a mix: a database of one stack with the Temporal of another would be worse than neither.

    Raises:
        CliError: no stack is known.
    """
    outer = os.environ if outer is None else outer
    if secret_file := outer.get("ORCH_DATABASE_URL_FILE"):
        return {**outer, "ORCH_DATABASE_URL": _read_secret(secret_file)}
    if outer.get("ORCH_DATABASE_URL"):
        return dict(outer)
    from deploy.home import Home

    home = Home.at(Path(outer["ORCH_HOME"]) if outer.get("ORCH_HOME") else None)
    values = home.environment()
    if "ORCH_DATABASE_URL" not in values:
        raise CliError(
            Exit.CONFIG,
            f"no stack is known: ORCH_DATABASE_URL is not set and {home.env_file} does not name a database",
            "run `orch up`, or set ORCH_HOME to the home of a stack, or ORCH_DATABASE_URL and TEMPORAL_ADDRESS",
        )
    return values


def _read_secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(Exit.CONFIG, f"ORCH_DATABASE_URL_FILE: {path} cannot be read", "name a readable file") from error


@contextlib.contextmanager
def _database_errors(address: str) -> Iterator[None]:
    """PostgreSQL's troubles, with the exit codes they mean."""
    import asyncpg

    try:
        yield
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
        raise CliError(Exit.AUTH, f"PostgreSQL at {address} refuses us: {error}", "check ORCH_DATABASE_URL") from error
    except asyncpg.UndefinedTableError as error:
        raise CliError(
            Exit.CONFIG, f"the database at {address} is not migrated: {error}", "start Orch on it once (`orch up`)"
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CliError(
            Exit.UNREACHABLE,
            f"PostgreSQL at {address} cannot be asked: {str(error) or type(error).__name__}",
            "is the stack running? `orch up` starts the embedded one",
        ) from error


@contextlib.asynccontextmanager
async def database(environment: Mapping[str, str]) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to the read model.

    Raises:
        CliError: it cannot be reached, or refuses us.
    """
    import json

    import asyncpg

    url = environment["ORCH_DATABASE_URL"]
    with _database_errors(address_of(url)):
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, command_timeout=30)
        except ValueError as error:  # not passed on: it may quote the password
            raise CliError(
                Exit.CONFIG, "ORCH_DATABASE_URL is not an address of PostgreSQL", "postgresql://user:password@host/name"
            ) from error
        try:
            await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
            yield connection
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError):
                await connection.close(timeout=2)


def address_of(url: str) -> str:
    """A database's host and port: what may be shown of its address."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        return "(an address that cannot be read)"
    return f"{parts.hostname or 'localhost'}:{port}"


async def temporal(environment: Mapping[str, str]) -> "Client":
    """Temporal, as its own environment says; connected at the first call.

    Raises:
        CliError: its configuration cannot be read.
    """
    from temporalio.client import Client
    from temporalio.envconfig import ClientConfig

    from workflows.names import NAMESPACE
    from workflows.plugin import orch_plugin

    try:
        configured = ClientConfig.load_client_connect_config(override_env_vars=dict(environment))
    except RuntimeError as error:
        raise CliError(
            Exit.CONFIG, f"Temporal's configuration cannot be read: {error}", "see TEMPORAL_CONFIG_FILE"
        ) from error
    options: dict[str, Any] = {"target_host": "localhost:7233", "namespace": NAMESPACE, **configured}
    return await Client.connect(**options, plugins=[orch_plugin()], lazy=True)
