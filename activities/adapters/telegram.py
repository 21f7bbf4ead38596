"""Telegram's Bot API, as far as an alerting bot needs it (contracts/telegram.md).

The token is part of every URL, so no URL and no unfiltered text of the HTTP library leaves this module.
There is no idempotency key: a call that timed out may have been delivered.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp

from activities.adapters.errors import (
    AdapterError,
    ChatMigrated,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from activities.adapters.http import DEFAULT_RETRY_AFTER, HttpClient, Response, message_of, parse_body

MAX_TEXT = 4000
"""UTF-16 units to stay under; the API's own limit is 4096 after parsing (contracts/telegram.md, Text)."""

_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


@dataclass(frozen=True, slots=True)
class Bot:
    """Who our token is."""

    id: int
    username: str


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A delivered message; store both. `chat_id` differs from the one asked for if the group has migrated."""

    chat_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class Button:
    """An inline button: either `callback_data` (1 to 64 bytes) or `url`."""

    text: str
    callback_data: str = ""
    url: str = ""

    def as_json(self) -> dict[str, str]:
        """The button as the API wants it."""
        return {"text": self.text} | ({"url": self.url} if self.url else {"callback_data": self.callback_data})


class TelegramClient:
    """Sends and edits messages as one bot. `base_url` may be a self-hosted Bot API server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        token: str,
        *,
        base_url: str = "https://api.telegram.org",
        timeout: float = 15.0,
    ) -> None:
        self._http = HttpClient(
            session,
            f"{base_url.rstrip('/')}/bot{token}",
            service="telegram",
            timeout=timeout,
            max_bytes=1024 * 1024,
            secrets=(token,),
        )

    async def get_me(self) -> Bot:
        """Our own bot; the cheapest way to try the token.

        Raises:
            Unauthorized: the token is wrong.
        """
        result = await self._call("getMe", {})
        return Bot(_int(result, "id"), str(result.get("username", "")))

    async def send_message(
        self,
        chat_id: int | str,
        text: str,
        *,
        parse_mode: Literal["HTML"] | None = "HTML",
        thread_id: int | None = None,
        silent: bool = False,
        buttons: Sequence[Sequence[Button]] = (),
    ) -> SentMessage:
        """Send a message; markup that Telegram cannot parse is sent once more as plain text.

        A group that has become a supergroup is followed: the returned `chat_id` is the new one, store it.

        Raises:
            RateLimited: wait exactly `retry_after` seconds for this chat.
            Rejected: the chat does not exist, or has blocked the bot; permanent.
            Unavailable: ambiguous, it may have been delivered.
        """
        body: dict[str, object] = {
            "chat_id": chat_id,
            "text": text,
            "disable_notification": silent,
            "link_preview_options": {"is_disabled": True},
        }
        if thread_id is not None:
            body["message_thread_id"] = thread_id
        try:
            result = await self._text_call("sendMessage", body, parse_mode, buttons)
        except ChatMigrated as moved:
            result = await self._text_call("sendMessage", body | {"chat_id": moved.chat_id}, parse_mode, buttons)
        chat = result.get("chat")
        return SentMessage(_int(chat if isinstance(chat, dict) else {}, "id"), _int(result, "message_id"))

    async def edit_message(
        self,
        chat_id: int | str,
        message_id: int,
        text: str,
        *,
        parse_mode: Literal["HTML"] | None = "HTML",
        buttons: Sequence[Sequence[Button]] = (),
    ) -> None:
        """Replace a message of ours; without `buttons` it loses them. The same text again is success.

        Raises:
            ChatMigrated: old messages cannot be edited from the new chat; send a new one there.
            Rejected: the message is gone or too old; send a new one.
        """
        body: dict[str, object] = {
            "chat_id": chat_id,
            "message_id": message_id,
            "text": text,
            "link_preview_options": {"is_disabled": True},
        }
        try:
            await self._text_call("editMessageText", body, parse_mode, buttons)
        except Rejected as error:
            if "message is not modified" not in str(error):
                raise

    async def _text_call(
        self,
        method: str,
        body: dict[str, object],
        parse_mode: str | None,
        buttons: Sequence[Sequence[Button]],
    ) -> dict[str, object]:
        if buttons:
            rows = [[button.as_json() for button in row] for row in buttons]
            body = body | {"reply_markup": {"inline_keyboard": rows}}
        if parse_mode is None:
            return await self._call(method, body)
        try:
            return await self._call(method, body | {"parse_mode": parse_mode})
        except Rejected as error:
            if error.status != 400 or "can't parse" not in str(error):
                raise
        return await self._call(method, body | {"text": clip(plain(str(body["text"])))})

    async def _call(self, method: str, body: dict[str, object]) -> dict[str, object]:
        answer = await self._http.send("POST", method, json=body)
        data = parse_body(answer.body)
        if not isinstance(data, dict) or "ok" not in data:
            raise Unavailable(f"{answer.label}: {answer.status}, not an answer of the Bot API", ambiguous=True)
        if data["ok"] is not True:
            raise _error(answer, data)
        result = data.get("result")
        return result if isinstance(result, dict) else {}


def escape(text: str) -> str:
    """Make any text safe inside an HTML message."""
    return html.escape(text, quote=True)


def plain(text: str) -> str:
    """An HTML message without its markup."""
    return html.unescape(_TAG.sub("", text))


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """Cut a text without markup to `limit` UTF-16 units (an emoji counts two), as Telegram counts."""
    units = text.encode("utf-16-le")
    if len(units) <= 2 * limit:
        return text
    # Ignoring errors drops half of a surrogate pair that the cut went through.
    return units[: 2 * (limit - 1)].decode("utf-16-le", "ignore") + "…"


def _error(answer: Response, data: dict[str, object]) -> AdapterError:
    """Match on the code and the parameters; texts are not guaranteed (contracts/telegram.md, Errors)."""
    code = data.get("error_code")
    status = code if isinstance(code, int) else answer.status
    given = data.get("parameters")
    parameters = given if isinstance(given, dict) else {}
    message = f"{answer.label}: {status} {message_of(data)}"
    if status == 429:
        wait = parameters.get("retry_after")
        return RateLimited(message, retry_after=float(wait) if isinstance(wait, int) else DEFAULT_RETRY_AFTER)
    if status in (401, 404):
        return Unauthorized(message, status=status)
    if status >= 500:
        return Unavailable(message, ambiguous=True, status=status)
    moved = parameters.get("migrate_to_chat_id")
    if isinstance(moved, int):
        return ChatMigrated(message, chat_id=moved)
    return Rejected(message, status=status, body=data)


def _int(data: dict[str, object], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int):
        raise Unavailable(f"telegram: the answer has no {name}", ambiguous=True)
    return value
