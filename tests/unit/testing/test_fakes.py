"""The public fakes keep their promises."""

from __future__ import annotations

import pytest

from coterie.mls.group import Delta
from coterie.testing import Clock, MemoryStore, Randomness


def test_the_same_seed_gives_the_same_bytes_and_never_the_same_twice() -> None:
    one, two = Randomness(7), Randomness(7)
    drawn = [one(16) for _ in range(10)]
    assert drawn == [two(16) for _ in range(10)]
    assert len(set(drawn)) == 10
    assert Randomness(8)(16) not in drawn
    assert len(one(0)) == 0


def test_a_clock_moves_when_it_is_moved_and_never_back() -> None:
    clock = Clock(100)
    assert clock() == clock() == 100
    assert clock.advance(5) == clock() == 105
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_store_applies_drops_before_puts() -> None:
    store = MemoryStore({b"p/1": b"old", b"p/2": b"old", b"k": b"old", b"n/h": b"node"})
    store.apply(Delta({b"p/1": b"new", b"i/c": b"1"}, frozenset({b"k", b"absent"}), (b"p/",)))
    assert store.data == {b"p/1": b"new", b"n/h": b"node", b"i/c": b"1"}
    assert store.entries() == {b"p/1": b"new"}
    assert store.get(b"n/h") == b"node"
    assert store.get(b"absent") is None
    assert store.bytes_written == len(b"p/1new") + len(b"i/c1")


def test_a_copy_of_a_store_goes_its_own_way() -> None:
    store = MemoryStore({b"g": b"1"})
    copy = store.copy()
    store.apply(Delta({b"g": b"2"}))
    assert (copy.data, len(store)) == ({b"g": b"1"}, 1)
