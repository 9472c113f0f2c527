"""Makes `docs/performance.md` and its plot of what `bench.core` measured: `python -m bench.growth build/bench.json`.

The page has ratios only: to the floor of the same run, and to the same operation in a smaller group. Milliseconds stay
in the JSON: they say more about the machine than about the code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.core import CONCURRENT, Row
from bench.parts import write_part

DOCS = Path(__file__).parents[1] / "docs"
REFERENCE = 1_000
TARGETS = {
    ("create commit", REFERENCE): 1.6,
    ("process commit, near", REFERENCE): 1.6,
    ("process commit, far", REFERENCE): 1.6,
    ("join", REFERENCE): 1.25,
    ("encrypt 1 KiB", REFERENCE): 1.5,
    ("decrypt 1 KiB", REFERENCE): 1.5,
}
"""The highest ratio to the floor that the design allows, by operation and size of the group."""
GROWTH = {
    "create commit": 2.0,
    "process commit, near": 2.0,
    "process commit, far": 2.0,
    "save": 2.0,
}
"""From 1,000 to 50,000 members an operation may cost so many times as much."""
FROM, UP_TO = 1_000, 50_000
LARGE: dict[str, tuple[str, float | None]] = {
    "join, all cores": ("times the bare signature checks", 1.25),
    "add all, all cores": ("times the bare signature checks and seals", 1.3),
    "read 10,000 messages": ("one by one, times the floor, one core", 1.3),
    "read 10,000 messages, all cores": ("by the clock, times the floor on one core", 1.3),
    "read 10,000 messages, all cores, floor on all": (
        "by the clock, times the floor with signatures on all cores",
        None,
    ),
    "join besides signatures": ("seconds", 0.5),
    "restart and receive a Commit": ("seconds", 0.3),
    "join, memory": ("million bytes", 200.0),
    "join with X.509": (
        "times the bare signature checks of leaves and certificates, one core",
        None,
    ),
    "join with X.509, all cores": (
        "by the clock, times the same checks on all cores",
        1.25,
    ),
}
"""What a large group may take, by operation; where the design gives seconds or bytes, they are this machine's."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table in Markdown; all columns but the first are numbers."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


class Figures:
    """The rows of one run, by shape, operation and size."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = report["machine"]
        self.rows = [Row(**row) for row in report["rows"]]
        self.sizes = sorted({row.members for row in self.rows})

    def of(self, shape: str) -> dict[str, dict[int, Row]]:
        """By operation, then by size."""
        found: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            if row.shape == shape:
                found.setdefault(row.operation, {})[row.members] = row
        return found

    def ratios(self, shape: str) -> list[str]:
        """How many times the floor."""
        rows = []
        for operation, by_size in self.of(shape).items():
            if any(row.floor for row in by_size.values()):
                cells = [_ratio(by_size.get(n)) for n in self.sizes]
                rows.append([operation, *cells, _verdict(operation, by_size)])
        return table(["operation", *_heads(self.sizes), "allowed"], rows)

    def growth(self) -> list[str]:
        """How many times the same in the smallest group that was measured."""
        rows = []
        for operation, by_size in self.of("warm").items():
            if operation in CONCURRENT:
                continue
            base = by_size[min(by_size)].seconds
            cells = [f"{by_size[n].seconds / base:.2f}" if n in by_size else "" for n in self.sizes]
            rows.append([operation, *cells, _grown(operation, by_size)])
        return table(["operation", *_heads(self.sizes), "1,000 to 50,000, allowed"], rows)

    def shapes(self) -> list[str]:
        """What blanks cost: a Commit in other shapes, in warm Commits of the same size."""
        warm, rows = self.of("warm"), []
        for shape in ("half", "blank"):
            for operation, by_size in self.of(shape).items():
                if operation in warm:
                    cells = [
                        f"{by_size[n].seconds / warm[operation][n].seconds:.1f}"
                        if n in by_size and n in warm[operation]
                        else ""
                        for n in self.sizes
                    ]
                    rows.append([f"{operation}, {shape}", *cells])
        return table(["operation, shape", *_heads(self.sizes)], rows) if rows else []

    def sizes_written(self) -> list[str]:
        """Bytes, which are exact."""
        rows = []
        for operation in ("create commit", "save"):
            by_size = self.of("warm").get(operation, {})
            cells = [f"{by_size[n].bytes:,}" if n in by_size else "" for n in self.sizes]
            rows.append([{"save": "stored by one save"}.get(operation, "the Commit"), *cells])
        return table(["bytes", *_heads(self.sizes)], rows)


def _heads(sizes: Iterable[int]) -> list[str]:
    return [f"{n:,}" for n in sizes]


def _ratio(row: Row | None) -> str:
    return f"{row.ratio:.2f}" if row is not None and row.ratio else ""


def _verdict(operation: str, by_size: dict[int, Row]) -> str:
    allowed = TARGETS.get((operation, REFERENCE))
    row = by_size.get(REFERENCE)
    if allowed is None or row is None or row.ratio is None:
        return ""
    return f"{allowed} {'met' if row.ratio <= allowed else 'missed'}"


def _grown(operation: str, by_size: dict[int, Row]) -> str:
    allowed = GROWTH.get(operation)
    if allowed is None:
        return ""
    if not {FROM, UP_TO} <= by_size.keys():
        return "not measured"
    grown = by_size[UP_TO].seconds / by_size[FROM].seconds
    return f"{grown:.2f}, {allowed} {'met' if grown <= allowed else 'missed'}"


def large_cell(row: Row | None) -> float | None:
    """A figure of `bench.large` in its unit; None where it is missing."""
    if row is None:
        return None
    if LARGE[row.operation][0] == "million bytes":
        return row.bytes / 1e6
    return row.ratio if row.floor else row.seconds


def _allowed(found: float | None, allowed: float | None) -> str:
    if allowed is None or found is None:
        return ""
    return f"{allowed:g} {'met' if found <= allowed else 'missed'}"


def large_section(reports: Iterable[dict[str, Any]]) -> list[str]:
    """What was measured by the clock, in memory and from the disk, with each library."""
    lines: list[str] = []
    for report in reports:
        found = {
            (row.operation, row.members): row for row in (Row(**each) for each in report["rows"])
        }
        sizes = sorted({members for _, members in found})
        rows = []
        for operation, (unit, allowed) in LARGE.items():
            cells = [large_cell(found.get((operation, n))) for n in sizes]
            if any(cell is not None for cell in cells):
                last = cells[-1]
                shown = ["" if cell is None else f"{cell:.2f}" for cell in cells]
                rows.append([f"{operation}, {unit}", *shown, _allowed(last, allowed)])
        library = {"openssl": "OpenSSL", "libsodium": "libsodium for Ed25519 and X25519"}
        lines += ["", f"With {library[report['primitives']]}:", ""]
        lines += table(["operation", *_heads(sizes), "allowed"], rows)
    if not lines:
        return ["", "Not measured in this run: `python -m bench.large`."]
    return lines


def page(figures: Figures, large: Sequence[dict[str, Any]] = ()) -> str:
    """The first part of `docs/performance.md`."""
    machine = figures.machine
    lines = [
        "# Performance of the core",
        "",
        (
            "Made by `make bench`; do not edit. Ratios of medians of one run, no figures to quote: on another machine,"
            " run it again."
        ),
        "",
        (
            f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']};"
            f" {machine['python']}, cryptography {machine['cryptography']}. Suite 1, basic credentials."
        ),
        "Times are processor time of one thread, but for what is said to go by the clock.",
        "",
        "## Against the floor",
        "",
        (
            "The floor is what the primitive calls of an operation cost through the same library in the same run"
            " (`bench/floor.py` lists them). Warm trees, by number of members:"
        ),
        "",
        *figures.ratios("warm"),
        "",
        "Adding all members in one Commit, key packages verified:",
        "",
        *figures.ratios("bulk"),
        "",
        "What the misses are made of is in `docs/decisions/0050-where-the-time-goes.md`.",
        "",
        "## Large groups",
        "",
        (
            "By the clock, so on a machine that does nothing else. The floor of what uses all cores is measured on all"
            " cores too: the same signature checks and seals, bare. pyca's X25519 keeps other threads waiting, so with"
            " OpenSSL the seals use one core."
        ),
        *large_section(large),
        "",
        (
            "A member who was away reads a run of messages with `Group.receive_many`, which verifies their signatures"
            " on all cores. So by the clock it has more than the one core that its floor has: the ratio to that floor"
            " says how long somebody waits, the one to a floor whose signatures use all cores too says what our own"
            " code adds."
        ),
        "",
        "## Growth",
        "",
        (
            "Against the same operation in the smallest group; warm trees, doubling apart. How many operations of each"
            " kind a Commit takes is exact, and a test (`tests/scenario/test_growth.py`)."
        ),
        "",
        *figures.growth(),
        "",
        "![Growth of each operation](performance.svg)",
        "",
        *figures.sizes_written(),
    ]
    shapes = figures.shapes()
    if shapes:
        lines += [
            "",
            "## Blanks",
            "",
            (
                "After a bulk add most parents are blank, and a Commit is sealed to as many nodes as there are holes."
                " Against a warm tree of the same size:"
            ),
            "",
            *shapes,
        ]
    return "\n".join(lines) + "\n"


def plot(figures: Figures, path: Path) -> None:
    """Cost against members, both axes logarithmic; needs matplotlib (the extra `bench`)."""
    import matplotlib as mpl  # noqa: PLC0415 - the page can be made without it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "coterie", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(figsize=(8, 5))
    for operation, by_size in figures.of("warm").items():
        if operation in CONCURRENT:
            continue
        sizes = sorted(by_size)
        base = by_size[sizes[0]].seconds
        axes.plot(sizes, [by_size[n].seconds / base for n in sizes], marker="o", label=operation)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("members")
    axes.set_ylabel("times the cost in the smallest group")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--large", type=Path, nargs="*", default=(), help="of `bench.large`")
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    figures = Figures(json.loads(arguments.report.read_text()))
    large = [json.loads(path.read_text()) for path in arguments.large if path.exists()]
    write_part(arguments.docs / "performance.md", "core", page(figures, large))
    try:
        plot(figures, arguments.docs / "performance.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (extra `bench`)")


if __name__ == "__main__":
    main()
