"""`coterie` with parts of what it may use missing: every command is there, or says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from coterie.apps import demo, groups, people, successions, user
from coterie.apps.cli import NAMES_OF_PEOPLE

ONLY_CLIENT = ("keyring",)
ALL_EXTRAS = (
    *("keyring", "apsw", "httpx", "platformdirs", "prompt_toolkit", "starlette"),
    *("uvicorn", "websockets"),
)


def without(modules: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
        "from coterie.apps.cli import main\nmain()"
    )
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", [ONLY_CLIENT, ALL_EXTRAS])
def test_what_needs_an_extra_says_so_and_the_rest_works(missing: tuple[str, ...]) -> None:
    assert without(missing, "vectors", "--list").returncode == 0
    assert without(missing, "user", "add", "--help").returncode == 0
    for words in (("login", "alice", "--code", "x"), ("demo",)):
        done = without(missing, *words)
        assert done.returncode == 1, done.stderr
        assert f"coterie {words[0]} needs" in done.stderr
        said = done.stderr.replace("\n", "")
        assert "pip install 'coterie[client,serve]'" in said
        assert "in a checkout: pip install '.[client,serve]'" in said


def test_every_command_of_people_is_known_by_name() -> None:
    found = {
        name
        for module in (user, groups, successions, people)
        for name in typer.main.get_group(module.app).commands
    }
    assert {*found, typer.main.get_command(demo.app).name} == set(NAMES_OF_PEOPLE)
    assert len(NAMES_OF_PEOPLE) == len(set(NAMES_OF_PEOPLE))
