"""The vectors transcript-hashes.json: transcript hashes (RFC 9420 §8.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "transcript-hashes", 7)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("transcript-hashes")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("confirmation_key", 0),
        ("authenticated_content", 0),
        ("interim_transcript_hash_before", 0),
        ("confirmed_transcript_hash_after", 0),
        ("interim_transcript_hash_after", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("transcript-hashes", path, case)
