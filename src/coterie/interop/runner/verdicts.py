"""Differences between implementations that are known: who is right, and which section of RFC 9420 decides."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("verdicts.toml")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refusal that is known, recognised by the peer, the call and some of its words."""

    peer: str
    call: str
    words: str
    when: str
    section: str
    verdict: str
    histories_only: bool = False
    """Whether only random histories get past it: in a scenario the words could be a fault of others."""
    avoided: bool = False
    """Whether random histories do not make the call: a wrong answer could not be told from a fault of others."""


@cache
def verdicts() -> tuple[Verdict, ...]:
    """All of them."""
    with _FILE.open("rb") as file:
        return tuple(Verdict(**entry) for entry in tomllib.load(file).get("verdict", []))


def verdict_of(peer: str, call: str, words: str, *, history: bool = False) -> Verdict | None:
    """The verdict on a refusal in a scenario or a history, if there is one."""
    for each in verdicts():
        fits = (each.peer, each.call) == (peer, call) and each.words in words
        if fits and (history or not each.histories_only):
            return each
    return None


def avoided(peer: str, call: str) -> bool:
    """Whether random histories do not make this call to this peer."""
    return any(each.avoided and (each.peer, each.call) == (peer, call) for each in verdicts())
