"""The vectors treekem.json: paths made and opened (RFC 9420 §7.4-§7.6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "treekem", 77)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("treekem")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("group_id", 2),
        ("epoch", 2),
        ("confirmed_transcript_hash", 2),
        ("leaves_private.0.encryption_priv", 2),
        ("leaves_private.0.signature_priv", 2),
        ("leaves_private.0.path_secrets.0.path_secret", 2),
        ("update_paths.0.update_path", 2),
        ("update_paths.0.path_secrets.1", 2),
        ("update_paths.0.commit_secret", 2),
        ("update_paths.0.tree_hash_after", 2),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("treekem", path, case)
