"""The database of the Authentication Service: users, devices, certificates, codes; SQLite, with a versioned schema.

It stores no private key, no code in clear and no time finer than an hour, so that its rows cannot be laid beside those
of the other services by their times. Every method is one transaction, durable when it returns. The operator's commands
open the same file while the service runs.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coterie.errors import StorageError

APPLICATION_ID: Final = 0x436F4153
"""Stands in the file's header ("CoAS"), so that a file of another service is not taken for one of ours."""

MIGRATIONS: Final = (
    """
    CREATE TABLE users (
        user_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    -- Names of deleted users as keyed hashes: a name is never given to somebody else.
    CREATE TABLE former_names (name_hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE devices (
        device TEXT PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX devices_of_user ON devices (user_id);
    CREATE TABLE codes (
        code_hash BLOB PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
        expires_at INTEGER NOT NULL,
        used_by BLOB
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY,
        device TEXT REFERENCES devices ON DELETE SET NULL,
        signature_key BLOB,
        der BLOB,
        issued_at INTEGER NOT NULL,
        valid_until INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificates_of_key ON certificates (signature_key);
    CREATE INDEX certificates_of_device ON certificates (device);
    CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL;
    CREATE TABLE nonces (nonce BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE revocation_list (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        number INTEGER NOT NULL,
        made_at INTEGER NOT NULL,
        stale INTEGER NOT NULL,
        der BLOB NOT NULL
    ) STRICT;
    """,
)
SCHEMA_VERSION: Final = len(MIGRATIONS)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a signature key: the device, its user, and whether either is revoked."""

    user_id: int
    user: str
    device: str
    revoked: bool
    valid_until: int


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as the operator sees it: how many devices are not revoked, and times, None where there is nothing."""

    name: str
    revoked: bool
    devices: int
    valid_until: int | None
    """The end of the latest certificate of those devices."""
    code_until: int | None
    """The end of the last code that nobody has used."""
    revoked_at: int | None
    """When the last certificate of a revoked user was revoked."""

    @property
    def state(self) -> str:
        """How far the user is: enrolled, code (waiting to be used), none (neither device nor code), or revoked."""
        if self.revoked:
            return "revoked"
        if self.devices:
            return "enrolled"
        return "none" if self.code_until is None else "code"


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A one-time code that has not expired: whose it is, and the key that used it, if any."""

    user_id: int
    used_by: bytes | None


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate as it is stored; times are in seconds since 1970, serials in hexadecimal."""

    serial: str
    device: str
    signature_key: bytes
    der: bytes
    issued_at: int
    valid_until: int


@dataclass(frozen=True, slots=True)
class ListRow:
    """The revocation list that was made last; `stale` once a certificate was revoked after it."""

    number: int
    made_at: int
    stale: bool
    der: bytes


def open_database(
    path: Path, application_id: int, migrations: tuple[str, ...]
) -> sqlite3.Connection:
    """Opens or creates a database and brings its schema up to date.

    Raises `StorageError` for a file of another kind, of a newer version, or one that cannot be opened.
    """
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=10
        )
    except sqlite3.Error as error:
        raise _cannot_open(path, error) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        _migrate(connection, path, application_id, migrations)
        connection.execute("COMMIT")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise _cannot_open(path, error) from error
        raise
    return connection


def _cannot_open(path: Path, error: sqlite3.Error) -> StorageError:
    return StorageError(f"cannot open the database {path}: {error}")


def _migrate(
    connection: sqlite3.Connection, path: Path, application_id: int, migrations: tuple[str, ...]
) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if found not in (0, application_id) or (found == 0 and version != 0):
        msg = f"{path} is a database of another program"
        raise StorageError(msg)
    if version > len(migrations):
        msg = (
            f"{path} was written by a newer version of Coterie (schema {version}, this one knows "
            f"{len(migrations)}); install that version, or restore a backup from before"
        )
        raise StorageError(msg)
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {application_id}")
    connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the transaction they stand in."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


class Ledger:
    """The database at `path`, which is made if it is not there. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db = open_database(path, APPLICATION_ID, MIGRATIONS)

    def close(self) -> None:
        """Closes the database; nothing can be asked of it afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread at a time, and SQLite's errors as ours."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                msg = f"the Authentication Service's database {self.path}: {error}"
                raise StorageError(msg) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside, durable at the end; transactions of one ledger may nest."""
        with self._reading():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk has ended it already; one that is left open would swallow all that come after it.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- users

    def add_user(self, name: str, name_hash: bytes) -> int | None:
        """A new user's row, or None where the name is taken or was in the past."""
        with self.transaction():
            former = self._db.execute(
                "SELECT 1 FROM former_names WHERE name_hash = ?", (name_hash,)
            ).fetchone()
            if former is not None or self.find_user(name) is not None:
                return None
            return self._db.execute("INSERT INTO users (name) VALUES (?)", (name,)).lastrowid

    def find_user(self, name: str) -> tuple[int, bool] | None:
        """A user's row number and whether the user is revoked."""
        with self._reading():
            row = self._db.execute(
                "SELECT user_id, revoked FROM users WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else (row[0], bool(row[1]))

    def users(self, now: int) -> list[UserRow]:
        """All users by name, but for the deleted ones, whose names are not kept."""
        with self._reading():
            rows = self._db.execute(
                """SELECT name, users.revoked,
                    count(DISTINCT device) FILTER (WHERE NOT devices.revoked),
                    max(valid_until) FILTER (WHERE NOT devices.revoked),
                    (SELECT max(expires_at) FROM codes
                        WHERE user_id = users.user_id AND used_by IS NULL AND expires_at > ?),
                    iif(users.revoked, max(revoked_at), NULL)
                FROM users LEFT JOIN (devices JOIN certificates USING (device)) USING (user_id)
                GROUP BY user_id ORDER BY name""",
                (now,),
            ).fetchall()
        return [UserRow(row[0], bool(row[1]), *row[2:]) for row in rows]

    def deleted_users(self) -> int:
        """How many users were deleted."""
        with self._reading():
            (count,) = self._db.execute("SELECT count(*) FROM former_names").fetchone()
        return int(count)

    def revoke_user(self, user_id: int, at: int) -> None:
        """Revokes all devices, drops all codes, and accepts nothing from the user any more."""
        with self.transaction():
            self._db.execute("UPDATE users SET revoked = 1 WHERE user_id = ?", (user_id,))
            self._db.execute("DELETE FROM codes WHERE user_id = ?", (user_id,))
            for device, _ in self.devices(user_id):
                self.revoke_device(device, at)

    def delete_user(self, user_id: int, name_hash: bytes, at: int) -> None:
        """Revokes, then forgets everything but serial numbers (for the list) and the hash of the name."""
        with self.transaction():
            self.revoke_user(user_id, at)
            self._db.execute(
                """UPDATE certificates SET signature_key = NULL, der = NULL WHERE device IN
                (SELECT device FROM devices WHERE user_id = ?)""",
                (user_id,),
            )
            self._db.execute("DELETE FROM devices WHERE user_id = ?", (user_id,))
            self._db.execute("DELETE FROM users WHERE user_id = ?", (user_id,))
            self._db.execute("INSERT INTO former_names VALUES (?)", (name_hash,))

    # -- devices

    def add_device(self, device: str, user_id: int) -> None:
        """A new device of a user."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO devices (device, user_id) VALUES (?, ?)", (device, user_id)
            )

    def devices(self, user_id: int) -> list[tuple[str, int]]:
        """The user's devices that are not revoked, each with the end of its latest certificate."""
        with self._reading():
            return self._db.execute(
                """SELECT device, max(valid_until) FROM devices JOIN certificates USING (device)
                WHERE user_id = ? AND NOT revoked GROUP BY device ORDER BY device""",
                (user_id,),
            ).fetchall()

    def revoke_device(self, device: str, at: int) -> None:
        """Revokes a device and all its certificates."""
        with self.transaction():
            self._db.execute("UPDATE devices SET revoked = 1 WHERE device = ?", (device,))
            self._revoke_certificates("device = ?", (device,), at)

    def holder(self, signature_key: bytes) -> Holder | None:
        """Who holds a key that a certificate was issued for, or None for a key that is not known."""
        with self._reading():
            row = self._db.execute(
                """SELECT user_id, name, device, users.revoked OR devices.revoked OR min(
                    coalesce(certificates.revoked_at, 1 << 62)) < (1 << 62), max(valid_until)
                FROM certificates JOIN devices USING (device) JOIN users USING (user_id)
                WHERE signature_key = ? GROUP BY device""",
                (signature_key,),
            ).fetchone()
        return None if row is None else Holder(row[0], row[1], row[2], bool(row[3]), row[4])

    # -- codes

    def add_code(self, code_hash: bytes, user_id: int, expires_at: int) -> None:
        """Stores the hash of a one-time code."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO codes VALUES (?, ?, ?, NULL)", (code_hash, user_id, expires_at)
            )

    def find_code(self, code_hash: bytes, now: int) -> CodeRow | None:
        """A code that has not expired, used or not."""
        with self._reading():
            row = self._db.execute(
                "SELECT user_id, used_by FROM codes WHERE code_hash = ? AND expires_at > ?",
                (code_hash, now),
            ).fetchone()
        return None if row is None else CodeRow(*row)

    def use_code(self, code_hash: bytes, signature_key: bytes) -> None:
        """Notes the key that used a code, so that the same key may repeat its request and no other can."""
        with self.transaction():
            self._db.execute(
                "UPDATE codes SET used_by = ? WHERE code_hash = ?", (signature_key, code_hash)
            )

    # -- certificates

    def add_certificate(self, row: CertificateRow) -> None:
        """Stores a certificate that was issued."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (
                    row.serial,
                    row.device,
                    row.signature_key,
                    row.der,
                    row.issued_at,
                    row.valid_until,
                ),
            )

    def latest_certificate(self, signature_key: bytes) -> CertificateRow | None:
        """The certificate of a key that ends last."""
        with self._reading():
            row = self._db.execute(
                """SELECT serial, device, signature_key, der, issued_at, valid_until
                FROM certificates WHERE signature_key = ? ORDER BY valid_until DESC LIMIT 1""",
                (signature_key,),
            ).fetchone()
        return None if row is None else CertificateRow(*row)

    def issued_since(self, device: str, since: int) -> int:
        """How many certificates a device got from `since` on."""
        with self._reading():
            (count,) = self._db.execute(
                "SELECT count(*) FROM certificates WHERE device = ? AND issued_at >= ?",
                (device, since),
            ).fetchone()
        return int(count)

    def revoke_key(self, signature_key: bytes, at: int) -> None:
        """Revokes all certificates of a key; `at` may be in the future."""
        with self.transaction():
            self._revoke_certificates("signature_key = ?", (signature_key,), at)

    def _revoke_certificates(self, where: str, values: tuple[object, ...], at: int) -> None:
        self._db.execute(
            f"UPDATE certificates SET revoked_at = min(coalesce(revoked_at, ?), ?) WHERE {where}",  # noqa: S608 - ours
            (at, at, *values),
        )
        self._db.execute("UPDATE revocation_list SET stale = 1")

    def revoked(self, now: int) -> list[tuple[str, int]]:
        """Serial number and time of each certificate that is revoked and would be valid otherwise."""
        with self._reading():
            return self._db.execute(
                """SELECT serial, revoked_at FROM certificates
                WHERE revoked_at IS NOT NULL AND revoked_at <= ? AND valid_until >= ?
                ORDER BY serial""",
                (now, now),
            ).fetchall()

    # -- the revocation list, nonces, housekeeping

    def revocation_list(self) -> ListRow | None:
        """The list that was made last."""
        with self._reading():
            row = self._db.execute(
                "SELECT number, made_at, stale, der FROM revocation_list"
            ).fetchone()
        return None if row is None else ListRow(row[0], row[1], bool(row[2]), row[3])

    def keep_revocation_list(self, number: int, made_at: int, der: bytes) -> None:
        """Stores the list that was made last."""
        with self.transaction():
            self._db.execute(
                "REPLACE INTO revocation_list VALUES (1, ?, ?, 0, ?)", (number, made_at, der)
            )

    def take_nonce(self, nonce: bytes, expires_at: int) -> bool:
        """Whether the nonce is new; it is no longer, afterwards."""
        with self.transaction():
            added = self._db.execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?)", (nonce, expires_at)
            )
            return added.rowcount == 1

    def expire(self, now: int) -> None:
        """Forgets nonces and codes that have ended, and certificates that ended a year ago."""
        with self.transaction():
            self._db.execute("DELETE FROM nonces WHERE expires_at < ?", (now,))
            self._db.execute("DELETE FROM codes WHERE expires_at < ?", (now,))
            year = 365 * 24 * 3600
            self._db.execute("DELETE FROM certificates WHERE valid_until < ?", (now - year,))

    def counts(self) -> dict[str, int]:
        """Numbers for the metrics and the operator: users, devices, certificates, codes."""
        with self._reading():
            return {
                table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours
                for table in ("users", "devices", "certificates", "codes")
            }
