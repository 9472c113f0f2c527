"""The garbage collector does not look at a large tree while it is read, nor right after, and loses nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from coterie.mls.ratchet_tree import collector_paused

MANY, FEW = 30_000, 2_000


class Lump:
    """Something that the collector looks at."""

    itself: Lump


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that were collected since."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_what_was_made_is_looked_at_neither_meanwhile_nor_right_after(
    collections: list[int],
) -> None:
    with collector_paused():
        made = [Lump() for _ in range(MANY)]
    more = [Lump() for _ in range(100)]
    assert collections == []
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert len(made + more) == MANY + 100


def test_a_few_new_objects_stay_young(collections: list[int]) -> None:
    with collector_paused():
        made = [Lump() for _ in range(FEW)]
        assert collections == []
    more = [Lump() for _ in range(100)]
    assert collections
    assert len(made + more) == FEW + 100


def test_what_nobody_has_any_more_goes_all_the_same() -> None:
    with collector_paused():
        made = [Lump() for _ in range(MANY)]
    made[0].itself = made[0]
    gone = weakref.ref(made[0])
    del made
    gc.collect()
    assert gone() is None


def test_what_the_application_has_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        with collector_paused():
            made = [Lump() for _ in range(MANY)]
        assert len(made) == MANY
        assert frozen - 100 <= gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


def test_a_collector_that_the_application_has_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_it_goes_on_after_an_error() -> None:
    with pytest.raises(KeyError), collector_paused():
        raise KeyError
    assert gc.isenabled()
