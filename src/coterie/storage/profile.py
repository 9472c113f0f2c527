"""A profile on disk: a directory with the encrypted database, its key file, and nothing else of value.

profile.db           the database; profile.db-journal beside it is empty between transactions
profile.key          the database's key, wrapped (key.py)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from coterie.errors import StateError, StorageError
from coterie.mls.secret import Secret
from coterie.storage.database import Database
from coterie.storage.files import replace_file, sync_directory
from coterie.storage.key import StorageKey, load_or_make
from coterie.storage.schema import SCHEMA
from coterie.storage.transaction import Transaction
from coterie.storage.vault import Vault
from coterie.storage.view import SpaceReader, View

DATABASE: Final = "profile.db"
KEY_FILE: Final = "profile.key"


class Profile:
    """A client's storage, open in this process only. Made with `Profile.open`; a context manager that closes it.

    All of it is synchronous and belongs to one thread at a time. Reading through `view` and `reader` is possible at
    any time and sees what an open transaction has changed.
    """

    def __init__(self, path: Path, key: Secret, database: Database) -> None:
        self._path = path
        self._key = key
        self._database = database
        self._vault = Vault(database)
        self._current: Transaction | None = None
        self.view = View(database)

    @classmethod
    def open(
        cls,
        path: str | Path,
        key: StorageKey,
        *,
        create: bool = False,
        durable: bool = True,
        vfs: str | None = None,
    ) -> Self:
        """Opens the profile in a directory; with `create` a missing one is made, an existing one just opened.

        `durable=False` leaves out every sync, for tests: a power cut may then destroy the profile. `vfs` is the name
        of an SQLite VFS below the cipher, for tests. Raises `StorageError`, whose message says what to do, if there
        is no profile, the key is wrong, a file is damaged or of a newer format, the disk is full, or another process
        (or another `Profile` in this one) has it open.
        """
        directory = Path(path)
        if create:
            _make_directory(directory)
        file, key_file = directory / DATABASE, directory / KEY_FILE
        try:
            used = file.exists() and file.stat().st_size > 0
            has_key = key_file.exists()
        except OSError as error:
            msg = f"the profile {directory} cannot be read: {error.strerror}"
            raise StorageError(msg) from error
        # A new key would not open a database that is there, and would stand in the way of the old one.
        if used and not has_key:
            msg = (
                f"{key_file} is missing, and nothing else opens {file}; restore both from a backup"
            )
            raise StorageError(msg)
        database_key = load_or_make(key_file, key, create=create)
        if not used and not create:
            msg = f"the database {file} is missing or empty; restore a backup, or make the profile anew"
            raise StorageError(msg)
        database = Database(file, database_key, SCHEMA, durable=durable, vfs=vfs)
        return cls(directory, database_key, database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Profile({str(self._path)!r})"

    def close(self) -> None:
        """Closes the profile; an open transaction is dropped. Nothing happens if it is closed."""
        if self._current is not None:
            self._current.end()
        self._database.close()

    # -- what tells a restored copy

    @property
    def path(self) -> Path:
        """The profile's directory."""
        return self._path

    @property
    def instance(self) -> bytes:
        """16 random bytes, made with the profile; a backup that is opened has others."""
        return bytes(self._fact("instance"))

    @property
    def step(self) -> int:
        """How many transactions that changed something were stored, from the beginning on.

        A client that finds its own mark of a later step in a log was restored from a copy.
        """
        return int(self._fact("step"))

    @property
    def restored(self) -> bool:
        """Whether this is a backup that was opened, and `Transaction.settle_restored` has not been called since."""
        return bool(self._fact("restored"))

    def _fact(self, name: str) -> Any:  # noqa: ANN401 - an SQLite value
        row = self._database.one(f"SELECT {name} FROM profile")  # noqa: S608 - a name of ours
        if row is None:
            msg = f"{self._path} is damaged: it does not say which profile it is; restore a backup"
            raise StorageError(msg)
        return row[0]

    # -- reading and changing

    def reader(self, space: str) -> SpaceReader:
        """Reads of one space, valid until the profile is closed: the `NodeStore` of a group."""
        return SpaceReader(self.view, space)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One step: what the block changes is stored when it ends, all of it, and nothing if it raises.

        When the block has ended without an exception, what it changed survives a power cut, and what it deleted is
        gone from the disk. Raises `StateError` inside another transaction; `StorageError` if it cannot be stored, and
        then nothing of it is (only after an input or output error that is not known: open the profile again). What
        the caller has changed in memory, a `Group` say, is then ahead of the disk and must be loaded again.
        """
        if self._current is not None:
            msg = (
                "a transaction is open already: a step has one, and does not await while it is open"
            )
            raise StateError(msg)
        self._database.run("BEGIN IMMEDIATE")
        try:
            current = self._current = Transaction(self._database, self._vault, self.step + 1)
            yield current
            if current.wrote:
                self._database.run("UPDATE profile SET step = step + 1")
            self._database.run("COMMIT")
        except BaseException:
            self._vault.forget()
            self._database.roll_back()
            raise
        finally:
            if self._current is not None:
                self._current.end()
            self._current = None

    # -- the profile as a whole

    def change_key(self, key: StorageKey) -> None:
        """Makes another passphrase or key open the profile from now on; raises `StorageError`.

        Who kept a copy of the old key file and knows the old passphrase can still open copies of the database.
        """
        try:
            replace_file(self._path / KEY_FILE, key.wrap(self._key), overwrite=True)
        except OSError as error:
            msg = f"the key file cannot be written: {error.strerror}; the old key still holds"
            raise StorageError(msg) from error

    def backup(self, path: str | Path) -> None:
        """Copies the profile to a directory that does not exist; the same key opens it.

        The copy says of itself that it is one: opened, it is `restored` and has an `instance` of its own. Raises
        `StateError` inside a transaction or if the directory exists, `StorageError` if it cannot be written.
        """
        target = Path(path)
        self._require_idle("make the backup")
        if target.exists():
            msg = f"{target} is there already; name a directory that does not exist"
            raise StateError(msg)
        partial = target.with_name(f".{target.name}.partial")
        # What a power cut left of an earlier one.
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(mode=0o700, parents=True)
            self._database.copy_to(partial / DATABASE, self._key)
            copied = Database(partial / DATABASE, self._key, SCHEMA)
            try:
                copied.run("UPDATE profile SET instance = randomblob(16), restored = 1")
            finally:
                copied.close()
            replace_file(partial / KEY_FILE, (self._path / KEY_FILE).read_bytes(), overwrite=True)
            partial.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            msg = f"the backup to {target} failed: {error.strerror}"
            raise StorageError(msg) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def compact(self) -> None:
        """Rewrites the database without free space; after deleting much, or so that no copy of a text is left.

        Needs as much free disk as the database has bytes. Raises `StateError` inside a transaction.
        """
        self._require_idle("compact the profile")
        self._database.run("INSERT INTO word(word) VALUES ('optimize')")
        self._database.run("VACUUM")

    def wipe(self) -> None:
        """Closes the profile and deletes it, its key first, without which the rest is unreadable."""
        self.close()
        try:
            # First the key, with what an interrupted change of it may have left.
            for pattern in (KEY_FILE, f".{KEY_FILE}.*", f"{DATABASE}*"):
                for path in self._path.glob(pattern):
                    path.unlink()
                sync_directory(self._path)
            with contextlib.suppress(OSError):
                self._path.rmdir()
        except OSError as error:
            msg = f"the profile {self._path} is not wholly deleted: {error.strerror}; delete the directory"
            raise StorageError(msg) from error

    def _require_idle(self, what: str) -> None:
        if self._current is not None:
            msg = f"a transaction is open; end it, then {what}"
            raise StateError(msg)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the directory {directory} cannot be made: {error.strerror}"
        raise StorageError(msg) from error
