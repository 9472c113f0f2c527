"""Fuzzes one target with atheris: `python -m fuzz.run receive fuzz/corpus/receive -max_total_time=60`.

Needs the extra `fuzz`. Further words are libFuzzer's; `-rss_limit_mb` is the bound on memory. An input that takes
longer than `bounds` allows is a finding like any other.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["coterie"]):
    from fuzz.bounds import within_time
    from fuzz.targets import TARGETS

SLOWER = 10.0
"""What instrumentation costs."""


def main() -> None:
    """Runs the target that the first word names."""
    target = within_time(TARGETS[sys.argv.pop(1)], SLOWER)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
