"""Tables of Markdown, and numbers in short: for the pages that the interop commands write."""

from __future__ import annotations

from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells are taken as they are."""
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def flat(words: str) -> str:
    """Somebody else's words, fit for a cell."""
    return " ".join(words.split()).replace("|", "/").replace("<", "&lt;")


def spans(numbers: Iterable[int]) -> str:
    """Numbers in short: `1-3, 5`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
