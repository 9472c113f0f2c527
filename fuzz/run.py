"""Fuzzes one target with atheris: `python -m fuzz.run receive fuzz/corpus/receive -max_total_time=60`.

Needs the extra `fuzz`. Further words are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["coterie"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Runs the target that the first word names."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
