"""The lock files: what a newcomer's machine and the build machine install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = sorted((Path(__file__).resolve().parents[2] / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_has_one_version_and_its_hashes(lock: Path) -> None:
    lines = re.sub(r"#.*", "", lock.read_text()).replace("\\\n", " ").splitlines()
    requirements = [line for line in lines if line.strip()]
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}\b", requirement)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_lock_file_names_an_index(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock.read_text())


def test_what_users_get_is_what_was_tested() -> None:
    def pins(name: str) -> set[str]:
        lock = next(lock for lock in LOCKS if lock.name == name)
        return set(re.findall(r"^[a-z0-9-]+==[^ ]+", lock.read_text(), flags=re.MULTILINE))

    assert pins("runtime.txt") <= pins("dev.txt")
