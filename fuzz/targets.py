"""What is fuzzed: functions of bytes that return, or let through only what they are not to raise.

`python -m fuzz.run TARGET` lets atheris steer them by coverage; `tests/fuzz/test_corpus.py` replays the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache

from coterie.errors import CoterieError, DecodeError, RuleViolation
from coterie.interop.inspecting import describe
from coterie.mls.framing import FramedContent, MLSMessage
from coterie.mls.ratchet_tree import UnverifiedTree
from fuzz.surfaces import SURFACES
from tests.rules.check import dump
from tests.rules.world import NOW, World, make


@cache
def world() -> World:
    """One group, made once."""
    return make()


def message(data: bytes) -> None:
    """An MLSMessage decodes to what encodes to it, or raises `DecodeError`."""
    with suppress(DecodeError):
        assert MLSMessage.decode(data).encode() == data


def tree(data: bytes) -> None:
    """A ratchet tree."""
    with suppress(DecodeError, RuleViolation):
        assert UnverifiedTree.decode(data, world().suite).trust().encode() == data


def inspect(data: bytes) -> None:
    """Whatever `coterie inspect` is given."""
    with suppress(CoterieError):
        describe(data, now=NOW).to_json()


def receive(data: bytes) -> None:
    """What arrives: refused without a trace."""
    victim = world().member("bob")
    before = dump(victim)
    try:
        victim.receive(data, now=NOW)
    except CoterieError:
        assert dump(victim) == before


def member(data: bytes) -> None:
    """Content that a member signs and encrypts, whatever it is."""
    forger = world().forger()
    try:
        content = FramedContent.decode(data)
        sent = forger.private(content.replace(sender=forger.me))
    except (CoterieError, ValueError):
        return
    with suppress(CoterieError):
        world().member("bob").receive(sent.data, now=NOW)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (message, tree, inspect, receive, member, *SURFACES)
}
"""At most twelve, so that each has its time in CI."""
