"""The vectors passive-client-random.json: a client that follows a long history (RFC 9420 §12.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "passive-client-random", 1)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("passive-client-random")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("epochs.29.epoch_authenticator", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("passive-client-random", path, case)
