"""Crashes of the Delivery Service: what was answered is durable, what was not is there whole or not at all.

One run lists every write and sync of a lively workload; then the machine crashes at each of them, with a file system
that forgets what was not synced (any subset of the later writes may have reached the disk), and the service starts
again on what is left. COTERIE_CRASH_SEEDS says with how many seeds (1), COTERIE_CRASH_KILLS how many real SIGKILLs (2).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery import store
from coterie.delivery.limits import LOCAL
from coterie.delivery.service import DeliveryService, Places
from coterie.delivery.settings import Settings
from coterie.errors import ServiceError, StorageError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.api import Append, Appended, Chunk, ErrorCode
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import Device, claim, identify_basic
from tests.delivery_model import ModelEpoch, new_log
from tests.delivery_server import RECEIPT_SEED, running
from tests.forgetful_vfs import Disk, ForgetfulVFS

SEEDS = int(os.environ.get("COTERIE_CRASH_SEEDS", "1"))
KILLS = int(os.environ.get("COTERIE_CRASH_KILLS", "2"))


def service_on(vfs: ForgetfulVFS) -> DeliveryService:
    return DeliveryService(
        Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED),
        identify_basic,
        places=Places("logs.db", "directory.db"),
        settings=Settings(rates=UNLIMITED),
        vfs=vfs.name,
    )


@dataclass
class Workload:
    """A log's life and a user's, with what was answered."""

    epoch: ModelEpoch = field(init=False)
    requests: list[tuple[str, Struct]] = field(default_factory=list)
    answers: list[Struct | None] = field(default_factory=list)
    alice: Device = field(default_factory=lambda: Device(b"alice@crash"))
    chunk: Chunk = field(default_factory=lambda: Chunk(b"state" * 500))

    def __post_init__(self) -> None:
        self.epoch, create = new_log()
        child = self.epoch.child()
        first = self.epoch.bundle(child, chunks=(self.chunk,), sealed=bytes(9000))
        self.requests = [
            ("logs/create", create),
            ("inboxes/open", self.alice.open()),
            ("logs/append", self.epoch.message(bytes(3000))),
            ("directory/publish", self.alice.publish(3)),
            ("logs/append", first),
            ("logs/append", self.epoch.correction(first.entry.hash(), self.epoch.child("right"))),
            ("directory/claim", claim(self.alice.user)),
            ("boxes/post", self.epoch.request()),
            ("logs/append", child.message(bytes(500))),
            ("directory/claim", claim(self.alice.user)),
        ]

    async def run(self, service: DeliveryService, disk: Disk) -> None:
        """Sends the requests until the crash; an answer that comes with it reaches nobody."""
        for path, request in self.requests:
            try:
                answer = await service.handle(path, request, LOCAL)
            except Refused as refused:
                if refused.code is not ErrorCode.UNAVAILABLE:
                    raise
                return
            if disk.crashed:
                return
            self.answers.append(answer)

    async def check(self, service: DeliveryService) -> None:
        """Compares what a restarted service has with what was answered, then goes on where the crash was."""
        for (path, request), answer in zip(self.requests, self.answers, strict=False):
            if path in {"logs/create", "logs/append"}:
                assert await service.handle(path, request, LOCAL) == answer, "a repetition differs"
        await self._bundle_is_whole(service)
        await self._claims_are_once(service)
        for path, request in self.requests[len(self.answers) :]:
            if path != "directory/claim":
                await service.handle(path, request, LOCAL)

    async def _bundle_is_whole(self, service: DeliveryService) -> None:
        child = self.epoch.child()
        try:
            await service.handle("logs/read", child.read(), LOCAL)
            opened = True
        except Refused:
            opened = False
        try:
            read = await service.handle("logs/read", self.epoch.read(), LOCAL)
        except Refused:
            return
        assert isinstance(read, api.ReadResult)
        assert (read.state is api.EpochState.ENDED) is opened
        fetch = self.epoch.fetch_chunks(self.chunk.address())
        chunks = await service.handle("chunks/fetch", fetch, LOCAL)
        assert isinstance(chunks, api.Chunks)
        assert (chunks.chunks[0] is not None) is opened

    async def _claims_are_once(self, service: DeliveryService) -> None:
        given = [a.packages[0].key_package for a in self.answers if isinstance(a, api.ClaimResult)]
        try:
            while True:
                more = await service.handle("directory/claim", claim(self.alice.user), LOCAL)
                assert isinstance(more, api.ClaimResult)
                given.append(more.packages[0].key_package)
        except Refused as refused:
            if refused.code not in {ErrorCode.NONE_LEFT, ErrorCode.UNKNOWN_NAME}:
                raise
        assert len(given) == len(set(given)), "a package was given twice"


async def _until_the_crash(disk: Disk, workload: Workload, name: str) -> None:
    try:
        service = service_on(ForgetfulVFS(name, disk))
    except StorageError:
        return
    await workload.run(service, disk)
    await service.close()


def _points() -> int:
    disk = Disk()
    workload = Workload()
    asyncio.run(_until_the_crash(disk, workload, "count"))
    assert len(workload.answers) == len(workload.requests)
    assert any(point.startswith("sync") for point in disk.points)
    return len(disk.points)


# A crash at the last points happens while connections are closed, which apsw can report in no other way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_crash_at_any_write_or_sync_loses_nothing_that_was_answered() -> None:
    for seed in range(SEEDS):
        assert _crash_everywhere(seed) > 100


def _crash_everywhere(seed: int) -> int:
    points, rng = _points(), random.Random(seed)
    for point in range(points):
        _crash_at(point, rng, f"forgetful-{seed}-{point}")
    return points


def _crash_at(point: int, rng: random.Random, name: str) -> None:
    disk = Disk()
    disk.crash_at = point
    workload = Workload()
    asyncio.run(_until_the_crash(disk, workload, name))
    restarted = ForgetfulVFS(name + "-after", Disk(disk.survivors(rng)))

    async def after() -> None:
        service = service_on(restarted)
        await workload.check(service)
        await service.close()

    asyncio.run(after())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_sync_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without waiting for the disk, answers are lost."""
    true_connect = store.connect

    def careless(path: str, *, vfs: str | None = None) -> store.Connection:
        db = true_connect(path, vfs=vfs)
        db.execute("PRAGMA synchronous=OFF")
        return db

    monkeypatch.setattr(store, "connect", careless)
    with pytest.raises((AssertionError, Refused, StorageError)):
        _crash_everywhere(1)


def test_a_full_disk_refuses_and_serves_again_when_there_is_room() -> None:
    async def run() -> None:
        vfs = ForgetfulVFS("full", Disk())
        service = service_on(vfs)
        epoch, create = new_log()
        await service.handle("logs/create", create, LOCAL)
        vfs.disk.full = True
        request = epoch.message(bytes(5000))
        with pytest.raises(Refused) as caught:
            await service.handle("logs/append", request, LOCAL)
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert caught.value.retry_after is not None
        vfs.disk.full = False
        answer = await service.handle("logs/append", request, LOCAL)
        assert isinstance(answer, Appended)
        assert answer.receipt.number == 1
        await service.close()

    asyncio.run(run())


def test_a_connection_cut_in_mid_upload_stores_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        with running(tmp_path) as server:
            client = DeliveryClient(HTTPCarrier(server.url))
            epoch, create = new_log()
            await client.create_log(create)
            body = epoch.bundle(epoch.child(), sealed=bytes(1_000_000)).encode()
            head = (
                f"POST /v1/logs/append HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(head.encode() + body[: len(body) // 2])
            await asyncio.sleep(0.2)
            assert (await client.read(epoch.read())).entries == ()
            await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(KILLS))
def test_sigkill_loses_nothing_that_was_answered(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    epoch, create = new_log()
    answered: list[tuple[Append, Appended]] = []

    async def load(url: str) -> None:
        client = DeliveryClient(HTTPCarrier(url))
        await client.create_log(create)

        async def one() -> None:
            while True:
                request = epoch.message(bytes(rng.randrange(1, 4000)))
                try:
                    answered.append((request, await client.append(request)))
                except ServiceError:
                    return

        await asyncio.gather(*(one() for _ in range(8)))
        await client.close()

    with running(tmp_path) as server:
        killer = threading.Timer(rng.uniform(0.2, 1.0), server.process.kill)
        killer.start()
        asyncio.run(load(server.url))
        killer.join()

    async def check(url: str) -> None:
        client = DeliveryClient(HTTPCarrier(url))
        read = await client.read(epoch.read())
        stored = {entry.receipt.number: entry.receipt for entry in read.entries}
        for _, answer in answered:
            assert stored[answer.receipt.number] == answer.receipt
        for request, answer in answered[-5:]:
            assert await client.append(request) == answer
        await client.close()

    started = time.monotonic()
    with running(tmp_path) as server:
        asyncio.run(check(server.url))
    assert time.monotonic() - started < 60
