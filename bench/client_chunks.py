"""What the chunks of a group's state cost with a Commit: time and bytes, by the size of the group.

Run: .venv/bin/python -m bench.client_chunks [--members 1000 50000] [--rounds 20]
`making` is what the committer does for the chunks of one warm Commit, `following` what every other member does; both
beside the whole of creating and processing the Commit. `all` is what a new group's first upload takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from bench.shapes import NOW, build
from coterie.client.chunks import SharedState
from coterie.mls.group import StagedCommit
from coterie.mls.ratchet_tree import RatchetTree

SECRET = bytes(32)


def measure(members: int, rounds: int) -> dict[str, float]:
    """Medians, in milliseconds and bytes."""
    shape = build(members, "warm")
    groups = [shape.member(0), shape.member(members - 1)]
    tree = groups[0].tree
    leaf = tree.leaf(0)
    if leaf is None:
        raise AssertionError
    empty, shared = RatchetTree.of_one(tree.suite, leaf), SharedState()
    start = time.thread_time()
    change = shared.change(empty, tree, SECRET)
    whole, size = time.thread_time() - start, change.size
    shared.apply(change, empty, tree)
    found: dict[str, list[float]] = {"commit": [], "process": [], "making": [], "bytes": []}
    for number in range(rounds):
        maker, other = groups[number % 2], groups[1 - number % 2]
        start = time.thread_time()
        pending = maker.commit()
        found["commit"].append(time.thread_time() - start)
        message, old = pending.message.encode(), maker.tree
        start = time.thread_time()
        staged = other.receive(message, now=NOW)
        if not isinstance(staged, StagedCommit):
            raise TypeError
        other.adopt(staged)
        found["process"].append(time.thread_time() - start)
        maker.adopt(pending)
        start = time.thread_time()
        change = shared.change(old, maker.tree, SECRET)
        shared.apply(change, old, maker.tree)
        shared.take_changes()
        found["making"].append(time.thread_time() - start)
        found["bytes"].append(change.size)
    report = {
        name: round(statistics.median(values) * (1 if name == "bytes" else 1e3), 3)
        for name, values in found.items()
    }
    return {"members": members, **report, "all": round(whole * 1e3), "all bytes": size}


def main() -> None:
    """Measures and prints, one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1_000, 10_000, 50_000])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    for members in options.members:
        print(json.dumps(measure(members, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
