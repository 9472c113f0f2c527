"""Subscriptions over the in-process transport: order, gaps, wake-ups, what is not linked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.hub import Channel, Hub
from coterie.delivery.ledger import LogTransaction
from coterie.delivery.limits import LOCAL, Limiter, client_address, requester_of
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Rate, Settings
from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    EpochState,
    ErrorCode,
    Read,
    ReadResult,
    Receipt,
    ServerFrame,
    Subscribe,
    TargetType,
    Unsubscribe,
)
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import identify_basic
from tests.delivery_model import Clock, ModelEpoch, new_log


@asynccontextmanager
async def service_with(settings: Settings | None = None) -> AsyncIterator[DeliveryService]:
    service = DeliveryService(
        Ed25519PrivateKey.generate(),
        identify_basic,
        settings=settings or Settings(rates=UNLIMITED),
        clock=Clock(),
    )
    try:
        yield service
    finally:
        await service.close()


def run(
    test: Callable[[DeliveryClient], Awaitable[None]], settings: Settings | None = None
) -> None:
    async def main() -> None:
        async with service_with(settings) as service:
            await test(DeliveryClient(MemoryCarrier(service)))

    asyncio.run(main())


def frame(number: int, epoch: ModelEpoch, kind: Delivery = Delivery.CONTENT) -> ClientFrame:
    request = Subscribe(number, kind, TargetType.LOG, log=epoch.target())
    return ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request)


def test_entries_appended_while_a_subscription_starts_come_once_and_in_order() -> None:
    async def test(client: DeliveryClient) -> None:
        epoch, create = new_log()
        await client.create_log(create)
        connection = await client.connect()

        async def append() -> None:
            for _ in range(200):
                await client.append(epoch.message())

        work = asyncio.ensure_future(append())
        await asyncio.sleep(0)
        await connection.send(frame(1, epoch))
        got: list[int] = []
        while len(got) < 200:
            received = await asyncio.wait_for(connection.receive(), 5)
            assert received.entries is not None
            got += [e.receipt.number for e in received.entries.result.entries]
        await work
        assert got == list(range(1, 201))
        await connection.close()

    run(test)


class Held:
    """A source whose reads wait until they are let go, the oldest first."""

    def __init__(self) -> None:
        self.reads: list[tuple[Read, asyncio.Future[ReadResult]]] = []

    async def read(self, request: Read) -> ReadResult:
        future: asyncio.Future[ReadResult] = asyncio.get_running_loop().create_future()
        self.reads.append((request, future))
        return await future


def listening(source: object) -> tuple[Channel, list[ServerFrame]]:
    """A channel that reads from a source, and what it sends."""
    sent: list[ServerFrame] = []

    async def send(data: bytes) -> None:
        sent.append(ServerFrame.decode(data))

    return Channel(Hub(), source, send, _nothing, 1000, 1.0, 1), sent  # type: ignore[arg-type]


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[DeliveryService, DeliveryClient, ModelEpoch]]:
    """A service with a log, and a client of it."""
    async with service_with() as service:
        client = DeliveryClient(MemoryCarrier(service))
        epoch, create = new_log()
        await client.create_log(create)
        yield service, client, epoch


def test_nobody_complains_of_a_refusal_that_a_subscriber_did_not_wait_for() -> None:
    async def main() -> None:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: said.append(what))
        source = Held()
        channel, _ = listening(source)
        channel.receive(frame(1, new_log()[0]))
        channel.shut()
        source.reads[0][1].set_exception(Refused(ErrorCode.BAD_TOKEN, "no", rule="D-ACC-5"))
        del source, channel
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        assert not said

    asyncio.run(main())


def test_a_source_may_only_let_others_go_first() -> None:
    class Polite:
        async def read(self, _request: Read) -> ReadResult:
            await asyncio.sleep(0)
            raise Refused(ErrorCode.BAD_TOKEN, "no", rule="D-ACC-5")

    async def main() -> None:
        channel, sent = listening(Polite())
        channel.receive(frame(1, new_log()[0]))
        assert not sent
        for _ in range(3):
            await asyncio.sleep(0)
        assert [each.ended.failure.code for each in sent if each.ended] == [ErrorCode.BAD_TOKEN]

    asyncio.run(main())


def _unsubscribe(number: int) -> ClientFrame:
    return ClientFrame(ClientFrameType.UNSUBSCRIBE, unsubscribe=Unsubscribe(number))


def test_a_refusal_of_an_ended_subscription_does_not_end_the_next_one_of_its_number() -> None:
    async def main() -> None:
        source = Held()
        channel, sent = listening(source)
        channel.receive(frame(1, new_log("one")[0]))
        channel.receive(_unsubscribe(1))
        channel.receive(frame(1, new_log("two")[0]))
        source.reads[0][1].set_exception(Refused(ErrorCode.BAD_TOKEN, "no", rule="D-ACC-5"))
        await asyncio.sleep(0.01)
        assert not sent
        channel.shut()
        assert channel.hub.subscriptions == 0

    asyncio.run(main())


def test_a_subscription_that_was_ended_reads_and_sends_no_more() -> None:
    async def main() -> None:
        source = Held()
        channel, sent = listening(source)
        channel.receive(frame(1, new_log()[0]))
        channel.receive(_unsubscribe(1))
        epoch = new_log()[0]
        receipt = Receipt(epoch.name, 9, bytes(32), bytes(32), bytes(64))
        source.reads[0][1].set_result(ReadResult(None, (), 5, receipt, EpochState.OPEN))
        await asyncio.sleep(0.01)
        assert not sent
        assert len(source.reads) == 1
        channel.shut()

    asyncio.run(main())


def test_a_live_subscription_is_ended_when_its_epoch_is_dropped() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            child = epoch.child()
            await client.append(epoch.bundle(child))
            connection = await client.connect()
            await connection.send(frame(1, epoch))
            box = epoch.target()
            request = Subscribe(2, Delivery.WAKE_ONLY, TargetType.BOX, box=box)
            await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            request = Subscribe(3, Delivery.WAKE_ONLY, TargetType.BOX, box=child.target())
            await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            first = [await asyncio.wait_for(connection.receive(), 5) for _ in range(3)]
            assert not any(each.ended for each in first)
            clock = service.logs._clock
            assert isinstance(clock, Clock)
            clock.forward(31 * 86400)
            await client.append(child.message())
            await service.sweep()
            ended = [(await asyncio.wait_for(connection.receive(), 5)).ended for _ in range(2)]
            told = {(each.subscription, each.failure.code) for each in ended if each is not None}
            assert told == {(1, ErrorCode.GONE), (2, ErrorCode.GONE)}
            await connection.close()

    asyncio.run(main())


def test_an_append_whose_sender_is_cancelled_reaches_subscribers() -> None:
    async def main() -> None:
        async with serving() as (_service, client, epoch):
            connection = await client.connect()
            await connection.send(frame(1, epoch))
            await asyncio.wait_for(connection.receive(), 5)
            sending = asyncio.ensure_future(client.append(epoch.message()))
            await asyncio.sleep(0)
            sending.cancel()
            received = await asyncio.wait_for(connection.receive(), 5)
            assert received.entries is not None
            assert [e.receipt.number for e in received.entries.result.entries] == [1]
            assert sending.cancelled()
            await connection.close()

    asyncio.run(main())


def test_a_subscriber_who_only_wants_to_be_woken_has_nothing_read_for_it() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            for _ in range(3):
                await client.append(epoch.message(bytes(100)))
            asked: list[Read] = []
            read = service.logs.read

            def watched(tx: LogTransaction, request: Read) -> ReadResult:
                asked.append(request)
                answer = read(tx, request)
                assert not answer.entries
                return answer

            service.logs.read = watched  # type: ignore[method-assign]
            connection = await client.connect()
            await connection.send(frame(1, epoch, Delivery.WAKE_ONLY))
            woken = (await asyncio.wait_for(connection.receive(), 5)).woken
            assert woken is not None
            assert woken.next_number == 4
            assert len(asked) == 1
            await connection.close()

    asyncio.run(main())


def test_what_was_missed_comes_in_frames_that_a_slow_link_can_take_in_time() -> None:
    async def test(client: DeliveryClient) -> None:
        epoch, create = new_log()
        await client.create_log(create)
        for _ in range(40):
            await client.append(epoch.message(bytes(10_000)))
        connection = await client.connect()
        await connection.send(frame(1, epoch))
        got: list[int] = []
        while len(got) < 40:
            received = await asyncio.wait_for(connection.receive(), 5)
            assert received.entries is not None
            assert len(received.encode()) <= 110_000
            got += [e.receipt.number for e in received.entries.result.entries]
        assert got == list(range(1, 41))
        await connection.close()

    run(test, Settings(rates=UNLIMITED, max_waiting=200_000))


def test_who_reads_boxes_shares_the_line_of_their_epochs() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            child = epoch.child()
            await client.append(epoch.bundle(child))
            connections = [await client.connect() for _ in range(3)]
            for connection, of in zip(connections, (epoch, child, child), strict=True):
                box = Subscribe(1, Delivery.CONTENT, TargetType.BOX, box=of.target())
                await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=box))
                await asyncio.wait_for(connection.receive(), 5)
            hub = service.hub
            assert hub.subscriptions == 3, "each stands there once, however long its line is"
            (waiting,) = hub._topics.values()
            assert [len(each.line) for each in waiting] == [1, 2, 2]
            *_, one, other = waiting
            assert one.line is other.line
            await client.post_request(child.request())
            await client.post_request(epoch.request())
            got = []
            for connection, count in zip(connections, (1, 2, 2), strict=True):
                frames = [await asyncio.wait_for(connection.receive(), 5) for _ in range(count)]
                results = [each.box_items.result for each in frames if each.box_items is not None]
                got.append([item.epoch for result in results for item in result.items])
            assert got == [[epoch.name], [child.name, epoch.name], [child.name, epoch.name]]
            del _, one, other, waiting
            for connection in connections:
                await connection.close()
            assert hub.subscriptions == 0
            gc.collect()
            assert not hub._lines

    asyncio.run(main())


async def _nothing(_sent: object) -> None:
    """Takes what is sent."""


def test_a_subscription_number_is_used_once_at_a_time() -> None:
    async def test(client: DeliveryClient) -> None:
        epoch, create = new_log()
        await client.create_log(create)
        connection = await client.connect()
        await connection.send(frame(1, epoch))
        with pytest.raises(Refused, match="D-SUB-1"):
            await connection.send(frame(1, epoch))
        await connection.close()

    run(test)


def test_subscriptions_of_one_connection_are_limited() -> None:
    async def test(client: DeliveryClient) -> None:
        epoch, create = new_log()
        await client.create_log(create)
        connection = await client.connect()
        await connection.send(frame(1, epoch))
        await connection.send(frame(2, epoch))
        with pytest.raises(Refused, match="D-TRA-4"):
            await connection.send(frame(3, epoch))
        await connection.close()

    run(test, Settings(rates=UNLIMITED, max_subscriptions=2))


def test_a_subscription_to_a_dropped_epoch_is_ended() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            await client.append(epoch.bundle(epoch.child()))
            clock = service.logs._clock
            assert isinstance(clock, Clock)
            clock.forward(31 * 86400)
            await service.sweep()
            connection = await client.connect()
            await connection.send(frame(1, epoch))
            ended = (await asyncio.wait_for(connection.receive(), 5)).ended
            assert ended is not None
            assert ended.failure.code is ErrorCode.GONE
            await connection.close()

    asyncio.run(main())


def test_logs_made_by_one_requester_are_limited() -> None:
    async def test(client: DeliveryClient) -> None:
        await client.create_log(new_log()[1])
        with pytest.raises(Refused, match="logs") as caught:
            await client.create_log(new_log()[1])
        assert caught.value.code is ErrorCode.RATE_LIMITED

    run(test, Settings(rates=replace(UNLIMITED, logs=Rate(1, 60.0))))


def test_metrics_name_no_log_epoch_or_user() -> None:
    async def main() -> None:
        async with serving() as (service, _client, epoch):
            service.metrics.request("logs/append", "ok", 0.01)
            text = service.metrics.text(service.gauges())
            assert 'path="logs/append",outcome="ok"} 1' in text
            for secret in (epoch.log_id, epoch.name):
                assert secret.hex() not in text

    asyncio.run(main())


# -- who is charged


def test_a_bucket_refills_with_time() -> None:
    clock = Clock()
    limiter = Limiter(replace(UNLIMITED, bundles=Rate(2, 10.0)), clock)
    assert [limiter.allows("bundles", LOCAL) for _ in range(3)] == [True, True, False]
    clock.forward(10)
    assert [limiter.allows("bundles", LOCAL) for _ in range(2)] == [True, False]
    clock.forward(1000)
    assert [limiter.allows("bundles", LOCAL) for _ in range(3)] == [True, True, False]


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    clock = Clock()
    limiter = Limiter(replace(UNLIMITED, bundles=Rate(2, 10.0)), clock)
    assert limiter.allows("bundles", LOCAL)
    clock.forward(-1_000_000)
    limiter.allows("bundles", LOCAL)
    clock.forward(20)
    assert limiter.allows("bundles", LOCAL)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:ff::2", True),
        ("2001:db8::1", "2001:db8:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_a_requester_is_a_network_prefix(one: str, other: str, same: bool) -> None:
    settings = Settings()
    assert (requester_of(one, settings) == requester_of(other, settings)) is same


def test_forwarded_addresses_are_believed_from_trusted_proxies_only() -> None:
    settings = Settings(trusted_proxies=("10.0.0.1", "10.0.0.2"))
    assert client_address("192.0.2.9", "198.51.100.1", settings) == "192.0.2.9"
    assert client_address("10.0.0.1", "198.51.100.1", settings) == "198.51.100.1"
    assert client_address("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", settings) == "198.51.100.1"
    assert client_address("10.0.0.1", None, settings) == "10.0.0.1"


def test_a_connection_that_breaks_hurts_no_other() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            broken = False

            async def send(_: bytes) -> None:
                if broken:
                    raise OSError("the peer is gone")

            async def close(_: object) -> None:
                raise AssertionError("a broken connection needs no farewell")

            bad = service.channel(send, close)
            bad.receive(frame(1, epoch))
            good = await client.connect()
            await good.send(frame(1, epoch))
            await asyncio.wait_for(good.receive(), 5)
            broken = True
            await client.append(epoch.message())
            received = (await asyncio.wait_for(good.receive(), 5)).entries
            assert received is not None
            assert received.result.next_number == 2
            assert service.hub.subscriptions == 1
            await good.close()

    asyncio.run(main())


def test_a_blocked_connection_gets_the_rest_in_order_when_it_takes_more() -> None:
    async def main() -> None:
        async with serving() as (service, client, epoch):
            taking, complete = asyncio.Event(), asyncio.Event()
            got: list[ServerFrame] = []

            async def send(data: bytes) -> None:
                await taking.wait()
                await asyncio.sleep(0)
                got.append(ServerFrame.decode(data))
                if (entries := got[-1].entries) and entries.result.next_number > 10:
                    complete.set()

            async def close(_: object) -> None:
                raise AssertionError("it is not too slow")

            channel = service.channel(send, close)
            channel.receive(frame(1, epoch))
            for _ in range(10):
                await client.append(epoch.message())
            assert got == []
            taking.set()
            await asyncio.wait_for(complete.wait(), 5)
            numbers = [e.receipt.number for f in got if f.entries for e in f.entries.result.entries]
            assert numbers == list(range(1, 11))
            channel.shut()

    asyncio.run(main())
