"""Times the core's operations against the size of the group, each beside its floor: `python -m bench.core`.

Prints a table and writes JSON; `bench.growth` makes plots and `docs/performance.md` of it. Timing goes in cycles in
which three members live through the same epochs: the committer (leaf 0), its neighbour (leaf 1, the nearest possible)
and the last member (the farthest). Figures are medians over the cycles.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cryptography

from bench import floor
from bench.floor import Geometry, Prices
from bench.shapes import NOW, Shape, build
from coterie.mls.group import CommitOptions, Group, Member, PendingCommit
from coterie.mls.group.results import Delta
from coterie.mls.key_package import KeyPackage, KeyPackageBundle, validate_all
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.testing import MemoryStore

BESIDE = CommitOptions(tree_inside=False)
PAYLOAD = bytes(1024)
TAG = 16
"""The length of an AEAD's tag."""
CONCURRENT = frozenset({"join, all cores"})
"""Timed by the wall clock; all else by the processor time of its thread, so that a busy machine does not count."""
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One operation in one group: seconds, and what it cannot be faster than (0 where no primitive is needed)."""

    operation: str
    shape: str
    members: int
    seconds: float
    floor: float = 0.0
    bytes: int = 0

    @property
    def ratio(self) -> float | None:
        """How many times the floor."""
        return self.seconds / self.floor if self.floor else None


class Clock:
    """Collects times by name."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)

    def run(self, name: str, function: Callable[[], T]) -> T:
        """Calls and times it."""
        clock = time.perf_counter if name in CONCURRENT else time.thread_time
        start = clock()
        result = function()
        self.times[name].append(clock() - start)
        return result

    def median(self, name: str) -> float:
        """The median of what was collected."""
        return statistics.median(self.times[name])


def geometry(group: Group, message: bytes) -> Geometry:
    """What the floor of an empty Commit by this member depends on."""
    path = group.tree.filtered_direct_path(group.own_leaf)
    leaf = group.tree.leaf(group.own_leaf)
    assert leaf is not None
    return Geometry(
        group.tree.root.level,
        len(path),
        sum(node.sibling.resolution_size for node in path),
        len(message),
        len(leaf.encode()),
        len(group.context.encode()),
    )


def follow(clock: Clock, name: str, group: Group, message: bytes) -> None:
    """A receiver takes a Commit and goes to its epoch."""
    clock.run(name, lambda: group.adopt(group.receive(message, now=NOW)))  # type: ignore[arg-type]


def commits(shape: Shape, kind: str, rounds: int, prices: Prices) -> Iterable[Row]:
    """Creating, processing and saving empty Commits."""
    clock, me, near, far = Clock(), shape.member(0), shape.member(1), shape.member(shape.n - 1)
    for group in (me, near, far):
        group.save()
    prices.renew()
    floors: dict[str, floor.Floor] = {}
    written, length = [], 0
    for _ in range(rounds):
        pending = clock.run("create commit", me.commit)
        message = pending.message.encode()
        if not floors:
            at, length = geometry(me, message), len(message)
            floors["create commit"] = floor.create_commit(at)
            floors["process commit, near"] = floor.process_commit(at, at.path)
            floors["process commit, far"] = floor.process_commit(at, 1)
        follow(clock, "process commit, near", near, message)
        follow(clock, "process commit, far", far, message)
        me.adopt(pending)
        me.save()
        written.append(clock.run("save", far.save).size)
        _sample(prices, floors)
    for name, calls in floors.items():
        yield _row(name, kind, shape.n, clock, prices.floor(calls), length)
    yield _row("save", kind, shape.n, clock, 0, int(statistics.median(written)))
    store = MemoryStore()
    store.apply(whole(far))
    entries = store.entries()
    for _ in range(rounds):
        clock.run("load", lambda: _ready(Group.load(entries, store, shape.config)))
    yield _row("load", kind, shape.n, clock, 0, sum(map(len, store.data.values())))


def _row(name: str, kind: str, n: int, clock: Clock, price: float = 0, length: int = 0) -> Row:
    return Row(name, kind, n, clock.median(name), price, length)


def _sample(prices: Prices, floors: dict[str, floor.Floor]) -> None:
    for calls in floors.values():
        prices.floor(calls)
    prices.sample()


def _ready(group: Group) -> Member:
    """A loaded group that can receive: it has looked up a sender."""
    return group.member(0)


def whole(group: Group) -> Delta:
    """Everything of a group, as if it had never been saved."""
    fresh = Group(group._epoch, group._keys._present.secret_tree, group._index, group._config)  # noqa: SLF001
    fresh._index._changed.update(group._index.named())  # noqa: SLF001 - what a first save would write
    return fresh.save()


def _added(
    shape: Shape, clock: Clock, group: Group, bundle: KeyPackageBundle, name: str
) -> PendingCommit:
    def act() -> PendingCommit:
        package = bundle.key_package.validate(shape.suite, shape.config.authenticator, now=NOW)
        return group.commit([package], now=NOW, options=BESIDE)

    return clock.run(name, act)


def membership(shape: Shape, kind: str, rounds: int, prices: Prices) -> Iterable[Row]:
    """Adding one member and removing it again."""
    clock, me, far = Clock(), shape.member(0), shape.member(shape.n - 1)
    prices.renew()
    floors: dict[str, floor.Floor] = {}
    for number in range(rounds):
        bundle = shape.bundle(b"newcomer %d" % number)
        pending = _added(shape, clock, me, bundle, "add one")
        message = pending.message.encode()
        floors.setdefault("add one", floor.add_member(geometry(me, message)))
        follow(clock, "process an add", far, message)
        me.adopt(pending)
        leaf = pending.commit.added[0].leaf
        pending = clock.run("remove one", partial(_remove, me, leaf))
        message = pending.message.encode()
        me.adopt(pending)
        floors.setdefault("remove one", floor.create_commit(geometry(me, message)))
        follow(clock, "process a remove", far, message)
        _sample(prices, floors)
    for name, calls in floors.items():
        yield _row(name, kind, shape.n, clock, prices.floor(calls))


def _remove(group: Group, leaf: LeafIndex) -> PendingCommit:
    return group.commit([Proposal.of(Remove(leaf))], now=NOW, options=BESIDE)


def messages(shape: Shape, kind: str, rounds: int, prices: Prices) -> Iterable[Row]:
    """Application data of 1 KiB; past the first message of an epoch, which finds the way from the root to the leaf."""
    clock, me, far = Clock(), shape.member(0), shape.member(shape.n - 1)
    context = len(shape.context.encode())
    size = len(me.encrypt(PAYLOAD).encode())
    inner = len(me.encrypt(PAYLOAD).body.ciphertext) - TAG  # type: ignore[union-attr]
    prices.renew()
    floors = {
        "encrypt 1 KiB": floor.encrypt(inner, context),
        "decrypt 1 KiB": floor.decrypt(inner, context),
    }
    for number in range(rounds):
        sent = clock.run("encrypt 1 KiB", lambda: me.encrypt(PAYLOAD).encode())
        clock.run("decrypt 1 KiB", partial(far.receive, sent))
        if number % 10 == 0:
            _sample(prices, floors)
    for name, calls in floors.items():
        yield _row(name, kind, shape.n, clock, prices.floor(calls), size)


def unchecked(function: Any, batches: Iterable[list[Any]]) -> Iterable[tuple[int, bool]]:  # noqa: ANN401
    """Stands in for `map` to see what a join costs besides its signatures."""
    del function
    return ((len(batch), True) for batch in batches)


def joins(shape: Shape, kind: str, rounds: int, prices: Prices) -> Iterable[Row]:
    """Joining with the tree beside: on one core, on all, and without the members' signatures."""
    bundle = shape.bundle(b"joiner")
    me = shape.member(0)
    pending = _added(shape, Clock(), me, bundle, "add")
    welcome, following = pending.welcome, pending.next
    assert welcome is not None
    assert following is not None
    tree = following.epoch.tree.encode()
    at = geometry(me, pending.message.encode())
    parents = sum(1 for _ in following.epoch.tree.parents())
    clock, n = Clock(), shape.n
    prices.renew()
    floors = {"join": floor.join(at, n + 1, parents, at.path)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ways: dict[str, Callable[..., Iterable[Any]]] = {
            "join": map,
            "join, all cores": pool.map,
            "join besides signatures": unchecked,
        }
        for _ in range(rounds):
            for name, run in ways.items():
                config = replace(shape.config, run=run)
                gc.collect()
                clock.run(name, partial(Group.join, welcome, bundle, config, tree=tree))
                for _ in range(5):
                    _sample(prices, floors)
    yield _row("join", kind, n, clock, prices.floor(floors["join"]), len(tree))
    # No floor: how long it takes by the clock depends on what else the machine does.
    yield _row("join, all cores", kind, n, clock)
    yield _row("join besides signatures", kind, n, clock)


def bulk(n: int, rounds: int, prices: Prices) -> Iterable[Row]:
    """Adding `n` clients to a group of two in one Commit, their key packages verified before."""
    clock, shape = Clock(), build(2, "blank")
    bundles = [shape.bundle(b"newcomer %d" % number) for number in range(n)]
    packages = [KeyPackage.decode(bundle.key_package.encode()) for bundle in bundles]
    prices.renew()
    floors: dict[str, floor.Floor] = {}
    length = 0
    for _ in range(rounds):
        group, other = shape.member(0), shape.member(1)
        pending = clock.run("add all", partial(_add_all, shape, group, packages))
        message = pending.message.encode()
        length = len(message)
        at = replace(geometry(group, message), context=len(shape.context.encode()))
        floors["add all"] = floor.add_many(at, n)
        follow(clock, "process add all", other, message)
        for _ in range(10):
            _sample(prices, floors)
    yield _row("add all", "bulk", n, clock, prices.floor(floors["add all"]), length)
    yield _row("process add all", "bulk", n, clock, 0, length)


def _add_all(shape: Shape, group: Group, packages: list[KeyPackage]) -> PendingCommit:
    authenticator = shape.config.authenticator
    verified = validate_all(packages, shape.suite, authenticator, now=NOW)
    return group.commit(verified, now=NOW, options=BESIDE)


def measure(sizes: Iterable[int], shapes: Iterable[str], prices: Prices) -> list[Row]:
    """All operations in all groups; the floor's prices are renewed beside each group."""
    rows: list[Row] = []
    for kind in shapes:
        for n in sizes:
            say(f"{kind} group of {n:,}")
            shape = build(n, kind)
            gc.collect()
            many = (40 if n <= 10_000 else 20) if kind == "warm" else 3
            rows += commits(shape, kind, many, prices)
            if kind != "warm":
                continue
            rows += membership(shape, kind, max(many // 3, 5), prices)
            rows += messages(shape, kind, 300, prices)
            rows += joins(shape, kind, 9 if n <= 1_000 else 3, prices)
            rows += bulk(n, 5 if n <= 1_000 else 1, prices)
    return rows


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cryptography": cryptography.__version__,
    }


def print_table(rows: Iterable[Row]) -> None:
    """The rows for a person: milliseconds and the ratio to the floor."""
    print(
        f"{'operation':26} {'shape':6} {'members':>8} {'ms':>10} {'floor':>10} {'ratio':>6} {'bytes':>12}"
    )
    for row in rows:
        ratio = f"{row.ratio:6.2f}" if row.ratio else "     -"
        expected = f"{row.floor * 1e3:10.3f}" if row.floor else "         -"
        print(
            f"{row.operation:26} {row.shape:6} {row.members:8,} {row.seconds * 1e3:10.3f} "
            f"{expected} {ratio} {row.bytes:12,}"
        )


def say(text: str) -> None:
    """Progress, beside the output."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000,10000")
    parser.add_argument("--shapes", default="warm")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    sizes = [int(n) for n in arguments.sizes.split(",")]
    prices = Prices()
    rows = measure(sizes, arguments.shapes.split(","), prices)
    print_table(rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": machine(),
            "rows": [asdict(row) for row in rows],
            "prices": prices.table(),
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
