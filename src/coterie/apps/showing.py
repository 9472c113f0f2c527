"""How names, texts and times of others are shown: control and bidirectional characters visible, nothing trusted."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

_ACTING = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""The categories of what acts on the terminal or cannot be seen: controls, formats (the bidirectional ones among them),
surrogates, private use, line and paragraph separators."""
_UNUSUAL = " (unusual letters)"
_JOINER = "\u200d"
"""Joins emoji to one; it hides nothing."""


def visible(text: str, *, lines: bool = False) -> str:
    """The text with what would act on the terminal, or hide, written as its code point.

    With `lines`, line breaks and tabs stay.
    """
    out = []
    for char in text:
        if lines and char in "\n\t":
            out.append(char)
        elif char != _JOINER and unicodedata.category(char) in _ACTING:
            out.append(f"⟨U+{ord(char):04X}⟩")
        else:
            out.append(char)
    return "".join(out)


_LIKE_LATIN = frozenset("асеорхуіјѕһԁԛԝӏгАВЕКМНОРСТХУІЈЅοναιρυκτχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
"""Letters of other scripts that look like Latin ones."""
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "COPTIC", "ARMENIAN", "CHEROKEE"})
"""Scripts with letters that look alike; a name in two of them is suspicious, one in Latin and Chinese is not."""


def confusable(name: str) -> bool:
    """Whether a name could be taken for another one.

    It mixes scripts that look alike, or is written in letters of another script that all look like Latin ones, or has
    characters that are forms of others.
    """
    letters = [char for char in name if char.isalpha()]
    scripts = {unicodedata.name(char, "?").split()[0] for char in letters}
    disguised = bool(letters) and _LIKE_LATIN.issuperset(letters)
    return len(scripts & _ALIKE) > 1 or disguised or unicodedata.normalize("NFKC", name) != name


def clock(seconds: int) -> str:
    """A time of day, with the date where it is not today's; an imported history may have times without a date."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "no date"
    today = datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"


def person(user: str, realm: str) -> str:
    """A user's name without the own realm, marked where it is not of ASCII letters, as all certified names are."""
    short = user.removesuffix(f"@{realm}")
    return visible(short) + ("" if short.isascii() else _UNUSUAL)


def named(name: str) -> str:
    """A name that others chose, marked where it could be taken for another."""
    return visible(name) + (_UNUSUAL if confusable(name) else "")
