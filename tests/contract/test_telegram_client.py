"""The Telegram client against answers in the documented form."""

import traceback
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from rest_replay import Answer, Server, serve

from activities.adapters.errors import (
    AdapterError,
    ChatMigrated,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from activities.adapters.telegram import Bot, Button, SentMessage, TelegramClient, clip, escape, plain

TOKEN = "42:s3cret-token"
SEND, EDIT = f"/bot{TOKEN}/sendMessage", f"/bot{TOKEN}/editMessageText"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A fake Bot API."""
    async with serve() as running:
        yield running


@pytest.fixture
async def telegram(server: Server) -> AsyncIterator[TelegramClient]:
    """The client under test."""
    async with aiohttp.ClientSession() as session:
        yield TelegramClient(session, TOKEN, base_url=server.url, timeout=2)


def ok(result: object) -> Answer:
    """A good answer."""
    return Answer(200, {"ok": True, "result": result})


def failed(code: int, description: str, **parameters: Any) -> Answer:
    """A bad answer."""
    return Answer(code, {"ok": False, "error_code": code, "description": description, "parameters": parameters})


def message(chat: int = -5, number: int = 9) -> Answer:
    """A delivered message."""
    return ok({"message_id": number, "chat": {"id": chat, "type": "group"}, "date": 1})


async def test_get_me_names_the_bot(server: Server, telegram: TelegramClient) -> None:
    """The token's bot is read by value."""
    server.on("POST", f"/bot{TOKEN}/getMe", ok({"id": 42, "is_bot": True, "username": "orch_bot"}))
    assert await telegram.get_me() == Bot(42, "orch_bot")


async def test_send_message_passes_everything_on(server: Server, telegram: TelegramClient) -> None:
    """Text, topic, silence and buttons reach the API in its own form, and the message id comes back."""
    server.on("POST", SEND, message())
    buttons = [[Button("Approve", callback_data="a:7f"), Button("Open", url="https://gitea.example.com/x")]]
    sent = await telegram.send_message(-5, "<b>hi</b>", thread_id=3, silent=True, buttons=buttons)
    assert sent == SentMessage(chat_id=-5, message_id=9)
    assert server.requests[0].body == {
        "chat_id": -5,
        "text": "<b>hi</b>",
        "parse_mode": "HTML",
        "disable_notification": True,
        "link_preview_options": {"is_disabled": True},
        "message_thread_id": 3,
        "reply_markup": {
            "inline_keyboard": [
                [
                    {"text": "Approve", "callback_data": "a:7f"},
                    {"text": "Open", "url": "https://gitea.example.com/x"},
                ]
            ]
        },
    }


async def test_unparsable_markup_is_sent_once_more_as_plain_text(server: Server, telegram: TelegramClient) -> None:
    """A parse error costs the markup, not the alert; a second one is raised."""
    refusal = failed(400, "Bad Request: can't parse entities: Unsupported start tag")
    server.on("POST", SEND, refusal, message())
    assert (await telegram.send_message(-5, "<x>a &lt; b</x>")).message_id == 9
    assert server.requests[1].body["text"] == "a < b"
    assert "parse_mode" not in server.requests[1].body
    server.on("POST", SEND, refusal)
    with pytest.raises(Rejected):
        await telegram.send_message(-5, "x")
    assert len(server.requests) == 4


async def test_an_edit_without_a_change_is_success(server: Server, telegram: TelegramClient) -> None:
    """Editing a message to what it says already is done, any other refusal is not."""
    server.on("POST", EDIT, failed(400, "Bad Request: message is not modified: specified new message content…"))
    await telegram.edit_message(-5, 9, "same")
    server.on("POST", EDIT, failed(400, "Bad Request: message to edit not found"))
    with pytest.raises(Rejected, match="not found"):
        await telegram.edit_message(-5, 9, "same")


async def test_a_migrated_group_is_followed_once(server: Server, telegram: TelegramClient) -> None:
    """A message to a group that became a supergroup arrives there with its new id; an edit tells it."""
    moved = failed(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1005)
    server.on("POST", SEND, moved, message(chat=-1005))
    assert await telegram.send_message(-5, "x") == SentMessage(chat_id=-1005, message_id=9)
    assert [sent.body["chat_id"] for sent in server.requests] == [-5, -1005]
    server.on("POST", EDIT, moved)
    with pytest.raises(ChatMigrated) as caught:
        await telegram.edit_message(-5, 9, "x")
    assert caught.value.chat_id == -1005


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failed(401, "Unauthorized"), Unauthorized),
        (failed(404, "Not Found"), Unauthorized),
        (failed(403, "Forbidden: bot was blocked by the user"), Rejected),
        (failed(400, "Bad Request: chat not found"), Rejected),
        (failed(429, "Too Many Requests: retry after 5", retry_after=5), RateLimited),
        (failed(500, "Internal Server Error"), Unavailable),
        (Answer(502, b"<html>bad gateway</html>"), Unavailable),
        (Answer(200, b'{"ok": tr'), Unavailable),
        (ok({"message_id": "nine"}), Unavailable),
    ],
)
async def test_errors_are_typed_and_never_show_the_token(
    server: Server, telegram: TelegramClient, answer: Answer, kind: type[AdapterError]
) -> None:
    """Each error raises its type, and the token is nowhere in its traceback."""
    server.on("POST", SEND, answer)
    with pytest.raises(AdapterError) as caught:
        await telegram.send_message(-5, "x", parse_mode=None)
    assert type(caught.value) is kind
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 5.0
    if isinstance(caught.value, Unavailable):
        assert caught.value.ambiguous


async def test_a_dead_server_does_not_show_the_token(server: Server) -> None:
    """A refused connection names the method only."""
    async with aiohttp.ClientSession() as session:
        telegram = TelegramClient(session, TOKEN, base_url="http://127.0.0.1:9", timeout=2)
        with pytest.raises(Unavailable) as caught:
            await telegram.send_message(-5, "x")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "sendMessage" in str(caught.value)


def test_texts_are_escaped_stripped_and_clipped_as_telegram_counts() -> None:
    """Any text is safe in HTML; the limit counts UTF-16 units and never splits a character."""
    assert escape('<a href="x">&') == "&lt;a href=&quot;x&quot;&gt;&amp;"
    assert plain("<b>a</b> &lt; <i>b</i> 1 < 2") == "a < b 1 < 2"
    assert clip("short") == "short"
    emoji = "😀" * 10
    for limit in range(2, 20):
        cut = clip(emoji, limit)
        assert len(cut.encode("utf-16-le")) <= 2 * limit
        assert cut.endswith("…")
        assert set(cut) <= {"😀", "…"}
