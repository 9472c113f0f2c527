"""The vectors key-schedule.json: the key schedule over several epochs (RFC 9420 §8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "key-schedule", 7)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("key-schedule")


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("epochs.0.group_context", 0),
        ("epochs.0.joiner_secret", 0),
        ("epochs.0.welcome_secret", 0),
        ("epochs.0.init_secret", 0),
        ("epochs.0.sender_data_secret", 0),
        ("epochs.0.encryption_secret", 0),
        ("epochs.0.exporter_secret", 0),
        ("epochs.0.epoch_authenticator", 0),
        ("epochs.0.external_secret", 0),
        ("epochs.0.confirmation_key", 0),
        ("epochs.0.membership_key", 0),
        ("epochs.0.resumption_psk", 0),
        ("epochs.0.external_pub", 0),
        ("epochs.0.exporter.secret", 0),
        ("epochs.0.commit_secret", 0),
        ("epochs.0.psk_secret", 0),
        ("epochs.0.tree_hash", 0),
        ("initial_init_secret", 0),
        ("epochs.4.joiner_secret", 0),
    ],
)
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("key-schedule", path, case)
