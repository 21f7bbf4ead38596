"""The process ends hard after the tests: the Temporal SDK can hang while the interpreter shuts down."""

import os
import sys

import pytest
import structlog

# Plain lines: the default renderer draws every traceback with all its locals, which takes a second each.
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave with pytest's own exit code (sdk-python#300)."""
    status = getattr(config, "_orch_exit_status", None)
    # A worker of pytest-xdist still has to send its results; whoever started it ends it.
    if status is not None and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run ended."""
    session.config._orch_exit_status = int(exitstatus)
