"""A hostile network between real clients and a real service: every byte of HTTP and WebSocket passes through here.

Requests go on to the service as they are; of an answer, a test makes what it wants, down to the bytes on the wire.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from coterie.mls.tls import Struct
from coterie.transport import api

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Writer = asyncio.StreamWriter
Raw = Callable[[Writer, bytes], Awaitable[None]]
Lie = Callable[[Any, Any], Struct]


@dataclass
class Proxy:
    """Between; `url` is where clients think that the services are."""

    upstream: str
    url: str = ""
    lies: dict[str, Lie] = field(default_factory=dict)
    """What becomes of a request's answer, both as structs, by path such as `logs/read`."""
    raw: dict[str, Raw] = field(default_factory=dict)
    """What is written instead of an answer, given its bytes, by path."""
    frames: bytes | None = None
    """What is sent over every WebSocket instead of the service's frames."""
    asked: list[str] = field(default_factory=list)
    http: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(verify=False, timeout=60, trust_env=False)
    )

    def honest(self) -> None:
        """Passes everything on, from now on."""
        self.lies.clear()
        self.raw.clear()
        self.frames = None

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """One connection, one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, *rest = head.decode("latin1").split("\r\n")
            method, path, _ = line.split(" ")
            headers = {n.lower(): v for n, _, v in (h.partition(": ") for h in rest if h)}
            self.asked.append(path)
            if headers.get("upgrade", "").lower() == "websocket":
                await self._socket(reader, writer, head, headers)
            else:
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._answer(writer, method, path, headers, body)
        with suppress(ConnectionError):
            writer.close()

    async def _answer(
        self, writer: Writer, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        kept = {
            n: v for n, v in headers.items() if n not in {"host", "connection", "content-length"}
        }
        answer = await self.http.request(method, self.upstream + path, headers=kept, content=body)
        content = answer.content
        operation = path.removeprefix("/v1/")
        if operation in self.lies and answer.status_code == 200:
            asked, told = api.OPERATIONS[operation]
            content = self.lies[operation](asked.decode(body), told.decode(content)).encode()
        if operation in self.raw:
            await self.raw[operation](writer, content)
            return
        kind = answer.headers.get("content-type", "")
        writer.write(response(content, status=answer.status_code, kind=kind))
        await writer.drain()

    async def _socket(
        self, reader: asyncio.StreamReader, writer: Writer, head: bytes, headers: dict[str, str]
    ) -> None:
        if self.frames is None:
            host, _, port = self.upstream.removeprefix("http://").partition(":")
            theirs, ours = await asyncio.open_connection(host, int(port))
            ours.write(head)
            await asyncio.gather(_pipe(reader, ours), _pipe(theirs, writer))
            return
        accept = hashlib.sha1(headers["sec-websocket-key"].encode() + _GUID).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: " + api.SUBPROTOCOL.encode() + b"\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n" + self.frames
        )
        await writer.drain()
        while await reader.read(65536):
            pass


async def _pipe(reader: asyncio.StreamReader, writer: Writer) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


def response(
    content: bytes, *, status: int = 200, kind: str = api.MEDIA_TYPE, length: int | None = None
) -> bytes:
    """An HTTP answer; `length` is what it says of itself, where that is not true."""
    said = len(content) if length is None else length
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {said}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + content


@asynccontextmanager
async def between(upstream: str) -> AsyncIterator[Proxy]:
    """A proxy that runs for the block."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.http.aclose()
