"""Every rate stops the second request when it allows one, and says when to come back (D-TRA-4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.directory_store import Package
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.transport.api import (
    AckInbox,
    Append,
    Chunk,
    ErrorCode,
    FetchEntry,
    KeyPackageReference,
    MintTickets,
    Withdraw,
    sha256,
)
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import Device, claim, identify_basic
from tests.delivery_model import Clock, fresh_id, new_log


class World:
    """A log that has ended once, a user with packages and tickets, all made before the rate is set."""

    def __init__(self, rate: str) -> None:
        self.clock = Clock()
        settings = Settings(rates=replace(UNLIMITED, **{rate: Rate(1, 3600.0)}))
        self.service = DeliveryService(
            Ed25519PrivateKey.generate(), identify_basic, settings=settings, clock=self.clock
        )
        self.client = DeliveryClient(MemoryCarrier(self.service, b"the requester"))
        self.others = DeliveryClient(MemoryCarrier(self.service, b"somebody else"))
        self.first, self.create = new_log()
        self.epoch = self.first.child()
        self.alice = Device(b"alice@rates", now=self.clock.now)
        self.tickets = [fresh_id() for _ in range(3)]
        self.last = b""

    async def prepare(self) -> None:
        others, alice = self.others, self.alice
        await others.create_log(self.create)
        self.candidate = (await others.append(self.first.bundle(self.epoch))).receipt
        await others.open_inbox(alice.open())
        hashes = tuple(sha256(ticket) for ticket in self.tickets)
        self.mint = MintTickets(alice.inbox_id, alice.token, hashes)
        self.mail = DeliveryClient(MemoryCarrier(self.service, b"a third one"))
        await self.mail.mint_tickets(self.mint)
        await DeliveryClient(MemoryCarrier(self.service, b"a fourth")).publish(alice.publish(3))


Step = Callable[[World, int], Awaitable[object]]
STEPS: dict[str, list[Step]] = {
    "appends": [lambda w, _: w.client.append(w.epoch.message())],
    "bundles": [lambda w, n: w.client.append(_chain(w, n))],
    "corrections": [
        lambda w, n: w.client.append(
            w.first.correction(w.candidate.entry_hash, w.first.child("right", n))
        )
    ],
    "successors": [lambda w, _: w.client.append(w.first.successor())],
    "chunk_uploads": [lambda w, _: w.client.put_chunks(w.epoch.put_chunks((Chunk(b"x"),)))],
    "logs": [lambda w, _: w.client.create_log(new_log()[1])],
    "requests": [
        lambda w, n: w.client.post_request((w.epoch if n else w.first).request()),
    ],
    "requests_to_box": [
        lambda w, n: (w.client if n else w.others).post_request(w.epoch.request()),
    ],
    "reads": [
        lambda w, _: w.client.read(w.epoch.read()),
        lambda w, _: w.client.read_box(w.epoch.read_box()),
        lambda w, _: w.client.fetch_chunks(w.epoch.fetch_chunks()),
        lambda w, _: w.client.fetch_entry(
            FetchEntry(w.first.log_id, w.first.name, w.first.read_token, 1)
        ),
        lambda w, _: w.client.read_inbox(w.alice.read()),
    ],
    "inboxes": [lambda w, _: w.client.open_inbox(Device(b"x").open())],
    "envelopes": [lambda w, n: w.client.post_envelope(w.alice.envelope(w.tickets[n]))],
    "publishes": [
        lambda w, _: w.client.publish(w.alice.publish(1)),
        lambda w, _: w.client.mint_tickets(w.mint),
        lambda w, _: w.client.withdraw(
            Withdraw(w.alice.inbox_id, w.alice.token, (KeyPackageReference(b"x"),))
        ),
    ],
    "claims": [lambda w, _: w.client.claim(claim(w.alice.user))],
}
CASES = [(rate, n) for rate, steps in STEPS.items() for n in range(len(steps))]


def _chain(world: World, n: int) -> Append:
    head = world.candidate.hash()
    return world.first.bundle(world.first.child("further", n), head if n == 0 else world.last)


def test_every_rate_is_tried_here_but_the_one_that_never_refuses() -> None:
    assert STEPS.keys() == {f.name for f in fields(Rates)} - {"claims_of_target"}


@pytest.mark.parametrize("who", ["another owner", "too often"])
def test_a_batch_that_is_refused_anyway_is_not_verified(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packages cost hundreds of times what a request costs."""

    def verify(_request: object) -> list[Package]:
        pytest.fail("it was verified")

    async def run() -> None:
        world = World("publishes")
        await world.prepare()
        batch = world.alice.publish(1)
        if who == "another owner":
            batch = batch.replace(token=bytes(32))
        else:
            await world.client.publish(batch)
        monkeypatch.setattr(world.service.directory, "verify_publish", verify)
        with pytest.raises(Refused) as caught:
            await world.client.publish(batch)
        expected = ErrorCode.BAD_TOKEN if who == "another owner" else ErrorCode.RATE_LIMITED
        assert caught.value.code is expected
        await world.service.close()

    asyncio.run(run())


@pytest.mark.parametrize(("rate", "which"), CASES)
def test_a_rate_stops_the_second_request(rate: str, which: int) -> None:
    async def run() -> None:
        world = World(rate)
        await world.prepare()
        step = STEPS[rate][which]
        answer = await step(world, 0)
        world.last = getattr(getattr(answer, "receipt", None), "hash", bytes)()
        with pytest.raises(Refused) as caught:
            await step(world, 1)
        assert caught.value.code is ErrorCode.RATE_LIMITED
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 3600
        world.clock.forward(3601)
        await step(world, 1)
        await world.service.close()

    asyncio.run(run())


def test_acknowledging_is_not_limited() -> None:
    async def run() -> None:
        world = World("reads")
        await world.prepare()
        for _ in range(3):
            await world.client.ack_inbox(AckInbox(world.alice.inbox_id, world.alice.token, 1))
        await world.service.close()

    asyncio.run(run())
