"""Backup and restore of a data directory: databases through SQLite's own copying, other files as they are.

A backup is a directory with the same layout and a manifest of hashes. Databases stay apart from each other in it, as
they are in use: whoever gets one of them gets no more than before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from coterie.authentication.keystore import write_private
from coterie.errors import StateError, StorageError

MANIFEST: Final = "backup.json"
_FORMAT: Final = 1
_LEFT_OUT: Final = ("-wal", "-shm", "-journal", ".lock")


def back_up(data: Path, target: Path) -> list[str]:
    """Copies the data directory to `target`, which must not exist; gives the names of the files.

    Each database is copied as it is at one moment, while others write to it. Raises `StateError` or `StorageError`.
    """
    if target.exists():
        msg = f"{target} is there already; name a directory that does not exist"
        raise StateError(msg)
    names = _files(data)
    if not names:
        msg = f"there is nothing to copy in {data}"
        raise StateError(msg)
    try:
        target.mkdir(mode=0o700, parents=True)
        for name in names:
            _copy(data / name, target / name)
    except (OSError, sqlite3.Error) as error:
        msg = f"the backup to {target} failed and is not complete: {error}"
        raise StorageError(msg) from error
    hashes = {name: _hash(target / name) for name in names}
    manifest = {"format": _FORMAT, "files": hashes}
    write_private(target / MANIFEST, json.dumps(manifest, indent=2).encode())
    return names


def put_back(source: Path, data: Path) -> list[str]:
    """Copies a backup into an empty data directory; gives the names of the files.

    Everything is checked before anything is written. Raises `StateError` if there is data already, `StorageError` for
    a backup that is not complete, was changed, or holds a database that is not sound.
    """
    if data.exists() and any(data.iterdir()):
        msg = f"{data} is not empty; stop the services and move it away first"
        raise StateError(msg)
    files = _checked(source)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in files:
            _copy(source / name, data / name)
    except (OSError, sqlite3.Error) as error:
        msg = f"restoring to {data} failed and is not complete; empty it and try again: {error}"
        raise StorageError(msg) from error
    return files


def _files(data: Path) -> list[str]:
    if not data.is_dir():
        return []
    found = (path for path in data.rglob("*") if path.is_file())
    return sorted(
        path.relative_to(data).as_posix()
        for path in found
        if not path.name.startswith(".") and not path.name.endswith(_LEFT_OUT)
    )


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
