"""What can be read of a profile, inside a transaction and outside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from coterie.storage.database import Database, Row
from coterie.storage.history import write_history
from coterie.storage.records import Intent, Message, MessageState
from coterie.storage.vault import unseal

_ENTRY: Final = (
    "SELECT e.key, e.slot, s.secret, e.value FROM entry e LEFT JOIN slot s ON s.key = e.slot "
)
_INTENT: Final = (
    "SELECT i.number, i.conversation, i.kind, i.state, s.secret, i.payload"
    " FROM intent i LEFT JOIN slot s ON s.key = i.slot "
)
_MESSAGE: Final = (
    "SELECT conversation, message_id, sender, sent_at, received_at, kind, text, body, state,"
    " (SELECT json_group_array(user ORDER BY number) FROM seen WHERE seen.position = message.position),"
    " position FROM message "
)
_WORD: Final = re.compile(r"\w+")
_LAST: Final = (1 << 63) - 1
_EXPORT_BATCH: Final = 1000


class View:
    """Reads of a profile. Inside a transaction they see what it has changed.

    Every method raises `StorageError` where the profile is damaged and `StateError` after its end.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- entries: opaque values under short keys, in named spaces

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        number = self._space(space)
        if number is None:
            return None
        row = self._database.one(_ENTRY + "WHERE e.space = ? AND e.key = ?", number, key)
        return None if row is None else _entry_value(row)

    def scan(self, space: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The entries whose keys begin with `prefix`, in the keys' order, as they are at the call."""
        return iter(self._range(space, prefix, after_prefix(prefix)))

    def entries(self, space: str, exclude_prefixes: Iterable[bytes] = ()) -> dict[bytes, bytes]:
        """All entries but those under certain prefixes, which are not touched; what `Group.load` asks for."""
        found: dict[bytes, bytes] = {}
        start: bytes | None = b""
        for prefix in sorted(exclude_prefixes):
            if start is None:
                break
            if start <= prefix:
                found.update(self._range(space, start, prefix))
                start = after_prefix(prefix)
        if start is not None:
            found.update(self._range(space, start, None))
        return found

    def spaces(self, prefix: str = "") -> list[str]:
        """The names of the spaces that have entries, in order."""
        rows = self._database.run(
            "SELECT name FROM space WHERE EXISTS (SELECT 1 FROM entry WHERE space = space.key) ORDER BY name"
        )
        return [name for (name,) in rows if name.startswith(prefix)]

    def _space(self, name: str) -> int | None:
        row = self._database.one("SELECT key FROM space WHERE name = ?", name)
        return None if row is None else int(row[0])

    def _range(self, space: str, start: bytes, end: bytes | None) -> list[tuple[bytes, bytes]]:
        number = self._space(space)
        if number is None:
            return []
        where = "WHERE e.space = ? AND e.key >= ? "
        values: tuple[object, ...] = (number, start)
        if end is not None:
            where, values = where + "AND e.key < ? ", (*values, end)
        rows = self._database.run(_ENTRY + where + "ORDER BY e.key", *values)
        return [(row[0], _entry_value(row)) for row in rows]

    # -- messages

    def message(self, conversation: bytes, message_id: bytes) -> Message | None:
        """One message, or None."""
        row = self._database.one(
            _MESSAGE + "WHERE conversation = ? AND message_id = ?", conversation, message_id
        )
        return None if row is None else _message(row)

    def messages(
        self, conversation: bytes, *, before: int | None = None, limit: int = 50
    ) -> list[Message]:
        """The last `limit` messages, oldest first; with `before`, the last of those at a lower position.

        Erased messages are left out.
        """
        rows = self._database.run(
            _MESSAGE
            + "WHERE conversation = ? AND position < ? AND state <> ? ORDER BY position DESC LIMIT ?",
            conversation,
            _LAST if before is None else before,
            MessageState.ERASED,
            limit,
        )
        return [_message(row) for row in reversed(rows)]

    def export_history(
        self, path: str | Path, passphrase: str, *, conversation: bytes | None = None
    ) -> int:
        """Writes all messages, or a conversation's, to an encrypted file; gives their number.

        The file has the format of docs/storage.md; `Transaction.import_history` reads it. Erased messages are left
        out. Raises `StateError` if the file exists, `StorageError` if it cannot be written.
        """
        return write_history(Path(path), passphrase, self._every_message(conversation))

    def _every_message(self, conversation: bytes | None) -> Iterator[Message]:
        where = "WHERE position > ? AND state <> ? AND (conversation = ?3 OR ?3 IS NULL) "
        position = -_LAST
        while True:
            rows = self._database.run(
                _MESSAGE + where + "ORDER BY position LIMIT ?",
                position,
                MessageState.ERASED,
                conversation,
                _EXPORT_BATCH,
            )
            yield from map(_message, rows)
            if len(rows) < _EXPORT_BATCH:
                return
            position = rows[-1][-1]

    def conversations(self) -> list[bytes]:
        """The conversations that have messages."""
        return [c for (c,) in self._database.run("SELECT DISTINCT conversation FROM message")]

    def search(
        self, text: str, *, conversation: bytes | None = None, limit: int = 50
    ) -> list[Message]:
        """The newest messages that have all words of `text`, newest first; the last word may be a beginning.

        Case and accents do not count. Text without a letter or digit finds nothing.
        """
        words = [f'"{word}"' for word in _WORD.findall(text)]
        if not words:
            return []
        query = " ".join(words) + "*"
        where = "WHERE position IN (SELECT rowid FROM word WHERE word MATCH ?) "
        values: tuple[object, ...] = (query,)
        if conversation is not None:
            where, values = where + "AND conversation = ? ", (query, conversation)
        sql = _MESSAGE + where + "ORDER BY position DESC LIMIT ?"
        return [_message(row) for row in self._database.run(sql, *values, limit)]

    # -- intents

    def intents(self, conversation: bytes | None = None) -> list[Intent]:
        """The intents of a conversation, or all, in the order in which they were added."""
        if conversation is None:
            rows = self._database.run(_INTENT + "ORDER BY i.number")
        else:
            rows = self._database.run(
                _INTENT + "WHERE i.conversation = ? ORDER BY i.number", conversation
            )
        return [_intent(row) for row in rows]

    def intent(self, number: int) -> Intent | None:
        """One intent, or None."""
        row = self._database.one(_INTENT + "WHERE i.number = ?", number)
        return None if row is None else _intent(row)


class SpaceReader:
    """Reads of one space: the `NodeStore` of a group's tree. Valid until the profile is closed."""

    def __init__(self, view: View, space: str) -> None:
        self._view = view
        self._space = space

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None; inside a transaction, as it has changed it."""
        return self._view.get(self._space, key)

    def entries(self, exclude_prefixes: Iterable[bytes] = ()) -> dict[bytes, bytes]:
        """See `View.entries`."""
        return self._view.entries(self._space, exclude_prefixes)


def after_prefix(prefix: bytes) -> bytes | None:
    """The least key above all keys with a prefix, or None if there is no key above them."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def _entry_value(row: Row) -> bytes:
    _, slot, secret, value = row
    return bytes(value) if slot is None else unseal(secret, value)


def _message(row: Row) -> Message:
    conversation, message_id, sender, sent_at, received_at, kind, text, body, *rest = row
    state, seen, position = rest
    return Message(
        conversation,
        message_id,
        sender,
        sent_at,
        received_at,
        kind,
        text,
        body,
        MessageState(state),
        tuple(json.loads(seen)),
        position,
    )


def _intent(row: Row) -> Intent:
    number, conversation, kind, state, secret, payload = row
    return Intent(number, conversation, kind, state, unseal(secret, payload))
