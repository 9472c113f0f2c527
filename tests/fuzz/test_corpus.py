"""The corpus of the fuzzer: what was found once stays found, and no input takes more time or memory than it may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import surfaces
from fuzz.bounds import PER_BYTE, seconds, within_memory, within_time
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[2] / "fuzz/corpus"
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
GENEROUS = 4.0
"""The factor on an input's time: the measurement is for loops that do not end, not for a slow machine."""


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    surfaces.close()


def test_every_target_has_a_corpus_and_there_are_at_most_twelve() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert len(TARGETS) <= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_of_the_corpus_breaks_nothing_and_costs_little(path: Path) -> None:
    target, data = TARGETS[path.parent.name], path.read_bytes()
    target(data)
    within_time(target, GENEROUS)(data)
    within_memory(target)(data)


def test_an_input_that_costs_too_much_is_found() -> None:
    def slow(data: bytes) -> None:
        for _ in range(10**9):
            if next(counter) > limit:
                return

    def large(data: bytes) -> None:
        kept.append(bytes(10 << 20))

    kept: list[bytes] = []
    assert seconds(0) == pytest.approx(0.5)
    assert seconds(1 << 20) < 30
    counter, limit = iter(range(10**12)), 200_000
    with pytest.raises(AssertionError, match="at most"):
        within_time(slow, 1e-4)(b"x")
    with pytest.raises(AssertionError, match="bytes of memory"):
        within_memory(large)(b"x")
    within_memory(large)(bytes((10 << 20) // PER_BYTE))
