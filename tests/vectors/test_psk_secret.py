"""The vectors psk_secret.json: pre-shared keys mixed into one (RFC 9420 §8.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "psk_secret", 77)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("psk_secret")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("psk_secret", 0),
        ("psks.0.psk", 2),
        ("psks.1.psk_id", 2),
        ("psks.1.psk_nonce", 2),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("psk_secret", path, case)
