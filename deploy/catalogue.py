"""Which services there are, in which order, and which ports they need."""

from deploy.errors import StackError

SERVICES = ("postgres", "temporal", "sandbox", "api", "worker")
"""Every service, in the order they start; they stop in the reverse order."""
PORTS = {
    "postgres": ("postgres",),
    "temporal": ("temporal", "temporal_ui"),
    "sandbox": ("plane", "gitea", "telegram", "production"),
    "api": ("api",),
    "worker": (),
}
"""The ports each service listens on."""


def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """These services, in the order they start.

    Raises:
        StackError: one of them is unknown.
    """
    unknown = sorted(set(names) - set(SERVICES))
    if unknown or not names:
        raise StackError(f"no such service: {', '.join(unknown) or '(none given)'}; there are {', '.join(SERVICES)}")
    return tuple(name for name in SERVICES if name in names)
