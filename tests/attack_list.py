"""The tests that docs/attacks.md names: `python -m tests.attack_list` runs them, `make attacks` does so.

Further words are pytest's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "attacks.md"


def named() -> list[tuple[str, str]]:
    """File and test, in the order of the document; the test is empty where a whole file is named."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)


def attacks() -> list[str]:
    """Each once, as pytest names it."""
    return list(dict.fromkeys("::".join(filter(None, each)) for each in named()))


if __name__ == "__main__":
    status = pytest.main(["-q", *sys.argv[1:], *attacks()])
    print(f"{len(attacks())} attacks of docs/attacks.md")  # noqa: T201 - a command prints
    sys.exit(status)
