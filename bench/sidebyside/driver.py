"""The other side of a driver: a process that answers requests by line, each within a limit of time."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

PATIENCE = 4.0
"""On a busy machine a process may wait so many times as long as it works."""
Answer = dict[str, Any]
Ask = Callable[..., Answer]


class OverError(Exception):
    """An answer took longer than the limit; the driver has been ended."""


class RefusedError(Exception):
    """The driver answered with an error, or not at all; the text says why."""


class Driver:
    """A started driver. Ends with the `with` block."""

    def __init__(self, command: Sequence[str], limit: float) -> None:
        self.limit = limit
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._lines: Queue[bytes] = Queue()
        self._complaints: list[bytes] = []
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._read, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints = [*self._complaints[-20:], line]

    def ask(self, do: str, limit: float | None = None, **request: Any) -> Answer:
        """One request; raises `OverError` after `limit` seconds of the processor and `RefusedError` for an error."""
        assert self._process.stdin is not None
        line = json.dumps({"do": do, **request}).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answered = self._wait(self.limit if limit is None else limit)
        except Empty:
            self.end()
            raise OverError(do) from None
        except (OSError, ValueError) as error:
            raise RefusedError(self._last_words(do)) from error
        if not answered:
            raise RefusedError(self._last_words(do))
        try:
            answer: Answer = json.loads(answered)
        except ValueError:
            msg = f"the driver answered {do} with {answered[:60]!r}"
            raise RefusedError(msg) from None
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def _wait(self, limit: float) -> bytes:
        """The next line, or `Empty` after so many seconds of the processor, or a multiple of them by the clock."""
        used, end = self._used(), time.monotonic() + PATIENCE * limit
        while True:
            try:
                return self._lines.get(timeout=min(limit, 1.0))
            except Empty:
                if self._used() - used >= limit or time.monotonic() >= end:
                    raise

    def _used(self) -> float:
        """Seconds of the processor so far, or of the clock where the system does not say."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return time.monotonic()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _last_words(self, do: str) -> str:
        self.end()
        words = b"".join(self._complaints).decode(errors="replace").strip()[-300:]
        return f"the driver ended while asked for {do}: {words or 'without a word'}"

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
