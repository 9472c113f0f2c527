"""The vectors tree-math.json: positions in the tree (RFC 9420 §4.1, appendix C)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "tree-math", 10)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("tree-math")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("n_nodes", 3),
        ("root", 3),
        ("left.1", 3),
        ("left.0", 3),
        ("right.1", 3),
        ("parent.0", 3),
        ("sibling.0", 3),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("tree-math", path, case)
