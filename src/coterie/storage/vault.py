"""One key per secret value, overwritten in place: why a deleted secret is gone from the database.

SQLite's `secure_delete` overwrites what is deleted, but it forgets copies: when the B-tree moves rows between pages,
the place they came from may keep their bytes, and a row that is deleted later is overwritten in its new place only. So
every secret value is encrypted under a random key of its own, and the keys stand in the table `slot`, whose rows are
all of one size, are appended at the end, and are never deleted, only overwritten. Such rows never move: a page that is
full stays as it is and a new one follows it. Overwriting a slot's key erases its value, however many copies the value
has.
"""

from __future__ import annotations

from os import urandom
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coterie.errors import StorageError
from coterie.storage.database import Database

KEY_LENGTH: Final = 32
_FREE: Final = bytes(KEY_LENGTH)
# A key encrypts one value and is never used again, so the nonce may be constant.
_NONCE: Final = bytes(12)


class Vault:
    """Encrypts values under keys in slots. Used inside the transaction that stores the encrypted value."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._free: list[int] | None = None

    def seal(self, value: bytes, slot: int | None) -> tuple[int, bytes]:
        """Encrypts a value; gives its slot and the ciphertext.

        `slot` is the slot of the value that it replaces, which is erased by this; None takes a free one.
        """
        key = urandom(KEY_LENGTH)
        if slot is None:
            slot = self._take()
        if slot is None:
            row = self._database.run("INSERT INTO slot(secret) VALUES (?) RETURNING key", key)[0]
            slot = int(row[0])
        else:
            self._database.run("UPDATE slot SET secret = ? WHERE key = ?", key, slot)
        return slot, AESGCM(key).encrypt(_NONCE, value, None)

    def erase(self, slot: int | None) -> None:
        """Overwrites a slot's key with zeros and frees the slot; None is no slot."""
        if slot is None:
            return
        self._database.run("UPDATE slot SET secret = ? WHERE key = ?", _FREE, slot)
        if self._free is not None:
            self._free.append(slot)

    def forget(self) -> None:
        """Drops what is known of free slots, after a transaction that was undone."""
        self._free = None

    def _take(self) -> int | None:
        if self._free is None:
            rows = self._database.run(
                "SELECT key FROM slot WHERE secret = ? ORDER BY key DESC", _FREE
            )
            self._free = [int(key) for (key,) in rows]
        return self._free.pop() if self._free else None


def unseal(secret: bytes | None, sealed: bytes) -> bytes:
    """The value; raises `StorageError` where key and value do not belong together."""
    if secret is None or len(secret) != KEY_LENGTH:
        msg = "the profile is damaged: a value has no key; restore a backup"
        raise StorageError(msg)
    try:
        return AESGCM(secret).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        msg = "the profile is damaged: a value does not match its key; restore a backup"
        raise StorageError(msg) from None
