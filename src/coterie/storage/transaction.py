"""What can be changed in a profile: everything of one step, stored together or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from coterie.errors import StateError
from coterie.mls.group import Delta
from coterie.storage.database import Database
from coterie.storage.history import read_history
from coterie.storage.records import Intent, Message, MessageState
from coterie.storage.vault import Vault
from coterie.storage.view import View, after_prefix

_KEYS_AT_ONCE: Final = 256
PUBLIC_PREFIXES: Final = (b"n/", b"i/")
"""Entries of a group that hold no secret: nodes of the public tree and counters of used keys."""


class Transaction(View):
    """One step. Got from `Profile.transaction`; stored when its block ends, dropped when the block raises."""

    def __init__(self, database: Database, vault: Vault, step: int) -> None:
        super().__init__(database)
        self._vault = vault
        self._step = step
        self._wrote = False
        self._over = False

    @property
    def step(self) -> int:
        """The number that the profile's `step` has once this transaction is stored."""
        return self._step

    @property
    def wrote(self) -> bool:
        """Whether anything was changed."""
        return self._wrote

    def end(self) -> None:
        """Makes every later change through this object raise `StateError`."""
        self._over = True

    # -- entries

    def put(self, space: str, key: bytes, value: bytes, *, secret: bool = True) -> None:
        """Stores a value under a key, in place of another.

        `secret=False` is for values that may outlive their deletion in a copy that SQLite forgot: it saves the key
        that a secret value has of its own (see vault.py).
        """
        self._put(self._space_for(space), key, value, secret=secret)

    def _put(self, number: int, key: bytes, value: bytes, *, secret: bool) -> None:
        found = self._database.one(
            "SELECT slot FROM entry WHERE space = ? AND key = ?", number, key
        )
        slot: int | None = None if found is None else found[0]
        if secret:
            slot, value = self._vault.seal(value, slot)
        else:
            self._vault.erase(slot)
            slot = None
        self._database.run(
            "INSERT INTO entry VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET slot = excluded.slot, value = excluded.value",
            number,
            key,
            slot,
            value,
        )

    def delete(self, space: str, key: bytes) -> None:
        """Deletes an entry; nothing happens if there is none."""
        self._writing()
        number = self._space(space)
        if number is not None:
            self._delete(number, key)

    def _delete(self, number: int, key: bytes) -> None:
        rows = self._database.run(
            "DELETE FROM entry WHERE space = ? AND key = ? RETURNING slot", number, key
        )
        for (slot,) in rows:
            self._vault.erase(slot)

    def delete_prefix(self, space: str, prefix: bytes) -> None:
        """Deletes the entries whose keys begin with `prefix`; the empty prefix deletes all of the space."""
        self._writing()
        number = self._space(space)
        if number is not None:
            self._delete_prefix(number, prefix)

    def _delete_prefix(self, number: int, prefix: bytes) -> None:
        where, values = "WHERE space = ? AND key >= ?", [number, prefix]
        end = after_prefix(prefix)
        if end is not None:
            where, values = where + " AND key < ?", [*values, end]
        for (slot,) in self._database.run(f"DELETE FROM entry {where} RETURNING slot", *values):  # noqa: S608
            self._vault.erase(slot)

    def apply(
        self, space: str, delta: Delta, *, public: Collection[bytes] = PUBLIC_PREFIXES
    ) -> None:
        """Stores what `Group.save` gave: prefixes dropped, entries dropped, then entries put.

        Keys that begin with one of `public` are put with `secret=False`.
        """
        number = self._space_for(space)
        prefixes = tuple(public)
        for prefix in delta.drop_prefixes:
            self._delete_prefix(number, prefix)
        for key in delta.drops:
            self._delete(number, key)
        open_values: dict[bytes, bytes] = {}
        for key, value in delta.puts.items():
            if key.startswith(prefixes):
                open_values[key] = value
            else:
                self._put(number, key, value, secret=True)
        self._put_public(number, open_values)

    def _put_public(self, number: int, values: Mapping[bytes, bytes]) -> None:
        """Stores many values that are no secrets; those that they replace may have been."""
        if not values:
            return
        # By key and not by range: between the first and the last key of a Commit lies most of the tree.
        for keys in _batched(values):
            places = ", ".join("?" * len(keys))
            sql = (
                f"SELECT slot FROM entry WHERE space = ? AND key IN ({places}) AND slot IS NOT NULL"  # noqa: S608
            )
            for (slot,) in self._database.run(sql, number, *keys):
                self._vault.erase(slot)
        self._database.run_many(
            "INSERT INTO entry VALUES (?, ?, NULL, ?)"
            " ON CONFLICT DO UPDATE SET slot = NULL, value = excluded.value",
            ((number, key, value) for key, value in values.items()),
        )

    def delete_space(self, space: str) -> None:
        """Deletes all entries of a space and its name."""
        self.delete_prefix(space, b"")
        self._database.run("DELETE FROM space WHERE name = ?", space)

    # -- messages

    def add_message(self, message: Message) -> bool:
        """Adds a message at the end; False if the conversation has one of that id, which then stays as it is.

        The message's `position` is not looked at; `seen_by` is stored.
        """
        return self._add_message(message, None)

    def _add_message(self, message: Message, position: int | None) -> bool:
        self._writing()
        rows = self._database.run(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (conversation, message_id) DO NOTHING RETURNING position",
            position,
            message.conversation,
            message.message_id,
            message.sender,
            message.sent_at,
            message.received_at,
            message.kind,
            message.text,
            message.body,
            message.state,
        )
        if not rows:
            return False
        for user in message.seen_by:
            self._add_seen(rows[0][0], user)
        return True

    def import_history(self, path: str | Path, passphrase: str) -> int:
        """Adds the messages of an exported file that are not here yet; gives their number.

        They get positions before all others, in their own order. Raises `StorageError` for a wrong passphrase, a
        damaged file or one of a newer format; let it end the transaction, so that nothing of the file is kept.
        """
        self._writing()
        [(least,)] = self._database.run("SELECT min(position) FROM message")
        position = min(1, 1 if least is None else least)
        count = 0
        for message in read_history(Path(path), passphrase):
            if self._add_message(message, position - 1):
                position -= 1
                count += 1
        return count

    def update_state(self, conversation: bytes, message_id: bytes, state: MessageState) -> bool:
        """Sets a message's state; False if there is no such message or it is erased."""
        self._writing()
        if state is MessageState.ERASED:
            return self.erase_message(conversation, message_id)
        self._database.run(
            "UPDATE message SET state = ? WHERE conversation = ? AND message_id = ? AND state <> ?",
            state,
            conversation,
            message_id,
            MessageState.ERASED,
        )
        return self._database.changed() > 0

    def mark_seen(self, conversation: bytes, message_id: bytes, user: str) -> bool:
        """Notes that a user has seen a message; False if that is known, or there is no such message."""
        self._writing()
        row = self._database.one(
            "SELECT position FROM message WHERE conversation = ? AND message_id = ? AND state <> ?",
            conversation,
            message_id,
            MessageState.ERASED,
        )
        return row is not None and self._add_seen(row[0], user)

    def _add_seen(self, position: int, user: str) -> bool:
        self._database.run(
            "INSERT INTO seen SELECT ?1, ?2, (SELECT count(*) FROM seen WHERE position = ?1) WHERE true"
            " ON CONFLICT DO NOTHING",
            position,
            user,
        )
        return self._database.changed() > 0

    def erase_message(self, conversation: bytes, message_id: bytes) -> bool:
        """Erases a message's content and who saw it; False if there is no such message.

        Its id stays known, so that `add_message` refuses a copy that arrives later.
        """
        self._writing()
        rows = self._database.run(
            "UPDATE message SET sender = '', kind = '', text = '', body = x'', state = ?"
            " WHERE conversation = ? AND message_id = ? RETURNING position",
            MessageState.ERASED,
            conversation,
            message_id,
        )
        for (position,) in rows:
            self._database.run("DELETE FROM seen WHERE position = ?", position)
        return bool(rows)

    def delete_messages(self, conversation: bytes) -> None:
        """Deletes a conversation's history, ids and all."""
        self._writing()
        self._database.run("DELETE FROM message WHERE conversation = ?", conversation)

    # -- intents

    def add_intent(
        self, conversation: bytes, kind: str, payload: bytes, *, state: str = "new"
    ) -> int:
        """Adds an intent after all others; gives its number."""
        self._writing()
        slot, sealed = self._vault.seal(payload, None)
        rows = self._database.run(
            "INSERT INTO intent(conversation, kind, state, slot, payload) VALUES (?, ?, ?, ?, ?)"
            " RETURNING number",
            conversation,
            kind,
            state,
            slot,
            sealed,
        )
        return int(rows[0][0])

    def update_intent(
        self, number: int, *, state: str | None = None, payload: bytes | None = None
    ) -> Intent:
        """Changes an intent's state, payload or both; raises `StateError` if there is no such intent."""
        self._writing()
        slot = self._intent_slot(number)
        if state is not None:
            self._database.run("UPDATE intent SET state = ? WHERE number = ?", state, number)
        if payload is not None:
            _, sealed = self._vault.seal(payload, slot)
            self._database.run("UPDATE intent SET payload = ? WHERE number = ?", sealed, number)
        changed = self.intent(number)
        assert changed is not None  # noqa: S101 - its slot was found above
        return changed

    def remove_intent(self, number: int) -> None:
        """Deletes an intent; raises `StateError` if there is no such intent."""
        self._writing()
        self._vault.erase(self._intent_slot(number))
        self._database.run("DELETE FROM intent WHERE number = ?", number)

    def _intent_slot(self, number: int) -> int:
        row = self._database.one("SELECT slot FROM intent WHERE number = ?", number)
        if row is None:
            msg = f"there is no intent {number}; look at intents() for those there are"
            raise StateError(msg)
        return int(row[0])

    # -- the profile

    def settle_restored(self) -> None:
        """Notes that every group of a restored profile was dealt with: `Profile.restored` becomes False."""
        self._writing()
        self._database.run("UPDATE profile SET restored = 0")

    def _writing(self) -> None:
        if self._over:
            msg = "this transaction is over; begin another with profile.transaction()"
            raise StateError(msg)
        self._wrote = True

    def _space_for(self, name: str) -> int:
        self._writing()
        found = self._space(name)
        if found is not None:
            return found
        return int(
            self._database.run("INSERT INTO space(name) VALUES (?) RETURNING key", name)[0][0]
        )


def _batched(values: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """As many at a time as one statement takes."""
    left = iter(values)
    while keys := tuple(islice(left, _KEYS_AT_ONCE)):
        yield keys
