"""A peer that plays test vectors: a process that answers each line of JSON with one line (interop/peers/README.md)."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

PATIENCE: Final = 60
"""Seconds until a peer that does not answer is ended."""


class Said(StrEnum):
    """What came of a line."""

    OK = "ok"
    REFUSED = "refused"
    LACKING = "lacking"
    """The peer says that it has no such thing."""
    BROKE = "broke"
    """The process ended, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, and the peer's words; where it is fine, the epoch authenticator in hexadecimal digits."""

    said: Said
    text: str = ""

    @property
    def fine(self) -> bool:
        """Whether it was done."""
        return self.said is Said.OK


class ReplayClient:
    """A client of another library; every vector begins with `begin`, which makes it a new one."""

    def __init__(self, name: str, command: Iterable[str]) -> None:
        self.name = name
        self._command = [*command, "--replay"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; another one is started when it is asked again."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def begin(self, suite: int, now: int, psks: Iterable[tuple[str, str]] = ()) -> Answer:
        """Forgets everything; `psks` are ids and values in hexadecimal digits."""
        external = [{"psk_id": psk_id, "psk": psk} for psk_id, psk in psks]
        return self.ask("begin", cipher_suite=suite, now=now, external_psks=external)

    def join(self, keys: dict[str, Any], welcome: str, tree: str, *, continues: int = 0) -> Answer:
        """Joins with a key package and its private keys; everything is hexadecimal digits, the tree perhaps none."""
        return self.ask("join", **keys, welcome=welcome, ratchet_tree=tree, continues=continues)

    def receive(self, message: str) -> Answer:
        """Takes a message in."""
        return self.ask("receive", message=message)

    def ask(self, what: str, **fields: object) -> Answer:
        """Sends one line; gives what came of it."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - a peer that we built
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        try:
            line = self._exchange(self._process, json.dumps({"do": what, **fields}))
        except (BrokenPipeError, TimeoutError) as error:
            line = ""
            why = str(error) or "the process ended"
        else:
            why = "the process ended"
        if not line:
            self.close()
            return Answer(Said.BROKE, why)
        ((said, text),) = json.loads(line).items()
        return Answer(Said(said), text)

    @staticmethod
    def _exchange(process: subprocess.Popen[str], line: str) -> str:
        to, back = process.stdin, process.stdout
        if to is None or back is None:
            return ""
        to.write(line + "\n")
        to.flush()
        if not select.select([back], [], [], PATIENCE)[0]:
            msg = f"no answer within {PATIENCE} seconds"
            raise TimeoutError(msg)
        return back.readline()
