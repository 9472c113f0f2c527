"""Makes a part of `docs/performance.md`, and a plot, of what was measured side by side.

Run: python -m bench.sidebyside.report

Ratios only: ours to the floor, the peers' to ours. Where a peer is faster, it says how much of that its primitives do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.growth import DOCS, table
from bench.parts import write_part
from bench.plotting import pyplot
from bench.sidebyside.book import OURS, Book, Cell, Clock, Key
from bench.sidebyside.phases import PHASES
from bench.sidebyside.run import FASTEST, FLOORED, PROVIDERS

NAMES = {
    "coterie": "Coterie",
    "openmls": "OpenMLS",
    "mls-rs": "mls-rs",
    "ts-mls": "ts-mls",
    "bouncy-castle": "Bouncy Castle",
}
MARKS = {"over": "> limit", "failed": "failed", "lacking": "none", "unreached": "–"}
PLOTTED = ("create commit", "process commit, far", "join, tree beside", "add all")
PLOT = "side-by-side.svg"
CARELESS = "†"
BEYOND = "‡"
NAMED = 6
"""No more operations are named where they failed alike."""
NEARLY = 0.995
"""A ratio that is printed as 1.00 is no lead."""


@dataclass(frozen=True)
class Lead:
    """A peer that is faster at something: the ratio, and what primitives have to do with it."""

    key: Key
    ratio: float
    our_share: float | None
    """Of our own time, what goes into signatures and HPKE."""
    swapped: float | None
    """The ratio if the peer's signatures and HPKE cost what ours do; None where it does not make all of them."""


class Report:
    """What a book says, as Markdown."""

    def __init__(self, book: Book, clock: Clock) -> None:
        self._book = book
        self._clock: Clock = clock
        columns = {key.column for key, cell in book.cells.items() if cell.wall}
        self.reference = FASTEST if FASTEST in columns else FLOORED
        """Our own column, to which the others are compared."""
        order = [(peer, provider) for peer, list_ in PROVIDERS.items() for provider in list_]
        shown = columns | {key.column for key in book.cells if key.peer != OURS}
        self.columns = [column for column in order if column in shown - {self.reference}]

    def groups(self) -> list[tuple[int, str, int]]:
        """Suite, shape and size of all groups with a cell of ours and of another."""
        found = {(key.suite, key.shape, key.members) for key in self._book.cells}
        shapes = ("warm", "half", "blank")
        return sorted(found, key=lambda group: (group[0], shapes.index(group[1]), group[2]))

    def ratio(self, key: Key) -> float | None:
        """A peer's time in ours, of the same rounds."""
        cell = self._book.cells.get(key)
        return cell.ratio(self._clock) if cell else None

    def _shown(self, key: Key) -> str:
        cell = self._book.cells.get(key)
        if cell is None:
            return ""
        ratio = self.ratio(key)
        if ratio is None:
            return "" if cell.status == "measured" else MARKS[cell.status]
        mark = f" {CARELESS}" if self._leaves_out(key) else ""
        shown = _digits(ratio)
        return (f"**{shown}**" if ratio < NEARLY else shown) + mark

    def _leaves_out(self, key: Key) -> bool:
        """Whether an operation is cheaper for checks that the peer does not make."""
        return key.operation.startswith("join") and self._book.careless.get(key.priced, False)

    def _floor(self, key: Key) -> str:
        peer, provider = FLOORED
        cell = self._book.cells.get(replace(key, peer=peer, provider=provider))
        seconds = cell.seconds("cpu") if cell else None
        return f"{seconds / cell.floor:.2f}" if cell and seconds and cell.floor else ""

    def group(self, suite: int, shape: str, members: int) -> list[str]:
        """The table of one group."""
        head = ["operation", "pyca / floor", *(_title(column) for column in self.columns)]
        rows = []
        for operation in (name for phase in PHASES for name in phase.operations):
            keys = [Key(*column, suite, shape, members, operation) for column in self.columns]
            shown = [self._shown(key) for key in keys]
            if any(shown):
                rows.append([operation, self._floor(keys[0]), *shown])
        return table(head, rows)

    def leads(self, least: int) -> Iterator[Lead]:
        """Where a peer is faster, in groups of at least so many members."""
        for key in sorted(self._book.cells):
            ratio = self.ratio(key) if key.peer != OURS and key.members >= least else None
            if ratio is not None and ratio < NEARLY:
                yield self._lead(key, ratio)

    def _lead(self, key: Key, ratio: float) -> Lead:
        cell, prices = self._book.cells[key], self._book.prices.get(key.priced)
        calls = self._counted(key).calls
        ours, theirs = cell.ours(self._clock), cell.seconds(self._clock)
        if not (ours and theirs and calls and prices):
            return Lead(key, ratio, None, None)
        its, mine = (
            sum(prices[name][whose] * count for name, count in calls.items()) / 1e9
            for whose in (0, 1)
        )
        swapped = ratio * (theirs - its + mine) / theirs if theirs > its else None
        return Lead(key, ratio, mine / ours, swapped)

    def _counted(self, key: Key) -> Cell:
        """The cell of ours that knows how many calls an operation takes."""
        found = [
            self._book.cells.get(replace(key, peer=peer, provider=provider))
            for peer, provider in (self.reference, FLOORED)
        ]
        return next((cell for cell in found if cell and cell.calls), Cell())

    def lead_table(self, least: int) -> list[str]:
        """All of them; nothing where there are none."""
        rows = [
            [
                f"{lead.key.operation}, {lead.key.shape}, {lead.key.members:,}",
                _title(lead.key.column),
                f"{lead.ratio:.2f}" + (f" {CARELESS}" if self._leaves_out(lead.key) else ""),
                _share(lead),
                f"{lead.swapped:.2f}" if lead.swapped is not None else "",
            ]
            for lead in sorted(self.leads(least), key=_place)
            if lead.key.suite == 1
        ]
        head = ["operation", "peer", "peer / us", "primitives in our time", "with our primitives"]
        return table(head, rows) if rows else []

    def prices(self, suite: int) -> list[str]:
        """Each provider's primitives in ours."""
        rows, names = [], list[str]()
        for column in self.columns:
            prices = self._book.prices.get(Key(*column, suite, "", 0, "").priced)
            if prices:
                names = list(prices)
                rows.append(
                    [_title(column), *(f"{its / ours:.2f}" for its, ours in prices.values())]
                )
        return table(["primitives", *names], rows) if rows else []

    def failures(self) -> list[str]:
        """What could not be measured, with the reason, each once."""
        found: dict[tuple[str, ...], tuple[dict[str, None], set[int]]] = {}
        for key, cell in sorted(self._book.cells.items()):
            if cell.status in {"measured", "unreached"}:
                continue
            suite = f", suite {key.suite}" if key.suite != 1 else ""
            # A Java exception's words begin with its class.
            words = cell.words.rpartition("Lacking: ")[2]
            what = f"{_title(key.column)}{suite}, {key.shape}", words
            operations, sizes = found.setdefault(what, ({}, set()))
            operations[key.operation] = None
            sizes.add(key.members)
        return [
            f"- {who}, {_listed(operations)} ({', '.join(f'{n:,}' for n in sorted(sizes))} members): {why}"
            for (who, why), (operations, sizes) in found.items()
        ]

    def page(self) -> str:
        """The whole part."""
        machine, lines = self._book.machine, []
        for suite, shape, members in self.groups():
            rows = self.group(suite, shape, members)
            if len(rows) > len(table([], [])):
                title = f"### {shape.capitalize()} group of {members:,}"
                lines += [title + (f", suite {suite}" if suite != 1 else ""), "", *rows, ""]
        versions = "; ".join(text for peer, text in self._book.versions.items() if peer != OURS)
        clock = {"cpu": "processor time of the whole process", "wall": "time by the clock"}
        return "\n".join(
            [
                "## Beside other libraries",
                "",
                (
                    "Made by `make bench` or `make bench-full`; how a cell is measured again, and what each is, is in"
                    " `bench/README.md`."
                ),
                "",
                (
                    f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']};"
                    f" {machine['python']}, cryptography {machine['cryptography']}. Beside it: {versions}"
                    " (the last word is a hash of the driver)."
                ),
                "",
                (
                    f"Each figure is a peer's time divided by ours, {clock[self._clock]}, for the same operation in a"
                    " group of the same size and shape: the median of rounds in which the two took turns on one core,"
                    " so that they had the same machine. Above 1 we are faster;"
                    " **below 1** the peer is. We are Coterie with libsodium beside OpenSSL (the extra `fast`); the"
                    " column `pyca` is without it, and the first one that time divided by what the primitive calls"
                    " cost which the operation cannot do without (`bench/floor.py`)."
                ),
                "",
                *self._about_carelessness(),
                *lines,
                f"![Peers' time in ours]({PLOT})",
                "",
                *self._about_primitives(),
                *self._about_failures(),
            ]
        )

    def _about_carelessness(self) -> list[str]:
        if not any(self._book.careless.values()):
            return []
        text = (
            f"{CARELESS}: this library joins a group although the signature of a leaf is wrong (tried in the same run)."
            " It leaves out the checks that are nearly all of a join."
        )
        return [text, ""]

    def _about_primitives(self) -> list[str]:
        rows = self.lead_table(1_000)
        if not self.prices(1):
            return []
        lines = [
            "### Whose primitives are faster",
            "",
            "One signature, one verification, one HPKE seal and one opening through each provider, in ours.",
            "",
        ]
        for suite in sorted({key.suite for key in self._book.cells}):
            lines += [f"Suite {suite}:", "", *self.prices(suite), ""]
        if rows:
            lines += [
                (
                    "Where a peer is faster in a group of 1,000 or more. The fourth column is what signatures and HPKE"
                    f" take of our own time; {BEYOND}: that is as much as the peer takes for everything, so that with"
                    " these primitives nothing could be faster, in whatever language. The last is what the third would"
                    " be if the peer's cost what ours do: above 1, its lead is its primitives' (empty where they would"
                    " take longer than the whole operation, which then leaves some of them out or runs them faster"
                    " than one by one)."
                ),
                "",
                *rows,
                "",
            ]
        return lines

    def _about_failures(self) -> list[str]:
        failures = self.failures()
        return ["### What was not measured", "", *failures, ""] if failures else []

    def plot(self, path: Path) -> None:
        """Each peer's time in ours against the size, for a few operations; needs matplotlib (the extra `bench`)."""
        plt = pyplot()

        figure, grid = plt.subplots(2, 2, figsize=(10, 7.5), sharex=True)
        for axes, operation in zip(grid.flat, PLOTTED, strict=True):
            for column in self.columns:
                points = self._points(column, operation)
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", label=_title(column))
            axes.axhline(1, color="black", linewidth=1)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"{operation}, warm", fontsize="medium")
            axes.set_xlabel("members")
            axes.set_ylabel("times Coterie's time")
            axes.grid(visible=True, which="both", alpha=0.3)
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="lower center", ncols=4)
        figure.tight_layout(rect=(0, 0.07, 1, 1))
        figure.savefig(path, metadata={"Date": None})

    def _points(self, column: tuple[str, str], operation: str) -> list[tuple[int, float]]:
        sizes = sorted({key.members for key in self._book.cells})
        ratios = [(n, self.ratio(Key(*column, 1, "warm", n, operation))) for n in sizes]
        return [(n, ratio) for n, ratio in ratios if ratio is not None]


def _title(column: tuple[str, str]) -> str:
    peer, provider = column
    name = NAMES.get(peer, peer)
    return name if len(PROVIDERS[peer]) == 1 else f"{name}, {provider}"


def _share(lead: Lead) -> str:
    if lead.our_share is None:
        return ""
    return f"{lead.our_share:.0%}" + (f" {BEYOND}" if lead.our_share >= lead.ratio else "")


def _place(lead: Lead) -> tuple[str, int, int, tuple[str, str]]:
    operations = [name for phase in PHASES for name in phase.operations]
    key = lead.key
    return key.shape, key.members, operations.index(key.operation), key.column


def _listed(operations: Iterable[str]) -> str:
    """By name, unless nearly all are meant."""
    names = list(operations)
    return "; ".join(names) if len(names) <= NAMED else "everything"


def _digits(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}" if ratio >= 1 else f"{ratio:.2f}"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("build/side-by-side.json"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    given = parser.parse_args(None if arguments is None else list(arguments))
    machine = json.loads(given.json.read_text())["machine"]
    report = Report(Book(given.json, machine), given.clock)
    write_part(given.docs / "performance.md", "side by side", report.page())
    try:
        report.plot(given.docs / PLOT)
    except ImportError:
        print("no plot: matplotlib is not installed (extra `bench`)")


if __name__ == "__main__":
    main()
