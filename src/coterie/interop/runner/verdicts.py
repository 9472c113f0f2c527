"""Differences between implementations that are known: who is right, and which section of RFC 9420 decides."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

HISTORIES: Final = "histories"
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
    only: tuple[str, ...] = ()
    """Where it holds, if not everywhere: scenarios, and `HISTORIES`. Elsewhere the words could be a fault of others."""
    avoided: bool = False
    """Whether random histories do not make the call: a wrong answer could not be told from a fault of others."""


@cache
def verdicts() -> tuple[Verdict, ...]:
    """All of them."""
    with _FILE.open("rb") as file:
        entries = tomllib.load(file).get("verdict", [])
    return tuple(Verdict(**{**each, "only": tuple(each.get("only", ()))}) for each in entries)


def verdict_of(peer: str, call: str, words: str, where: str = "") -> Verdict | None:
    """The verdict on a refusal, if there is one; `where` is the scenario, or `HISTORIES`."""
    for each in verdicts():
        fits = (each.peer, each.call) == (peer, call) and each.words in words
        if fits and (not each.only or where in each.only):
            return each
    return None


def avoided(peer: str, call: str) -> bool:
    """Whether random histories do not make this call to this peer."""
    return any(each.avoided and (each.peer, each.call) == (peer, call) for each in verdicts())
