"""What `coterie chat` reads: whole lines, and nothing that holds up its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import cast

import pytest

from coterie.apps.chatting import following, typed_lines
from coterie.client import Client


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
