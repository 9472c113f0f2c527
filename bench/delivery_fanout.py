"""Fan-out to WebSocket subscribers of one log, and memory per idle one: `python -m bench.delivery_fanout`."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import ssl
import tempfile
import time
from pathlib import Path

from bench.delivery_load import percentile, resident_kib, server_seconds
from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    Subscribe,
    TargetType,
)
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_model import ModelEpoch, new_log
from tests.delivery_server import running

UPGRADE = (
    b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: coterie.v1\r\n\r\n"
)


class Subscriber(asyncio.Protocol):
    """A WebSocket client that counts frames and notes when each came."""

    def __init__(self, epoch: ModelEpoch, arrivals: list[tuple[int, float]]) -> None:
        request = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=epoch.target())
        body = ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request).encode()
        self._subscribe = bytes((0x82, 0x80 | 126)) + len(body).to_bytes(2) + bytes(4) + body
        self._arrivals = arrivals
        self._buffer = b""
        self._upgraded = False
        self.frames = 0
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        """Subscribes after the upgrade, then counts frames."""
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if end:
                assert head.startswith(b"HTTP/1.1 101"), head
                self._upgraded, self._buffer = True, rest
                self.transport.write(self._subscribe)
        while self._upgraded and self._frame():
            pass

    def _frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 4:
            return False
        length, start = buffer[1], 2
        if length == 126:
            length, start = int.from_bytes(buffer[2:4]), 4
        if len(buffer) < start + length:
            return False
        self._buffer = buffer[start + length :]
        self.frames += 1
        if self.frames > 1:
            self._arrivals.append((self.frames - 1, time.perf_counter()))
        self.ready.set()
        return True


async def connect_all(
    port: int,
    epoch: ModelEpoch,
    count: int,
    arrivals: list[tuple[int, float]],
    tls: ssl.SSLContext | None = None,
) -> list[Subscriber]:
    loop = asyncio.get_running_loop()
    subscribers = []
    for _ in range(count):
        _, subscriber = await loop.create_connection(
            lambda: Subscriber(epoch, arrivals), "127.0.0.1", port, ssl=tls
        )
        subscribers.append(subscriber)
        await subscriber.ready.wait()
    return subscribers


async def idle_kib(count: int, *, tls: bool) -> float:
    """What the service holds for each connection that waits, in KiB."""
    options = ("--tls",) if tls else ()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), *options) as server:
        context = trusting() if tls else None
        url = server.url.replace("http:", "https:") if tls else server.url
        client = DeliveryClient(HTTPCarrier(url, tls=context))
        epoch, create = new_log()
        await client.create_log(create)
        warm = await connect_all(server.port, epoch, 50, [], context)
        before = resident_kib(server.process.pid)
        subscribers = await connect_all(server.port, epoch, count, [], context)
        idle = (resident_kib(server.process.pid) - before) / count
        for subscriber in (*warm, *subscribers):
            subscriber.transport.close()
        await client.close()
        return round(idle, 1)


def trusting() -> ssl.SSLContext:
    """A context for the server of this benchmark, whose certificate nobody issued."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def run(count: int, messages: int, pause: float, size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        client = DeliveryClient(HTTPCarrier(server.url))
        epoch, create = new_log()
        await client.create_log(create)
        arrivals: list[tuple[int, float]] = []
        subscribers = await connect_all(server.port, epoch, count, arrivals)
        used = server_seconds(server.process.pid)
        sent, started = {}, time.perf_counter()
        for n in range(1, messages + 1):
            sent[n] = time.perf_counter()
            await client.append(epoch.message(bytes(size)))
            await asyncio.sleep(max(0.0, sent[n] + pause - time.perf_counter()))
        while len(arrivals) < count * messages:
            await asyncio.sleep(0.01)
            assert time.perf_counter() - started < 300, len(arrivals)
        seconds = max(at for _, at in arrivals) - started
        delays = sorted(at - sent[n] for n, at in arrivals)
        used = server_seconds(server.process.pid) - used
        for subscriber in subscribers:
            subscriber.transport.close()
        await client.close()
        return {
            "subscribers": count,
            "deliveries": len(arrivals),
            "per_second": round(len(arrivals) / seconds),
            "p50_ms": round(1000 * percentile(delays, 0.5), 1),
            "p99_ms": round(1000 * percentile(delays, 0.99), 1),
            "server_us_each": round(1e6 * used / len(arrivals), 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=50)
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds from one message to the next"
    )
    parser.add_argument("--size", type=int, default=256)
    a = parser.parse_args()
    allow_many_files()
    print(json.dumps(asyncio.run(run(a.subscribers, a.messages, a.pause, a.size))))
    for tls in (False, True):
        each = asyncio.run(idle_kib(a.subscribers, tls=tls))
        print(json.dumps({"idle_kib_each": each, "tls": tls}))


def allow_many_files() -> None:
    """Raises the limit on open files to what the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
