"""Peers that are slow, or large, on purpose, against a running `coterie serve`: they are cut off, others are served."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from coterie.apps.config import Connections
from coterie.apps.connections import FRAGMENTS, HEAD_BYTES
from coterie.transport.api import SUBPROTOCOL, ErrorCode, Failure, ServiceInfo
from tests.installation import CONFIG, Installation

LIMITS = Connections(most_of_prefix=40, head_timeout=2.0, slow_after=1.0, slowest=1000)
TABLE = f"""
[connections]
most_of_prefix = {LIMITS.most_of_prefix}
head_timeout = {LIMITS.head_timeout}
slow_after = {LIMITS.slow_after}
slowest = {LIMITS.slowest}
"""
PATIENCE = 20.0
"""Seconds that a test waits for what should take one or two."""
READ = b"POST /v1/logs/read HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port and the process of running services."""
    here = Installation(tmp_path_factory.mktemp("slow"), CONFIG + TABLE)
    with here.serving() as (url, process):
        yield int(url.rpartition(":")[2]), process.pid


@pytest.fixture
def port(serving: tuple[int, int]) -> int:
    return serving[0]


def connected(port: int, *, source: str = "127.0.0.1") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def rest(sock: socket.socket) -> bytes:
    """What comes until the connection is closed; fails if it is not."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def drip(sock: socket.socket, part: bytes, every: float = 0.1) -> float:
    """Sends a part again and again until the connection is closed; gives how long that took."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while time.monotonic() < began + PATIENCE:
            sock.send(part)
            sock.settimeout(every)
            with contextlib.suppress(TimeoutError):
                if not sock.recv(4096):
                    break
            sock.settimeout(PATIENCE)
    return time.monotonic() - began


def is_served(port: int, source: str = "127.0.0.1") -> bool:
    transport = httpx.HTTPTransport(local_address=source)
    with httpx.Client(transport=transport, timeout=PATIENCE) as client:
        answer = client.get(f"http://127.0.0.1:{port}/v1/service")
    return answer.status_code == 200 and len(ServiceInfo.decode(answer.content).receipt_key) == 32


def test_who_connects_and_says_nothing_is_told_and_cut_off(port: int) -> None:
    with connected(port) as sock:
        assert rest(sock).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_drips_ends(port: int) -> None:
    with connected(port) as sock:
        sock.send(b"GET /v1/service HTTP/1.1\r\n")
        assert drip(sock, b"x: y\r\n") < PATIENCE


def test_a_body_that_drips_ends(port: int) -> None:
    with connected(port) as sock:
        sock.send(READ + b"content-length: 100000\r\n\r\n")
        assert drip(sock, b"x") < PATIENCE


def test_a_body_without_end_that_drips_in_chunks_ends(port: int) -> None:
    with connected(port) as sock:
        sock.send(READ + b"transfer-encoding: chunked\r\n\r\n")
        assert drip(sock, b"1;x=y\r\nx\r\n") < PATIENCE


def test_a_slow_body_that_keeps_the_pace_is_answered(port: int) -> None:
    with connected(port) as sock:
        sock.send(READ + b"content-length: 12000\r\n\r\n")
        for _ in range(30):
            sock.send(bytes(400))
            time.sleep(0.1)
        head, _, body = sock.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert Failure.decode(body).code is ErrorCode.MALFORMED


def test_empty_lines_do_not_keep_a_connection_that_is_not_used(port: int) -> None:
    with connected(port) as sock:
        sock.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert drip(sock, b"\r\n") < PATIENCE


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"GET /v1/service HTTP/1.1\r\n", b"x: " + bytes(b"y" * 1000) + b"\r\n"),
        (b"GET /", b"y" * 1000),
        (
            READ + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
            b"x: " + b"y" * 1000 + b"\r\n",
        ),
        (READ + b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"y" * 1000 + b"\r\nx\r\n"),
    ],
    ids=["headers", "path", "trailers", "extensions of chunks"],
)
def test_a_head_without_end_is_refused(port: int, begin: bytes, again: bytes) -> None:
    with connected(port) as sock:
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(begin)
            while sent < 20 * HEAD_BYTES:
                sock.sendall(again)
                sent += len(again)
        assert sent < 20 * HEAD_BYTES or b"HTTP/1.1 431 " in rest(sock)


def test_the_largest_head_is_taken(port: int) -> None:
    with connected(port) as sock:
        filler = b"x: " + b"y" * (HEAD_BYTES - 200) + b"\r\n"
        sock.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n" + filler + b"\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_answers_that_nobody_takes_are_dropped(port: int) -> None:
    request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    with connected(port) as sock:
        sock.sendall(request)
        first = sock.recv(65536)
        size = int(re.findall(rb"content-length: (\d+)", first)[0])
        count = 40_000_000 // size
        sock.sendall(request * count)
        time.sleep(4 * LIMITS.slow_after)
        assert len(rest(sock)) < count * size


def test_connections_of_one_prefix_are_counted_and_no_others(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS.most_of_prefix):
            stack.enter_context(connected(port))
        more = stack.enter_context(connected(port))
        assert rest(more).startswith(b"HTTP/1.1 503 ")
        assert is_served(port, "127.0.0.2")
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        with contextlib.suppress(httpx.TransportError):
            if is_served(port):
                break
        time.sleep(0.1)
    assert is_served(port)


def test_the_others_are_served_beside_who_drips(port: int) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(port, source="127.0.0.3")) for _ in range(40)]
        for _ in range(5):
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.send(b"G")
            assert is_served(port)


def test_a_message_in_too_many_fragments_ends_a_websocket(port: int) -> None:
    with connect(
        f"ws://127.0.0.1:{port}/v1/subscribe", subprotocols=[Subprotocol(SUBPROTOCOL)]
    ) as socket_:
        # The end of the message, a frame of its own, is the one too many: nothing comes behind it, since what a
        # service leaves unread when it closes may cost the client its close frame.
        socket_.send(b"" for _ in range(FRAGMENTS))
        with pytest.raises(ConnectionClosed) as closed:
            socket_.recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_answers_to_pings_do_not_pile_up_for_who_does_not_read(serving: tuple[int, int]) -> None:
    port, pid = serving
    with connected(port) as sock:
        sock.send(
            b"GET /v1/subscribe HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"sec-websocket-protocol: " + SUBPROTOCOL.encode() + b"\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        before = resident(pid)
        pings, most = (b"\x89\xfd" + bytes(4) + bytes(125)) * 1000, 0
        # It may be cut off on the way, for taking nothing.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(250):
                sock.sendall(pings)
                most = max(most, resident(pid) - before)
        assert most < 4 * 1024
    assert is_served(port)


def resident(pid: int) -> int:
    """KiB of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
