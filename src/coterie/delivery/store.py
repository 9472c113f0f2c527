"""One SQLite database: a writer with group commit, readers beside it, a schema with a version.

A write is a function of the connection. The writer thread takes what has come in, runs each function under a savepoint
of its own in one transaction, and answers all of them after the transaction is synced: WAL with synchronous=FULL, so
what is answered survives a power cut, and under load one sync serves hundreds of writes. A function that raises has
changed nothing and stops nobody else. Reads run on connections of their own and see the last commit.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from coterie.errors import StorageError

T = TypeVar("T")
Connection = apsw.Connection

_BUSY_MILLISECONDS = 5000
_CHECKPOINT_PAGES = 4000


@dataclass(frozen=True, slots=True)
class Schema:
    """A database's tables: `versions[i]` is the script that leads from version i to i + 1."""

    name: str
    versions: tuple[str, ...]


@dataclass(slots=True)
class _Write(Generic[T]):
    function: Callable[[Connection], T]
    future: Future[T]


def connect(path: str, *, vfs: str | None = None) -> Connection:
    """Opens a connection with the settings that durability rests on."""
    try:
        db = apsw.Connection(path, vfs=vfs)
        db.set_busy_timeout(_BUSY_MILLISECONDS)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA secure_delete=ON")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        db.execute("PRAGMA cache_size=-65536")
    except apsw.Error as error:
        msg = f"the database {path} cannot be opened: {error}"
        raise StorageError(msg) from error
    return db


def migrate(db: Connection, schema: Schema) -> None:
    """Brings the tables to the newest version in one transaction; a newer database than ours is refused."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])  # type: ignore[index]
    newest = len(schema.versions)
    if version > newest:
        msg = (
            f"the {schema.name} database has version {version}, this program knows {newest}: "
            "use the newer program, or restore a backup made with this one"
        )
        raise StorageError(msg)
    if version == newest:
        return
    with db:
        for script in schema.versions[version:]:
            db.execute(script)
        db.execute(f"PRAGMA user_version={newest}")


class Store:
    """A database that async code reads and writes. `path` may be ":memory:" for tests (one connection then)."""

    def __init__(
        self,
        path: str | Path,
        schema: Schema,
        *,
        queue_limit: int = 10_000,
        batch_limit: int = 512,
        reader_threads: int = 2,
        vfs: str | None = None,
    ) -> None:
        self._path, self._vfs = str(path), vfs
        self._memory = self._path == ":memory:"
        self._queue_limit, self._batch_limit = queue_limit, batch_limit
        self._db = connect(self._path, vfs=vfs)
        migrate(self._db, schema)
        self._waiting: deque[_Write[Any]] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(reader_threads, thread_name_prefix=f"{schema.name}-read")
        self._opened: list[Connection] = []
        self._writer = threading.Thread(target=self._run, name=f"{schema.name}-write", daemon=True)
        self._writer.start()

    @property
    def depth(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    def submit(self, function: Callable[[Connection], T]) -> Future[T]:
        """Queues a write; the future is done when it is durable. `StorageError` if too many wait."""
        write = _Write(function, Future[T]())
        with self._ready:
            if self._closing:
                msg = "the database is being closed"
                raise StorageError(msg)
            if len(self._waiting) >= self._queue_limit:
                msg = f"{len(self._waiting)} writes wait for the disk already; come back later"
                raise StorageError(msg)
            self._waiting.append(write)
            self._ready.notify()
        return write.future

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Runs a write and returns when it is durable; raises what the function raised."""
        return await asyncio.wrap_future(self.submit(function))

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Runs a read on a connection of its own."""
        if self._memory:
            return await self.write(function)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._run_read, function)

    def _run_read(self, function: Callable[[Connection], T]) -> T:
        db: Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = connect(self._path, vfs=self._vfs)
            self._local.db = db
            self._opened.append(db)
        db.execute("BEGIN")
        try:
            return function(db)
        finally:
            db.execute("ROLLBACK")

    def close(self) -> None:
        """Writes what waits, then closes; a second call does nothing."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._writer.join()
        self._readers.shutdown()
        for db in (*self._opened, self._db):
            db.close()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._closing:
                    self._ready.wait()
                count = min(len(self._waiting), self._batch_limit)
                batch = [self._waiting.popleft() for _ in range(count)]
            if not batch:
                return
            self._commit(batch)

    def _commit(self, batch: list[_Write[Any]]) -> None:
        outcomes: list[tuple[_Write[Any], Any, BaseException | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [(write, *self._one(write)) for write in batch]
            self._db.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            failure = StorageError(f"the database cannot be written: {error}")
            for write in batch:
                write.future.set_exception(failure)
            return
        for write, result, raised in outcomes:
            if raised is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(raised)

    def _one(self, write: _Write[Any]) -> tuple[Any, BaseException | None]:
        self._db.execute("SAVEPOINT one")
        try:
            result = write.function(self._db)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - it is handed to who asked
            self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
            return None, error
        self._db.execute("RELEASE one")
        return result, None

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
