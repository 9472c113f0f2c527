"""A page that several benchmarks write: each replaces its own part and leaves the others."""

from __future__ import annotations

import re
from pathlib import Path

_MARK = "<!-- part: {} -->"
_MARKS = re.compile(r"^<!-- part: (.+) -->\n", re.MULTILINE)


def write_part(page: Path, name: str, text: str) -> None:
    """Puts a part into a page, where it was, or else at its end; what a page without parts had is given up."""
    pieces = _MARKS.split(page.read_text() if page.exists() else "")[1:]
    parts = dict(zip(pieces[::2], pieces[1::2], strict=True))
    parts[name] = text.strip("\n") + "\n\n"
    whole = "".join(_MARK.format(part) + "\n" + body for part, body in parts.items())
    page.write_text(whole.rstrip("\n") + "\n")
