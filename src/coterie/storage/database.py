"""One connection to an encrypted SQLite database: cipher, durability, schema versions, errors in our words.

ChaCha20-Poly1305 by page (SQLite3 Multiple Ciphers), so a page that was changed from outside is noticed. A rollback
journal that is cut to nothing at every commit, and FULL syncs: after a commit the only copy of what was overwritten or
deleted is gone, and what is stored survives a power cut (docs/decisions/0046). The file is locked exclusively for as
long as it is open, with a lock of the operating system that vanishes with the process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw

from coterie.errors import StateError, StorageError
from coterie.mls.secret import Secret

Row = tuple[Any, ...]

_CIPHERED_VFS: Final = "multipleciphers-"
_CACHE_KIB: Final = 16384
_SETTINGS: Final = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=TRUNCATE",
    "temp_store=MEMORY",
    "secure_delete=ON",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    f"cache_size=-{_CACHE_KIB}",
)


@dataclass(frozen=True, slots=True)
class Schema:
    """A database's tables: `versions[i]` is the script that leads from version i to i + 1."""

    application_id: int
    versions: tuple[str, ...]


class Database:
    """A connection that runs statements and raises nothing but `StorageError` and `StateError`."""

    def __init__(
        self,
        path: Path,
        key: Secret,
        schema: Schema,
        *,
        durable: bool = True,
        vfs: str | None = None,
    ) -> None:
        self._path = path
        self._broken = False
        self._connection: apsw.Connection | None = None
        with self._translated():
            self._connection = connect(path, key, durable=durable, vfs=vfs)
        try:
            # The first write takes the exclusive lock, which stays until the connection is closed.
            self.run("BEGIN EXCLUSIVE")
            self.run("COMMIT")
            self._migrate(schema)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._path

    @property
    def connection(self) -> apsw.Connection:
        """SQLite's connection; raises `StateError` when it is closed."""
        if self._connection is None:
            msg = "the profile is closed; open it again"
            raise StateError(msg)
        return self._connection

    def run(self, sql: str, *values: Any) -> list[Row]:
        """Runs one statement and gives all its rows.

        Raises `StorageError` with what to do. After an input or output error nothing runs any more: what the disk
        holds is known again only when the database has been opened anew.
        """
        connection = self.connection
        self._check()
        # Not `_translated`: a context manager takes as long as binding the values of a row.
        try:
            rows: list[Row] = connection.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise self._failed(error) from error
        return rows

    def run_many(self, sql: str, values: Iterable[Row]) -> None:
        """Runs one statement for each of the values; raises as `run` does."""
        self._check()
        with self._translated():
            self.connection.executemany(sql, values)

    def _check(self) -> None:
        if self._broken:
            msg = f"the disk failed under {self._path}: close the profile, look after the disk, open it again"
            raise StorageError(msg)

    def one(self, sql: str, *values: Any) -> Row | None:
        """Runs one statement and gives its first row, or None."""
        rows = self.run(sql, *values)
        return rows[0] if rows else None

    def changed(self) -> int:
        """How many rows the last statement changed."""
        return self.connection.changes()

    def roll_back(self) -> None:
        """Undoes the open transaction, if there is one; never raises."""
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._connection.execute("ROLLBACK")

    def copy_to(self, path: Path, key: Secret) -> None:
        """Writes a copy of the database to a file that does not exist, under the same key."""
        self._check()
        source = self.connection
        # What fails is the other disk, as a rule; and reading loses track of nothing.
        try:
            target = connect(path, key, durable=True, vfs=None)
            try:
                with target.backup("main", source, "main") as backup:
                    backup.step()
            finally:
                target.close()
        except apsw.Error as error:
            raise explain(error, path) from error

    def close(self) -> None:
        """Closes the connection, which frees the lock; nothing happens if it is closed."""
        if self._connection is not None:
            self.roll_back()
            self._connection.close()
            self._connection = None

    def _migrate(self, schema: Schema) -> None:
        newest = len(schema.versions)
        version = self._version(schema)
        if version > newest:
            msg = (
                f"{self._path} was written by a newer version of this program (format {version}, this one knows "
                f"{newest}); update the program, or use a backup made with this one"
            )
            raise StorageError(msg)
        if version == newest:
            return
        self.run("BEGIN IMMEDIATE")
        try:
            for script in schema.versions[version:]:
                self._run_script(script)
            self.run(f"PRAGMA application_id={schema.application_id}")
            self.run(f"PRAGMA user_version={newest}")
            self.run("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def _version(self, schema: Schema) -> int:
        application = self.run("PRAGMA application_id")[0][0]
        version = int(self.run("PRAGMA user_version")[0][0])
        if application not in {0, schema.application_id}:
            msg = f"{self._path} is another program's database; give the path of a profile"
            raise StorageError(msg)
        return version

    def _run_script(self, script: str) -> None:
        with self._translated():
            self.connection.execute(script).fetchall()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> StorageError:
        # SQLite may have lost track of what is on the disk; only opening it again tells.
        self._broken = self._broken or isinstance(error, apsw.IOError)
        return explain(error, self._path)


def connect(path: Path, key: Secret, *, durable: bool, vfs: str | None) -> apsw.Connection:
    """A connection with the cipher and the settings that durability and deletion rest on; makes the file if need be.

    `vfs` is the name of a VFS below the cipher (for tests). Raises apsw's errors.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = apsw.Connection(str(path), vfs=None if vfs is None else _CIPHERED_VFS + vfs)
    try:
        connection.execute("PRAGMA cipher='chacha20'").fetchall()
        connection.execute(f'PRAGMA key="raw:{key.hex()}"', can_cache=False).fetchall()
        for setting in (f"synchronous={'FULL' if durable else 'OFF'}", *_SETTINGS):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def explain(error: Exception, path: Path) -> StorageError:
    """What a person can do about an error of SQLite's or of the operating system."""
    detail = f"{type(error).__name__}: {error}"
    match error:
        case apsw.BusyError() | apsw.LockedError():
            text = f"{path} is in use by another process; close the program that uses it, then try again"
        case apsw.FullError():
            text = f"the disk is full under {path}: free some space and try again; this step was not stored"
        case apsw.NotADBError() | apsw.CorruptError():
            text = f"{path} is damaged, or belongs to another key file; restore a backup ({detail})"
        case apsw.CantOpenError() | apsw.PermissionsError() | apsw.ReadOnlyError():
            text = f"{path} cannot be opened for writing; check that its directory exists and is yours ({detail})"
        case apsw.IOError():
            text = f"reading or writing {path} failed; look after the disk, then open the profile again ({detail})"
        case _:
            text = f"{path} cannot be used: {detail}"
    return StorageError(text)
