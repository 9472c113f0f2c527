"""The vectors tree-validation.json: hashes, parent hashes and signatures of a tree (RFC 9420 §7.3, §7.8, §7.9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "tree-validation", 98)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("tree-validation")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("tree", 3),
        ("group_id", 3),
        ("resolutions.3.0", 3),
        ("tree_hashes.0", 3),
        ("tree_hashes.1", 3),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("tree-validation", path, case)
