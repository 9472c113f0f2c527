"""Who is right where a peer accepts what we refuse (`judgements.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("judgements.toml")


class Who(StrEnum):
    """Whose fault a difference is."""

    PEER = "peer"
    """The RFC demands the check of a receiver."""
    OPEN = "open"
    """The RFC leaves it open, and we are strict on purpose."""
    APPLICATION = "application"
    """The check is the application's, and a driver of ours has none."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on the cases of a rule whose description contains `about`."""

    rule: str
    who: Who
    why: str
    about: str = ""


@cache
def judgements() -> tuple[Judgement, ...]:
    """All of them; the first that fits a case counts."""
    with _FILE.open("rb") as file:
        entries = tomllib.load(file)["judgement"]
    return tuple(Judgement(**{**each, "who": Who(each["who"])}) for each in entries)


def judgement_of(rule: str, about: str) -> Judgement | None:
    """The verdict on one case, if there is one."""
    for each in judgements():
        if each.rule == rule and each.about in about:
            return each
    return None
