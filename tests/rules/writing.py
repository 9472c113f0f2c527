"""How a document is made out of a table, or checked against it (`make rules`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def write_or_check(
    place: Path, document: Callable[[], str], faults: Sequence[str], arguments: Sequence[str]
) -> int:
    """Writes what `document` gives, or with `--check` compares it with what is there; the exit status."""
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201 - a command prints
    if faults:
        return 1
    if "--check" in arguments:
        current = place.exists() and place.read_text() == document()
        if not current:
            print(f"docs/{place.name} is out of date: run `make rules`", file=sys.stderr)  # noqa: T201
        return 0 if current else 1
    place.write_text(document())
    return 0
