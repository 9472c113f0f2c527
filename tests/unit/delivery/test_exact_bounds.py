"""Every limit of the Delivery Service to the byte: what is exactly as much as allowed is taken, one more is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.directory import MAX_NAME, Directory
from coterie.delivery.directory_store import SCHEMA, DirectoryTables
from coterie.delivery.limits import LOCAL, Limiter
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Settings
from coterie.delivery.store import connect, migrate
from coterie.errors import VerificationError
from coterie.transport.api import (
    Chunk,
    ClientFrame,
    ClientFrameType,
    Delivery,
    Done,
    ErrorCode,
    InboxTarget,
    MintTickets,
    PutChunksResult,
    Subscribe,
    TargetType,
    sha256,
)
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED, Bench, Raises
from tests.delivery_devices import Device, identify_basic
from tests.delivery_model import ModelEpoch, digest, new_log

SMALL = Settings(rates=UNLIMITED, max_chunk=100, max_chunks=3, bundle_quota=4000)


def chunks(count: int, size: int = 100) -> tuple[Chunk, ...]:
    return tuple(Chunk(bytes((number,)) * size) for number in range(count))


@pytest.fixture
def small() -> Bench:
    return Bench(SMALL)


def _create(bench: Bench, **changes: Any) -> None:
    epoch, request = new_log()
    create = request.create.replace(**changes)
    signed = request.replace(create=create, signature=epoch.key.sign(create.to_be_signed()))
    bench.run(lambda tx: bench.logs.create(tx, signed, LOCAL))


@pytest.mark.parametrize("retention", [SMALL.min_retention, SMALL.max_retention])
def test_the_shortest_and_the_longest_retention_are_taken(small: Bench, retention: int) -> None:
    _create(small, retention=retention)
    for outside in (SMALL.min_retention - 1, SMALL.max_retention + 1):
        with Raises(ErrorCode.BAD_RETENTION, "D-LOG-3"):
            _create(small, retention=outside)


def test_chunks_of_a_new_log_have_a_size_and_a_number(small: Bench) -> None:
    _create(small, chunks=chunks(3))
    for wrong in (chunks(4), chunks(1, 101)):
        with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
            _create(small, chunks=wrong)


def test_uploaded_and_renewed_chunks_have_a_size_and_a_number(small: Bench) -> None:
    epoch = small.new_log()

    def put(given: tuple[Chunk, ...], *renewed: bytes) -> PutChunksResult:
        request = epoch.put_chunks(given, *renewed)
        return small.run(lambda tx: small.logs.put_chunks(tx, request, LOCAL))

    there = chunks(3)
    put(there, *(chunk.address() for chunk in there))
    for wrong in (chunks(4), chunks(1, 101)):
        with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
            put(wrong)
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        put((), *(digest(number) for number in range(4)))


def test_as_many_chunks_are_fetched_as_may_be_named(small: Bench) -> None:
    epoch = small.new_log()
    names = [digest(number) for number in range(4)]
    small.run(lambda tx: small.logs.fetch_chunks(tx, epoch.fetch_chunks(*names[:3])))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        small.run(lambda tx: small.logs.fetch_chunks(tx, epoch.fetch_chunks(*names)))


def test_a_bundle_lists_at_most_so_many_chunks(small: Bench) -> None:
    epoch = small.new_log()
    added = tuple(digest(number) for number in range(4))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        small.append(epoch.bundle(epoch.child(), added=added))


def test_an_entry_may_be_as_large_as_the_limit() -> None:
    entry = ModelEpoch(bytes(32), bytes(32), b"").message(bytes(100)).entry
    bench = Bench(Settings(rates=UNLIMITED, max_entry=len(entry.encode())))
    epoch = bench.new_log()
    bench.append(epoch.message(bytes(100)))
    with Raises(ErrorCode.TOO_LARGE, "D-TRA-4"):
        bench.append(epoch.message(bytes(101)))


def test_a_bundle_may_fill_the_quota_and_not_exceed_it() -> None:
    probe, _ = new_log()
    request = probe.bundle(probe.child(), chunks=chunks(2))
    size = len(request.entry.encode()) + 200
    for quota, fits in ((size, True), (size - 1, False)):
        bench = Bench(Settings(rates=UNLIMITED, bundle_quota=quota))
        epoch = bench.new_log()
        bundle = epoch.bundle(epoch.child(), chunks=chunks(2))
        if fits:
            bench.append(bundle)
        else:
            with Raises(ErrorCode.QUOTA, "D-RET-3"):
                bench.append(bundle)


def test_uploaded_chunks_may_fill_half_the_quota_and_not_exceed_it() -> None:
    bench = Bench(Settings(rates=UNLIMITED, bundle_quota=600))
    epoch = bench.new_log()
    bench.run(lambda tx: bench.logs.put_chunks(tx, epoch.put_chunks(chunks(2)), LOCAL))
    used = bench.run(lambda tx: tx.usage(tx.epoch(epoch.name).branch).bundles)  # type: ignore[union-attr]
    rest = 300 - used
    more = epoch.put_chunks((Chunk(bytes(rest + 1)),))
    with Raises(ErrorCode.QUOTA, "D-CHK-7"):
        bench.run(lambda tx: bench.logs.put_chunks(tx, more, LOCAL))
    exact = epoch.put_chunks((Chunk(bytes(rest)),))
    bench.run(lambda tx: bench.logs.put_chunks(tx, exact, LOCAL))


def test_a_request_has_a_kem_output_of_at_most_2048_bytes(bench: Bench) -> None:
    epoch = bench.new_log()

    def post(length: int) -> None:
        request = epoch.request()
        request = request.replace(request=request.request.replace(kem_output=bytes(length)))
        bench.run(lambda tx: bench.logs.post_request(tx, request, LOCAL))

    post(2048)
    with Raises(ErrorCode.BAD_SIZE, "D-BOX-2"):
        post(2049)


def test_a_box_takes_as_many_requests_as_it_keeps() -> None:
    bench = Bench(Settings(rates=UNLIMITED, max_requests=2))
    epoch = bench.new_log()
    for _ in range(2):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))
    with Raises(ErrorCode.QUOTA, "D-BOX-1"):
        bench.run(lambda tx: bench.logs.post_request(tx, epoch.request(), LOCAL))


# -- the directory


class Desk:
    """A directory with settings of its own, over one connection."""

    def __init__(self, **changes: Any) -> None:
        settings = Settings(rates=UNLIMITED, **changes)
        self.now = 1_800_000_000.0
        self.directory = Directory(
            settings, Limiter(settings.rates, self.clock), identify_basic, self.clock
        )
        db = connect(":memory:")
        migrate(db, SCHEMA)
        self.tables = DirectoryTables(db)

    def clock(self) -> float:
        return self.now

    def device(self, user: bytes = b"alice@x") -> Device:
        made = Device(user, now=self.now)
        self.directory.open_inbox(self.tables, made.open(), LOCAL)
        return made


def test_an_envelope_has_a_kem_output_of_at_most_2048_bytes() -> None:
    desk = Desk()
    alice = desk.device()
    tickets = [bytes((number,)) * 32 for number in range(2)]
    mint = MintTickets(alice.inbox_id, alice.token, tuple(map(sha256, tickets)))
    desk.directory.mint(desk.tables, mint, LOCAL)
    longest = alice.envelope(tickets[0]).replace(kem_output=bytes(2048))
    assert desk.directory.post(desk.tables, longest, LOCAL)[0] == Done()
    too_long = alice.envelope(tickets[1]).replace(kem_output=bytes(2049))
    with Raises(ErrorCode.BAD_SIZE, "D-INB-5"):
        desk.directory.post(desk.tables, too_long, LOCAL)


def test_a_batch_has_as_many_key_packages_as_a_device_keeps() -> None:
    desk = Desk(max_key_packages=3)
    alice = desk.device()
    assert len(desk.directory.verify_publish(alice.publish(2, last_resort=1))) == 3
    with Raises(ErrorCode.TOO_LARGE, "D-DIR-1"):
        desk.directory.verify_publish(alice.publish(3, last_resort=1))
    with Raises(ErrorCode.TOO_LARGE, "D-DIR-1"):
        desk.directory.verify_publish(alice.publish(0))


def test_a_name_has_at_most_so_many_bytes() -> None:
    desk = Desk()
    longest = desk.device(b"n" * MAX_NAME)
    assert desk.directory.verify_publish(longest.publish(1))
    longer = desk.device(b"n" * (MAX_NAME + 1))
    with Raises(ErrorCode.MALFORMED, "D-DIR-1"):
        desk.directory.verify_publish(longer.publish(1))


def test_a_credential_that_nobody_vouches_for_is_refused() -> None:
    desk = Desk()
    alice = desk.device()

    def refuse(*_: object) -> tuple[bytes, bytes]:
        raise VerificationError("this one was revoked")

    desk.directory._identify = refuse
    with Raises(ErrorCode.BAD_CREDENTIAL, "D-DIR-1") as raises:
        desk.directory.verify_publish(alice.publish(1))
    assert "revoked" in str(raises.error)


# -- subscriptions


def test_inboxes_and_logs_need_different_connections() -> None:
    async def main() -> None:
        service = DeliveryService(
            Ed25519PrivateKey.generate(), identify_basic, settings=Settings(rates=UNLIMITED)
        )
        client = DeliveryClient(MemoryCarrier(service))
        epoch, create = new_log()
        await client.create_log(create)
        alice = Device(b"alice@x")
        await client.open_inbox(alice.open())
        log = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=epoch.target())
        target = InboxTarget(alice.inbox_id, alice.token, 0)
        inbox = Subscribe(2, Delivery.CONTENT, TargetType.INBOX, inbox=target)
        for first, second in ((log, inbox), (inbox, log)):
            connection = await client.connect()
            await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=first))
            with pytest.raises(Refused, match="D-SUB-7"):
                await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=second))
            await connection.close()
        await service.close()

    asyncio.run(main())
