"""What `coterie chat` reads: whole lines, and nothing that holds up its end; what is half typed stays as it is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast
from unittest import mock

import pytest

from coterie.apps.chatting import following, typed_lines, typing
from coterie.client import Client
from coterie.errors import UnsupportedError

if sys.platform != "win32":
    from tests.terminals import Terminal, at_a_terminal


def test_lines_are_whole_however_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    async def read() -> list[str]:
        found = []
        for piece in (b"one\ntw", "o\n\n…".encode()[:-1], "…".encode()[-1:]):
            os.write(writing, piece)
            await asyncio.sleep(0.01)
        os.close(writing)
        async for line in typed_lines():
            found.append(line)  # noqa: PERF401 - what came before an error is looked at
        return found

    with os.fdopen(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert asyncio.run(read()) == ["one", "two", "", "…"]


_PROGRAM = """
import asyncio
import signal
from coterie.apps.chatting import typed_lines
# Who starts the tests in the background of a shell has interrupts ignored, here as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
async def main():
    async for line in typed_lines():
        print(line, flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_an_interrupt_ends_the_reading_without_another_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hello\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.stdout.read() == "ended\n"
        assert process.stderr.read() == ""


_CHAT = """
import asyncio
import os
import signal
import sys
import typer
from coterie.apps.chatting import typing
signal.signal(signal.SIGINT, signal.default_int_handler)
def arrive():
    text = os.read(int(sys.argv[1]), 1 << 16).decode()
    print(text, flush=True)
    print("as an error: " + text, file=sys.stderr, flush=True)
async def main():
    asyncio.get_running_loop().add_reader(int(sys.argv[1]), arrive)
    async with typing() as lines:
        async for line in lines:
            if line == "long":
                print("sending", flush=True)
                await asyncio.sleep(60)
            print(f"sent {line!r}", flush=True)
    print("ended", flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


@contextmanager
def _chat(
    term: str = "xterm-256color", stderr: IO[bytes] | None = None
) -> Iterator[tuple[Terminal, int]]:
    """Somebody at a terminal, and where that is written which arrives."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", _CHAT, str(reading)]
    try:
        with at_a_terminal(command, {"TERM": term}, stderr=stderr, pass_fds=[reading]) as terminal:
            yield terminal, writing
    finally:
        os.close(reading)
        os.close(writing)


terminals = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


@terminals
def test_what_arrives_stands_above_what_is_half_typed_and_leaves_it_as_it_is() -> None:
    with _chat() as (terminal, arrives):
        terminal.shows(">")
        terminal.types("hal")
        terminal.shows("> hal")
        os.write(arrives, b"hello")
        terminal.shows("hello", "as an error: hello", "> hal")
        terminal.types("f\x1b[D\x1b[D\x1b[D\x1b[DX")
        terminal.shows("hello", "as an error: hello", "> Xhalf")
        os.write(arrives, b"again")
        terminal.shows("as an error: hello", "again", "as an error: again", "> Xhalf")
        terminal.types("\x7fa \r")
        terminal.shows("as an error: again", "> a half", "sent 'a half'", ">")
        terminal.types("\x04")
        assert terminal.ends() == 0
        terminal.shows(">", "ended", "")
        assert terminal.echoes()


@terminals
def test_typing_goes_on_while_a_line_is_sent_and_an_interrupt_waits_for_nothing() -> None:
    with _chat() as (terminal, _):
        terminal.shows(">")
        terminal.types("long\r")
        terminal.shows("> long", "sending", ">")
        terminal.types("more")
        terminal.shows("sending", "> more")
        terminal.types("\x03")
        assert terminal.ends() == 130
        assert "sent" not in terminal.captured
        assert terminal.echoes()


@terminals
def test_an_interrupt_from_elsewhere_ends_the_editing_of_a_line_too() -> None:
    with _chat() as (terminal, _):
        terminal.shows(">")
        terminal.types("half")
        terminal.shows("> half")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ends() == 0
        terminal.shows("> half", "interrupted", "")
        assert terminal.echoes()


@terminals
def test_a_text_of_several_lines_that_is_pasted_is_one() -> None:
    with _chat() as (terminal, _):
        terminal.shows(">")
        terminal.types("\x1b[200~one\ntwo\x1b[201~")
        terminal.shows("> one", "two")
        terminal.types("\r")
        terminal.shows("two", "sent 'one\\ntwo'", ">")


@terminals
def test_errors_that_go_to_a_file_go_there_while_a_line_is_edited(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors, _chat(stderr=errors) as (terminal, arrives):
        terminal.shows(">")
        terminal.types("half")
        terminal.shows("> half")
        os.write(arrives, b"hello")
        terminal.shows("hello", "> half")
    assert (tmp_path / "errors").read_text() == "as an error: hello\n"


@terminals
def test_a_terminal_that_cannot_move_its_cursor_is_read_line_by_line() -> None:
    with _chat("dumb") as (terminal, _):
        terminal.types("hello\n")
        terminal.shows("hello", "sent 'hello'", "")
        assert "\x1b" not in terminal.captured
        terminal.types("\x04")
        assert terminal.ends() == 0


def test_what_is_missing_at_a_terminal_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        async with typing():
            pass

    monkeypatch.setattr(sys, "stdin", mock.Mock(isatty=lambda: True))
    monkeypatch.setattr(sys, "stdout", mock.Mock(isatty=lambda: True))
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    with pytest.raises(UnsupportedError, match=r"needs prompt_toolkit .*pip install"):
        asyncio.run(read())


class _Flaky:
    async def changes(self, *, poll: float) -> AsyncIterator[bool]:
        assert poll == 1.0
        for online in (True, False, False, True, True):
            yield online


def test_that_the_service_is_away_and_back_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def follow() -> int:
        count = 0
        async for _ in following(cast("Client", _Flaky()), poll=1.0):
            count += 1
        return count

    assert asyncio.run(follow()) == 5
    heads = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert heads == ["offline", "online"]
