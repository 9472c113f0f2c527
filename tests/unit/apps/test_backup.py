"""A backup that was told to be there is on the disk, and what was cut off is never taken for one that is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from coterie.apps import backup
from coterie.apps.backup import back_up, check_restored, put_back
from coterie.errors import StateError, StorageError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a key and a database."""
    made = tmp_path / "data"
    (made / "delivery").mkdir(parents=True)
    (made / "delivery" / "receipt.key").write_bytes(bytes(32))
    with closing(sqlite3.connect(made / "delivery" / "logs.db")) as database, database:
        database.execute("CREATE TABLE log (key)")
    return made


class Disk:
    """What a power cut would leave: files as they were when they were synced, names when their directory was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._states: dict[int, object] = {}
        sync = os.fsync

        def noted(descriptor: int) -> None:
            sync(descriptor)
            status = os.fstat(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._states[status.st_ino] = self._state(path)

        monkeypatch.setattr(os, "fsync", noted)

    @staticmethod
    def _state(path: Path) -> object:
        if path.is_dir():
            return sorted((child.name, child.stat().st_ino) for child in path.iterdir())
        return path.read_bytes()

    def lost(self, *paths: Path) -> list[Path]:
        return [p for p in paths if self._states.get(p.stat().st_ino) != self._state(p)]


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")


@needs_proc
def test_a_power_cut_after_a_backup_and_after_restoring_takes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    for act, source, target in (
        (back_up, data, tmp_path / "disk" / "monday"),
        (put_back, tmp_path / "disk" / "monday", tmp_path / "new" / "data"),
    ):
        act(source, target)
        found = list(target.rglob("*"))
        assert len(found) >= 3
        assert disk.lost(target.parent.parent, target.parent, target, *found) == []


def test_a_backup_that_fails_leaves_nothing_that_looks_like_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> NoReturn:
        raise OSError(28, "No space left on device")

    target = tmp_path / "copies" / "monday"
    with monkeypatch.context() as during:
        during.setattr(backup, "_hash", full)
        with pytest.raises(StorageError, match=r"monday failed: .*No space left"):
            back_up(data, target)
    assert list(target.parent.iterdir()) == []
    assert len(back_up(data, target)) == 2


def test_a_backup_does_not_lie_in_what_it_is_of(data: Path) -> None:
    with pytest.raises(StateError, match="lies in the data directory"):
        back_up(data, data / "backups" / "monday")
    assert not (data / "backups").exists()


def _cut_off(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores, until the power is cut after the first file."""
    copy, copied = backup._copy, 0

    def cut(old: Path, new: Path) -> None:
        nonlocal copied
        if copied:
            raise KeyboardInterrupt
        copied += 1
        copy(old, new)

    with monkeypatch.context() as during:
        during.setattr(backup, "_copy", cut)
        with pytest.raises(KeyboardInterrupt):
            put_back(source, target)


@pytest.mark.parametrize("use", [check_restored, lambda data: back_up(data, data.parent / "x")])
def test_a_data_directory_that_is_restored_in_part_is_not_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], object]
) -> None:
    copy, new = tmp_path / "copy", tmp_path / "new"
    back_up(data, copy)
    _cut_off(copy, new, monkeypatch)
    with pytest.raises(StateError, match="cut off: run `coterie restore` again"):
        use(new)
    assert put_back(copy, new) == ["delivery/logs.db", "delivery/receipt.key"]
    check_restored(new)
    assert sorted(path.name for path in new.rglob("*")) == ["delivery", "logs.db", "receipt.key"]
    with pytest.raises(StateError, match="not empty"):
        put_back(copy, new)
