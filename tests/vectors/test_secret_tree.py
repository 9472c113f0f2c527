"""The vectors secret-tree.json: the keys of the secret tree and of the sender data (RFC 9420 §9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "secret-tree", 21)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("secret-tree")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("sender_data.key", 1),
        ("sender_data.nonce", 1),
        ("encryption_secret", 1),
        ("leaves.0.1.handshake_key", 1),
        ("leaves.0.1.handshake_nonce", 1),
        ("leaves.0.1.application_key", 1),
        ("leaves.0.1.application_nonce", 1),
        ("leaves.7.1.handshake_key", 1),
        ("leaves.7.1.handshake_nonce", 1),
        ("leaves.7.1.application_key", 1),
        ("leaves.7.1.application_nonce", 1),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("secret-tree", path, case)
