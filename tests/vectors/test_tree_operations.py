"""The vectors tree-operations.json: proposals applied to a tree (RFC 9420 §7.7, §12.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "tree-operations", 5)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("tree-operations")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("tree_before", 0),
        ("tree_hash_before", 0),
        ("tree_after", 0),
        ("tree_hash_after", 0),
        ("tree_before", 2),
        ("tree_hash_before", 2),
        ("tree_after", 2),
        ("tree_hash_after", 2),
        ("tree_before", 4),
        ("tree_hash_before", 4),
        ("tree_after", 4),
        ("tree_hash_after", 4),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("tree-operations", path, case)
