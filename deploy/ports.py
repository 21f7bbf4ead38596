"""Loopback ports: chosen once, remembered, and chosen again only if somebody else sits there."""

import random
import socket
from collections.abc import Iterable, Mapping

import psutil

LOOPBACK = "127.0.0.1"
_RANGE = range(18_000, 30_000)
"""Below the range that systems hand out for outgoing connections, so that a remembered port stays free."""


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(
    names: Iterable[str], remembered: Mapping[str, int], preferred: Mapping[str, int] | None = None
) -> tuple[dict[str, int], list[str]]:
    """Give each name a port: the remembered one, else the preferred one, else any free one.

    Returns:
        All ports, also those remembered for names not asked for, and a note for each that had to change.
    """
    ports = dict(remembered)
    notes = []
    for name in names:
        wanted = ports.get(name) or (preferred or {}).get(name)
        if wanted is not None and is_free(wanted):
            ports[name] = wanted
            continue
        ports[name] = _any_free(taken=set(ports.values()))
        if wanted is not None:
            notes.append(f"port {wanted} of {name} is taken by {_owner(wanted)}; {name} is now on {ports[name]}")
    return ports, notes


def _any_free(taken: set[int]) -> int:
    for port in random.sample(_RANGE, k=len(_RANGE)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port on {LOOPBACK} between {_RANGE.start} and {_RANGE.stop}")


def _owner(port: int) -> str:
    """Who listens there, as well as we can tell."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "another program"
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except (psutil.Error, ValueError, TypeError):
                break
    return "another program"
