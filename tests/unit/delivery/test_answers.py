"""Answers that many readers ask for alike: read once, and never the answer to another question or of another time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.answers import LARGEST_REMEMBERED, REMEMBERED, SharedReads
from coterie.delivery.service import DeliveryService, Places
from coterie.delivery.settings import Settings
from coterie.delivery.store import Connection, Schema, Store
from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    EpochState,
    ErrorCode,
    Read,
    ReadResult,
    Receipt,
    StoredEntry,
    Subscribe,
    TargetType,
)
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import identify_basic
from tests.delivery_model import Clock, ModelEpoch, new_log

HEAD = Receipt(bytes(32), 0, bytes(32), bytes(32), bytes(64))
DAY = 86400


def question(number: int = 1, token: bytes = b"t" * 32) -> Read:
    return Read(b"l" * 32, b"e" * 32, token, number)


class Database:
    """Answers each read when it is told to; counts them."""

    def __init__(self, size: int = 0) -> None:
        self.asked: list[Read] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.size = size
        self.state = (0, 0)
        self.fails = False
        self.shared = SharedReads(self.read, lambda: self.state)

    async def read(self, request: Read) -> ReadResult:
        self.asked.append(request)
        await self.may_answer.wait()
        if self.fails:
            raise Refused(ErrorCode.BAD_TOKEN, "no", rule="D-ACC-5")
        entry = StoredEntry(HEAD, None, 0)
        entries = (entry,) * (self.size // len(entry.encode()))
        return ReadResult(None, entries, len(self.asked), HEAD, EpochState.OPEN)


def test_who_asks_while_the_first_one_reads_gets_its_answer() -> None:
    async def main() -> None:
        database = Database()
        database.may_answer.clear()
        asking = [asyncio.ensure_future(database.shared.read(question())) for _ in range(50)]
        await asyncio.sleep(0)
        database.may_answer.set()
        assert {(await each).next_number for each in asking} == {1}
        assert len(database.asked) == 1

    asyncio.run(main())


def test_who_asks_later_gets_what_was_found() -> None:
    async def main() -> None:
        database = Database()
        assert await database.shared.read(question()) is await database.shared.read(question())
        assert len(database.asked) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "other",
    [
        question(2),
        question(token=b"u" * 32),
        Read(b"m" * 32, b"e" * 32, b"t" * 32, 1),
        Read(b"l" * 32, b"f" * 32, b"t" * 32, 1),
        Read(b"l" * 32, b"e" * 32, b"t" * 32, 1, 7),
    ],
    ids=["number", "token", "log", "epoch", "length"],
)
def test_another_question_is_read_for_itself(other: Read) -> None:
    async def main() -> None:
        database = Database()
        await database.shared.read(question())
        await database.shared.read(other)
        assert database.asked == [question(), other]

    asyncio.run(main())


@pytest.mark.parametrize("state", [(1, 0), (0, 1)], ids=["a write", "the next hour"])
def test_what_was_found_is_forgotten_when_it_may_have_changed(state: tuple[int, int]) -> None:
    async def main() -> None:
        database = Database()
        await database.shared.read(question())
        database.state = state
        await database.shared.read(question())
        assert len(database.asked) == 2

    asyncio.run(main())


def test_who_asks_after_a_write_does_not_get_what_is_being_read_from_before_it() -> None:
    async def main() -> None:
        database = Database()
        database.may_answer.clear()
        before = asyncio.ensure_future(database.shared.read(question()))
        await asyncio.sleep(0)
        database.state = (1, 0)
        after = asyncio.ensure_future(database.shared.read(question()))
        await asyncio.sleep(0)
        database.may_answer.set()
        await asyncio.gather(before, after)
        assert len(database.asked) == 2

    asyncio.run(main())


def test_what_was_read_beside_a_write_is_not_remembered() -> None:
    async def main() -> None:
        database = Database()
        database.may_answer.clear()
        beside = asyncio.ensure_future(database.shared.read(question()))
        await asyncio.sleep(0)
        database.state = (1, 0)
        database.may_answer.set()
        await beside
        await database.shared.read(question())
        assert len(database.asked) == 2

    asyncio.run(main())


def test_a_refusal_reaches_all_who_asked_and_is_not_remembered() -> None:
    async def main() -> None:
        database = Database()
        database.fails = True
        asking = [database.shared.read(question()) for _ in range(3)]
        refusals = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(each) for each in refusals] == [Refused] * 3
        database.fails = False
        await database.shared.read(question())
        assert len(database.asked) == 2

    asyncio.run(main())


def test_a_reader_who_leaves_takes_the_answer_from_nobody() -> None:
    async def main() -> None:
        database = Database()
        database.may_answer.clear()
        first, second = (asyncio.ensure_future(database.shared.read(question())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        database.may_answer.set()
        assert (await second).next_number == 1

    asyncio.run(main())


def test_large_answers_are_not_remembered() -> None:
    async def main() -> None:
        for size, reads in ((LARGEST_REMEMBERED - 1024, 1), (LARGEST_REMEMBERED + 1024, 2)):
            database = Database(size)
            await database.shared.read(question())
            await database.shared.read(question())
            assert len(database.asked) == reads

    asyncio.run(main())


def test_no_more_answers_are_remembered_than_there_is_room_for() -> None:
    async def main() -> None:
        database = Database()
        for number in range(REMEMBERED + 1):
            await database.shared.read(question(number))
        await database.shared.read(question(REMEMBERED))
        assert len(database.asked) == REMEMBERED + 1
        await database.shared.read(question(0))
        assert len(database.asked) == REMEMBERED + 2

    asyncio.run(main())


# -- in the service


@asynccontextmanager
async def service(folder: Path, clock: Clock) -> AsyncIterator[tuple[DeliveryService, list[Read]]]:
    """A service whose databases are on disk, and what it reads of logs."""
    made = DeliveryService(
        Ed25519PrivateKey.generate(),
        identify_basic,
        places=Places.within(folder),
        settings=Settings(rates=UNLIMITED),
        clock=clock,
    )
    asked: list[Read] = []
    read = made.logs.read

    def counted(tx: object, request: Read) -> ReadResult:
        asked.append(request)
        return read(tx, request)  # type: ignore[arg-type]

    made.logs.read = counted  # type: ignore[method-assign]
    try:
        yield made, asked
    finally:
        await made.close()


async def _with_a_log(made: DeliveryService) -> tuple[DeliveryClient, ModelEpoch]:
    client = DeliveryClient(MemoryCarrier(made))
    epoch, create = new_log()
    await client.create_log(create)
    return client, epoch


def test_subscribers_of_one_epoch_cost_the_database_one_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, Clock()) as (made, asked):
            client, epoch = await _with_a_log(made)
            await client.append(epoch.message(b"one"))
            connections = [await client.connect() for _ in range(20)]
            for connection in connections:
                target = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=epoch.target())
                await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=target))
            for connection in connections:
                entries = (await asyncio.wait_for(connection.receive(), 5)).entries
                assert entries is not None
                assert [each.receipt.number for each in entries.result.entries] == [1]
            assert len(asked) == 1
            await client.append(epoch.message(b"two"))
            for connection in connections:
                entries = (await asyncio.wait_for(connection.receive(), 5)).entries
                assert entries is not None
                assert [each.receipt.number for each in entries.result.entries] == [2]
                await connection.close()

    asyncio.run(main())


def test_a_reader_sees_what_was_accepted_before_it_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, Clock()) as (made, _):
            client, epoch = await _with_a_log(made)
            for number in range(1, 20):
                await client.append(epoch.message())
                answers = await asyncio.gather(*(client.read(epoch.read()) for _ in range(3)))
                assert {each.next_number for each in answers} == {number + 1}

    asyncio.run(main())


def test_a_wrong_token_is_refused_while_the_right_ones_answer_is_remembered(tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, Clock()) as (made, _):
            client, epoch = await _with_a_log(made)
            right = epoch.read()
            await client.read(right)
            with pytest.raises(Refused, match="D-ACC-5"):
                await client.read(right.replace(token=bytes(32)))

    asyncio.run(main())


def test_what_an_epoch_says_of_its_age_is_not_remembered_into_the_next_hour(tmp_path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with service(tmp_path, clock) as (made, _):
            client, epoch = await _with_a_log(made)
            await client.append(epoch.bundle(epoch.child()))
            assert (await client.read(epoch.read())).state is EpochState.ENDED
            clock.forward(31 * DAY)
            assert (await client.read(epoch.read())).state is EpochState.CLOSED

    asyncio.run(main())


def test_what_was_dropped_is_gone_for_who_asks_again(tmp_path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with service(tmp_path, clock) as (made, _):
            client, epoch = await _with_a_log(made)
            await client.append(epoch.message())
            assert (await client.read(epoch.read())).entries
            # Within the hour, so that only the sweep can have changed the answer.
            clock.forward(31 * DAY)
            assert (await client.read(epoch.read())).entries
            await made.sweep()
            assert (await client.read(epoch.read())).gone is not None

    asyncio.run(main())


def test_changes_are_counted_before_anybody_hears_of_a_write_and_reads_are_none(
    tmp_path: Path,
) -> None:
    async def main(place: str) -> None:
        store = Store(place, Schema("test", ("CREATE TABLE t (x)",)))

        def write(db: Connection) -> None:
            db.execute("INSERT INTO t VALUES (1)")

        def read(db: Connection) -> list[Any]:
            return db.execute("SELECT x FROM t").fetchall()

        seen: list[int] = []
        writing = store.write(write)
        writing.add_done_callback(lambda _: seen.append(store.changes))
        await writing
        await asyncio.sleep(0)
        assert seen == [1]
        assert await store.read(read) == [(1,)]
        assert store.changes == 1
        await store.close()

    asyncio.run(main(":memory:"))
    asyncio.run(main(str(tmp_path / "t.db")))
