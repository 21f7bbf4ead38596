"""What both senders' webhooks share: the signature over raw bytes, and strict reading of what was signed."""

import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, StringConstraints, ValidationError

Headers = Mapping[str, str]
"""Header names in any case: as they came, or as the inbox keeps them."""


class PayloadError(ValueError):
    """A body that can not be read. The message is for people and never quotes the body."""


def header(headers: Headers, name: str) -> str:
    """A header's first value, or nothing."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")


def signature_matches(body: bytes, signature: str, secrets: Sequence[bytes]) -> bool:
    """Whether `signature` is the lower-case hex HMAC-SHA256 of `body` under one of `secrets`.

    Every secret is tried whatever the others gave. No signature, no secret and an empty secret never match.
    """
    claimed = signature.encode("utf-8", "surrogateescape")
    matched = False
    for secret in secrets:
        expected = hmac.digest(secret, body, "sha256").hex().encode()
        matched |= hmac.compare_digest(expected, claimed) and bool(secret)
    return matched


def read_json(body: bytes) -> dict[str, Any]:
    """Read a JSON object, more strictly than `json` does.

    Raises:
        PayloadError: the body is not UTF-8, not JSON, nests too deeply, or is not an object.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise PayloadError(f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise PayloadError("the body nests too deeply") from None
    except json.JSONDecodeError as error:
        raise PayloadError(f"the body is not JSON: {error.msg} (character {error.pos})") from None
    except ValueError as error:
        raise PayloadError(f"the body is not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise PayloadError("the body is JSON, but not an object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


Text = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
"""A name we look up, log and show: bounded, without control characters, encodable."""

Model = TypeVar("Model", bound=BaseModel)


def fit(model: type[Model], data: object) -> Model:
    """Take the few fields we need from a payload.

    Raises:
        PayloadError: a field is missing or has the wrong shape; every such field is named.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in found)
        raise PayloadError(f"the payload has an unexpected shape: {faults}"[:500]) from None
