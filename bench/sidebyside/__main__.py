"""Our operations and the peers', side by side: `python -m bench.sidebyside --help`."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

from bench.core import machine
from bench.sidebyside.book import Book
from bench.sidebyside.run import COLUMNS, FASTEST, FLOORED, PROVIDERS, Plan, Runner, startable


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.replace("_", "").split(","))


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """Peers, each with one provider or all of its own; raises ValueError for what there is not."""
    if text == "all":
        return tuple((peer, given) for peer, list_ in PROVIDERS.items() for given in list_)
    columns = []
    for word in text.split(","):
        peer, _, provider = word.partition("/")
        if peer not in PROVIDERS or (provider and provider not in PROVIDERS[peer]):
            known = ", ".join(f"{name}/{p}" for name, list_ in PROVIDERS.items() for p in list_)
            msg = f"{word} is none of {known}"
            raise ValueError(msg)
        columns += [(peer, given) for given in ([provider] if provider else PROVIDERS[peer])]
    return tuple(columns)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _stay_on_one_core() -> None:
    """For this process and its drivers: two cores need not be equally fast, and only one works at a time."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("build/side-by-side.json"))
    parser.add_argument(
        "--peers", type=parse_columns, default=COLUMNS, help="e.g. coterie,mls-rs/awslc, or all"
    )
    parser.add_argument("--sizes", type=_numbers, default=Plan.sizes)
    parser.add_argument("--shapes", type=_words, default=Plan.shapes, help="warm,half,blank")
    parser.add_argument("--suites", type=_numbers, default=Plan.suites)
    parser.add_argument(
        "--operation",
        action="append",
        default=[],
        help="only this one, as the table calls it (and what is measured with it); may be repeated",
    )
    parser.add_argument("--seconds", type=float, default=Plan.budget, help="for each operation")
    parser.add_argument("--limit", type=float, default=Plan.limit, help="for one operation")
    parser.add_argument(
        "--known", action="store_true", help="the groups that the file has, whatever the lists say"
    )
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument(
        "--spread",
        action="store_true",
        help="let processes use all cores, for a page of times by the clock, on an idle machine",
    )
    given = parser.parse_args()
    if not given.spread:
        _stay_on_one_core()
    fast = importlib.util.find_spec("nacl") is not None
    book = Book(given.json, machine())
    plan = Plan(
        given.peers,
        FASTEST if fast else FLOORED,
        given.suites,
        given.shapes,
        given.sizes,
        tuple(given.operation),
        given.seconds,
        given.limit,
        given.again,
        book.groups() if given.known else (),
    )
    Runner(book, plan, startable(peer for peer, _ in given.peers)).run()


if __name__ == "__main__":
    main()
