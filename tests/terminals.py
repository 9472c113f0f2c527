"""A program at a pseudo-terminal, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

_STEPS = re.compile(r"\x1b\[\??(\d*)[\d;]*([A-Za-z])|([\r\n\b])|([^\x1b\r\n\b]+)")


def shown(captured: str) -> list[str]:
    """The lines that stand on the screen after all that was captured.

    Knows the few movements that prompt_toolkit makes in lines that fit into the terminal.
    """
    lines, row, column = [""], 0, 0
    for number, act, control, text in _STEPS.findall(captured):
        count = int(number or 1)
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif control == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif control == "\r":
            column = 0
        elif control == "\b" or act == "D":
            column = max(0, column - count)
        elif act == "C":
            column += count
        elif act == "A":
            row = max(0, row - count)
        elif act == "J":
            lines[row:] = [lines[row][:column]]
        elif act == "K":
            lines[row] = lines[row][:column]
    return [line.rstrip() for line in lines]


def _match(lines: Sequence[str], wanted: Sequence[str | re.Pattern[str]]) -> bool:
    return len(lines) == len(wanted) and all(
        line == want if isinstance(want, str) else want.fullmatch(line) is not None
        for line, want in zip(lines, wanted, strict=True)
    )


class Terminal:
    """A program whose standard streams are a terminal of 100 columns."""

    def __init__(self, leader: int, process: subprocess.Popen[bytes]) -> None:
        self._leader = leader
        self.process = process
        self.captured = ""

    def types(self, text: str) -> None:
        """Presses keys."""
        os.write(self._leader, text.encode())

    def shows(self, *last: str | re.Pattern[str]) -> None:
        """Waits until these are the last lines on the screen."""
        self._wait(lambda: _match(shown(self.captured)[-len(last) :], last), last)

    def ends(self) -> int:
        """Waits until the program has ended; its exit code."""
        self._wait(lambda: self.process.poll() is not None, "the end")
        return self.process.wait()

    def echoes(self) -> bool:
        """Whether what is typed is echoed by the terminal itself, as it was before the program began."""
        return bool(termios.tcgetattr(self._leader)[3] & termios.ECHO)

    def _wait(self, until: Callable[[], bool], what: object) -> None:
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline, (what, shown(self.captured), self.captured)
            if select.select([self._leader], [], [], 0.05)[0]:
                self.captured += os.read(self._leader, 1 << 16).decode()


@contextmanager
def at_a_terminal(
    command: Sequence[str],
    environment: Mapping[str, str] = {},
    *,
    stderr: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Terminal]:
    """Runs a program at a terminal; it is killed where it has not ended by itself."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=stderr or follower,
        env={**os.environ, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        pass_fds=pass_fds,
    ) as process:
        try:
            yield Terminal(leader, process)
        finally:
            process.kill()
            # Held open until here, so that the terminal can be looked at when the program has ended.
            os.close(follower)
            os.close(leader)
