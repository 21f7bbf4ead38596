"""Reading the recorded payloads as the bytes and headers that came over the wire."""

import json
from pathlib import Path
from typing import Any

PAYLOADS = Path(__file__).parent / "payloads"


def recorded(name: str) -> dict[str, Any]:
    """A recorded file such as `plane/webhook_issue_created.json`."""
    content: dict[str, Any] = json.loads((PAYLOADS / name).read_text(encoding="utf-8"))
    return content


def names(source: str) -> list[str]:
    """Every recorded webhook of a sender that is one delivery."""
    paths = sorted((PAYLOADS / source).glob("webhook_*.json"))
    return [f"{source}/{path.name}" for path in paths if "body" in json.loads(path.read_text(encoding="utf-8"))]


def plane_bytes(body: object) -> bytes:
    """As Plane serialises."""
    return json.dumps(body).encode()


def gitea_bytes(body: object) -> bytes:
    """As the recorded Gitea signatures were made."""
    return json.dumps(body, indent=2, ensure_ascii=False).encode()
