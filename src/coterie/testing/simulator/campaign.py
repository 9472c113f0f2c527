"""Simulations at length: many seeds of every scenario, what was found shrunk, and a table of what was done.

`make simulate` runs it; docs/simulator.md quotes its table.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from coterie.testing.simulator.run import Result, Scenario, shrink, simulate
from coterie.testing.simulator.scenarios import SCENARIOS

PROGRESS = 60.0
"""Seconds between two lines of progress."""


@dataclass(slots=True)
class Sum:
    """What came of many simulations of one scenario."""

    runs: int = 0
    steps: int = 0
    requests: int = 0
    broken: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Counts one more."""
        self.runs += 1
        self.steps += result.steps
        self.requests += result.requests
        self.broken += result.broken is not None
        self.seconds += result.seconds
        self.outcomes += result.outcomes

    def merge(self, other: Sum) -> None:
        """Counts all of another sum."""
        for name in ("runs", "steps", "requests", "broken", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.outcomes += other.outcomes


def told(scenario: Scenario, result: Result) -> str:
    """What a broken simulation is worth reporting with: where, what, and the shortest schedule found."""
    least = shrink(scenario, result)
    schedule = ", ".join(map(str, least.schedule))
    return (
        f"BROKEN {scenario.name}, seed {result.seed}: {least.broken}\n  shrunk schedule: {schedule}"
    )


def _one(index: int, seed: int) -> tuple[Result, str]:
    scenario = SCENARIOS[index]
    result = simulate(scenario, seed)
    return result, "" if result.broken is None else told(scenario, result)


def _seeds(
    first: int, seeds: int, until: float, wanted: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Scenario and seed of each run, seed by seed, until the time is over."""
    for seed in range(first, first + seeds):
        for index in wanted:
            if time.monotonic() >= until:
                return
            yield index, seed


def campaign(
    say: Callable[[str], None],
    *,
    first: int = 0,
    seeds: int = 200,
    minutes: float = 1e6,
    only: str = "",
    jobs: int = 1,
) -> int:
    """Runs seeds `first` to `first + seeds - 1` of every scenario whose name has `only` in it, for `minutes` at most.

    Says what is broken at once, how far it is once a minute, and a table at the end, also where it is interrupted.
    Returns how many runs broke an assertion.
    """
    wanted = [n for n, scenario in enumerate(SCENARIOS) if only in scenario.name]
    sums = {index: Sum() for index in wanted}
    started = time.monotonic()
    say(f"seeds {first} to {first + seeds - 1} of {len(wanted)} scenarios, {jobs} process(es)")
    next_line = started + PROGRESS
    work = _seeds(first, seeds, started + minutes * 60, wanted)
    with suppress(KeyboardInterrupt):
        for index, seed, (result, report) in _results(work, jobs):
            sums[index].add(result)
            if report:
                say(report)
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + PROGRESS
                say(_progress(seed, sums, time.monotonic() - started))
    for line in table(sums):
        say(line)
    return sum(s.broken for s in sums.values())


def _results(
    work: Iterator[tuple[int, int]], jobs: int
) -> Iterator[tuple[int, int, tuple[Result, str]]]:
    if jobs == 1:
        yield from ((*task, _one(*task)) for task in work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from _finished(pool, work, 2 * jobs)


def _finished(
    pool: ProcessPoolExecutor, work: Iterator[tuple[int, int]], ahead: int
) -> Iterator[tuple[int, int, tuple[Result, str]]]:
    """Results in the order of the work, with a few runs begun ahead."""
    begun = deque((*task, pool.submit(_one, *task)) for task in islice(work, ahead))
    while begun:
        index, seed, future = begun.popleft()
        yield index, seed, future.result()
        begun.extend((*task, pool.submit(_one, *task)) for task in islice(work, 1))


def _progress(seed: int, sums: dict[int, Sum], seconds: float) -> str:
    runs, broken = (sum(getattr(s, name) for s in sums.values()) for name in ("runs", "broken"))
    return f"{seconds / 60:.0f} min: at seed {seed}, {runs} runs, {broken} broken"


def table(sums: dict[int, Sum]) -> list[str]:
    """A row for each scenario and one for all of them."""
    total = Sum()
    for one in sums.values():
        total.merge(one)
    rows = [(SCENARIOS[index].name, one) for index, one in sums.items()] + [("all", total)]
    head = (
        "runs | actions | requests | adopted | read | void or refused | private failures | broken"
    )
    lines = [f"| scenario | {head} | CPU s |", "|---|" + "---|" * 9]
    for name, one in rows:
        counts = (
            one.runs,
            one.steps,
            one.requests,
            *(one.outcomes[kind] for kind in ("Committed", "Data", "Void", "Stuck")),
            one.broken,
            round(one.seconds),
        )
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return lines
