"""The vectors passive-client-welcome.json: a client that joins (RFC 9420 §12.4.3.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "passive-client-welcome", 56)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("passive-client-welcome")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("welcome", 0),
        ("initial_epoch_authenticator", 0),
        ("ratchet_tree", 1),
        ("external_psks.0.psk", 1),
        ("signature_priv", 1),
        ("encryption_priv", 4),
        ("init_priv", 4),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("passive-client-welcome", path, case)
