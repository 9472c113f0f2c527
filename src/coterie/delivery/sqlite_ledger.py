"""The logs' storage on SQLite: the tables, and `LogTransaction` over one connection.

Bodies live in the entries' rows and are set to NULL when they are dropped, so that ids and receipts outlast them
(D-ENT-3) until their epoch is gone. What can be computed from the entries (head, newest candidate) is not stored again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from coterie.delivery.ledger import Ages, EntryRow, Epoch, Usage
from coterie.delivery.store import LARGEST, Connection, Schema, Store
from coterie.transport.api import (
    Access,
    BoxItem,
    Chunk,
    Entry,
    EntryKind,
    Receipt,
    SealedRequest,
    StoredEntry,
)

T = TypeVar("T")

_BYTES_AT_ONCE: Final = 8 * 1024 * 1024
_ROWS_AT_ONCE: Final = 1000
"""What retention drops in one transaction, during which nobody else is answered."""

SCHEMA: Final = Schema(
    "logs",
    (
        """
        CREATE TABLE log (
            key INTEGER PRIMARY KEY, log_id BLOB NOT NULL UNIQUE, retention INTEGER NOT NULL,
            next_request INTEGER NOT NULL DEFAULT 1);
        CREATE TABLE branch (
            key INTEGER PRIMARY KEY, log INTEGER NOT NULL, messages INTEGER NOT NULL DEFAULT 0,
            bundles INTEGER NOT NULL DEFAULT 0);
        CREATE TABLE epoch (
            key INTEGER PRIMARY KEY, log INTEGER NOT NULL REFERENCES log(key), name BLOB NOT NULL UNIQUE,
            parent INTEGER, depth INTEGER NOT NULL, branch INTEGER NOT NULL,
            append_key BLOB NOT NULL, read_hash BLOB NOT NULL, box_hash BLOB NOT NULL,
            previous BLOB NOT NULL, opener_hash BLOB NOT NULL, signature BLOB NOT NULL,
            opener INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0,
            gone_through INTEGER NOT NULL DEFAULT 0, first_candidate_hour INTEGER,
            opened_hour INTEGER NOT NULL, due INTEGER);
        CREATE INDEX epoch_key ON epoch(log, append_key);
        CREATE INDEX epoch_branch ON epoch(branch);
        CREATE INDEX epoch_due ON epoch(due) WHERE due IS NOT NULL;
        CREATE TABLE entry (
            key INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL,
            kind INTEGER NOT NULL, previous BLOB NOT NULL, entry_hash BLOB NOT NULL,
            signature BLOB NOT NULL, size INTEGER NOT NULL, hour INTEGER NOT NULL, opened INTEGER,
            body BLOB);
        CREATE UNIQUE INDEX entry_number ON entry(epoch, number);
        CREATE UNIQUE INDEX entry_id ON entry(epoch, id);
        CREATE INDEX entry_bundle ON entry(epoch, number) WHERE kind = 2;
        CREATE TABLE chunk (
            log INTEGER NOT NULL, address BLOB NOT NULL, branch INTEGER NOT NULL, hour INTEGER NOT NULL,
            data BLOB NOT NULL, PRIMARY KEY (log, address));
        CREATE INDEX chunk_hour ON chunk(hour);
        CREATE TABLE request (
            log INTEGER NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, hour INTEGER NOT NULL,
            kem_output BLOB NOT NULL, ciphertext BLOB NOT NULL, PRIMARY KEY (log, number));
        CREATE INDEX request_hour ON request(hour);
        """,
        # The messages that are kept, in order: what quotas and ages drop, found without looking at what they dropped.
        # And chunks by age, without looking into each.
        """
        CREATE INDEX entry_message ON entry(epoch, number) WHERE kind = 1 AND body IS NOT NULL;
        DROP INDEX chunk_hour;
        CREATE INDEX chunk_hour ON chunk(hour, log);
        """,
    ),
)

_EPOCH = (
    "SELECT e.key, e.log, l.log_id, l.retention, e.name, e.parent, e.depth, e.branch, e.append_key,"
    " e.read_hash, e.box_hash, e.previous, e.opener_hash, e.signature, e.opener, e.gone,"
    " e.gone_through, e.first_candidate_hour, e.opened_hour FROM epoch e JOIN log l ON l.key = e.log "
)
_ROW = "SELECT kind, number, previous, entry_hash, signature, size, hour, opened FROM entry "
_ANCESTRY = (
    "WITH RECURSIVE line(key, parent, name, gone) AS ("
    " SELECT key, parent, name, gone FROM epoch WHERE key = ?"
    " UNION ALL SELECT e.key, e.parent, e.name, e.gone FROM epoch e JOIN line ON e.key = line.parent) "
)
_REQUESTS = (
    _ANCESTRY + "SELECT r.number, line.name, r.kem_output, r.ciphertext FROM request r"  # noqa: S608
    " JOIN line ON line.key = r.epoch WHERE r.log = ? AND r.number >= ? AND line.gone = 0"
    " ORDER BY r.number LIMIT ?"
)


def _epoch(row: Any) -> Epoch:  # noqa: ANN401 - a row of SQLite values
    name = row[4]
    return Epoch(
        key=row[0],
        log=row[1],
        log_id=row[2],
        retention=row[3],
        name=name,
        parent=row[5],
        depth=row[6],
        branch=row[7],
        access=Access(row[8], row[9], row[10]),
        opening=Receipt(name, 0, row[11], row[12], row[13]),
        opener=row[14],
        gone=bool(row[15]),
        gone_through=row[16],
        first_candidate_hour=row[17],
        opened_hour=row[18],
    )


def _entry_row(epoch: Epoch, row: Any) -> EntryRow:  # noqa: ANN401 - a row of SQLite values
    kind, number, previous, entry_hash, signature, size, hour, opened = row
    receipt = Receipt(epoch.name, number, previous, entry_hash, signature)
    return EntryRow(EntryKind(kind), receipt, size, hour, opened)


def _rows(cursor: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - a cursor of SQLite values
    """All rows; to be taken before the next statement, since a RETURNING that is not finished undoes itself."""
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


class SQLiteTransaction:
    """`LogTransaction` over a connection that is in a transaction."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def _one(self, sql: str, *values: Any) -> Any:  # noqa: ANN401 - a row of SQLite values
        return self._db.execute(sql, values).fetchone()

    # -- epochs

    def epoch(self, name: bytes) -> Epoch | None:
        """See LogTransaction."""
        row = self._one(_EPOCH + "WHERE e.name = ?", name)
        return None if row is None else _epoch(row)

    def epoch_at(self, key: int) -> Epoch:
        """See LogTransaction."""
        return _epoch(self._one(_EPOCH + "WHERE e.key = ?", key))

    def has_log(self, log_id: bytes) -> bool:
        """See LogTransaction."""
        return self._one("SELECT 1 FROM log WHERE log_id = ?", log_id) is not None

    def add_log(self, log_id: bytes, retention: int) -> int:
        """See LogTransaction."""
        sql = "INSERT INTO log(log_id, retention) VALUES (?, ?) RETURNING key"
        return int(self._one(sql, log_id, retention)[0])

    def add_epoch(
        self,
        log: int,
        name: bytes,
        access: Access,
        opening: Receipt,
        *,
        parent: Epoch | None,
        opener: int,
        new_branch: bool,
        hour: int,
    ) -> int:
        """See LogTransaction."""
        if parent is None or new_branch:
            branch = self._one("INSERT INTO branch(log) VALUES (?) RETURNING key", log)[0]
        else:
            branch = parent.branch
        row = self._one(
            "INSERT INTO epoch(log, name, parent, depth, branch, append_key, read_hash, box_hash,"
            " previous, opener_hash, signature, opener, opened_hour, due)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING key",
            log,
            name,
            None if parent is None else parent.key,
            0 if parent is None else parent.depth + 1,
            branch,
            access.append_key,
            access.read_hash,
            access.box_hash,
            opening.previous,
            opening.entry_hash,
            opening.signature,
            opener,
            hour,
            hour,
        )
        return int(row[0])

    def is_ancestor_key(self, epoch: Epoch, append_key: bytes) -> bool:
        """See LogTransaction."""
        sql = "SELECT key, depth FROM epoch WHERE log = ? AND append_key = ? AND depth <= ?"
        same = self._db.execute(sql, (epoch.log, append_key, epoch.depth)).fetchall()
        if not same:
            return False
        line = self._db.execute(_ANCESTRY + "SELECT key FROM line", (epoch.key,))  # noqa: S608
        ancestors = {key for (key,) in line}
        return any(key in ancestors for key, _ in same)

    def ancestry(self, epoch: Epoch) -> list[bytes]:
        """See LogTransaction."""
        sql = _ANCESTRY + "SELECT name FROM line WHERE gone = 0"  # noqa: S608 - two constants
        return [name for (name,) in self._db.execute(sql, (epoch.key,))]

    # -- entries

    def entry_by_id(self, epoch: Epoch, id: bytes) -> EntryRow | None:
        """See LogTransaction."""
        row = self._one(_ROW + "WHERE epoch = ? AND id = ?", epoch.key, id)
        return None if row is None else _entry_row(epoch, row)

    def entry_at(self, epoch: Epoch, number: int) -> EntryRow | None:
        """See LogTransaction."""
        wanted = min(number, LARGEST)
        row = self._one(_ROW + "WHERE epoch = ? AND number = ?", epoch.key, wanted)
        return None if row is None else _entry_row(epoch, row)

    def receipt_at(self, epoch: Epoch, number: int) -> Receipt:
        """See LogTransaction."""
        row = self._one(_ROW + "WHERE epoch = ? AND number = ?", epoch.key, number)
        return _entry_row(epoch, row).receipt

    def head(self, epoch: Epoch) -> Receipt:
        """See LogTransaction."""
        row = self._one(_ROW + "WHERE epoch = ? ORDER BY number DESC LIMIT 1", epoch.key)
        return epoch.opening if row is None else _entry_row(epoch, row).receipt

    def candidates(self, epoch: Epoch) -> list[EntryRow]:
        """See LogTransaction."""
        rows = self._db.execute(_ROW + "WHERE epoch = ? AND kind = 2 ORDER BY number", (epoch.key,))
        return [_entry_row(epoch, row) for row in rows]

    def newest_candidate(self, epoch: Epoch) -> EntryRow | None:
        """See LogTransaction."""
        sql = _ROW + "WHERE epoch = ? AND kind = 2 ORDER BY number DESC LIMIT 1"
        row = self._one(sql, epoch.key)
        return None if row is None else _entry_row(epoch, row)

    def candidate_by_hash(self, epoch: Epoch, entry_hash: bytes) -> EntryRow | None:
        """See LogTransaction."""
        row = self._one(
            _ROW + "WHERE epoch = ? AND kind = 2 AND entry_hash = ?", epoch.key, entry_hash
        )
        return None if row is None else _entry_row(epoch, row)

    def add_entry(
        self, epoch: Epoch, row: EntryRow, id: bytes, body: bytes, *, first_candidate: bool
    ) -> Usage:
        """See LogTransaction."""
        receipt = row.receipt
        self._db.execute(
            "INSERT INTO entry(epoch, number, id, kind, previous, entry_hash, signature, size, hour,"
            " opened, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                epoch.key,
                receipt.number,
                id,
                int(row.kind),
                receipt.previous,
                receipt.entry_hash,
                receipt.signature,
                row.size,
                row.hour,
                row.opened,
                body,
            ),
        )
        column = "messages" if row.kind is EntryKind.MESSAGE else "bundles"
        branch = epoch.branch if row.opened is None else self.epoch_at(row.opened).branch
        if first_candidate:
            sql = "UPDATE epoch SET first_candidate_hour = ? WHERE key = ?"
            self._db.execute(sql, (row.hour, epoch.key))
        return self._add_usage(branch, column, row.size)

    def read(
        self, epoch: Epoch, from_number: int, *, max_bytes: int, inline_limit: int
    ) -> list[StoredEntry]:
        """See LogTransaction."""
        sql = (
            "SELECT number, previous, entry_hash, signature, size, body IS NULL,"
            " CASE WHEN size <= ? THEN body END FROM entry"
            " WHERE epoch = ? AND number >= ? ORDER BY number"
        )
        out: list[StoredEntry] = []
        total = 0
        for number, previous, entry_hash, signature, size, dropped, body in self._db.execute(
            sql, (inline_limit, epoch.key, min(from_number, LARGEST))
        ):
            total += 256 + (0 if body is None else size)
            if out and total > max_bytes:
                break
            receipt = Receipt(epoch.name, number, previous, entry_hash, signature)
            entry = None if body is None else Entry.decode(body)
            out.append(StoredEntry(receipt, entry, 0 if dropped else size))
        return out

    def body_part(self, epoch: Epoch, number: int, offset: int, length: int) -> bytes | None:
        """See LogTransaction."""
        sql = "SELECT substr(body, ?, ?) FROM entry WHERE epoch = ? AND number = ?"
        row = self._one(sql, offset + 1, length, epoch.key, number)
        return None if row is None else row[0]

    # -- quotas

    def usage(self, branch: int) -> Usage:
        """See LogTransaction."""
        return Usage(*self._one("SELECT messages, bundles FROM branch WHERE key = ?", branch))

    def _add_usage(self, branch: int, column: str, size: int) -> Usage:
        sql = (
            f"UPDATE branch SET {column} = {column} + ? WHERE key = ?"  # noqa: S608 - two names
            " RETURNING messages, bundles"
        )
        return Usage(*self._one(sql, size, branch))

    def drop_oldest_messages(self, epoch: Epoch, need: int) -> int:
        """See LogTransaction."""
        sql = "SELECT key FROM epoch WHERE branch = ? AND gone = 0 ORDER BY depth, key"
        freed = 0
        for (owner,) in _rows(self._db.execute(sql, (epoch.branch,))):
            if freed >= need:
                break
            freed += self._drop_oldest_of(owner, need - freed)
        self._add_usage(epoch.branch, "messages", -freed)
        return freed

    def _drop_oldest_of(self, epoch: int, need: int) -> int:
        # One row after the other: a sort would look at every message that the branch holds, for each append.
        sql = (
            "SELECT key, size FROM entry INDEXED BY entry_message"
            " WHERE epoch = ? AND kind = 1 AND body IS NOT NULL ORDER BY number"
        )
        freed, keys = 0, []
        for key, size in self._db.execute(sql, (epoch,)):
            if freed >= need:
                break
            freed += size
            keys.append((key,))
        if keys:
            self._db.executemany("UPDATE entry SET body = NULL WHERE key = ?", keys)
            self._advance_gone(epoch)
        return freed

    def _advance_gone(self, epoch: int) -> None:
        """Moves `gone_through` to the last of the entries at the front that have no body."""
        row = self._one("SELECT gone_through FROM epoch WHERE key = ?", epoch)
        kept = self._one(
            "SELECT number FROM entry WHERE epoch = ? AND number > ? AND body IS NOT NULL"
            " ORDER BY number LIMIT 1",
            epoch,
            row[0],
        )
        last = self._one("SELECT max(number) FROM entry WHERE epoch = ?", epoch)
        through = (last[0] or 0) if kept is None else kept[0] - 1
        self._db.execute("UPDATE epoch SET gone_through = ? WHERE key = ?", (through, epoch))

    # -- chunks

    def missing_chunks(self, log: int, addresses: Iterable[bytes]) -> list[bytes]:
        """See LogTransaction."""
        sql = "SELECT 1 FROM chunk WHERE log = ? AND address = ?"
        return [address for address in addresses if self._one(sql, log, address) is None]

    def put_chunks(self, epoch: Epoch, chunks: Iterable[Chunk], hour: int) -> None:
        """See LogTransaction."""
        sql = (
            "INSERT INTO chunk(log, address, branch, hour, data) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT(log, address) DO NOTHING"
        )
        added = 0
        for chunk in chunks:
            address = chunk.address()
            self._db.execute(sql, (epoch.log, address, epoch.branch, hour, chunk.data))
            added += len(chunk.data) if self._db.changes() else 0
            self.renew_chunks(epoch, (address,), hour)
        self._add_usage(epoch.branch, "bundles", added)

    def renew_chunks(self, epoch: Epoch, addresses: Iterable[bytes], hour: int) -> None:
        """See LogTransaction."""
        sql = "UPDATE chunk SET hour = ? WHERE log = ? AND address = ? AND hour < ?"
        self._db.executemany(sql, ((hour, epoch.log, address, hour) for address in addresses))

    def chunks(self, log: int, addresses: Sequence[bytes], max_bytes: int) -> list[Chunk | None]:
        """See LogTransaction."""
        sql = "SELECT data FROM chunk WHERE log = ? AND address = ?"
        out: list[Chunk | None] = []
        total = 0
        for address in addresses:
            row = self._one(sql, log, address)
            total += 0 if row is None else len(row[0])
            if out and total > max_bytes:
                break
            out.append(None if row is None else Chunk(row[0]))
        return out

    # -- boxes

    def add_request(self, epoch: Epoch, request: SealedRequest, hour: int) -> int:
        """See LogTransaction."""
        sql = "UPDATE log SET next_request = next_request + 1 WHERE key = ? RETURNING next_request - 1"
        number = int(self._one(sql, epoch.log)[0])
        self._db.execute(
            "INSERT INTO request(log, number, epoch, hour, kem_output, ciphertext)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (epoch.log, number, epoch.key, hour, request.kem_output, request.ciphertext),
        )
        return number

    def count_requests(self, log: int) -> int:
        """See LogTransaction."""
        return int(self._one("SELECT count(*) FROM request WHERE log = ?", log)[0])

    def requests(self, epoch: Epoch, from_number: int, limit: int) -> list[BoxItem]:
        """See LogTransaction."""
        start = min(from_number, LARGEST)
        rows = self._db.execute(_REQUESTS, (epoch.key, epoch.log, start, limit))
        return [BoxItem(number, name, SealedRequest(k, c)) for number, name, k, c in rows]

    # -- retention

    def due_epochs(self, hour: int, limit: int) -> list[Epoch]:
        """See LogTransaction."""
        sql = _EPOCH + "WHERE e.due IS NOT NULL AND e.due <= ? ORDER BY e.due LIMIT ?"
        return [_epoch(row) for row in self._db.execute(sql, (hour, limit)).fetchall()]

    def _some(self, sql: str, *values: Any) -> tuple[list[tuple[Any, ...]], bool]:
        """Rows of a query, whose second column is a size, as many as are dropped at once; whether they are all."""
        rows: list[tuple[Any, ...]] = []
        total = 0
        for row in self._db.execute(sql, values):
            if total > _BYTES_AT_ONCE or len(rows) == _ROWS_AT_ONCE:
                return rows, False
            rows.append(row)
            total += row[1]
        return rows, True

    def _for_each(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._db.executemany(sql, [(row[0],) for row in rows])

    def drop_messages_before(self, epoch: Epoch, hour: int) -> bool:
        """See LogTransaction."""
        sql = "SELECT key, size FROM entry WHERE epoch = ? AND kind = 1 AND hour < ? AND body IS NOT NULL"
        rows, are_all = self._some(sql + " ORDER BY number", epoch.key, hour)
        self._for_each("UPDATE entry SET body = NULL WHERE key = ?", rows)
        self._add_usage(epoch.branch, "messages", -sum(size for _, size in rows))
        if rows:
            self._advance_gone(epoch.key)
        return are_all

    def drop_epoch(self, epoch: Epoch) -> bool:
        """See LogTransaction."""
        self._db.execute("UPDATE epoch SET gone = 1 WHERE key = ?", (epoch.key,))
        rows, are_all = self._some(
            "SELECT x.key, iif(x.body IS NULL, 0, x.size), coalesce(o.branch, ?), x.kind FROM entry x"
            " LEFT JOIN epoch o ON o.key = x.opened WHERE x.epoch = ?",
            epoch.branch,
            epoch.key,
        )
        for _, size, branch, kind in rows:
            column = "messages" if kind == EntryKind.MESSAGE else "bundles"
            self._add_usage(branch, column, -size)
        self._for_each("DELETE FROM entry WHERE key = ?", rows)
        if not are_all:
            return False
        self._db.execute("DELETE FROM request WHERE epoch = ?", (epoch.key,))
        last = self._one("SELECT 1 FROM epoch WHERE log = ? AND gone = 0 LIMIT 1", epoch.log)
        if last is None and not self._drop_log(epoch.log):
            return False
        self._db.execute("UPDATE epoch SET due = NULL WHERE key = ?", (epoch.key,))
        return True

    def _drop_log(self, log: int) -> bool:
        rows, are_all = self._some("SELECT rowid, length(data) FROM chunk WHERE log = ?", log)
        self._for_each("DELETE FROM chunk WHERE rowid = ?", rows)
        # Another epoch may be on its way out: what is left of it comes first.
        busy = "SELECT 1 FROM entry x JOIN epoch e ON e.key = x.epoch WHERE e.log = ? LIMIT 1"
        if not are_all or self._one(busy, log) is not None:
            return are_all
        for table in ("request", "epoch", "branch"):
            self._db.execute(f"DELETE FROM {table} WHERE log = ?", (log,))  # noqa: S608 - three names
        self._db.execute("DELETE FROM log WHERE key = ?", (log,))
        return True

    def ages(self, epoch: Epoch) -> Ages:
        """See LogTransaction."""
        row = self._one(
            "SELECT (SELECT max(hour) FROM entry WHERE epoch = ?1),"
            " (SELECT max(hour) FROM entry WHERE epoch = ?1 AND kind = 2),"
            " (SELECT min(hour) FROM entry WHERE epoch = ?1 AND number > ?2 AND kind = 1"
            " AND body IS NOT NULL)",
            epoch.key,
            epoch.gone_through,
        )
        return Ages(*row)

    def newest_hour(self) -> int | None:
        """See LogTransaction."""
        # The last rows, since no index has the hours.
        (hour,) = self._one(
            "SELECT max(hour) FROM (SELECT * FROM (SELECT hour FROM entry ORDER BY key DESC LIMIT 1)"
            " UNION ALL SELECT * FROM (SELECT opened_hour FROM epoch ORDER BY key DESC LIMIT 1))"
        )
        return None if hour is None else int(hour)

    def set_due(self, epoch: Epoch, hour: int) -> None:
        """See LogTransaction."""
        self._db.execute("UPDATE epoch SET due = ? WHERE key = ?", (hour, epoch.key))

    def drop_old(self, hour: int, request_hour: int) -> bool:
        """See LogTransaction."""
        # "CROSS JOIN" keeps the index first: the chunks' own rows are looked at for those that go.
        rows, are_all = self._some(
            "SELECT c.rowid, (SELECT length(data) FROM chunk WHERE rowid = c.rowid) FROM chunk c"
            " INDEXED BY chunk_hour CROSS JOIN log l ON l.key = c.log"
            " WHERE c.hour < ?1 AND c.hour < ?1 - (l.retention + 3599) / 3600",
            hour,
        )
        for rowid, size in rows:
            (branch,) = self._one("DELETE FROM chunk WHERE rowid = ? RETURNING branch", rowid)
            self._add_usage(branch, "bundles", -size)
        old = "SELECT rowid, length(ciphertext) FROM request WHERE hour < ?"
        requests, all_requests = self._some(old, request_hour)
        self._for_each("DELETE FROM request WHERE rowid = ?", requests)
        return are_all and all_requests


class SQLiteLedger:
    """The ledger in one SQLite file; see `Store` for what durable means here."""

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._store = Store(path, SCHEMA, **options)

    @property
    def store(self) -> Store:
        """The database."""
        return self._store

    @property
    def changes(self) -> int:
        """See Ledger."""
        return self._store.changes

    def write(
        self, function: Callable[[SQLiteTransaction], T], *, raises_first: bool = False
    ) -> asyncio.Future[T]:
        """See Ledger."""
        return self._store.write(
            lambda db: function(SQLiteTransaction(db)), raises_first=raises_first
        )

    async def read(self, function: Callable[[SQLiteTransaction], T]) -> T:
        """See Ledger."""
        return await self._store.read(lambda db: function(SQLiteTransaction(db)))

    async def close(self) -> None:
        """See Ledger."""
        await self._store.close()
