"""Telegram's Bot API as far as an alerting bot needs it (contract: telegram.md)."""

import asyncio
import time
from html.parser import HTMLParser
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from deploy.sandbox.faults import FaultPlan, Faults
from deploy.sandbox.store import Record, Store, Table
from deploy.sandbox.web import CONTROL, Json, RefusalError, add_health, control_body, json_body, refusals

TEXT_LIMIT = 4096  # UTF-16 code units, after parsing
TAGS = {"b", "strong", "i", "em", "u", "s", "code", "pre", "a", "blockquote", "tg-spoiler", "span"}


class Message(Record):
    """A message of a bot in a chat."""

    message_id: int
    bot: str
    chat_id: int | str
    text: str
    parse_mode: str | None = None
    reply_markup: dict[str, Any] | None = None
    message_thread_id: int | None = None
    date: int
    edit_date: int | None = None


class Update(Record):
    """Something that happened to a bot, until it is confirmed."""

    update_id: int
    bot: str
    body: dict[str, Any]


class Press(BaseModel):
    """A person presses a button."""

    model_config = ConfigDict(extra="forbid")

    bot: str = Field(description="The bot's id: the token's part before the colon.")
    chat_id: int | str
    message_id: int
    data: str
    from_id: int
    username: str = "person"


class _Text(HTMLParser):
    """Telegram's HTML: few tags, all of them closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS or (tag == "a" and not dict(attrs).get("href")):
            raise bad_request(f'can\'t parse entities: Unsupported start tag "{tag}"')
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise bad_request(f'can\'t parse entities: Unmatched end tag "{tag}"')

    def handle_data(self, data: str) -> None:
        self.text += data


def failure(code: int, description: str) -> RefusalError:
    """An error in Telegram's form."""
    return RefusalError(code, {"ok": False, "error_code": code, "description": description})


def bad_request(description: str) -> RefusalError:
    """The most frequent error."""
    return failure(400, f"Bad Request: {description}")


def plain_text(text: str, parse_mode: str | None) -> str:
    """The text after entity parsing, or the refusal Telegram gives."""
    if parse_mode == "HTML":
        parser = _Text()
        parser.feed(text)
        parser.close()
        if parser.open:
            raise bad_request(
                f"can't parse entities: Can't find end tag corresponding to start tag \"{parser.open[-1]}\""
            )
        text = parser.text
    if not text.strip():
        raise bad_request("message text is empty")
    if len(text.encode("utf-16-le")) // 2 > TEXT_LIMIT:
        raise bad_request("message is too long")
    return text


class TelegramServer:
    """Any token of the right form is a bot."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.messages = Table(store, "telegram.message", Message)
        self.updates = Table(store, "telegram.update", Update, parent=lambda row: row.bot)
        self._queries = Table(store, "telegram.query", Record)
        self._news = asyncio.Event()
        self.faults = Faults()
        self.app = web.Application(middlewares=[self.faults.middleware, refusals])
        add_health(self.app, "telegram")
        self.app.router.add_route("*", "/bot{token}/{method}", self.call)
        self.app.router.add_get(f"{CONTROL}/messages", self.list_messages)
        self.app.router.add_post(f"{CONTROL}/press", self.press)
        self.app.router.add_put(f"{CONTROL}/faults", self.replace_faults)

    async def start(self) -> None:
        """Nothing is left over from the last run."""

    async def stop(self) -> None:
        """Nothing runs on its own."""

    async def call(self, request: web.Request) -> web.Response:
        """One method of the Bot API."""
        bot, colon, secret = request.match_info["token"].partition(":")
        if not (bot.isdigit() and colon and secret):
            raise failure(401, "Unauthorized")
        body = {**dict(request.query), **await json_body(request, bad_request)}
        match request.match_info["method"]:
            case "getMe":
                result: object = {
                    "id": int(bot),
                    "is_bot": True,
                    "first_name": "Sandbox",
                    "username": f"bot{bot}_bot",
                }
            case "sendMessage":
                result = self._send(bot, body)
            case "editMessageText":
                result = self._edit(bot, body)
            case "answerCallbackQuery":
                result = self._answer(body)
            case "getUpdates":
                result = await self._updates(bot, body)
            case _:
                raise failure(404, "Not Found")
        return web.json_response({"ok": True, "result": result})

    async def list_messages(self, _request: web.Request) -> web.Response:
        """Every message, oldest first."""
        return web.json_response({"messages": [row.model_dump() for row in self.messages.all()]})

    async def press(self, request: web.Request) -> web.Response:
        """A person presses a button: a callback query waits for the bot."""
        act = await control_body(request, Press)
        message = self.messages.get(f"{act.bot}:{act.chat_id}:{act.message_id}")
        if message is None:
            raise RefusalError(404, {"error": "no such message"})
        number = self._store.next("telegram.update")
        query = self._queries.put(Record(id=f"query-{number}"))
        sender = {"id": act.from_id, "is_bot": False, "first_name": act.username, "username": act.username}
        body = {
            "id": query.id,
            "from": sender,
            "message": _shown(message),
            "chat_instance": "1",
            "data": act.data,
        }
        self.updates.put(Update(id=str(number), update_id=number, bot=act.bot, body={"callback_query": body}))
        self._news.set()
        return web.json_response({"update_id": number, "callback_query_id": query.id}, status=201)

    async def replace_faults(self, request: web.Request) -> web.Response:
        """Put a new fault plan in force; its webhook half means nothing here."""
        self.faults.replace(await control_body(request, FaultPlan))
        return web.json_response(self.faults.plan.model_dump())

    def _send(self, bot: str, body: Json) -> Json:
        if "chat_id" not in body:
            raise bad_request("chat_id is empty")
        text = plain_text(str(body.get("text", "")), body.get("parse_mode"))
        number, chat_id = self._store.next("telegram.message"), body["chat_id"]
        message = Message(
            id=f"{bot}:{chat_id}:{number}", message_id=number, bot=bot, chat_id=chat_id, text=text,
            parse_mode=body.get("parse_mode"), reply_markup=body.get("reply_markup"),
            message_thread_id=body.get("message_thread_id"), date=int(time.time()),
        )  # fmt: skip
        return _shown(self.messages.put(message))

    def _edit(self, bot: str, body: Json) -> Json:
        message = self.messages.get(f"{bot}:{body.get('chat_id')}:{body.get('message_id')}")
        if message is None:
            raise bad_request("message to edit not found")
        text = plain_text(str(body.get("text", "")), body.get("parse_mode"))
        if (text, body.get("reply_markup")) == (message.text, message.reply_markup):
            raise bad_request("message is not modified: the new content is the same as the current one")
        message.text, message.reply_markup, message.edit_date = (
            text,
            body.get("reply_markup"),
            int(time.time()),
        )
        return _shown(self.messages.put(message))

    def _answer(self, body: Json) -> bool:
        query = self._queries.get(str(body.get("callback_query_id")))
        if query is None:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        self._queries.delete(query)
        return True

    async def _updates(self, bot: str, body: Json) -> list[Json]:
        offset, limit = int(body.get("offset", 0)), int(body.get("limit", 100))
        deadline = time.monotonic() + float(body.get("timeout", 0))
        for row in self.updates.of(bot):
            if row.update_id < offset:
                self.updates.delete(row)
        while not (rows := self.updates.of(bot)) and (left := deadline - time.monotonic()) > 0:
            self._news.clear()
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                break
        return [{"update_id": row.update_id, **row.body} for row in rows[:limit]]


def _shown(row: Message) -> Json:
    group = isinstance(row.chat_id, int) and row.chat_id < 0
    shown: Json = {
        "message_id": row.message_id, "date": row.date, "text": row.text,
        "chat": {"id": row.chat_id, "type": "supergroup" if group else "private"},
        "from": {"id": int(row.bot), "is_bot": True, "first_name": "Sandbox"},
    }  # fmt: skip
    extra = {
        "reply_markup": row.reply_markup,
        "edit_date": row.edit_date,
        "message_thread_id": row.message_thread_id,
    }
    return shown | {key: value for key, value in extra.items() if value is not None}
