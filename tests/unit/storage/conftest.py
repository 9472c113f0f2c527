"""A profile that is empty, not synced, and opened with a fixed key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.storage import Profile, StorageKey


@pytest.fixture
def key() -> StorageKey:
    return StorageKey.given(bytes(range(32)))


@pytest.fixture
def profile(key: StorageKey, tmp_path: Path) -> Iterator[Profile]:
    with Profile.open(tmp_path / "p", key, create=True, durable=False) as profile:
        yield profile
