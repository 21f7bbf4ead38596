"""`python -m deploy.sandbox --config FILE.json`: serve until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from deploy.sandbox import Sandbox, SandboxConfig
from deploy.sandbox.store import HomeInUseError


async def serve(config: SandboxConfig) -> None:
    """Serve until a signal asks to stop."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Sandbox(config) as sandbox:
        for name, url in sandbox.urls.items():
            sys.stdout.write(f"{name:<11} {url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> int:
    """Read the configuration and serve; 2 means the configuration is wrong, 1 that its home is in use."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sandbox", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a JSON file; see docs/reference/sandbox.md")
    path = parser.parse_args().config
    try:
        config = SandboxConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 2
    try:
        asyncio.run(serve(config))
    except HomeInUseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
