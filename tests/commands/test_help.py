"""What `--help` shows."""

import re

import pytest

from nestkala import commands
from nestkala.cli import main

COMMANDS = ["train", *map(str.lower, commands.__all__)]


def help_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*args, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_shows_none_or_an_empty_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = help_of(capsys, command)
    assert "{None}" not in text
    assert "default: None" not in re.sub(r"[\s│]+", " ", text)
    if command != "train":  # whose empty settings are shown as they are written
        assert not re.search(r"default: (''\s*)?\)", text)


@pytest.mark.parametrize("command", commands.__all__)
def test_the_list_of_commands_shows_first_lines_and_a_command_shows_its_whole_docstring(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first, *others = " ".join((getattr(commands, command).__doc__ or "").split()).partition(". ")
    rest = others[-1].removesuffix(".")
    shown = " ".join(help_of(capsys).replace("│", " ").split())
    assert first.removesuffix(".") in shown
    whole = " ".join(help_of(capsys, command.lower()).split())
    assert f"{first}{others[0]}{rest}" in whole
    if rest and "\n" in (getattr(commands, command).__doc__ or ""):
        assert rest not in shown


def test_help_keeps_aliases_repeatable_flags_and_other_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = help_of(capsys, "search")
    assert "-k INT, --k INT" in text
    assert re.search(r"--not QUERY .*\(repeatable\)", text)
    assert "(default: torch)" in text
    assert "(required)" in text
