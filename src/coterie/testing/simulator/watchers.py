"""Readers that subscribe: the real hub over the simulated service's logs, on an event loop of its own (section 9).

A watcher follows the group like a member's device does: one connection, a subscription for each epoch. It may take
nothing for a while, its connection may be cut, it resumes with the number after the last entry that it has. What it
got is compared with what the service stores.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coterie.delivery.hub import Channel, Hub
from coterie.transport import api
from coterie.transport.refusal import Refused

if TYPE_CHECKING:
    from coterie.testing.simulator.service import ModelService

WAITING = 8 * 1024
"""Bytes that may wait for a slow watcher: little, so that some are cut off."""
_ROUNDS = 500


@dataclass(slots=True)
class Seen:
    """What a watcher has of one epoch."""

    target: api.LogTarget
    receipts: list[api.Receipt] = field(default_factory=list)
    next_number: int = 1
    ended: api.ErrorCode | None = None
    woken: int = 0
    """Up to which number it was told that there is something, where it gets no content."""


class Watcher:
    """One subscriber."""

    def __init__(self, subscribers: Subscribers, *, wake_only: bool) -> None:
        self._all = subscribers
        self.delivery = api.Delivery.WAKE_ONLY if wake_only else api.Delivery.CONTENT
        self.epochs: dict[bytes, Seen] = {}
        self.slow = False
        self.cut = 0
        self._channel: Channel | None = None
        self._stalled: list[asyncio.Future[None]] = []
        self.connect()

    def connect(self) -> None:
        """Opens a connection, and goes on where the last one ended (D-SUB-4)."""
        self._channel = self._all.channel(self._send, self._close)
        for seen in self.epochs.values():
            self._subscribe(seen)

    def follow(self, target: api.LogTarget) -> None:
        """Subscribes to an epoch."""
        if target.epoch not in self.epochs:
            self.epochs[target.epoch] = Seen(target)
            self._subscribe(self.epochs[target.epoch])

    def _subscribe(self, seen: Seen) -> None:
        if self._channel is None or seen.ended is not None:
            return
        number = list(self.epochs).index(seen.target.epoch)
        target = seen.target.replace(from_number=seen.next_number)
        request = api.Subscribe(number, self.delivery, api.TargetType.LOG, log=target)
        self._channel.receive(api.ClientFrame(api.ClientFrameType.SUBSCRIBE, request))

    def stall(self) -> None:
        """Takes nothing from now on."""
        self.slow = True

    def go_on(self) -> None:
        """Takes what was sent."""
        self.slow = False
        for waiting in self._stalled:
            if not waiting.done():
                waiting.set_result(None)
        self._stalled.clear()

    def lose_connection(self) -> None:
        """The connection is cut; what was on the way is lost."""
        if self._channel is not None:
            self._channel.shut()
        self._channel = None
        self._stalled.clear()
        self.slow = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._channel is not None

    async def _send(self, data: bytes) -> None:
        channel = self._channel
        if self.slow:
            waiting = asyncio.get_running_loop().create_future()
            self._stalled.append(waiting)
            await waiting
        if channel is self._channel:
            self._take(api.ServerFrame.decode(data))

    async def _close(self, failure: api.Failure) -> None:
        if failure.code is api.ErrorCode.TOO_SLOW:
            self.cut += 1
        self._channel = None
        self._stalled.clear()

    def _take(self, frame: api.ServerFrame) -> None:
        epochs = list(self.epochs.values())
        if frame.entries is not None:
            seen, result = epochs[frame.entries.subscription], frame.entries.result
            if result.gone is not None:
                seen.receipts = []
            seen.receipts += [stored.receipt for stored in result.entries]
            seen.next_number = max(seen.next_number, result.next_number)
        elif frame.woken is not None:
            seen = epochs[frame.woken.subscription]
            seen.woken = max(seen.woken, frame.woken.next_number)
        elif frame.ended is not None:
            epochs[frame.ended.subscription].ended = frame.ended.failure.code


class Subscribers:
    """The hub, its event loop, and who subscribes. It is the hub's `Source`, too."""

    def __init__(self, service: ModelService, rng: random.Random) -> None:
        self._service = service
        self._random = rng
        self._loop = asyncio.new_event_loop()
        self.hub = Hub()
        self.watchers: list[Watcher] = []

    def close(self) -> None:
        """Ends all connections."""
        for watcher in self.watchers:
            self.on_loop(watcher.lose_connection)
        self._loop.close()

    def channel(
        self, send: Callable[[bytes], object], close: Callable[[api.Failure], object]
    ) -> Channel:
        """A new connection."""
        return Channel(self.hub, self, send, close, WAITING, 1e9, 1000)  # type: ignore[arg-type]

    def on_loop(self, action: Callable[[], object], rounds: int = 0) -> None:
        """Does something on the event loop, and lets what waits there go on for some rounds."""

        async def act() -> None:
            action()
            for _ in range(rounds):
                await asyncio.sleep(0)

        self._loop.run_until_complete(act())

    def settle(self) -> None:
        """Lets everything go on until nothing is left to do."""
        self.on_loop(lambda: None, _ROUNDS)

    def reconnect(self) -> None:
        """Everybody takes what is sent, and who was cut off connects again."""
        for watcher in self.watchers:
            self.on_loop(watcher.go_on, _ROUNDS)
            if not watcher.connected:
                self.on_loop(watcher.connect, _ROUNDS)

    def accepted(self, stored: api.StoredEntry, state: api.EpochState) -> None:
        """The service accepted an entry."""
        self.on_loop(lambda: self.hub.entry(stored, state), self._random.randrange(3))

    # -- Source

    async def _later(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)

    async def read(self, request: api.Read) -> api.ReadResult:
        """See Source: something may be accepted before or after the answer is made."""
        await self._later()
        result = self._service.on_log(
            0, lambda tx: self._service.logs.read(tx, request.replace(max_bytes=4096))
        )
        await self._later()
        return result

    async def read_box(self, request: api.ReadBox) -> api.ReadBoxResult:
        """Nobody subscribes to boxes here."""
        raise Refused(api.ErrorCode.UNKNOWN_PATH, str(request.epoch))

    async def box_line(self, request: api.ReadBox) -> list[bytes]:
        """Nobody subscribes to boxes here."""
        raise Refused(api.ErrorCode.UNKNOWN_PATH, str(request.epoch))

    async def read_inbox(self, request: api.ReadInbox) -> api.ReadInboxResult:
        """Nobody subscribes to inboxes here."""
        raise Refused(api.ErrorCode.UNKNOWN_PATH, str(request.inbox_id))
