"""What the load benchmarks of the Delivery Service share: a load generator that costs little, and statistics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from coterie.transport.api import MEDIA_TYPE


@dataclass
class Load:
    """Latencies in seconds, in order of completion, and how long it took in all."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[bytes, int] = field(default_factory=dict)
    seconds: float = 0.0

    def report(self, what: str) -> dict[str, float | str]:
        """Rate and percentiles."""
        ordered = sorted(self.latencies)
        return {
            "what": what,
            "requests": len(ordered),
            "per_second": round(len(ordered) / self.seconds, 1),
            "p50_ms": round(1000 * percentile(ordered, 0.5), 2),
            "p99_ms": round(1000 * percentile(ordered, 0.99), 2),
            "not_ok": sum(n for status, n in self.statuses.items() if status != b"200"),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ordered list lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def http_request(path: str, body: bytes) -> bytes:
    """One request as bytes."""
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Client(asyncio.Protocol):
    """Sends one request after the other and notes how long each answer took."""

    def __init__(self, requests: Iterator[bytes], load: Load, done: asyncio.Event) -> None:
        self._requests, self._load, self._done = requests, load, done
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is None:
            self._done.set()
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        at = head.lower().index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._load.latencies.append(time.perf_counter() - self._sent)
        status = head[9:12]
        self._load.statuses[status] = self._load.statuses.get(status, 0) + 1
        self._next()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._done.set()


async def drive(port: int, requests: Iterable[bytes], connections: int) -> Load:
    """Sends all requests over so many connections, each waiting for its answer before the next."""
    load, shared = Load(), iter(requests)
    loop = asyncio.get_running_loop()
    events = [asyncio.Event() for _ in range(connections)]
    started = time.perf_counter()
    for event in events:
        await loop.create_connection(partial(_Client, shared, load, event), "127.0.0.1", port)
    for event in events:
        await event.wait()
    load.seconds = time.perf_counter() - started
    return load


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def server_seconds(pid: int) -> float:
    """Processor time of a process and of those that it started, in seconds."""
    ticks = 0
    for member in (pid, *_children(pid)):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    names = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in names.read_text().split()] if names.exists() else []
