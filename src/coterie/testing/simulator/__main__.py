"""`python -m coterie.testing.simulator`: simulations at length (docs/simulator.md)."""

from __future__ import annotations

import argparse
import sys

from coterie.testing.simulator.campaign import campaign


def main() -> int:
    """Reads the options and runs; 1 where an assertion broke."""
    parser = argparse.ArgumentParser(
        prog="python -m coterie.testing.simulator", description=__doc__
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (200)")
    parser.add_argument("--minutes", type=float, default=1e6, help="the longest time (no limit)")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it (all)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    options = parser.parse_args()
    broken = campaign(
        lambda line: print(line, flush=True),  # noqa: T201 - a command's output
        first=options.first,
        seeds=options.seeds,
        minutes=options.minutes,
        only=options.only,
        jobs=options.jobs,
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
