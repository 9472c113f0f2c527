"""Members who are played: they subscribe to a log, count what is pushed, and follow it to the epoch they are told.

A connection carries the subscriptions of several, since a process may open a limited number of files only; each
subscription is one member's, with a token and a cursor of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    LogTarget,
    ServerFrameType,
    Subscribe,
    TargetType,
    Unsubscribe,
)

_UPGRADE: Final = (
    b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: coterie.v1\r\n\r\n"
)
_SHORT, _LONG = 126, 127
_BINARY, _PING, _PONG = 0x82, 0x89, 0x8A


class Player(asyncio.Protocol):
    """One connection with the subscriptions of some members."""

    def __init__(self, crowd: Crowd, members: int) -> None:
        self._crowd = crowd
        self._members = members
        self._buffer = bytearray()
        self._upgraded = False
        self._numbers = 0
        self._transport: asyncio.Transport | None = None
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_UPGRADE)

    def follow(self, target: LogTarget) -> None:
        """Subscribes every member to an epoch; the subscriptions before are ended."""
        assert self._transport is not None
        frames = []
        for number in range(self._numbers, self._numbers + self._members):
            if self._numbers:
                ended = Unsubscribe(number - self._members)
                frames.append(ClientFrame(ClientFrameType.UNSUBSCRIBE, unsubscribe=ended))
            subscribe = Subscribe(number, Delivery.CONTENT, TargetType.LOG, log=target)
            frames.append(ClientFrame(ClientFrameType.SUBSCRIBE, subscribe))
        self._numbers += self._members
        self._transport.write(b"".join(_framed(frame.encode()) for frame in frames))

    def data_received(self, data: bytes) -> None:
        """Counts frames."""
        self._buffer += data
        if not self._upgraded:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded, self._buffer = True, bytearray(rest)
            self.ready.set()
        at = 0
        while (size := _frame_size(self._buffer, at)) is not None:
            body = at + size[0]
            if self._buffer[at] == _PING:
                self._answer(bytes(self._buffer[body : body + size[1]]))
            elif self._buffer[at] == _BINARY:
                self._crowd.took(self._buffer[body], size[0] + size[1])
            at = body + size[1]
        del self._buffer[:at]

    def _answer(self, ping: bytes) -> None:
        assert self._transport is not None
        self._transport.write(bytes((_PONG, 0x80 | len(ping))) + bytes(4) + ping)

    def close(self) -> None:
        """Ends the connection."""
        assert self._transport is not None
        self._transport.close()


def _framed(body: bytes) -> bytes:
    """A masked binary frame; the mask is zero."""
    size = bytes((0x80 | len(body),)) if len(body) < _SHORT else b"\xfe" + len(body).to_bytes(2)
    return b"\x82" + size + bytes(4) + body


def _frame_size(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Header and body of the frame at a place, None where it has not come whole."""
    if len(buffer) < at + 2:
        return None
    length, header = buffer[at + 1], 2
    if length == _SHORT:
        length, header = int.from_bytes(buffer[at + 2 : at + 4]), 4
    elif length == _LONG:
        length, header = int.from_bytes(buffer[at + 2 : at + 10]), 10
    return (header, length) if len(buffer) >= at + header + length else None


class Crowd:
    """All who are played."""

    def __init__(self, members: int, connections: int) -> None:
        self.members = members
        shares = [members * n // connections for n in range(connections + 1)]
        self._players = [Player(self, b - a) for a, b in itertools.pairwise(shares) if b > a]
        self.frames = 0
        self.bytes = 0
        self.last = 0.0

    def took(self, frame_type: int, size: int) -> None:
        """A frame came."""
        assert frame_type == ServerFrameType.ENTRIES, frame_type
        self.frames += 1
        self.bytes += size
        self.last = time.perf_counter()

    async def connect(self, port: int) -> None:
        """Opens all connections."""
        loop = asyncio.get_running_loop()
        for player in self._players:
            await loop.create_connection(lambda player=player: player, "127.0.0.1", port)  # type: ignore[misc]
        for player in self._players:
            await player.ready.wait()

    async def follow(self, target: LogTarget) -> float:
        """Has everybody subscribe to an epoch; seconds until all have its first frame."""
        started, frames = time.perf_counter(), self.frames + self.members
        for number, player in enumerate(self._players):
            player.follow(target)
            if number % 64 == 0:
                await asyncio.sleep(0)
        await self.until(frames)
        return self.last - started

    async def until(self, frames: int) -> None:
        """Waits for so many frames in all."""
        async with asyncio.timeout(600):
            while self.frames < frames:  # noqa: ASYNC110 - an event for each frame would cost more
                await asyncio.sleep(0.005)

    def close(self) -> None:
        """Ends all connections."""
        for player in self._players:
            player.close()
