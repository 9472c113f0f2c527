"""The client's storage: one encrypted profile on disk, changed in transactions that happen whole or not at all.

    profile.py       Profile: opening, locking, transactions, backup
    key.py           StorageKey and the key file that wraps the database's key
    database.py      the connection: cipher, durability, schema versions, SQLite's errors in our words
    vault.py         one key per secret value, overwritten in place: why a deleted secret is gone
    view.py          what can be read; transaction.py: what can be changed
    history.py       export and import of messages

What is stored and how is described in docs/storage.md. The API is synchronous: a step takes about a millisecond, and a
transaction that could be suspended half-way would have to be guarded against everything else the client does.
"""

from __future__ import annotations

from coterie.storage.key import KeyCost, StorageKey
from coterie.storage.profile import Profile
from coterie.storage.records import Intent, Message, MessageState
from coterie.storage.transaction import PUBLIC_PREFIXES, Transaction
from coterie.storage.view import SpaceReader, View

__all__ = [
    "PUBLIC_PREFIXES",
    "Intent",
    "KeyCost",
    "Message",
    "MessageState",
    "Profile",
    "SpaceReader",
    "StorageKey",
    "Transaction",
    "View",
]
