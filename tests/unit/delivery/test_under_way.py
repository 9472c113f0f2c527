"""Bytes that are held while peers are slow have a bound, for one prefix and for all; small requests go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.app import DeliveryApp
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Settings
from coterie.delivery.under_way import SMALL
from coterie.mls.tls import Struct
from coterie.transport.api import Chunk, Chunks, Failure
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import identify_basic

LARGE = 100_000
SETTINGS = Settings(
    rates=UNLIMITED,
    max_bundle=LARGE,
    max_under_way=3 * LARGE,
    max_under_way_of_prefix=2 * LARGE,
)


class Request:
    """A request to an application whose body comes, and whose answer is taken, as a test says."""

    def __init__(self, app: DeliveryApp, address: str) -> None:
        self.coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taken = asyncio.Semaphore(0)
        self.sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "path": "/v1/chunks/fetch",
            "method": "POST",
            "headers": [],
            "client": (address, 1),
        }
        self.task = asyncio.create_task(app(scope, self.coming.get, self.send))

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(message.get("body", b"")) > SMALL:
            await self.taken.acquire()

    async def body(self, *sizes: int, more: bool = True) -> None:
        for number, size in enumerate(sizes, 1):
            is_last = number == len(sizes) and not more
            part = {"type": "http.request", "body": bytes(size), "more_body": not is_last}
            self.coming.put_nowait(part)
        await asyncio.sleep(0.01)

    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def _with_app(test: Callable[[DeliveryApp], Awaitable[None]]) -> None:
    async def main() -> None:
        service = DeliveryService(Ed25519PrivateKey.generate(), identify_basic, settings=SETTINGS)
        try:
            await test(DeliveryApp(service))
        finally:
            await service.close()

    asyncio.run(main())


def test_bodies_have_a_bound_for_a_prefix_and_for_all() -> None:
    async def test(app: DeliveryApp) -> None:
        held = [Request(app, "192.0.2.1") for _ in range(2)]
        for each in held:
            await each.body(LARGE // 2, LARGE // 2)
        more = Request(app, "192.0.2.1")
        await more.body(SMALL, 1)
        assert more.status() == 503
        failure = Failure.decode(more.sent[1]["body"])
        assert failure.retry_after == 1
        other = Request(app, "192.0.2.2")
        await other.body(LARGE)
        assert other.status() is None
        third = Request(app, "192.0.2.3")
        await third.body(LARGE)
        assert third.status() == 503
        small = Request(app, "192.0.2.1")
        await small.body(100, 100, more=False)
        assert small.status() == 400, "it was read, and is no request"
        for each in (*held, other):
            each.coming.put_nowait({"type": "http.disconnect"})
            await each.task
        assert app._held.bytes == 0

    _with_app(test)


def test_answers_that_are_taken_slowly_have_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: object) -> Struct:
        return Chunks((Chunk(bytes(LARGE - 100)),))

    async def test(app: DeliveryApp) -> None:
        monkeypatch.setattr(DeliveryApp, "_answer", answer)
        slow = [Request(app, "192.0.2.1") for _ in range(3)]
        await asyncio.sleep(0.01)
        assert [each.status() for each in slow] == [200, 200, 503]
        for each in slow:
            each.taken.release()
            await each.task
        assert app._held.bytes == 0

    _with_app(test)


def test_a_large_answer_is_sent_in_pieces_each_after_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = 600_000

    async def answer(*_: object) -> Struct:
        return Chunks((Chunk(bytes(size)),))

    async def test(app: DeliveryApp) -> None:
        monkeypatch.setattr(DeliveryApp, "_answer", answer)
        app._held._most = app._held._most_of_requester = 10 * size
        request = Request(app, "192.0.2.1")
        await asyncio.sleep(0.01)
        assert len(request.sent) == 2, "the head and one piece"
        for _ in range(3):
            request.taken.release()
        await request.task
        body = b"".join(part["body"] for part in request.sent[1:])
        assert body == (await answer()).encode()
        assert [part.get("more_body", False) for part in request.sent[1:]] == [True, True, False]

    _with_app(test)
