"""The Delivery Service as a real process, over real HTTP and WebSocket on loopback."""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.errors import ServiceError
from coterie.transport import api
from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    ErrorCode,
    Failure,
    InboxTarget,
    ServerFrame,
    ServerFrameType,
    Subscribe,
    TargetType,
    Unsubscribe,
)
from coterie.transport.client import Connection, DeliveryClient
from coterie.transport.http import HTTPCarrier
from coterie.transport.refusal import Refused
from tests.delivery_devices import Device, claim
from tests.delivery_model import ModelEpoch, new_log, verify_receipt
from tests.delivery_server import RECEIPT_SEED, Server, running

RECEIPT_KEY = Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED).public_key().public_bytes_raw()
WAIT = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("delivery")) as started:
        yield started


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[DeliveryClient]:
    client = DeliveryClient(HTTPCarrier(server.url))
    try:
        yield client
    finally:
        await client.close()


async def made_log(client: DeliveryClient) -> ModelEpoch:
    epoch, create = new_log()
    await client.create_log(create)
    return epoch


async def refusal(work: object) -> Refused:
    with pytest.raises(Refused) as caught:
        await work  # type: ignore[misc]
    return caught.value


def subscribe(
    number: int, epoch: ModelEpoch, from_number: int = 0, delivery: Delivery = Delivery.CONTENT
) -> ClientFrame:
    request = Subscribe(number, delivery, TargetType.LOG, log=epoch.target(from_number))
    return ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request)


async def frame_of(connection: Connection) -> ServerFrame:
    return await asyncio.wait_for(connection.receive(), WAIT)


async def numbers_until(connection: Connection, last: int) -> list[int]:
    """The entry numbers that a subscription delivers, until one is `last`."""
    got: list[int] = []
    while not got or got[-1] < last:
        frame = await frame_of(connection)
        assert frame.entries is not None, frame
        got += [entry.receipt.number for entry in frame.entries.result.entries]
    return got


def test_the_service_says_who_it_is(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            info = await client.info()
            assert info.receipt_key == RECEIPT_KEY
            assert api.DeliveryVersion.COTERIE1 in info.versions

    asyncio.run(run())


def test_many_requesters_claim_at_once_and_no_package_is_given_twice(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            alice = Device(b"alice@many")
            await client.open_inbox(alice.open())
            published = alice.publish(60)
            await client.publish(published)
            clients = [DeliveryClient(HTTPCarrier(server.url)) for _ in range(8)]
            results = await asyncio.gather(
                *(clients[n % 8].claim(claim(alice.user)) for n in range(80)),
                return_exceptions=True,
            )
            for other in clients:
                await other.close()
        given: list[bytes] = []
        for result in results:
            if isinstance(result, api.ClaimResult):
                given += [package.key_package for package in result.packages]
            else:
                assert isinstance(result, Refused)
                assert result.code is ErrorCode.NONE_LEFT
        assert collections.Counter(given) == collections.Counter(
            p.message for p in published.key_packages
        )

    asyncio.run(run())


def test_a_conversation_over_http(server: Server) -> None:
    """Append, read, lose a race, contest a candidate, be removed, repeat."""

    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            request = epoch.message(b"hello")
            first = await client.append(request)
            verify_receipt(first.receipt, RECEIPT_KEY)
            assert await client.append(request) == first

            winner = epoch.bundle(epoch.child("alice"))
            await client.append(winner)
            lost = await refusal(client.append(epoch.bundle(epoch.child("bob"))))
            assert lost.code is ErrorCode.LOST_RACE
            assert lost.lost_race is not None
            assert lost.lost_race.winner.entry == winner.entry
            contest = epoch.bundle(epoch.child("bob"), lost.lost_race.winner.receipt.hash())
            opened = (await client.append(contest)).opened
            assert opened is not None
            assert opened.epoch == epoch.child("bob").name

            ended = await refusal(client.append(epoch.message()))
            assert ended.code is ErrorCode.EPOCH_ENDED
            await client.append(epoch.child("bob").message(b"without who was removed"))
            removed = epoch.read().replace(epoch=epoch.child("bob").name)
            assert (await refusal(client.read(removed))).code is ErrorCode.BAD_TOKEN
            result = await client.read(epoch.read())
            assert [stored.receipt.number for stored in result.entries] == [1, 2, 3]

    asyncio.run(run())


def test_a_subscription_delivers_each_entry_once_and_goes_on_past_the_end(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            for _ in range(5):
                await client.append(epoch.message())
            connection = await client.connect()
            await connection.send(subscribe(7, epoch, 3))
            assert await numbers_until(connection, 5) == [3, 4, 5]
            for _ in range(3):
                await client.append(epoch.message())
            assert await numbers_until(connection, 8) == [6, 7, 8]
            receipt = (await client.append(epoch.bundle(epoch.child(1)))).receipt
            await client.append(epoch.bundle(epoch.child(2), receipt.hash()))
            assert await numbers_until(connection, 10) == [9, 10]
            await connection.close()

    asyncio.run(run())


def test_one_connection_carries_many_subscriptions(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epochs = [await made_log(client) for _ in range(5)]
            connection = await client.connect()
            for number, epoch in enumerate(epochs):
                await connection.send(subscribe(number, epoch))
            first = [await frame_of(connection) for _ in epochs]
            assert sorted(f.entries.subscription for f in first if f.entries) == [0, 1, 2, 3, 4]
            unsubscribe = Unsubscribe(2)
            await connection.send(ClientFrame(ClientFrameType.UNSUBSCRIBE, unsubscribe=unsubscribe))
            await client.info()
            for epoch in epochs:
                await client.append(epoch.message())
            got = [await frame_of(connection) for _ in range(4)]
            assert sorted(f.entries.subscription for f in got if f.entries) == [0, 1, 3, 4]
            await connection.close()

    asyncio.run(run())


def test_a_wake_up_carries_no_content(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            connection = await client.connect()
            await connection.send(subscribe(1, epoch, delivery=Delivery.WAKE_ONLY))
            assert (await frame_of(connection)).frame_type is ServerFrameType.WOKEN
            await client.append(epoch.message(b"unseen"))
            frame = await frame_of(connection)
            assert frame.woken is not None
            assert frame.woken.next_number == 2
            await connection.close()

    asyncio.run(run())


def test_a_subscription_without_the_token_is_ended_with_the_reason(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            connection = await client.connect()
            target = epoch.target().replace(token=bytes(32))
            request = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=target)
            await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            frame = await frame_of(connection)
            assert frame.ended is not None
            assert frame.ended.failure.code is ErrorCode.BAD_TOKEN
            await connection.close()

    asyncio.run(run())


def test_a_box_and_an_inbox_wake_their_readers(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            child = epoch.child()
            await client.append(epoch.bundle(child))
            boxes, inboxes = await client.connect(), await client.connect()
            request = Subscribe(1, Delivery.CONTENT, TargetType.BOX, box=child.target())
            await boxes.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            await frame_of(boxes)
            await client.post_request(epoch.request())
            frame = await frame_of(boxes)
            assert frame.box_items is not None
            assert frame.box_items.result.items[0].epoch == epoch.name

            alice = Device(b"alice@inbox")
            await client.open_inbox(alice.open())
            await client.publish(alice.publish(2))
            target = InboxTarget(alice.inbox_id, alice.token)
            request = Subscribe(1, Delivery.CONTENT, TargetType.INBOX, inbox=target)
            await inboxes.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            assert (await frame_of(inboxes)).inbox_items is not None
            ticket = (await client.claim(claim(alice.user))).packages[0].ticket
            low = await frame_of(inboxes)
            assert low.inbox_items is not None
            assert low.inbox_items.result.stock[0].available == 1
            await client.post_envelope(alice.envelope(ticket))
            frame = await frame_of(inboxes)
            assert frame.inbox_items is not None
            assert len(frame.inbox_items.result.items) == 1
            await boxes.close()
            await inboxes.close()

    asyncio.run(run())


def test_logs_and_inboxes_are_not_subscribed_to_on_one_connection(server: Server) -> None:
    async def run() -> None:
        async with client_of(server) as client:
            epoch = await made_log(client)
            connection = await client.connect()
            await connection.send(subscribe(1, epoch))
            await frame_of(connection)
            target = InboxTarget(bytes(32), bytes(32))
            request = Subscribe(2, Delivery.CONTENT, TargetType.INBOX, inbox=target)
            await connection.send(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request))
            with pytest.raises(Refused, match="D-SUB-7"):
                await frame_of(connection)

    asyncio.run(run())


def test_a_subscription_resumes_after_sigkill_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    async def run() -> None:
        appended: list[int] = []
        with running(tmp_path) as server:
            port = server.port
            async with client_of(server) as client:
                epoch = await made_log(client)
                connection = await client.connect()
                await connection.send(subscribe(1, epoch))
                got: list[int] = []

                async def append_until_it_dies() -> None:
                    while True:
                        try:
                            appended.append((await client.append(epoch.message())).receipt.number)
                        except ServiceError:
                            return

                work = asyncio.ensure_future(append_until_it_dies())
                first = await frame_of(connection)
                assert first.entries is not None
                got += [e.receipt.number for e in first.entries.result.entries]
                got += await numbers_until(connection, 50)
                server.kill()
                await work
                while True:
                    try:
                        frame = await frame_of(connection)
                    except ServiceError:
                        break
                    assert frame.entries is not None
                    got += [e.receipt.number for e in frame.entries.result.entries]
        with running(tmp_path, port=port) as server:
            async with client_of(server) as client:
                last = (await client.append(epoch.message())).receipt.number
                connection = await client.connect()
                await connection.send(subscribe(1, epoch, got[-1] + 1))
                got += await numbers_until(connection, last)
                await connection.close()
                numbers = [e.receipt.number for e in (await client.read(epoch.read())).entries]
        assert got == numbers == list(range(1, last + 1))
        assert appended == numbers[: len(appended)], "what was answered is there"

    asyncio.run(run())


def _metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


def test_a_slow_reader_is_cut_off_and_costs_the_others_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        with running(tmp_path, "--max-waiting=1000000") as server:
            async with client_of(server) as client:
                epoch = await made_log(client)
                slow = _stalled_reader(server.port, subscribe(1, epoch))
                fast = await client.connect()
                await fast.send(subscribe(1, epoch))
                await frame_of(fast)
                got = asyncio.ensure_future(numbers_until(fast, 400))
                for _ in range(400):
                    await client.append(epoch.message(bytes(30_000)))
                assert await got == list(range(1, 401))
                cut_off = "coterie_delivery_slow_readers_total 1"
                async with asyncio.timeout(20):
                    while cut_off not in await asyncio.to_thread(_metrics, server.url):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                await fast.close()
                slow.close()

    asyncio.run(run())


def _stalled_reader(port: int, frame: ClientFrame) -> socket.socket:
    """A WebSocket client that subscribes and then reads nothing more."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.sendall(
        b"GET /v1/subscribe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: coterie.v1\r\n\r\n"
    )
    assert b"101" in raw.recv(4096)
    body = frame.encode()
    raw.sendall(bytes((0x82, 0x80 | 126)) + len(body).to_bytes(2) + bytes(4) + body)
    return raw


# -- what is malformed gets a 4xx that says what was wrong


def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, Failure]:
    response = httpx.post(f"{server.url}/v1/{path}", content=body, headers=headers)
    return response.status_code, Failure.decode(response.content)


@pytest.mark.parametrize("path", sorted(api.OPERATIONS))
@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 65, b'{"json": true}', bytes(2000)])
def test_a_malformed_body_is_refused_with_what_was_wrong(
    server: Server, path: str, body: bytes
) -> None:
    status, failure = post(server, path, body)
    assert 400 <= status < 500
    assert failure.message


def test_trailing_bytes_are_refused(server: Server) -> None:
    epoch, create = new_log()
    status, failure = post(server, "logs/create", create.encode() + b"\x00")
    assert (status, failure.code) == (400, ErrorCode.MALFORMED)
    assert b"after the end of CreateLogRequest" in failure.message
    assert epoch.name


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    request = b"POST /v1/logs/append HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as raw:
        raw.sendall(request)
        answer = b""
        while b"at most" not in answer and (part := raw.recv(65536)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most" in answer


def test_versions_are_negotiated(server: Server) -> None:
    _, create = new_log()
    body = create.encode()
    status, failure = post(server, "logs/create", body, **{api.VERSION_HEADER: "3, 2"})
    assert (status, failure.code) == (400, ErrorCode.UNSUPPORTED_VERSION)
    response = httpx.post(
        f"{server.url}/v1/logs/create", content=body, headers={api.VERSION_HEADER: "2, 1"}
    )
    assert response.status_code == 200


def test_an_unknown_path_and_a_wrong_method_are_client_errors(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/nothing").status_code == 404
    assert httpx.get(f"{server.url}/v1/logs/read").status_code == 400
    assert httpx.put(f"{server.url}/v1/service").status_code == 405


def test_a_refusal_for_rates_says_when_to_come_back(tmp_path: Path) -> None:
    async def run() -> None:
        with running(tmp_path, "--rates") as server:
            async with client_of(server) as client:
                epoch = await made_log(client)
                head = api.ZERO32
                for n in range(4):
                    receipt = (await client.append(epoch.bundle(epoch.child(n), head))).receipt
                    head = receipt.hash()
                body = epoch.bundle(epoch.child("flood"), head).encode()
                url = f"{server.url}/v1/logs/append"
                answer = await asyncio.to_thread(httpx.post, url, content=body)
                assert answer.status_code == 429
                assert 1 <= int(answer.headers["retry-after"]) <= 10
                elsewhere = {"X-Forwarded-For": "192.0.2.7"}
                other = await asyncio.to_thread(httpx.post, url, content=body, headers=elsewhere)
                assert other.status_code == 200, "another requester is not held up"

    asyncio.run(run())


def test_health_metrics_and_description_are_served(server: Server) -> None:
    assert httpx.get(f"{server.url}/health/live").json() == {"live": True}
    assert httpx.get(f"{server.url}/health/ready").json() == {"ready": True}
    assert "coterie_delivery_requests_total" in httpx.get(f"{server.url}/metrics").text
    description = httpx.get(f"{server.url}/v1/openapi.json").json()
    assert set(description["paths"]) == {f"/v1/{p}" for p in (*api.OPERATIONS, "service")}
