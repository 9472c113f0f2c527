"""The vectors passive-client-handling-commit.json: a client that follows a group (RFC 9420 §12.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "passive-client-handling-commit", 91)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("passive-client-handling-commit")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("initial_epoch_authenticator", 0),
        ("epochs.0.commit", 0),
        ("epochs.3.proposals.0", 0),
        ("epochs.7.epoch_authenticator", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("passive-client-handling-commit", path, case)
