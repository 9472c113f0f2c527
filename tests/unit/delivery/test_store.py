"""The database under the services: group commit, what a failing write leaves behind, versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from coterie.delivery.sqlite_ledger import SCHEMA as LOGS
from coterie.delivery.store import Connection, Schema, Store, connect, open_database
from coterie.errors import StorageError

FIRST = "CREATE TABLE word (text TEXT NOT NULL);"
SECOND = "ALTER TABLE word ADD COLUMN length INTEGER;"
SCHEMA = Schema("words", (FIRST, SECOND))


def add(word: str) -> Callable[[Connection], str]:
    def write(db: Connection) -> str:
        db.execute("INSERT INTO word(text) VALUES (?)", (word,))
        if word == "bad":
            raise ValueError(word)
        return word

    return write


def words(db: Connection) -> list[str]:
    return [str(text) for (text,) in db.execute("SELECT text FROM word ORDER BY rowid")]


def test_a_write_that_raises_changes_nothing_and_stops_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        writes = [store.write(add(w)) for w in ("one", "bad", "two")]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert results[0::2] == ["one", "two"]
        assert isinstance(results[1], ValueError)
        assert await store.read(words) == ["one", "two"]
        await store.close()

    asyncio.run(run())


def test_writes_that_come_together_share_a_sync(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        before = (tmp_path / "w.db-wal").stat().st_size
        await asyncio.gather(*(store.write(add(str(n))) for n in range(100)))
        one_batch = (tmp_path / "w.db-wal").stat().st_size - before
        assert one_batch < 10 * 4096, "a hundred commits would write a hundred pages"
        await store.close()

    asyncio.run(run())


def test_too_many_waiting_writes_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA, queue_limit=2)
        first = [store.write(add(str(n))) for n in range(2)]
        with pytest.raises(StorageError, match="come back later"):
            store.write(words)
        await asyncio.gather(*first)
        assert len(await store.write(words)) == 2
        await store.close()

    asyncio.run(run())


def test_closing_finishes_what_waits_and_takes_nothing_more(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        write = store.write(add("last"))
        await store.close()
        assert await write == "last"
        with pytest.raises(StorageError, match="closed"):
            store.write(words)

    asyncio.run(run())


def test_an_old_database_is_brought_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")
    db = open_database(path, Schema("words", (FIRST,)))
    db.execute("INSERT INTO word(text) VALUES ('old')")
    db.close()
    db = open_database(path, SCHEMA)
    assert db.execute("SELECT text, length FROM word").fetchall() == [("old", None)]
    db.close()


def test_a_database_of_the_newest_version_is_opened_as_it_is(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")
    for _ in range(2):
        db = open_database(path, SCHEMA)
        db.close()


def test_a_database_that_cannot_be_brought_up_to_date_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")
    db = open_database(path, SCHEMA)
    db.execute("PRAGMA user_version=1")
    db.close()
    with pytest.raises(StorageError, match="cannot be brought up to date"):
        open_database(path, SCHEMA)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")
    db = open_database(path, SCHEMA)
    db.execute("PRAGMA user_version=3")
    db.close()
    with pytest.raises(StorageError, match="use the newer program"):
        open_database(path, SCHEMA)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    path.write_bytes(b"these bytes are no database" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        connect(str(path))


def test_a_full_disk_is_named_in_the_log_once_and_the_store_goes_on_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        pages = int(store._db.execute("PRAGMA page_count").fetchone()[0])  # type: ignore[index]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be written"):
                await store.write(add("x" * 100_000))
        store._db.execute("PRAGMA max_page_count=100000")
        assert await store.write(add("fits")) == "fits"
        await store.close()

    with caplog.at_level(logging.ERROR, "coterie.delivery"):
        asyncio.run(run())
    (record,) = caplog.records
    assert record.getMessage() == "a database cannot be written"
    assert vars(record)["database"] == "words"
    assert "full" in vars(record)["reason"]


def test_a_rollback_that_fails_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        """A connection whose disk fails once, in the rollback too."""

        def __init__(self, db: Connection) -> None:
            self.db, self.fails = db, True

        @property
        def in_transaction(self) -> bool:
            return self.db.in_transaction

        def execute(self, sql: str) -> object:
            if self.fails and sql in {"COMMIT", "ROLLBACK"}:
                self.fails = sql == "COMMIT"
                if sql == "ROLLBACK":
                    self.db.execute(sql)
                raise apsw.IOError("the disk")
            return self.db.execute(sql)

        def close(self) -> None:
            self.db.close()

    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        monkeypatch.setattr(store, "_db", Broken(store._db))
        with pytest.raises(StorageError, match="cannot be written"):
            await asyncio.wait_for(store.write(lambda _: None), 5)
        assert await asyncio.wait_for(store.write(lambda _: "again"), 5) == "again"
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("lost", [False, True])
def test_a_read_that_fails_says_nothing_of_the_file_but_to_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, lost: bool
) -> None:
    def damaged(db: Connection) -> None:
        db.execute("ROLLBACK")
        raise apsw.CorruptError("database disk image is malformed")

    async def run() -> None:
        store = Store(tmp_path / "w.db", SCHEMA)
        if lost:
            store._path = str(tmp_path / "nowhere" / "w.db")
        with pytest.raises(StorageError) as caught:
            await store.read(damaged)
        assert str(caught.value) == "the database cannot be read"
        await store.close()

    with caplog.at_level(logging.ERROR, "coterie.delivery"):
        asyncio.run(run())
    (record,) = caplog.records
    assert ("nowhere" if lost else "malformed") in vars(record)["reason"]


def test_logs_of_the_first_version_get_the_indexes_of_the_second(tmp_path: Path) -> None:
    path = str(tmp_path / "logs.db")
    open_database(path, Schema("logs", LOGS.versions[:1])).close()
    old = open_database(path, LOGS)
    new = open_database(":memory:", LOGS)
    sql = "SELECT name, sql FROM sqlite_master ORDER BY name"
    assert old.execute(sql).fetchall() == new.execute(sql).fetchall()
    old.close()
    new.close()
