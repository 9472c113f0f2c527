"""The tables of the directory and the inboxes: a database that shares no value with the logs' (D-DIR-9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coterie.delivery.store import LARGEST, Connection, Schema
from coterie.mls.types import CipherSuite
from coterie.transport.api import InboxItem, Stock

SCHEMA: Final = Schema(
    "directory",
    (
        """
        CREATE TABLE inbox (
            key INTEGER PRIMARY KEY, inbox_id BLOB NOT NULL UNIQUE, token_hash BLOB NOT NULL,
            next_number INTEGER NOT NULL DEFAULT 1);
        CREATE TABLE ticket (
            inbox INTEGER NOT NULL, ticket_hash BLOB NOT NULL, expires INTEGER NOT NULL,
            minted INTEGER NOT NULL, used_by BLOB, PRIMARY KEY (inbox, ticket_hash)) WITHOUT ROWID;
        CREATE INDEX ticket_expires ON ticket(expires);
        CREATE TABLE envelope (
            inbox INTEGER NOT NULL, number INTEGER NOT NULL, hour INTEGER NOT NULL,
            kem_output BLOB NOT NULL, ciphertext BLOB NOT NULL, PRIMARY KEY (inbox, number));
        CREATE INDEX envelope_hour ON envelope(hour);
        CREATE TABLE package (
            key INTEGER PRIMARY KEY, name BLOB NOT NULL, device BLOB NOT NULL, inbox INTEGER NOT NULL,
            suite INTEGER NOT NULL, reference BLOB NOT NULL UNIQUE, not_after INTEGER NOT NULL,
            last_resort INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0, data BLOB);
        CREATE INDEX package_ready ON package(name, device, suite, last_resort) WHERE data IS NOT NULL;
        CREATE INDEX package_inbox ON package(inbox, suite) WHERE data IS NOT NULL;
        CREATE INDEX package_expiry ON package(not_after);
        """,
    ),
)


@dataclass(frozen=True, slots=True)
class Inbox:
    """An inbox as it is stored; `key` is the storage's own handle."""

    key: int
    token_hash: bytes


@dataclass(frozen=True, slots=True)
class Package:
    """A verified key package, ready to be stored. `not_after` is in seconds since 1970."""

    name: bytes
    device: bytes
    suite: int
    reference: bytes
    not_after: int
    last_resort: bool
    data: bytes


class DirectoryTables:
    """Statements over a connection that is in a transaction."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def _one(self, sql: str, *values: Any) -> Any:  # noqa: ANN401 - a row of SQLite values
        return self._db.execute(sql, values).fetchone()

    # -- inboxes

    def inbox(self, inbox_id: bytes) -> Inbox | None:
        """The inbox of an id."""
        row = self._one("SELECT key, token_hash FROM inbox WHERE inbox_id = ?", inbox_id)
        return None if row is None else Inbox(*row)

    def inbox_id(self, key: int) -> bytes:
        """The id of an inbox."""
        return bytes(self._one("SELECT inbox_id FROM inbox WHERE key = ?", key)[0])

    def add_inbox(self, inbox_id: bytes, token_hash: bytes) -> None:
        """Makes an inbox."""
        sql = "INSERT INTO inbox(inbox_id, token_hash) VALUES (?, ?)"
        self._db.execute(sql, (inbox_id, token_hash))

    def add_ticket(self, inbox: int, ticket_hash: bytes, expires: int, *, minted: bool) -> None:
        """Accepts a ticket until an hour; one that is known is left as it is."""
        self._db.execute(
            "INSERT INTO ticket(inbox, ticket_hash, expires, minted) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (inbox, ticket_hash, expires, minted),
        )

    def minted_tickets(self, inbox: int) -> int:
        """How many tickets the owner has minted that are not used."""
        sql = "SELECT count(*) FROM ticket WHERE inbox = ? AND minted = 1 AND used_by IS NULL"
        return int(self._one(sql, inbox)[0])

    def ticket(self, inbox: int, ticket_hash: bytes) -> tuple[bytes | None] | None:
        """The hash of the envelope that used the ticket, in a tuple; None where the ticket is unknown."""
        sql = "SELECT used_by FROM ticket WHERE inbox = ? AND ticket_hash = ?"
        row: tuple[bytes | None] | None = self._one(sql, inbox, ticket_hash)
        return row

    def use_ticket(self, inbox: int, ticket_hash: bytes, envelope_hash: bytes) -> None:
        """Marks a ticket as used."""
        sql = "UPDATE ticket SET used_by = ? WHERE inbox = ? AND ticket_hash = ?"
        self._db.execute(sql, (envelope_hash, inbox, ticket_hash))

    def count_envelopes(self, inbox: int) -> int:
        """How many envelopes the inbox keeps."""
        return int(self._one("SELECT count(*) FROM envelope WHERE inbox = ?", inbox)[0])

    def add_envelope(self, inbox: int, kem_output: bytes, ciphertext: bytes, hour: int) -> int:
        """Puts an envelope into an inbox; returns its number."""
        sql = (
            "UPDATE inbox SET next_number = next_number + 1 WHERE key = ? RETURNING next_number - 1"
        )
        number = int(self._one(sql, inbox)[0])
        self._db.execute(
            "INSERT INTO envelope(inbox, number, hour, kem_output, ciphertext) VALUES (?, ?, ?, ?, ?)",
            (inbox, number, hour, kem_output, ciphertext),
        )
        return number

    def envelopes(self, inbox: int, from_number: int, max_bytes: int) -> list[InboxItem]:
        """Envelopes in order, at least one if there is one."""
        sql = (
            "SELECT number, kem_output, ciphertext FROM envelope WHERE inbox = ? AND number >= ?"
            " ORDER BY number"
        )
        out: list[InboxItem] = []
        total = 0
        for number, kem_output, ciphertext in self._db.execute(
            sql, (inbox, min(from_number, LARGEST))
        ):
            total += len(ciphertext)
            if out and total > max_bytes:
                break
            out.append(InboxItem(number, kem_output, ciphertext))
        return out

    def delete_envelopes(self, inbox: int, through_number: int) -> None:
        """Deletes envelopes up to a number."""
        sql = "DELETE FROM envelope WHERE inbox = ? AND number <= ?"
        self._db.execute(sql, (inbox, min(through_number, LARGEST)))

    # -- key packages

    def add_package(self, inbox: int, package: Package) -> bool:
        """Stores a package; False where it is known already, in whatever state."""
        self._db.execute(
            "INSERT INTO package(name, device, inbox, suite, reference, not_after, last_resort, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(reference) DO NOTHING",
            (
                package.name,
                package.device,
                inbox,
                package.suite,
                package.reference,
                package.not_after,
                package.last_resort,
                package.data,
            ),
        )
        return bool(self._db.changes())

    def retire_last_resort(self, inbox: int, package: Package) -> None:
        """Takes back the last-resort packages of the suite other than this one (D-DIR-7)."""
        self._db.execute(
            "UPDATE package SET data = NULL WHERE inbox = ? AND suite = ? AND last_resort = 1"
            " AND reference != ?",
            (inbox, package.suite, package.reference),
        )

    def withdraw(self, inbox: int, reference: bytes) -> None:
        """Hands out a package no more; its reference is remembered."""
        sql = "UPDATE package SET data = NULL WHERE inbox = ? AND reference = ?"
        self._db.execute(sql, (inbox, reference))

    def count_packages(self, inbox: int) -> int:
        """How many packages of the inbox can be claimed."""
        sql = "SELECT count(*) FROM package WHERE inbox = ? AND data IS NOT NULL"
        return int(self._one(sql, inbox)[0])

    def knows(self, name: bytes) -> bool:
        """Whether the name has a package, claimed or not, that has not expired."""
        return self._one("SELECT 1 FROM package WHERE name = ? LIMIT 1", name) is not None

    def devices(self, name: bytes) -> list[bytes]:
        """The devices that have something to claim."""
        sql = "SELECT DISTINCT device FROM package WHERE name = ? AND data IS NOT NULL"
        rows: list[tuple[Any, ...]] = self._db.execute(sql, (name,)).fetchall()
        return [device for (device,) in rows]

    def take(
        self, name: bytes, device: bytes, suite: int, *, last_resort: bool, now: int
    ) -> tuple[int, bytes, int] | None:
        """Claims the oldest package: its inbox, its bytes and when it ends; a last-resort one stays."""
        row = self._one(
            "SELECT key, inbox, data, not_after FROM package WHERE name = ? AND device = ?"
            " AND suite = ? AND last_resort = ? AND data IS NOT NULL AND not_after > ?"
            " ORDER BY key LIMIT 1",
            name,
            device,
            suite,
            last_resort,
            now,
        )
        if row is None:
            return None
        key, inbox, data, not_after = row
        keep = "data" if last_resort else "NULL"
        self._db.execute(f"UPDATE package SET data = {keep}, used = 1 WHERE key = ?", (key,))  # noqa: S608
        return inbox, bytes(data), not_after

    def stock(self, inbox: int, now: int) -> tuple[Stock, ...]:
        """What is left, by suite."""
        rows = self._db.execute(
            "SELECT suite, sum(last_resort = 0), max(last_resort AND used) FROM package"
            " WHERE inbox = ? AND data IS NOT NULL AND not_after > ? GROUP BY suite ORDER BY suite",
            (inbox, now),
        )
        return tuple(Stock(CipherSuite(suite), left, used) for suite, left, used in rows)

    # -- retention

    def drop_old(self, now: int, hour: int, envelope_hour: int) -> int:
        """Drops what has expired; returns how many rows."""
        before = self._db.total_changes()
        self._db.execute("DELETE FROM package WHERE not_after <= ?", (now,))
        self._db.execute("DELETE FROM ticket WHERE expires <= ?", (hour,))
        self._db.execute("DELETE FROM envelope WHERE hour < ?", (envelope_hour,))
        return self._db.total_changes() - before
