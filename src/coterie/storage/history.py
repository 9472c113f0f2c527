"""Exported history: one encrypted SQLite file, which other programs can open as well (docs/storage.md has the format).

The cipher is AEGIS-256 of SQLite3 Multiple Ciphers, because that scheme takes its key from a passphrase by Argon2id
within one file, and every page is authenticated. The profile's own key has no part in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw

from coterie.errors import StateError, StorageError
from coterie.storage.database import Row, explain
from coterie.storage.files import give_name, sync_directory
from coterie.storage.key import encode_passphrase
from coterie.storage.records import Message, MessageState

_APPLICATION_ID: Final = 0x436F7448
_FORMAT: Final = 1
_CIPHER: Final = ("cipher='aegis'", "tcost=3", "mcost=65536", "pcost=4")
_TABLE: Final = """
CREATE TABLE message (
    position INTEGER PRIMARY KEY, conversation BLOB NOT NULL, message_id BLOB NOT NULL,
    sender TEXT NOT NULL, sent_at INTEGER NOT NULL, received_at INTEGER NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, body BLOB NOT NULL, state INTEGER NOT NULL, seen_by TEXT NOT NULL) STRICT
"""
_INSERT: Final = "INSERT INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TYPES: Final = (bytes, bytes, str, int, int, str, str, bytes)


def write_history(path: Path, passphrase: str, messages: Iterable[Message]) -> int:
    """Writes messages to a file that does not exist; gives their number.

    Raises `StateError` if the file is there, `StorageError` if it cannot be written.
    """
    if path.exists():
        raise _there_already(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with (
            contextlib.closing(_connect(temporary, passphrase, apsw.SQLITE_OPEN_READWRITE)) as file,
            file,
        ):
            file.execute(_TABLE)
            file.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            file.execute(f"PRAGMA user_version={_FORMAT}")
            file.executemany(_INSERT, map(_row, messages))
            count = _count(file)
        give_name(temporary, path)
        sync_directory(path.parent)
    except FileExistsError:
        # Made meanwhile: an export takes its time.
        raise _there_already(path) from None
    except apsw.Error as error:
        raise explain(error, path) from error
    except OSError as error:
        msg = f"the history cannot be written to {path}: {error.strerror}"
        raise StorageError(msg) from error
    finally:
        # What failed before says why; a place that is no directory would have it said again.
        with contextlib.suppress(OSError):
            temporary.unlink()
    return count


def _there_already(path: Path) -> StateError:
    return StateError(f"{path} is there already; name a file that does not exist")


def read_history(path: Path, passphrase: str) -> Iterator[Message]:
    """The messages of an exported file, the last first; raises `StorageError` before the first or in between."""
    if not path.is_file():
        msg = f"there is no file {path}; give the path of an exported history"
        raise StorageError(msg)
    try:
        with contextlib.closing(_connect(path, passphrase, apsw.SQLITE_OPEN_READONLY)) as file:
            _check(file, path)
            for row in file.execute("SELECT * FROM message ORDER BY position DESC"):
                yield _message(row, path)
    except apsw.NotADBError:
        msg = f"the passphrase does not open {path}, or it is no exported history, or damaged"
        raise StorageError(msg) from None
    except apsw.SQLError as error:
        msg = f"{path} is damaged: it has not the tables of an exported history ({error})"
        raise StorageError(msg) from None
    except apsw.Error as error:
        raise explain(error, path) from error


def _connect(path: Path, passphrase: str, flags: int) -> apsw.Connection:
    if not passphrase:
        msg = "the passphrase is empty; an exported history needs one"
        raise StorageError(msg)
    connection = apsw.Connection(str(path), flags)
    try:
        for setting in _CIPHER:
            connection.execute(f"PRAGMA {setting}").fetchall()
        encoded = encode_passphrase(passphrase)
        connection.execute(f"PRAGMA hexkey='{encoded.hex()}'", can_cache=False).fetchall()
        # The journal of a file that only gets its name when it is complete would protect nothing.
        for setting in ("journal_mode=OFF", "synchronous=FULL", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _count(file: apsw.Connection) -> int:
    return int(file.execute("SELECT count(*) FROM message").fetchall()[0][0])  # type: ignore[arg-type]


def _check(file: apsw.Connection, path: Path) -> None:
    [(application,)] = file.execute("PRAGMA application_id").fetchall()
    [(version,)] = file.execute("PRAGMA user_version").fetchall()
    if application != _APPLICATION_ID:
        msg = f"{path} is not an exported history"
        raise StorageError(msg)
    if version != _FORMAT:
        msg = f"{path} was exported by a newer version of this program; update the program"
        raise StorageError(msg)


def _row(message: Message) -> Row:
    return (
        message.conversation,
        message.message_id,
        message.sender,
        message.sent_at,
        message.received_at,
        message.kind,
        message.text,
        message.body,
        int(message.state),
        json.dumps(message.seen_by),
    )


def _message(row: Row, path: Path) -> Message:
    _, *fields, state, seen = row
    try:
        seen_by = tuple(map(str, json.loads(seen)))
        found = MessageState(state)
        if tuple(map(type, fields)) != _TYPES:
            raise TypeError
    except (TypeError, ValueError, RecursionError):
        msg = f"{path} is damaged: a message has values that it cannot have"
        raise StorageError(msg) from None
    # No intent comes with it, so nothing would ever send what still waited when it was exported.
    found = MessageState.FAILED if found is MessageState.WAITING else found
    conversation, message_id, sender, sent_at, received_at, kind, text, body = fields
    return Message(
        conversation, message_id, sender, sent_at, received_at, kind, text, body, found, seen_by
    )
