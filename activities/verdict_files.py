"""Verdicts as agents leave them: read with suspicion, validated by us whatever the command line says."""

import os
from pathlib import Path

from pydantic import ValidationError

from activities.runners.base import Job, Reading
from workflows.verdicts import Verdict

VERDICT_LIMIT = 64 * 1024


def judged(reading: Reading, job: Job) -> tuple[Verdict | None, str]:
    """The verdict of a run that ended, or why there is none that can be used."""
    if reading.problem:
        return None, reading.problem
    try:
        raw = read_verdict(job.verdict_file) if reading.verdict is None else _limited(reading.verdict.encode())
        verdict = Verdict.model_validate_json(raw)
    except (OSError, ValueError) as error:
        return None, f"no usable verdict: {_short(error)}"
    if verdict.nonce != job.nonce:
        return None, "no usable verdict: it carries another run's nonce"
    return verdict, ""


def read_verdict(path: Path) -> str:
    """Read a verdict file an agent left: a regular file of at most 64 KiB, no link.

    Raises:
        OSError: there is none, or it is a link.
        ValueError: it is not a regular file, too large, or not UTF-8.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not path.is_file():
            raise ValueError("the verdict is not a regular file")
        content = file.read(VERDICT_LIMIT + 1)
    return _limited(content)


def _limited(content: bytes) -> str:
    if len(content) > VERDICT_LIMIT:
        raise ValueError(f"the verdict is larger than {VERDICT_LIMIT} bytes")
    return content.decode()


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())[:500]
    return str(error)[:500]
