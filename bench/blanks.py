"""How the blanks of a bulk add fill: Commits until a Commit is as small as it should be: `python -m bench.blanks`.

After one member has added all others, nearly all parents are blank, and a Commit is sealed to nearly every leaf. Each
Commit fills its committer's path. This simulates trees only, without any cryptography, with the tree of the core and
the order of `coterie.client.scheduling`; it writes a table and a plot into `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

from bench.growth import DOCS, table
from bench.parts import write_part
from bench.plotting import pyplot
from coterie.client.scheduling import preferred, rank
from coterie.mls.crypto import suite_of
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, Subtree
from coterie.mls.tree_math import tree_depth

FILLED = ParentNode(b"key", b"", ())
MEMBER = cast("LeafNode", object())
"""A leaf that nobody looks into."""
AWAKE = 20
"""How many members are there when a Commit is due, in the run where most are away."""
ENOUGH = 2.0
"""A Commit may be so many times as large as in a warm tree."""
PLOT = "blanks.svg"


class Counted(Subtree):
    """A subtree that knows how many ciphertexts the Commits of all its members would have below it, in sum."""

    __slots__ = ("seals",)

    seals: int

    @classmethod
    def leaf(cls, index: int, leaf_node: LeafNode) -> Self:
        """As in the core."""
        self = cast("Self", super().leaf(index, leaf_node))
        self.seals = 0
        return self

    @classmethod
    def blank(cls, level: int, start: int) -> Self:
        """As in the core."""
        self = super().blank(level, start)
        self.seals = 0
        return self

    @classmethod
    def parent(cls, node: ParentNode | None, left: Subtree, right: Subtree) -> Self:
        """As in the core; each member on one side seals to the resolution of the other."""
        self = cast("Self", super().parent(node, left, right))
        assert isinstance(left, Counted)
        assert isinstance(right, Counted)
        across = left.members * right.resolution_size + right.members * left.resolution_size
        self.seals = left.seals + right.seals + across
        return self


def grown(members: int, *, warm: bool = False) -> Counted:
    """The tree right after leaf 0 has added all others, or the same without blanks."""

    def below(level: int, start: int) -> Counted:
        if start >= members:
            return Counted.blank(level, start)
        if level == 0:
            return Counted.leaf(start, MEMBER)
        half = 1 << (level - 1)
        left, right = below(level - 1, start), below(level - 1, start + half)
        filled = right.members and (warm or start == 0)
        return Counted.parent(FILLED if filled else None, left, right)

    return below(tree_depth(members), 0)


def committed(tree: Counted, leaf: int) -> tuple[Counted, int]:
    """The tree after a Commit by a leaf, and to how many nodes it was sealed."""
    if tree.level == 0:
        return tree, 0
    in_right = leaf >= tree.right_start
    own, other = (tree.right, tree.left) if in_right else (tree.left, tree.right)
    below, seals = committed(cast("Counted", own), leaf)
    left, right = (other, below) if in_right else (below, other)
    # A parent of whom one side is empty is on no filtered path: it stays blank.
    node = FILLED if other.resolution_size else None
    return Counted.parent(node, left, right), seals + other.resolution_size


Choice = Callable[[Counted, int], int]
"""Who commits: of a tree and the number of the epoch, a leaf."""


def at_random(members: int, seed: int) -> Choice:
    """Anybody."""
    chosen = random.Random(seed)
    return lambda _tree, _epoch: chosen.randrange(members)


def in_order(_members: int, _seed: int) -> Choice:
    """Who is first in the clients' order."""
    suite = suite_of(1)

    def choose(tree: Counted, epoch: int) -> int:
        first = preferred(RatchetTree(suite, tree), epoch)
        assert first is not None
        return int(first)

    return choose


def in_order_of_few(members: int, seed: int) -> Choice:
    """Who comes first in the order of the few who are there."""
    chosen, suite = random.Random(seed), suite_of(1)

    def choose(tree: Counted, epoch: int) -> int:
        whole = RatchetTree(suite, tree)
        awake = chosen.sample(range(members), min(AWAKE, members))
        return min(awake, key=lambda leaf: rank(whole, leaf, epoch))

    return choose


WAYS: dict[str, Callable[[int, int], Choice]] = {
    "random members": at_random,
    f"in order, {AWAKE} members awake": in_order_of_few,
    "in order": in_order,
}


@dataclass(frozen=True)
class Run:
    """How one group filled."""

    members: int
    way: str
    commits: int
    """Commits until the mean one, over all who could make it, is at most `ENOUGH` times a warm one."""
    sealed: int
    """Ciphertexts of all these Commits."""
    course: list[tuple[int, float]]
    """After so many Commits, the mean size in warm ones."""


def simulate(members: int, way: str, seed: int = 0) -> Run:
    """Commits until they are small enough."""
    tree, choose = grown(members), WAYS[way](members, seed)
    warm = grown(members, warm=True).seals
    sealed, commits, course = 0, 0, [(0, tree.seals / warm)]
    while tree.seals > ENOUGH * warm:
        tree, seals = committed(tree, choose(tree, commits))
        sealed, commits = sealed + seals, commits + 1
        if commits & (commits - 1) == 0 or tree.seals <= ENOUGH * warm:
            course.append((commits, tree.seals / warm))
    return Run(members, way, commits, sealed, course)


def course_at(run: Run, commits: int) -> str:
    """The mean size after so many Commits, in warm ones, as it is printed; empty once it is small enough."""
    found = dict(run.course).get(commits)
    return f"{found:,.1f}" if found is not None else ""


def part(runs: list[Run]) -> str:
    """The part of `docs/performance.md`."""
    head = ["members", "who commits", "Commits", "ciphertexts sealed, in n"]
    rows = [
        [f"{run.members:,}", run.way, f"{run.commits:,}", f"{run.sealed / run.members:.1f}"]
        for run in runs
    ]
    marks = [0, *(4**power for power in range(8))]
    largest = max(run.members for run in runs)
    courses = [
        [run.way, *(course_at(run, mark) for mark in marks)]
        for run in runs
        if run.members == largest
    ]
    return "\n".join(
        [
            "## How blanks fill",
            "",
            (
                "Made by `python -m bench.blanks`, which simulates trees without cryptography: it gives the same on any"
                " machine."
            ),
            "",
            (
                "After one member has added all others in one Commit: how many further Commits until a Commit is at"
                f" most {ENOUGH:g} times as large as in a warm tree, in the mean over all members who could make it."
                " The order is that of `docs/decisions/0094-who-commits-next.md`; a Commit out of it breaks no rule."
            ),
            "",
            *table(head, rows),
            "",
            f"The mean size in warm Commits, {largest:,} members, after so many Commits:",
            "",
            *table(["who commits", *(f"{mark:,}" for mark in marks)], courses),
            "",
            f"![How blanks fill]({PLOT})",
        ]
    )


def plot(runs: list[Run], path: Path) -> None:
    """Mean size against Commits; needs matplotlib (the extra `bench`)."""
    plt = pyplot()

    figure, axes = plt.subplots(figsize=(8, 5))
    for run, style in zip(runs, _styles(), strict=False):
        points = [(max(commits, 0.5), size) for commits, size in run.course]
        axes.plot(*zip(*points, strict=True), style, label=f"{run.members:,}, {run.way}")
    axes.axhline(ENOUGH, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("Commits since all were added")
    axes.set_ylabel("mean Commit, in warm ones")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _styles() -> Iterator[str]:
    for colour in ("C0", "C1", "C2"):
        for line in (":", "--", "-"):
            yield f"{colour}{line}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,50000")
    parser.add_argument("--json", type=Path, default=Path("build/blanks.json"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    runs = [simulate(int(n), way) for n in given.sizes.split(",") for way in WAYS]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    write_part(given.docs / "performance.md", "blanks", part(runs))
    try:
        plot(runs, given.docs / PLOT)
    except ImportError:
        print("no plot: matplotlib is not installed (extra `bench`)")


if __name__ == "__main__":
    main()
