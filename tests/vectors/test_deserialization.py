"""The vectors deserialization.json: headers of vectors (RFC 9420 §2.1.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "deserialization", 14)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("deserialization")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("vlbytes_header", 0),
        ("length", 1),
        ("vlbytes_header", 5),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("deserialization", path, case)
