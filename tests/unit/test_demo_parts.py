"""Small parts of the demo: the bot's token, the copied repository's name and policy, what cannot be copied."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from api.cli.__main__ import run
from api.cli.demo_person import asked_spec
from api.cli.outcome import Exit
from deploy.demo import copy, shop
from deploy.home import Home


def test_a_bot_token_has_the_form_telegram_takes(tmp_path: Path) -> None:
    """The token begins with the bot's id and a colon, and stays the same; one of the old form is made anew."""
    home = Home.at(tmp_path)
    first = home.secrets()
    bot, colon, secret = first["ORCH_TELEGRAM_TOKEN"].partition(":")
    assert bot.isdigit()
    assert colon
    assert secret
    assert home.secrets() == first
    home.secrets_file.write_text(json.dumps({**first, "ORCH_TELEGRAM_TOKEN": "without-a-bot"}))
    mended = home.secrets()
    assert ":" in mended["ORCH_TELEGRAM_TOKEN"]
    assert {**mended, "ORCH_TELEGRAM_TOKEN": ""} == {**first, "ORCH_TELEGRAM_TOKEN": ""}


@pytest.mark.parametrize("command", ['sh -c "echo \\"x\\" && true"', "printf 'a\\tb'", "эхо {0} \x7f", "a\nb"])
def test_any_test_command_survives_the_policy_file(command: str) -> None:
    """Quotes, backslashes, braces and line breaks arrive as they were given."""
    assert tomllib.loads(shop.policy("http://p", command))["commands"]["test"] == command


@pytest.mark.parametrize(
    ("folder", "name"), [("shop", "shop"), ("моё", "project"), ("a b.git", "a-b"), ("..x", "x"), ("-", "project")]
)
def test_a_repository_is_named_as_a_forge_takes_it(tmp_path: Path, folder: str, name: str) -> None:
    """The forge's name is the folder's as far as its letters are allowed there."""
    assert copy.repository_name(tmp_path / folder) == name


def test_what_cannot_be_copied_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing folder, one without git and a repository without commits are refused before anything starts."""
    (tmp_path / "plain").mkdir()
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "empty")], check=True)
    for folder, said in (("missing", "not a folder"), ("plain", "not a git repository"), ("empty", "no commit yet")):
        assert run(["demo", "--repo", str(tmp_path / folder), "--title", "x", "--test-command", "true"]) == Exit.USAGE
        out, err = capsys.readouterr()
        assert said in err
        assert out == ""


async def test_failing_tests_are_told_with_the_end_of_their_output(tmp_path: Path) -> None:
    """Why the tests fail before the demo is the exit code and the last words; passing ones give nothing."""
    assert await copy.failing_tests(tmp_path, "true", tmp_path / "home", 10) == ""
    assert "exit code 3: last words" in await copy.failing_tests(
        tmp_path, "echo last words; exit 3", tmp_path / "h", 10
    )
    assert "longer than" in await copy.failing_tests(tmp_path, "sleep 30", tmp_path / "h", 0.2)


def test_the_spec_that_is_asked_about_is_read() -> None:
    """Of several comments the one that names the digest counts, whatever their order; none is no link."""
    first = '<p><a href="http://g/one/spec.md">spec</a> (digest <code>d1</code>)</p>'
    second = '<p><a href="http://g/two/spec.md">spec</a> (digest <code>d2</code>)</p>'
    told = "<h3>Decision on spec <code>d1</code></h3>"
    for comments in ([second, told, first], [first, told, second]):
        assert asked_spec(comments, "d1") == "http://g/one/spec.md"
        assert asked_spec(comments, "d2") == "http://g/two/spec.md"
    assert asked_spec([told], "d1") is None
