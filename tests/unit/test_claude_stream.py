"""Claude's stream: every recorded run is read as what it was, and nothing in a stream can break the reader."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.runners.base import Before
from activities.runners.ending import Ending, classify, spending
from activities.runners.prices import price
from activities.runners.stream import Picture, StreamReader, read_stream
from workflows.usage import Tokens, Usage, total
from workflows.verdicts import RunOutcome

RECORDED = Path(__file__).parents[1] / "payloads/agents/claude"


@dataclass(frozen=True)
class Case:
    """One recorded run and what it should be read as."""

    name: str
    exit_code: int | None
    read_as: str
    schema: bool
    resume: bool
    turns: str
    cost: str

    def output(self, stream: str = "stdout") -> bytes:
        """What it wrote."""
        path = RECORDED / f"{self.name}.{stream}"
        return path.read_bytes() if path.exists() else b""

    def picture(self) -> Picture:
        """The stream as it is read."""
        return read_stream(self.output())

    def ending(self) -> Ending:
        """The run as it is judged."""
        stderr = self.output("stderr").decode()
        return classify(self.picture(), self.exit_code, wants_verdict=self.schema, stderr=stderr)


def cases() -> list[Case]:
    """Every row of the index."""
    with (RECORDED / "INDEX.tsv").open() as file:
        return [
            Case(
                name=row["name"],
                exit_code=None if row["exit"] == "timeout" else int(row["exit"]),
                read_as=row["class"],
                schema=row["schema"] == "yes",
                resume=row["resume"] == "yes",
                turns=row["turns"],
                cost=row["cost"],
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def case(name: str) -> Case:
    """One of them."""
    return next(case for case in cases() if case.name == name)


WORDS = {
    (RunOutcome.NO_VERDICT, "unanswered"): "no-verdict",
    (RunOutcome.NO_VERDICT, "invalid"): "no-verdict",
    (RunOutcome.FATAL, "invocation"): "bad-invocation",
    (RunOutcome.RETRYABLE, "session"): "bad-session",
    (RunOutcome.KILLED, "interrupted"): "interrupted",
}
"""The index's words where they are not outcome and cause."""


def in_words(ending: Ending) -> str:
    """An ending in the index's words."""
    short = "retry" if ending.outcome is RunOutcome.RETRYABLE else ending.outcome
    return WORDS.get((ending.outcome, ending.cause), f"{short}-{ending.cause}".rstrip("-"))


@pytest.mark.parametrize("recorded", cases(), ids=lambda case: case.name)
def test_every_recorded_run_is_read_as_what_it_was(recorded: Case) -> None:
    """A recorded run gets the outcome, the turns and the cost that the index names."""
    ending, picture = recorded.ending(), recorded.picture()
    assert in_words(ending) == recorded.read_as
    assert bool(ending.reason) == (ending.outcome is not RunOutcome.OK)
    if recorded.turns == "-":
        assert picture.result is None
        return
    assert picture.result is not None
    assert picture.result.turns == int(recorded.turns)
    assert picture.result.session_cost == pytest.approx(float(recorded.cost))
    assert picture.session_id


def test_there_are_89_recorded_runs() -> None:
    """None of them got lost."""
    assert len({case.name for case in cases()}) == 89


def test_a_verdict_is_the_last_results_structured_output() -> None:
    """The structured answer is taken from the result, and only from there."""
    result = case("recommended").picture().result
    assert result is not None
    assert result.verdict is not None
    assert set(result.verdict) == {"verdict", "summary"}


def test_denied_tools_are_named() -> None:
    """A run that was denied tools went well, and says which."""
    result = case("perm-outside-cwd").picture().result
    assert result is not None
    assert result.denials == ("Write",)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_a_stream_reads_the_same_however_it_is_cut(chunk: int) -> None:
    """Chunks end anywhere; the last line may lack its end."""
    content = case("partial").output().rstrip(b"\n")
    reader = StreamReader()
    for at in range(0, len(content), chunk):
        reader.feed(content[at : at + chunk])
    assert reader.close() == case("partial").picture()


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.from_type(type(None)).map(lambda _: b"[" * 100_000)), max_size=5))
def test_garbage_between_the_lines_changes_nothing(garbage: list[bytes]) -> None:
    """Lines that are no JSON are counted and passed over."""
    lines = case("partial").output().splitlines()
    junk = [b"\xff not json " + line.replace(b"\n", b" ") for line in garbage]
    mixed = b"\n".join([*junk, *lines[:5], *junk, *lines[5:]])
    picture, clean = read_stream(mixed), case("partial").picture()
    assert picture.results == clean.results
    assert picture.garbage == 2 * len([line for line in junk if line])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "subtype", "message", "event", "usage", "modelUsage", "permission_denials", "structured_output", "errors",
    "total_cost_usd", "is_error", "num_turns", "model_usage_since_last_result", "session_id", "error",
    "api_error_status",
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(["result", "assistant", "user", "system", "stream_event", "rate_limit_event"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_no_field_of_any_shape_breaks_the_reader(kind: str, fields: dict[str, Any]) -> None:
    """Whatever a field holds, a line is read, a run is judged and its cost is told."""
    picture = read_stream(json.dumps({"type": kind, **fields}).encode())
    assert classify(picture, 1, wants_verdict=True).outcome in set(RunOutcome)
    assert spending(picture, Before()).cost_usd != 0 or picture.results


@pytest.mark.parametrize(
    "fields",
    [
        {"permission_denials": True},
        {"total_cost_usd": float("nan"), "num_turns": float("inf")},
        {"usage": {"output_tokens": 10**400, "input_tokens": float("nan")}},
        {"modelUsage": {"m": {"costUSD": "free", "inputTokens": -1}}, "model_usage_since_last_result": {"m": 3}},
    ],
)
def test_numbers_and_lists_that_are_none_are_not_known(fields: dict[str, Any]) -> None:
    """What is no number or no list is read as if it were not there."""
    picture = read_stream(json.dumps({"type": "result", "subtype": "success", **fields}).encode())
    assert picture.garbage == 0
    (result,) = picture.results
    assert (result.denials, result.session_cost, result.turns, result.usage) == ((), None, 0, Tokens())
    assert spending(picture, Before()).cost_usd is None


def test_a_line_of_megabytes_is_read() -> None:
    """A file that is written whole comes back in one line, and the result behind it counts."""
    huge = json.dumps({"type": "user", "message": {"content": [{"type": "text", "text": "x" * 8_000_000}]}}).encode()
    picture = read_stream(b"\n".join([huge, *case("partial").output().splitlines()]))
    assert picture.garbage == 0
    assert picture.result is not None


def test_the_last_of_several_results_counts() -> None:
    """Two results are one run: the second is its end, and tokens of both are its tokens."""
    picture = case("streaminput-two").picture()
    assert len(picture.results) == 2
    assert picture.result == picture.results[1]
    spent = spending(picture, Before())
    parts = [result.usage for result in picture.results]
    assert spent.usage.output == sum(part.output for part in parts)
    assert spent.cost_usd == pytest.approx(0.01917)


def test_work_after_a_result_means_that_it_was_not_the_end() -> None:
    """A run that was killed after it had gone on is killed, not done."""
    first = case("streaminput-two").output().splitlines()
    cut = next(at for at, line in enumerate(first) if b'"type":"result"' in line) + 2
    picture = read_stream(b"\n".join(first[:cut]))
    assert classify(picture, -9, wants_verdict=False).outcome is RunOutcome.KILLED


def test_a_crash_in_the_middle_of_work_is_taken_up_again() -> None:
    """Only what never began is a wrong invocation; a run that had begun was cut off."""
    begun = case("kill-fresh").picture()
    ending = classify(begun, 134, wants_verdict=True, stderr="Aborted")
    assert (ending.outcome, ending.cause) == (RunOutcome.KILLED, "crash")
    assert classify(Picture(), 134, wants_verdict=True, stderr="Aborted").outcome is RunOutcome.FATAL


# -- what it cost ----------------------------------------------------------------------------------------------


def test_tokens_are_kept_of_each_model_and_bucket() -> None:
    """The sum over a run's own messages is what its result says."""
    picture = case("partial").picture()
    assert picture.seen == total(
        {"claude-sonnet-5-5": Tokens(input=1290, cache_read=10300, cache_creation=5300, output=155)}
    )
    assert picture.seen.models.keys() == picture.results[0].models.keys()
    assert picture.seen.models == picture.results[0].models


@pytest.mark.parametrize(
    ("name", "before", "cost", "source"),
    [
        ("partial", Before(), 0.01841, "reported"),
        ("term-resume", Before(cost=0.0161), 0.00076, "reported"),
        ("term-resume", Before(cost=0.0, exact=False), 0.00076, "reported"),
        ("kill-resume-stream", Before(cost=0.0, exact=False), 0.00076, "reported"),
        ("resume-after-kill", Before(cost=0.01914), 0.0004, "reported"),
        ("term-resume", Before(cost=99.0), 0.00076, "computed"),
        ("err-529-r2", Before(), 0.0, "reported"),
        ("kill-fresh", Before(), 0.0157, "computed"),
    ],
)
def test_a_run_pays_for_itself_only(name: str, before: Before, cost: float, source: str) -> None:
    """A session's cumulative cost is reduced to this run's share; a killed run is priced by its own messages."""
    spent = spending(case(name).picture(), before)
    assert spent.cost_source == source
    if name == "kill-fresh":  # recorded without partial messages, so its output tokens are not all there
        assert spent.cost_usd is not None
        assert 0 < spent.cost_usd <= cost
    else:
        assert spent.cost_usd == pytest.approx(cost)


def test_a_guessed_cost_is_not_reported() -> None:
    """Of a model without a known price the cost is unknown, whatever number comes along."""
    text = case("partial").output().replace(b"claude-sonnet-5-5", b"house-model").replace(b'"list"', b'"unknown"')
    spent = spending(read_stream(text), Before())
    assert (spent.cost_usd, spent.cost_source) == (None, "unknown")
    assert spent.usage.output == 155


def test_an_unknown_cost_is_never_nothing() -> None:
    """A run that was killed before it heard of any tokens has an unknown cost."""
    assert spending(Picture(), Before()).cost_usd is None


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (total({"claude-sonnet-5-5": Tokens(input=1290, cache_read=10300, cache_creation=5300, output=155)}), 0.01841),
        (total({"claude-sonnet-5-5": Tokens(output=1), "no-such-model": Tokens(output=1)}), None),
        (Usage(input=5), None),
        (Usage(), None),
    ],
)
def test_a_price_is_that_of_all_models_or_none(usage: Usage, cost: float | None) -> None:
    """Tokens of a known model have a price; with any that is not known the sum is not known."""
    assert price(usage) == (None if cost is None else pytest.approx(cost))


def test_an_hour_in_the_cache_costs_more_than_five_minutes() -> None:
    """Cache writes are priced by how long they are kept."""
    short = price(total({"claude-sonnet-5-5": Tokens(cache_creation=1000)}))
    long = price(total({"claude-sonnet-5-5": Tokens(cache_creation=1000, cache_creation_1h=1000)}))
    assert short is not None
    assert long is not None
    assert long > short


@pytest.mark.parametrize(
    ("name", "seconds"), [("err-529-r2", 60), ("err-500-r2", 30), ("err-429-forever-r2", 120), ("err-refused-r2", 30)]
)
def test_a_passing_trouble_says_how_long_to_wait(name: str, seconds: float) -> None:
    """The delay follows from what the API said."""
    assert case(name).ending().delay == seconds
