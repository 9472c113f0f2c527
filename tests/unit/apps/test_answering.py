"""Every command answers scripts in JSON, and no words come between."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from coterie.apps import answering
from coterie.apps.cli import app
from coterie.errors import CoterieError, DecodeError, ServiceError, StateError

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text(encoding="utf-8")
WITHOUT_JSON = {
    "serve": "runs until it is stopped; its log is lines of JSON as it is",
    "chat": "a conversation of a person at a terminal; scripts have send and tail -f",
    "demo": "a story to look at",
    "interop serve": "runs until it is stopped",
    "interop run": "its --json takes a file, for results that are resumed",
    "interop vectors": "its --json takes a file",
    "interop document": "writes a page",
}


def _commands(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


COMMANDS = dict(_commands(typer.main.get_command(app)))


def test_every_command_has_json_but_for_those_with_a_reason() -> None:
    def answers(command: Any) -> bool:
        found = [option for option in command.params if "--json" in option.opts]
        return any(option.is_flag and option.callback is not None for option in found)

    without = {name for name, command in COMMANDS.items() if not answers(command)}
    assert without == set(WITHOUT_JSON)


def test_the_page_says_what_each_command_answers() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", PAGE.partition("| command |")[2], re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z -]+)`", row)}
    assert set(COMMANDS) - set(WITHOUT_JSON) == listed


def test_the_page_lists_the_variables_that_the_commands_read() -> None:
    source = "".join(path.read_text() for path in Path(answering.__file__).parent.glob("*.py"))
    # How long it is waited for a Welcome is for tests.
    read = set(re.findall(r"COTERIE_[A-Z_]+", source)) - {"COTERIE_WELCOME_DELAY"}
    assert read == set(re.findall(r"^\| `(COTERIE_\w+)`", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("error", "code", "facts"),
    [
        (StateError("do this"), 1, {"kind": "StateError", "rule": None, "retry_after": None}),
        (DecodeError("no", rule="2.1/json"), 1, {"kind": "DecodeError", "rule": "2.1/json"}),
        (ServiceError("away", retry_after=5), 75, {"kind": "ServiceError", "retry_after": 5}),
        (ServiceError("refused"), 1, {"kind": "ServiceError", "retry_after": None}),
    ],
)
def test_errors_are_objects_for_scripts_and_a_line_for_people(
    error: CoterieError, code: int, facts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answering.begin()
    assert answering.complain(error) == code
    assert capsys.readouterr().err == f"error: {error}\n"
    answering._remember(wanted=True)
    try:
        assert answering.complain(error) == code
    finally:
        answering.begin()
    printed = capsys.readouterr()
    assert printed.out == ""
    said = json.loads(printed.err)
    assert said["error"] == str(error)
    assert {key: said[key] for key in facts} == facts


def test_notes_show_what_others_wrote_and_it_does_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answering.begin()
    answering.note("offline", "\x1b[2J[bold]")
    assert capsys.readouterr().err == "offline: ⟨U+001B⟩[2J[bold]\n"
    answering._remember(wanted=True)
    answering.note("offline", "\x1b[2J")
    answering.begin()
    assert json.loads(capsys.readouterr().err) == {"note": "offline: \x1b[2J"}
