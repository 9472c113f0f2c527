"""How names, texts and times of others are shown: control and bidirectional characters visible, nothing trusted."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset("\u00ad\u034f\u200b\u200c\u2060\u2061\u2062\u2063\u2064\ufeff")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with what would act on the terminal, or hide, written as its code point.

    With `lines`, line breaks and tabs stay.
    """
    out = []
    for char in text:
        if lines and char in "\n\t":
            out.append(char)
        elif (
            char in _BIDI or char in _INVISIBLE or unicodedata.category(char) in {"Cc", "Cs", "Co"}
        ):
            out.append(f"⟨U+{ord(char):04X}⟩")
        else:
            out.append(char)
    return "".join(out)


def confusable(name: str) -> bool:
    """Whether a name mixes scripts, or has characters that look like ASCII without being it."""
    letters = [char for char in name if char.isalpha()]
    scripts = {unicodedata.name(char, "?").split()[0] for char in letters}
    return len(scripts) > 1 or unicodedata.normalize("NFKC", name) != name


def clock(seconds: int) -> str:
    """A time of day, with the date where it is not today's."""
    moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"


def person(user: str, realm: str) -> str:
    """A user's name without the own realm, marked where it could be taken for another."""
    short = user.removesuffix(f"@{realm}")
    return visible(short) + (" (unusual letters)" if confusable(short) else "")
