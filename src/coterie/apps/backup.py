"""Backup and restore of a data directory: databases through SQLite's own copying, other files as they are.

A backup is a directory with the same layout and a manifest of hashes. Databases stay apart from each other in it, as
they are in use: whoever gets one of them gets no more than before.

What is there under its name is whole, and on the disk, so that a power cut after the last word takes nothing of it: a
backup gets its name at the end, and a data directory says of itself that it is being restored until it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from coterie.authentication.keystore import sync_directory
from coterie.errors import StateError, StorageError

MANIFEST: Final = "backup.json"
_FORMAT: Final = 1
_RESTORING: Final = ".restoring"
"""Stands in a data directory until everything is there."""
_LEFT_OUT: Final = ("-wal", "-shm", "-journal", ".lock")


def back_up(data: Path, target: Path) -> list[str]:
    """Copies the data directory to `target`, which must not exist; gives the names of the files.

    Each database is copied as it is at one moment, while others write to it. Raises `StateError` or `StorageError`;
    nothing of the backup is there then.
    """
    check_restored(data)
    if target.exists():
        msg = f"{target} is there already; name a directory that does not exist"
        raise StateError(msg)
    if target.resolve().is_relative_to(data.resolve()):
        msg = f"{target} lies in the data directory, and would be lost with it: name another place"
        raise StateError(msg)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        names = _files(data)
        if not names:
            msg = f"there is nothing to copy in {data}"
            raise StateError(msg)
        _make_directory(partial)
        for name in names:
            _copy(data / name, partial / name)
        manifest = {"format": _FORMAT, "files": {name: _hash(partial / name) for name in names}}
        (partial / MANIFEST).touch(mode=0o600)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2))
        _sync_all(partial)
        partial.rename(target)
        sync_directory(target.parent)
    except (OSError, sqlite3.Error) as error:
        msg = f"the backup to {target} failed: {error}"
        raise StorageError(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return names


def put_back(source: Path, data: Path) -> list[str]:
    """Copies a backup into an empty data directory; gives the names of the files.

    Everything is checked before anything is written. What an earlier call left that was cut off is replaced. Raises
    `StateError` if there is data already, `StorageError` for a backup that is not complete, was changed, or holds a
    database that is not sound.
    """
    if data.exists() and any(data.iterdir()) and not (data / _RESTORING).exists():
        msg = f"{data} is not empty; stop the services and move it away first"
        raise StateError(msg)
    files = _checked(source)
    try:
        _make_directory(data)
        (data / _RESTORING).touch(mode=0o600)
        sync_directory(data)
        for left in data.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != _RESTORING:
                left.unlink()
        for name in files:
            _copy(source / name, data / name)
        _sync_all(data)
        (data / _RESTORING).unlink()
        sync_directory(data)
    except (OSError, sqlite3.Error) as error:
        msg = f"restoring to {data} failed and is not complete; try again: {error}"
        raise StorageError(msg) from error
    return files


def check_restored(data: Path) -> None:
    """Raises `StateError` where restoring was cut off: services would make new keys in the place of those that lack."""
    if (data / _RESTORING).exists():
        msg = f"restoring to {data} was cut off: run `coterie restore` again"
        raise StateError(msg)


def _files(data: Path) -> list[str]:
    if not data.is_dir():
        return []
    found = (path for path in data.rglob("*") if path.is_file())
    return sorted(
        path.relative_to(data).as_posix()
        for path in found
        if not path.name.startswith(".") and not path.name.endswith(_LEFT_OUT)
    )


def _make_directory(directory: Path) -> None:
    """Makes a directory and those above it, durably."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


def _sync_all(directory: Path) -> None:
    """Has everything in a directory on the disk, with its names."""
    for path in (*directory.rglob("*"), directory):
        if path.is_dir():
            sync_directory(path)
            continue
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.touch(mode=0o600, exist_ok=False)
    if not _is_database(source):
        shutil.copyfile(source, target)
        return
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        # A copy has no other writers: one file, no log beside it.
        new.execute("PRAGMA journal_mode = DELETE")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(source: Path) -> list[str]:
    try:
        manifest = json.loads((source / MANIFEST).read_text())
        files: dict[str, str] = manifest["files"]
        if manifest["format"] != _FORMAT:
            msg = f"{source} has backup format {manifest['format']}, this version reads {_FORMAT}"
            raise StorageError(msg)
        for name, expected in files.items():
            if ".." in Path(name).parts or Path(name).is_absolute():
                msg = f"{source}: {name!r} leads out of the directory"
                raise StorageError(msg)
            if _hash(source / name) != expected:
                msg = f"{source / name} was changed since the backup was made"
                raise StorageError(msg)
            if _is_database(source / name):
                _check_database(source / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{source} is not a complete backup: {error}"
        raise StorageError(msg) from error
    return sorted(files)


def _check_database(path: Path) -> None:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        msg = f"{path} is damaged: {verdict}"
        raise StorageError(msg)
