"""A scripted model API for the real claude: `POST /v1/messages`, streamed as the real one streams.

Turns are given in order, over kills and resumes, and the last one is repeated. Faults come first, one for each request.
What was answered is counted: the ledger that a run's usage must equal.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Block = dict[str, Any]


def say(text: str) -> Block:
    """A block of text."""
    return {"type": "text", "text": text}


def use(tool: str, **arguments: Any) -> Block:
    """A block that uses a tool."""
    return {"type": "tool_use", "name": tool, "input": arguments}


def bash(command: str) -> Block:
    """A block that runs a command."""
    return use("Bash", command=command, description="a step of the test")


@dataclass(frozen=True)
class Turn:
    """One answer: its blocks and its usage."""

    blocks: tuple[Block, ...]
    usage: dict[str, int] = field(default_factory=lambda: {"input_tokens": 100, "output_tokens": 20})
    stop: str = ""
    stall: bool = False
    """Begin to answer and then say nothing more."""

    def filled(self, nonce: str) -> "Turn":
        """This turn with the run's nonce in place of `{nonce}`."""
        return replace(self, blocks=tuple(json.loads(json.dumps(self.blocks).replace("{nonce}", nonce))))

    @property
    def stop_reason(self) -> str:
        """Why the answer ends."""
        return self.stop or ("tool_use" if any(each["type"] == "tool_use" for each in self.blocks) else "end_turn")


@dataclass(frozen=True)
class Fault:
    """One request that fails."""

    status: int
    kind: str = "api_error"
    retry_after: int | None = None


@dataclass
class FakeMessagesApi:
    """The script and the ledger."""

    turns: list[Turn] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    """Tokens of all answers that were given whole."""
    given: int = 0
    """How many turns have begun."""
    url: str = ""

    def heard(self, text: str) -> bool:
        """Whether any request said this to the model."""
        return any(text in str(request["messages"]) for request in self.requests)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        fault = self.faults.popleft() if self.faults else self.always
        if fault is not None:
            headers = {"retry-after": str(fault.retry_after)} if fault.retry_after is not None else {}
            error = {"type": "error", "error": {"type": fault.kind, "message": f"fault {fault.status}"}}
            return web.json_response(error, status=fault.status, headers=headers)
        turn = self.turns[min(self.given, len(self.turns) - 1)].filled(nonce_of(body))
        self.given += 1
        return await self._answer(request, body["model"], turn)

    async def _answer(self, request: web.Request, model: str, turn: Turn) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "request-id": "req_fake"})
        await response.prepare(request)
        for name, event in _events(model, turn, self.given):
            await response.write(f"event: {name}\ndata: {json.dumps(event)}\n\n".encode())
            if turn.stall and name == "content_block_start":
                await asyncio.sleep(600)
        for bucket, tokens in turn.usage.items():
            self.told[bucket] = self.told.get(bucket, 0) + tokens
        return response


def nonce_of(body: dict[str, Any]) -> str:
    """The nonce that the verdict of this run must carry, as its schema says; empty without one."""
    for tool in body.get("tools", []):
        if tool["name"] == "StructuredOutput":
            return str(tool["input_schema"]["properties"]["nonce"]["const"])
    return ""


def verdict(outcome: str = "pass", **more: object) -> Turn:
    """The turn that gives the verdict."""
    lists: dict[str, object] = {"findings": [], "evidence": [], "artifacts": [], "questions": []}
    whole = {**lists, "summary": "done", "nonce": "{nonce}", "outcome": outcome, **more}
    return Turn((use("StructuredOutput", **whole),))


def _events(model: str, turn: Turn, number: int) -> list[tuple[str, dict[str, Any]]]:
    begun = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **turn.usage, "output_tokens": 1}
    message = {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": begun,
    }  # fmt: skip
    events: list[tuple[str, dict[str, Any]]] = [("message_start", {"message": message})]
    for index, block in enumerate(turn.blocks):
        empty = {**block, "id": f"toolu_{number}_{index}", "input": {}} if "input" in block else {**block, "text": ""}
        events.append(("content_block_start", {"index": index, "content_block": empty}))
        if "input" in block:
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            delta = {"type": "text_delta", "text": block["text"]}
        events.append(("content_block_delta", {"index": index, "delta": delta}))
        events.append(("content_block_stop", {"index": index}))
    ended = {"delta": {"stop_reason": turn.stop_reason, "stop_sequence": None}, "usage": {**begun, **turn.usage}}
    events += [("message_delta", ended), ("message_stop", {})]
    return [(name, {"type": name, **fields}) for name, fields in events]


@asynccontextmanager
async def fake_messages_api() -> AsyncIterator[FakeMessagesApi]:
    """A running fake on a free port."""
    api = FakeMessagesApi()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/messages", api._messages)
    async with TestServer(app) as server:
        api.url = str(server.make_url("")).rstrip("/")
        yield api
