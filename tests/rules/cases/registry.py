"""The list of cases and the decorator that adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coterie.mls.rules import Rule
from coterie.mls.types import WireFormat
from tests.rules.forging import PRIVATE, PUBLIC, Forger
from tests.rules.world import Attack, World

Make = Callable[[World, Forger], Attack]


@dataclass(frozen=True)
class Case:
    """One violation of one rule."""

    rule: Rule
    title: str
    """A sentence about the violation; unique."""
    make: Make
    framing: WireFormat
    warm: bool

    @property
    def id(self) -> str:
        """The name of its test."""
        return f"{self.rule.value}: {self.title}"


CASES: list[Case] = []

BOTH = (PRIVATE, PUBLIC)
_WORDS = {PRIVATE: "encrypted", PUBLIC: "in the clear"}


def case(
    rule: Rule, title: str, *, framings: tuple[WireFormat, ...] = (PRIVATE,), warm: bool = True
) -> Callable[[Make], Make]:
    """Adds a case, once for each framing of what the forger sends."""

    def add(make: Make) -> Make:
        for framing in framings:
            name = f"{title}, {_WORDS[framing]}" if len(framings) > 1 else title
            CASES.append(Case(rule, name, make, framing, warm))
        return make

    return add
