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
    assert len(requirements) > (3 if lock.name == "build.txt" else 20)
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
    assert pins("build.txt") <= pins("dev.txt")


def test_the_container_installs_nothing_that_no_lock_file_names() -> None:
    text = (LOCKS[0].parents[1] / "deploy" / "Containerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert len(installs) == 3
    for options in installs:
        assert "--no-deps" in options
        assert "--require-hashes" in options or "--no-index" in options
    assert "pip check" in text
