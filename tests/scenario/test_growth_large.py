"""What a step costs with 50,000 and a million members, counted, against 1,000: nothing grows faster than the depth.

The groups are sketches: of their trees only what is touched exists, so these tests take a second and not minutes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import cache

import pytest

from bench.shapes import NOW
from bench.sketch import Sketch, sketch
from coterie.mls.group import Group
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.tree_math import LeafIndex, common_ancestor_level
from coterie.testing.counting import count_operations
from tests.scenario.test_growth import calls_of, committers, creating, processing, receive

LARGE = (1_000, 50_000, 1_000_000)


@cache
def warm(n: int) -> Sketch:
    return sketch(n)


@pytest.mark.parametrize("n", LARGE)
@pytest.mark.parametrize("distance", ["near", "far"])
def test_a_commit_takes_the_operations_of_its_path_and_no_more(n: int, distance: str) -> None:
    shape = warm(n)
    for leaf in committers(n):
        other = leaf ^ 1 if distance == "near" else (0 if leaf else n - 1)
        # Once before, so that the sketch has made the nodes that are touched.
        receive(shape.member(other), shape.member(leaf).commit().message.encode())
        sender, receiver = shape.member(leaf), shape.member(other)
        path = sender.tree.filtered_direct_path(leaf)
        with count_operations() as made:
            pending = sender.commit()
            sender.adopt(pending)
        assert made == creating(shape.depth, len(path))
        message = pending.message.encode()
        with count_operations() as taken:
            receive(receiver, message)
        lowest = common_ancestor_level(LeafIndex(leaf), LeafIndex(other))
        shared = sum(node.level >= lowest for node in path)
        assert taken == processing(shape.depth, len(path), shared)
        assert sender.epoch_authenticator == receiver.epoch_authenticator


def blocks_of(action: Callable[[], object]) -> int:
    """How many blocks of memory there are more than before, with what the action returned."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        kept = action()
        after = sys.getallocatedblocks()
    finally:
        gc.enable()
    del kept
    return after - before


Measure = Callable[[Callable[[], object]], int]


def steps(shape: Sketch, measure: Measure) -> dict[str, int]:
    """What each step costs: creating, processing, saving, removing, exporting, sending, reading."""
    sender, receiver = shape.member(0), shape.member(shape.store.n - 1)
    found: dict[str, int] = {}
    made: dict[str, object] = {}

    def step(name: str, action: Callable[[], object]) -> None:
        def act() -> object:
            made[name] = action()
            return made[name]

        found[name] = measure(act)

    def adopt(group: Group, name: str) -> None:
        group.adopt(made[name])  # type: ignore[arg-type]

    def follow(name: str) -> None:
        message: bytes = made[name].message.encode()  # type: ignore[attr-defined]
        step(f"{name}, processed", lambda: receiver.receive(message, now=NOW))
        step(f"{name}, adopted", lambda: adopt(receiver, f"{name}, processed"))
        adopt(sender, name)
        step(f"{name}, saved by the sender", lambda: sender.save().size)
        step(f"{name}, saved by the receiver", lambda: receiver.save().size)

    step("commit", sender.commit)
    follow("commit")
    middle = Proposal.of(Remove(LeafIndex(shape.store.n // 2)))
    step("remove", lambda: sender.commit([middle], now=NOW))
    follow("remove")
    step("export", lambda: receiver.export_secret("a label", b"context", 32))
    step("encrypt", lambda: sender.encrypt(b"hello").encode())
    sent: bytes = made["encrypt"]  # type: ignore[assignment]
    step("decrypt", lambda: receiver.receive(sent))
    return found


@pytest.mark.parametrize("measure", [calls_of, blocks_of], ids=["function calls", "allocations"])
def test_no_step_costs_twice_as_much_with_fifty_times_the_members(measure: Measure) -> None:
    costs = {}
    for n in LARGE:
        steps(warm(n), lambda action: action() is None)
        costs[n] = steps(warm(n), measure)
    for name, few in costs[1_000].items():
        assert costs[50_000][name] <= max(2.0 * few, few + 60), name
        # The depth is twice that of 1,000; a thousand times would be a million calls.
        assert costs[1_000_000][name] <= max(2.4 * few, few + 120), name


def test_what_is_sent_and_stored_grows_with_the_depth() -> None:
    sent, stored = {}, {}
    for n in LARGE:
        sender, receiver = warm(n).member(0), warm(n).member(n - 1)
        pending = sender.commit()
        message = pending.message.encode()
        receive(receiver, message)
        sender.adopt(pending)
        sent[n], stored[n] = len(message), (sender.save().size, receiver.save().size)
    for n, allowed in ((50_000, 2.0), (1_000_000, 2.4)):
        assert sent[n] <= allowed * sent[1_000]
        assert stored[n][0] <= allowed * stored[1_000][0]
        assert stored[n][1] <= allowed * stored[1_000][1]


def test_a_group_of_a_million_reads_what_a_commit_touches() -> None:
    shape = warm(1_000_000)
    message = shape.member(0).commit().message.encode()
    receiver = shape.member(999_999)
    before = shape.store.reads
    receive(receiver, message)
    receiver.save()
    assert shape.store.reads - before <= 8 * shape.depth + 20
