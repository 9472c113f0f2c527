"""One SQLite database: one writer with group commit, readers beside it, a schema with a version.

A write is a function of the connection. What comes in while a transaction is being synced waits; then all of it runs in
one transaction on the event loop's thread, the COMMIT with its sync on a thread of its own, and each is answered after
that: WAL with synchronous=FULL, so what is answered survives a power cut, and under load one sync serves hundreds of
writes. (Statements on a thread of their own were slower: each hands the interpreter lock back and forth.) A function
that raises has changed nothing and stops nobody else. Reads run on threads and connections of their own and see the
last commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import apsw

from coterie.errors import StorageError

T = TypeVar("T")
Connection = apsw.Connection

LARGEST: Final = 2**63 - 1
"""The largest number that a database holds; what a request names may have 64 bits, and is cut to it."""
_BUSY_MILLISECONDS = 5000
_CHECKPOINT_PAGES = 4000
_SAY_EVERY = 60.0
_log: Final = logging.getLogger("coterie.delivery")


@dataclass(frozen=True, slots=True)
class Schema:
    """A database's tables: `versions[i]` is the script that leads from version i to i + 1."""

    name: str
    versions: tuple[str, ...]


_Outcome = tuple[Any, Exception | None]


@dataclass(slots=True)
class _Write(Generic[T]):
    function: Callable[[Connection], T]
    future: asyncio.Future[T]
    raises_first: bool
    only_reads: bool


def connect(path: str, *, vfs: str | None = None) -> Connection:
    """Opens a connection with the settings that durability rests on.

    `vfs` names another file system than the platform's, for crash tests; it need not have shared memory.
    """
    db: Connection | None = None
    try:
        db = apsw.Connection(path, vfs=vfs)
        db.set_busy_timeout(_BUSY_MILLISECONDS)
        if vfs is not None:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA secure_delete=ON")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        db.execute("PRAGMA cache_size=-65536")
    except apsw.Error as error:
        if db is not None:
            db.close()
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


def open_database(path: str, schema: Schema, *, vfs: str | None = None) -> Connection:
    """Opens a database and brings its tables to the newest version; raises `StorageError`."""
    db = connect(path, vfs=vfs)
    try:
        migrate(db, schema)
    except apsw.Error as error:
        db.close()
        msg = f"the {schema.name} database {path} cannot be brought up to date: {error}"
        raise StorageError(msg) from error
    except StorageError:
        db.close()
        raise
    return db


def _roll_back(db: Connection) -> None:
    """Ends a transaction without its changes. SQLite has done so by itself after some errors."""
    with contextlib.suppress(apsw.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


class Store:
    """A database that one event loop reads and writes. `path` may be ":memory:" for tests (one connection then)."""

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
        # Neither a database in memory nor one under an exclusive lock has a second connection.
        self._alone = self._path == ":memory:" or vfs is not None
        self._queue_limit, self._batch_limit = queue_limit, batch_limit
        self._db = open_database(self._path, schema, vfs=vfs)
        self._waiting: deque[_Write[Any]] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._local = threading.local()
        self._committer = ThreadPoolExecutor(1, thread_name_prefix=f"{schema.name}-commit")
        self._readers = ThreadPoolExecutor(reader_threads, thread_name_prefix=f"{schema.name}-read")
        self._opened: list[Connection] = []
        self._changes = 0
        self._name = schema.name
        self._said_at = float("-inf")

    @property
    def changes(self) -> int:
        """How often something may have been changed: a read that has begun since it last grew sees all of it.

        It grows after what was written is durable and before anybody is told of it.
        """
        return self._changes

    @property
    def depth(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    def write(
        self, function: Callable[[Connection], T], *, raises_first: bool = False
    ) -> asyncio.Future[T]:
        """Runs a write; the future is done when it is durable, with what the function returned or raised.

        `raises_first` promises that the function raises before it writes or not at all, and saves it a savepoint.
        Raises `StorageError` if too many wait.
        """
        return self._enqueue(function, raises_first=raises_first, only_reads=False)

    def _enqueue(
        self, function: Callable[[Connection], T], *, raises_first: bool, only_reads: bool
    ) -> asyncio.Future[T]:
        if self._closing:
            raise StorageError("the database is being closed")
        if len(self._waiting) >= self._queue_limit:
            raise StorageError(f"{len(self._waiting)} writes wait for the disk; come back later")
        loop = asyncio.get_running_loop()
        write: _Write[T] = _Write(function, loop.create_future(), raises_first, only_reads)
        self._waiting.append(write)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            loop.call_soon(self._run, loop)
        return write.future

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Runs a read on a connection of its own."""
        if self._alone:
            return await self._enqueue(function, raises_first=False, only_reads=True)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._run_read, function)

    def _run_read(self, function: Callable[[Connection], T]) -> T:
        db: Connection | None = getattr(self._local, "db", None)
        try:
            if db is None:
                db = connect(self._path, vfs=self._vfs)
                self._local.db = db
                self._opened.append(db)
            db.execute("BEGIN")
            try:
                return function(db)
            finally:
                _roll_back(db)
        except (apsw.Error, StorageError) as error:
            self._say("read", error)
            # The reason may name the file, and who reads is somebody else's client.
            raise StorageError("the database cannot be read") from error

    async def close(self) -> None:
        """Finishes what waits, then closes; a second call does nothing."""
        if self._closing:
            return
        self._closing = True
        await self._idle.wait()
        self._committer.shutdown()
        self._readers.shutdown()
        for db in (*self._opened, self._db):
            try:
                db.close()
            except apsw.Error:
                # The checkpoint at the end failed; what was committed is in the log and read from there next time.
                db.close(force=True)

    def _say(self, what: str, error: BaseException) -> None:
        """Tells the operator, who is awake because of it, but not for each of thousands of requests."""
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY:
            self._said_at = now
            _log.error(
                "a database cannot be %s",
                what,
                extra={"database": self._name, "reason": str(error)},
            )

    # -- group commit

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs what waits in one transaction and has it committed."""
        if not self._waiting:
            self._busy = False
            self._idle.set()
            return
        count = min(len(self._waiting), self._batch_limit)
        batch = [self._waiting.popleft() for _ in range(count)]
        outcomes: list[_Outcome] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._one(write) for write in batch]
        except apsw.Error as error:
            self._settle(loop, batch, outcomes, error)
            return
        committed = loop.run_in_executor(self._committer, self._db.execute, "COMMIT")
        committed.add_done_callback(
            lambda done: self._settle(loop, batch, outcomes, done.exception())
        )

    def _one(self, write: _Write[Any]) -> _Outcome:
        if write.raises_first:
            try:
                return write.function(self._db), None
            except apsw.Error:
                raise
            except Exception as error:  # noqa: BLE001 - it is handed to who asked
                return None, error
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

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Write[Any]],
        outcomes: list[_Outcome],
        failure: BaseException | None,
    ) -> None:
        if failure is not None:
            _roll_back(self._db)
            self._say("written", failure)
            lost = StorageError(f"the database cannot be written: {failure}")
            outcomes = [(None, lost)] * len(batch)
        if not all(write.only_reads for write in batch):
            self._changes += 1
        for write, (result, raised) in zip(batch, outcomes, strict=True):
            if write.future.cancelled():
                continue
            if raised is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(raised)
        loop.call_soon(self._run, loop)
