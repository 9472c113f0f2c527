"""The vectors welcome.json: Welcomes opened (RFC 9420 §12.4.3.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "welcome", 7)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("welcome")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("init_priv", 1),
        ("signer_pub", 0),
        ("key_package", 0),
        ("welcome", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("welcome", path, case)
