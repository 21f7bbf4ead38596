"""Reading claude's `stream-json`: a typed picture of one run, built line by line.

Lenient on purpose: lines of other versions, unknown types, missing fields and garbage are passed over, because a
run that was paid for must be read whatever surrounds its result (contracts/agents/agents.md, 3).
"""

import json
from dataclasses import dataclass, field
from typing import Any

from activities.adapters.process import LineSplitter
from workflows.usage import Tokens, Usage, plus, total

LINE_LIMIT = 32 * 1024 * 1024
"""Bytes of one line; a file that is written whole comes back in one."""
_LARGEST = 1e15
"""No count or cost is larger; beyond it, or where JSON says NaN, nothing is known."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """A `result` line: what the command line says of its own end. Texts are empty where it says nothing."""

    subtype: str
    is_error: bool
    terminal_reason: str
    stop_reason: str
    status: int | None
    """The API's last HTTP status, where it was an error."""
    text: str
    turns: int
    verdict: Fields | None
    denials: tuple[str, ...]
    """The tools whose use was denied."""
    session_cost: float | None
    """US dollars of the whole session so far, over every `--resume`."""
    guessed: bool
    """Whether the cost is a guess, because the command line does not know the model's price."""
    delta: float | None
    """US dollars since the last result, where it says so."""
    models: dict[str, Tokens]
    """Of the whole session so far."""
    usage: Tokens
    """Since the last result."""


@dataclass(slots=True)
class Picture:
    """What is known of a run so far."""

    session_id: str = ""
    model: str = ""
    lines: int = 0
    garbage: int = 0
    results: list[Result] = field(default_factory=list)
    working: bool = False
    """Whether something was begun since the last result: that result is then not the end."""
    retries: list[Fields] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)
    """The names that answers and retries gave to their errors, such as `authentication_failed`."""
    tools: dict[str, str] = field(default_factory=dict)
    """Tools that run now, by the id of their use."""
    tool_uses: int = 0
    last: str = ""
    """The kind of the newest line."""
    _messages: dict[str, tuple[str, Tokens]] = field(default_factory=dict)
    _streamed: set[str] = field(default_factory=set)
    _message: str = ""

    @property
    def result(self) -> Result | None:
        """The last result, unless work went on after it."""
        return self.results[-1] if self.results and not self.working else None

    @property
    def refused_key(self) -> bool:
        """Whether the API refuses the key, which the command line itself would try again for minutes."""
        return "authentication_failed" in self.errors

    @property
    def seen(self) -> Usage:
        """The sum over this run's own messages, which also a killed run has."""
        models: dict[str, Tokens] = {}
        for model, tokens in self._messages.values():
            models[model] = plus(models.get(model, Tokens()), tokens)
        return total(models)

    def add(self, line: Fields) -> None:
        """Take in one line."""
        kind = _text(line, "type")
        self.last = f"{kind}/{_text(line, 'subtype')}".rstrip("/")
        self.session_id = _text(line, "session_id") or self.session_id
        handlers = {
            "system": self._system,
            "stream_event": self._stream_event,
            "assistant": self._assistant,
            "user": self._user,
            "result": self._end,
        }
        if handler := handlers.get(kind):
            handler(line)

    def _system(self, line: Fields) -> None:
        subtype = _text(line, "subtype")
        if subtype == "init":
            self.model = _text(line, "model") or self.model
            self.working = True
        elif subtype == "status":
            self.working = self.working or line.get("status") == "requesting"
        elif subtype == "api_retry":
            self.retries.append(line)
            self._error(line)

    def _stream_event(self, line: Fields) -> None:
        event = _fields(line, "event")
        kind = _text(event, "type")
        if kind == "message_start":
            self.working = True
            message = _fields(event, "message")
            self._message = _text(message, "id")
            self._streamed.add(self._message)
            self._messages[self._message] = (_text(message, "model") or self.model, _tokens(_fields(message, "usage")))
        elif kind == "message_delta":
            name = _text(line, "api_message_id") or self._message
            model, known = self._messages.get(name, (self.model, Tokens()))
            self._streamed.add(name)
            self._messages[name] = (model, _newer(known, _fields(event, "usage")))

    def _assistant(self, line: Fields) -> None:
        self._error(line)
        message = _fields(line, "message")
        name, model = _text(message, "id"), _text(message, "model")
        synthetic = model.startswith("<")
        if not synthetic:
            self.working = True
        if name and name not in self._streamed and not synthetic:
            # One line for each block, all with the same usage: of a message that was not streamed it is the whole.
            self._messages[name] = (model or self.model, _tokens(_fields(message, "usage")))
        for block in _blocks(message):
            if block.get("type") == "tool_use":
                self.tools[_text(block, "id")] = _text(block, "name")
                self.tool_uses += 1

    def _user(self, line: Fields) -> None:
        for block in _blocks(_fields(line, "message")):
            if block.get("type") == "tool_result":
                self.tools.pop(_text(block, "tool_use_id"), None)

    def _end(self, line: Fields) -> None:
        self.results.append(_result(line))
        self.working = False
        self.tools.clear()

    def _error(self, line: Fields) -> None:
        if error := _text(line, "error"):
            self.errors.add(error)


class StreamReader:
    """Feeds chunks of standard output into a picture; also takes the one object or array of `--output-format json`."""

    def __init__(self) -> None:
        self.picture = Picture()
        self._splitter = LineSplitter(LINE_LIMIT)

    def feed(self, chunk: bytes) -> None:
        """Take in what came."""
        for line in self._splitter.feed(chunk):
            self._take(line)

    def close(self) -> Picture:
        """The output has ended; its last line may lack its end."""
        for line in self._splitter.flush():
            self._take(line)
        return self.picture

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        self.picture.lines += 1
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        for each in found if isinstance(found, list) else [found]:
            if isinstance(each, dict):
                self.picture.add(each)
            else:
                self.picture.garbage += 1


def read_stream(content: bytes) -> Picture:
    """The picture of output that is already complete."""
    reader = StreamReader()
    reader.feed(content)
    return reader.close()


def _result(line: Fields) -> Result:
    used = {name: each for name, each in _fields(line, "modelUsage").items() if isinstance(each, dict)}
    delta = line.get("model_usage_since_last_result")
    errors = line.get("errors")
    said = errors if isinstance(errors, list) else []
    verdict, status = line.get("structured_output"), line.get("api_error_status")
    told = line.get("permission_denials")
    denials = told if isinstance(told, list) else []
    return Result(
        subtype=_text(line, "subtype"),
        is_error=line.get("is_error") is not False,
        terminal_reason=_text(line, "terminal_reason"),
        stop_reason=_text(line, "stop_reason"),
        status=status if isinstance(status, int) else None,
        text=_text(line, "result") or "; ".join(str(each) for each in said),
        turns=_count(line, "num_turns"),
        verdict=verdict if isinstance(verdict, dict) else None,
        denials=tuple(_text(each, "tool_name") for each in denials if isinstance(each, dict)),
        session_cost=_number(line, "total_cost_usd"),
        guessed=any(each.get("costBasis") == "unknown" for each in used.values()),
        delta=_cost_of(delta) if isinstance(delta, dict) and delta else None,
        models={name: _model_tokens(each) for name, each in used.items()},
        usage=_tokens(_fields(line, "usage")),
    )


def _cost_of(models: Fields) -> float | None:
    costs = [_number(each, "costUSD") for each in models.values() if isinstance(each, dict)]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(models) else None


def _tokens(usage: Fields) -> Tokens:
    return Tokens(
        input=_count(usage, "input_tokens"),
        cache_read=_count(usage, "cache_read_input_tokens"),
        cache_creation=_count(usage, "cache_creation_input_tokens"),
        cache_creation_1h=_count(_fields(usage, "cache_creation"), "ephemeral_1h_input_tokens"),
        output=_count(usage, "output_tokens"),
    )


def _newer(known: Tokens, usage: Fields) -> Tokens:
    """A later count of the same message; buckets that it leaves out stay."""
    later = _tokens(usage)
    return Tokens(**{name: max(getattr(known, name), getattr(later, name)) for name in Tokens.model_fields})


def _model_tokens(used: Fields) -> Tokens:
    return Tokens(
        input=_count(used, "inputTokens"),
        cache_read=_count(used, "cacheReadInputTokens"),
        cache_creation=_count(used, "cacheCreationInputTokens"),
        cache_creation_1h=_count(used, "cacheCreationEphemeral1hInputTokens"),
        output=_count(used, "outputTokens"),
    )


def _text(line: Fields, name: str) -> str:
    value = line.get(name)
    return value if isinstance(value, str) else ""


def _fields(line: Fields, name: str) -> Fields:
    value = line.get(name)
    return value if isinstance(value, dict) else {}


def _blocks(message: Fields) -> list[Fields]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _count(line: Fields, name: str) -> int:
    value = _number(line, name)
    return max(0, int(value)) if value is not None else 0


def _number(line: Fields, name: str) -> float | None:
    value = line.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LARGEST else None
