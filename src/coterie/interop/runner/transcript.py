"""Every call of a play, written down so that it can be played again.

A transcript is a file of JSON lines, one for each call: the peer, the call, the request, and the answer or the error.
Keys are random, so a replay cannot get the same bytes: it puts the new answers' numbers and bytes in the place of the
old ones in later requests, and checks that what was equal in the transcript is equal again.
"""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.json_format import MessageToDict, ParseDict

from coterie.errors import DecodeError

_IDS = {"state_or_transaction_id": "state_id", "transaction_id": "state_id"}
"""Numbers that a peer counts together."""

Line = dict[str, Any]


class Caller(Protocol):
    """What a replay needs of a peer."""

    def request_type(self, call: str) -> Any:
        """The class of a call's request."""

    def send(self, call: str, request: Any) -> tuple[Any, str]:
        """Makes a call; gives the answer, or None and the error's code."""


def as_json(message: Any) -> dict[str, Any]:
    """A message with its own field names; bytes as base64."""
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


class Transcript:
    """The calls of one play."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, peer: str, call: str, request: Any, answer: Any, error: str = "") -> None:
        """Writes a call down; `answer` is None where `error` says what went wrong."""
        line: Line = {"peer": peer, "call": call, "request": as_json(request)}
        if error:
            line["error"] = error
        else:
            line["answer"] = as_json(answer)
        self.lines.append(line)

    def write(self, path: Path) -> None:
        """Writes the lines into a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))


def read_transcript(path: Path) -> list[Line]:
    """The lines of a transcript; raises `DecodeError` for a line that is none."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
            fine = isinstance(line["peer"], str) and isinstance(line["request"], dict)
            fine = fine and isinstance(line["call"], str)
        except (ValueError, TypeError, KeyError):
            fine = False
        if not fine:
            msg = f"line {number} of {path} is no call of a transcript"
            raise DecodeError(msg)
        lines.append(line)
    return lines


class Replay:
    """Plays a transcript again."""

    def __init__(self, peers: Mapping[str, Caller]) -> None:
        self._peers = peers
        self._numbers: dict[tuple[str, str, int], int] = {}
        self._bytes: dict[str, str] = {}

    def play(self, lines: Iterable[Line]) -> str:
        """Plays the calls in order; says what first came out differently, or nothing."""
        for number, line in enumerate(lines, 1):
            if found := self._call(line):
                return f"call {number}, {line['peer']}'s {line['call']}: {found}"
        return ""

    def _call(self, line: Line) -> str:
        name, call = line["peer"], line["call"]
        peer = self._peers[name]
        request = self._translated(name, line["request"], "")
        answer, code = peer.send(call, ParseDict(request, peer.request_type(call)()))
        before = line.get("error", "").split(":")[0]
        if answer is None or before:
            return "" if code == before else f"{before or 'an answer'} then, {code or 'one'} now"
        return self._learn(name, line["answer"], as_json(answer))

    def _translated(self, peer: str, value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return {key: self._translated(peer, each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self._translated(peer, each, field) for each in value]
        if isinstance(value, str):
            return self._bytes.get(value, value)
        if isinstance(value, int):
            return self._numbers.get((peer, _IDS.get(field, field), value), value)
        return value

    def _learn(self, peer: str, old: Line, new: Line) -> str:
        """Notes what stands for what; says which field is not equal to what it was equal to."""
        if old.keys() != new.keys():
            return f"other fields: {sorted(old)} then, {sorted(new)} now"
        for field, value in old.items():
            if isinstance(value, int) and isinstance(new[field], int):
                self._numbers[peer, _IDS.get(field, field), value] = new[field]
            elif isinstance(value, str) and self._bytes.setdefault(value, new[field]) != new[field]:
                return f"{field} equalled an earlier answer then and does not now"
        return ""
