"""Bulk work on all cores: the same results in the same order, and few items in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.shapes import build
from coterie.client.cores import on_all_cores
from coterie.errors import VerificationError
from coterie.mls.credential import AcceptAnything
from coterie.mls.ratchet_tree import UnverifiedTree
from coterie.mls.validation import Policy, verify_tree


@pytest.mark.parametrize("count", [0, 1, 2, 1_000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(count: int, threads: int) -> None:
    squares = on_all_cores(lambda n: n * n, range(count), threads=threads)
    assert list(squares) == [n * n for n in range(count)]


def test_items_are_asked_for_when_there_is_room() -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        for number in range(1_000):
            asked += 1
            yield number

    results = on_all_cores(lambda n: n, items(), threads=2)
    next(results)
    assert asked <= 10


def test_the_first_failure_in_order_is_raised_and_no_thread_stays() -> None:
    def fail(number: int) -> int:
        if number in {40, 41, 700}:
            raise ValueError(number)
        return number

    before = threading.active_count()
    done: list[int] = []
    with pytest.raises(ValueError, match=r"^40$"):
        done.extend(on_all_cores(fail, range(1_000), threads=4))
    with pytest.raises(ValueError, match=r"^40$"):
        list(on_all_cores(fail, range(1_000), threads=1))
    assert threading.active_count() == before


def test_of_several_bad_signatures_every_number_of_cores_tells_the_same() -> None:
    shape = build(300, "blank")
    leaves = dict(shape.tree.members())
    for bad in (70, 71, 299):
        leaf = leaves[type(next(iter(leaves)))(bad)]
        tree = shape.tree.with_leaves({bad: leaf.replace(signature=bytes(64))})
        shape = replace(shape, tree=tree)
    context = shape.context.replace(tree_hash=shape.tree.tree_hash())
    told = set()
    for threads in (1, 2, 4):
        given = UnverifiedTree.decode(shape.tree.encode(), shape.suite)
        with pytest.raises(VerificationError) as caught:
            verify_tree(
                given,
                context,
                Policy(AcceptAnything()),
                lambda function, items, n=threads: on_all_cores(function, items, threads=n),
            )
        told.add(str(caught.value))
    assert len(told) == 1
    assert "signature 70 " in told.pop()


def test_progress_is_told_up_to_the_whole() -> None:
    shape = build(300, "warm")
    for run in (map, on_all_cores):
        seen: list[tuple[int, int]] = []

        def tell(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        given = UnverifiedTree.decode(shape.tree.encode(), shape.suite)
        verify_tree(given, shape.context, Policy(AcceptAnything(), progress=tell), run)
        assert seen == [(done, 300) for done in (64, 128, 192, 256, 300)]
