"""How connections are carried: uvicorn's protocols, with bounds on what a peer that is slow on purpose can hold.

uvicorn itself waits for ever for the head of a request, for its body, and for a reader who does not read; it keeps as
many bytes of headers as are sent, and answers pings that nobody reads. Here each wait has an end, each buffer a size,
and each network prefix a number of connections: `Connections` says which (docs/decisions/0151).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from asyncio import sslproto
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from coterie.apps.config import Connections

HTTP_OPTIONS: Final[dict[str, Any]] = {
    # What is pushed is sealed, so nothing of it compresses, and each connection would hold a compressor's memory.
    "ws_per_message_deflate": False,
    "ws_max_size": 64 * 1024,
    # Each idle connection costs a ping and an answer each time; clients ping as rarely.
    "ws_ping_interval": 60.0,
    "ws_ping_timeout": 60.0,
    "access_log": False,
    "server_header": False,
    "backlog": 4096,
    # Longer than a client keeps a connection that it does not use: it must not be closed under a request.
    "timeout_keep_alive": 65,
}
"""How uvicorn carries HTTP and WebSocket, whatever the configuration; `protocols` gives the rest."""

HEAD_BYTES: Final = 64 * 1024
"""Bytes of a request that are not its body: request line, headers, chunk headers, trailers."""
FRAGMENTS: Final = 16
"""Frames that one WebSocket message may come in; clients send each in one."""
_TLS_BUFFER: Final = 16 * 1024
_RESERVED_FILES: Final = 256
_SAY_EVERY: Final = 60.0
_log: Final = logging.getLogger("coterie.serve")


class Doorkeeper:
    """Counts connections by network prefix. `prefix_of` gives the prefix of an address, or None where none counts."""

    def __init__(self, limits: Connections, prefix_of: Callable[[str], bytes | None]) -> None:
        self.most = limits.most or _files() - _RESERVED_FILES
        self._most_of_prefix = limits.most_of_prefix
        self._prefix_of = prefix_of
        self._inside: Counter[bytes] = Counter()
        self._all = 0
        self._said_at = float("-inf")

    def enter(self, address: str) -> Callable[[], None] | None:
        """Lets a connection in; gives what to call when it is gone. None if there is no room for it."""
        prefix = self._prefix_of(address)
        full = prefix is not None and self._inside[prefix] >= self._most_of_prefix
        if full or self._all >= self.most:
            self._say("a network prefix" if full else "the service")
            return None
        key = b"" if prefix is None else prefix
        self._inside[key] += 1
        self._all += 1
        return partial(self._leave, key)

    def _leave(self, key: bytes) -> None:
        self._all -= 1
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key]

    def _say(self, whose: str) -> None:
        if time.monotonic() - self._said_at > _SAY_EVERY:
            self._said_at = time.monotonic()
            _log.warning("connections are refused", extra={"full": whose, "open": self._all})


def _files() -> int:
    """How many files this process may open; asks for as many as it may ask for."""
    if sys.platform == "win32":
        return 8192
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


class Listening(socket.socket):
    """A socket that listens, and asks a doorkeeper about each connection, before anything is done for it."""

    def __init__(self, bound: socket.socket, doorkeeper: Doorkeeper, *, says_why: bool) -> None:
        super().__init__(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self._doorkeeper, self._says_why = doorkeeper, says_why

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. ConnectionAbortedError for one that is refused, after which asyncio looks again."""
        sock, address = super().accept()
        leave = self._doorkeeper.enter(address[0])
        if leave is None:
            with contextlib.closing(sock), contextlib.suppress(OSError):
                if self._says_why:
                    sock.settimeout(0)
                    sock.send(_answer("503 Service Unavailable", "too many connections"))
            raise ConnectionAbortedError
        return _Accepted(sock, leave), address


class _Accepted(socket.socket):
    """A connection's socket, which tells when it is closed."""

    def __init__(self, sock: socket.socket, leave: Callable[[], None]) -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self._leave: Callable[[], None] | None = leave

    def close(self) -> None:
        leave, self._leave = self._leave, None
        super().close()
        if leave is not None:
            leave()


def protocols(limits: Connections) -> dict[str, Any]:
    """The options of uvicorn that make it carry connections as this module says."""
    return {
        # The sockets and buffers here are asyncio's own.
        "loop": "asyncio",
        "http": type("Http", (_Http,), {"limits": limits}),
        "ws": type("WebSocket", (_WebSocket,), {"limits": limits}),
    }


def _answer(status: str, why: str) -> bytes:
    body = f"{why}; try again later\n"
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: 10\r\nconnection: close\r\n\r\n{body}"
    ).encode()


class _Http(HttpToolsProtocol):
    """One HTTP connection, until it becomes a WebSocket."""

    limits: Connections
    _request_timer: asyncio.TimerHandle | None = None
    """When the head must be complete, or the pace of the body is looked at; none while a request is worked on."""
    _reader_timer: asyncio.TimerHandle | None = None
    _waits_for_head = True
    _is_complete = False
    """Whether what was received last completed a request, or made a WebSocket of this."""
    _bytes = 0
    """Of this request so far."""
    _body = 0
    """Of them, those of its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_timers()
        super().connection_lost(exc)
        # uvicorn leaves its own timer where a connection was broken off.
        self._unset_keepalive_if_required()

    def _no_timers(self) -> None:
        self._no_request_timer()
        self._no_reader_timer()

    # -- the request

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._bytes += len(data)
        self._is_complete = False
        super().data_received(data)
        if self._bytes - self._body > HEAD_BYTES + 8 * self._body:
            self._refuse("431 Request Header Fields Too Large", "the request's head is too large")
        elif not (self._is_complete or self._request_timer or self.transport.is_closing()):
            self._watch_request()

    def _watch_request(self) -> None:
        """Begins to wait for the rest. Most requests come in one piece, and need no timer to be made for them."""
        if self._waits_for_head:
            # An empty line before a head counts too.
            self._wait_for_head()
        else:
            self._watch_body()

    def _wait_for_head(self) -> None:
        self._request_timer = self.loop.call_later(self.limits.head_timeout, self._head_is_late)

    def _no_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _head_is_late(self) -> None:
        self._refuse("408 Request Timeout", "the head of the request took too long")

    def on_headers_complete(self) -> None:
        self._no_request_timer()
        self._waits_for_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._no_request_timer()
        self._waits_for_head = self._is_complete = True
        self._bytes = self._body = 0
        super().on_message_complete()

    def _watch_body(self) -> None:
        self._request_timer = self.loop.call_later(
            self.limits.slow_after, self._look_at_body, self._body
        )

    def _look_at_body(self, before: int) -> None:
        # While we ourselves do not read, the peer is not to blame.
        if self._body - before < self._pace and not self.flow.read_paused:
            self._refuse("408 Request Timeout", "the body of the request came too slowly")
        else:
            self._watch_body()

    @property
    def _pace(self) -> float:
        return self.limits.slowest * self.limits.slow_after

    def _refuse(self, status: str, why: str) -> None:
        """Says why, unless an answer is under way, and closes; who does not take that is cut off."""
        self._no_timers()
        if self.transport.is_closing():
            return
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or not cycle.response_started or cycle.response_complete:
            self.transport.write(_answer(status, why))
        _close(self.transport)

    def handle_websocket_upgrade(self) -> None:
        self._no_timers()
        self._is_complete = True
        # What the WebSocket sends has no head that could be too large.
        self._bytes = self._body = 0
        super().handle_websocket_upgrade()

    # -- the answer

    def timeout_keep_alive_handler(self, before: int | None = None) -> None:
        left = self.transport.get_write_buffer_size()
        if not left:
            self.transport.close()
        elif before is not None and before - left < self._pace:
            self.transport.abort()
        else:
            # The answer is complete for uvicorn, and still being taken.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.limits.slow_after, self.timeout_keep_alive_handler, left
            )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._no_reader_timer()
        super().resume_writing()

    def _no_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(
            self.limits.slow_after, self._look_at_reader, left
        )

    def _look_at_reader(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < self._pace:
            self.transport.abort()
        else:
            self._watch_reader()


class _WebSocket(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    limits: Connections
    _close_timer: asyncio.TimerHandle | None = None

    async def send(self, message: Any) -> None:  # noqa: ANN401 - a message of ASGI
        if message["type"] == "websocket.close" and self._close_timer is None:
            # Who does not take what was sent does not take the goodbye either, for which uvicorn waits.
            self._close_timer = self.loop.call_later(self.limits.slow_after, self.transport.abort)
        await super().send(message)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS:
            self.conn.fail(1009, "a message in too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Answers that nobody reads would pile up.
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        _close(self.transport)


def _close(transport: asyncio.Transport) -> None:
    """Closes a connection; one whose peer does not take what is still to be sent is cut off."""
    if transport.get_write_buffer_size():
        transport.abort()
    else:
        transport.close()


def use_small_tls_buffers() -> None:
    """Makes asyncio keep 16 KiB for each TLS connection of this process, a record's length, where it keeps 256.

    A subscriber that waits for hours would hold the rest for nothing (docs/decisions/0130). Where asyncio has no such
    setting any more, nothing changes.
    """
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = _TLS_BUFFER


def prepare(listening: socket.socket, limits: Connections) -> None:
    """Sets what accepted sockets inherit from the one that listens."""
    # asyncio does not set it for them, and each answer would wait 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A peer that takes nothing at all, for so long, is gone; a connection that is being closed would wait for it.
        patience = int(1000 * max(2 * limits.slow_after, 1))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
