"""The vectors message-protection.json: public and private framing (RFC 9420 §6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "message-protection", 7)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("message-protection")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("group_id", 0),
        ("epoch", 0),
        ("tree_hash", 0),
        ("confirmed_transcript_hash", 0),
        ("signature_pub", 0),
        ("encryption_secret", 0),
        ("sender_data_secret", 0),
        ("membership_key", 0),
        ("proposal", 0),
        ("proposal_pub", 0),
        ("proposal_priv", 0),
        ("commit", 0),
        ("commit_pub", 0),
        ("commit_priv", 0),
        ("application", 0),
        ("application_priv", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("message-protection", path, case)
