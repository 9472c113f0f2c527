"""Hearing what the service pushes (docs/delivery-protocol.md, section 9): no request for what was sent already.

A group of thousands could not be served if each member asked for every message after being told of it, nor if it
connected anew each time. So a listener keeps one connection for logs and boxes and one for the inbox (D-SUB-7), follows
each group from epoch to epoch, and hands entries over as they come. Nothing rests on it: entries are verified as those
of a read are, and a client that hears nothing polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from coterie.errors import DecodeError, ServiceError
from coterie.transport import api
from coterie.transport.client import Connection, DeliveryClient

GRACE: Final = 60
"""Seconds for which the subscription to an epoch outlives it (D-SUB-6)."""
_WAITING: Final = 256
"""Frames that wait here; beyond that the service waits, and in the end closes the connection (D-SUB-4)."""
_RETRY: Final = 5.0
_MEMBERS_PER_SECOND: Final = 100
_LONGEST_DELAY: Final = 60.0


class Listened(Protocol):
    """A group as a listener needs it."""

    id: str

    @property
    def reads(self) -> bool:
        """Whether this device reads the group's log."""

    def log_target(self) -> api.LogTarget:
        """The present epoch, from the first entry on that was not read."""

    def box_target(self) -> api.LogTarget:
        """The present epoch's boxes, from the first request on that was not read."""

    def size(self) -> int:
        """How many members there are."""

    def offer(self, result: api.ReadResult) -> None:
        """Hands over what was pushed."""


@dataclass(slots=True)
class Heard:
    """What there is to do: groups with entries, groups to be asked about whole, and whether the inbox has something."""

    entries: set[str] = field(default_factory=set)
    ask: set[str] = field(default_factory=set)
    inbox: bool = False

    def __bool__(self) -> bool:
        return bool(self.entries or self.ask or self.inbox)


class _Stream:
    """One connection, made when it is first needed, and what came over it."""

    def __init__(self, service: DeliveryClient, arrived: asyncio.Event) -> None:
        self._service = service
        self._arrived = arrived
        self._connection: Connection | None = None
        self._pump: asyncio.Task[None] | None = None
        self._frames: asyncio.Queue[api.ServerFrame | ServiceError] = asyncio.Queue(_WAITING)

    async def send(self, frame: api.ClientFrame) -> None:
        """Sends a frame, over a new connection if there is none; raises `ServiceError`."""
        if self._connection is None:
            self._connection = await self._service.connect()
            self._pump = asyncio.create_task(self._run(self._connection))
        await self._connection.send(frame)

    async def _run(self, connection: Connection) -> None:
        while True:
            try:
                frame: api.ServerFrame | ServiceError = await connection.receive()
            except ServiceError as error:
                frame = error
            except DecodeError as error:
                frame = ServiceError(f"the service sent what is no frame: {error}")
            await self._frames.put(frame)
            self._arrived.set()
            if isinstance(frame, ServiceError):
                return

    def take(self) -> Iterable[api.ServerFrame]:
        """What has come since the last call; raises `ServiceError` where the connection is over."""
        while not self._frames.empty():
            frame = self._frames.get_nowait()
            if isinstance(frame, ServiceError):
                raise frame
            yield frame

    async def close(self) -> None:
        """Ends the connection."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        if self._connection is not None:
            with contextlib.suppress(ServiceError):
                await self._connection.close()


@dataclass(slots=True)
class _Following:
    """The subscriptions of one group."""

    epoch: bytes
    log: int
    box: int


class Listener:
    """The subscriptions of one client. After a `ServiceError` it is closed, and another one is made.

    While `called` is set, `next` waits for nothing: there is something to do besides listening.
    """

    def __init__(
        self, logs: DeliveryClient, inboxes: DeliveryClient, called: asyncio.Event
    ) -> None:
        self._arrived = asyncio.Event()
        self._services = (logs, inboxes)
        self._numbers = 0
        self._due: dict[str, float] = {}
        self._cut_off = False
        self._called = called
        self.heard = False
        """Whether anything ever came."""
        self._begin()

    def _begin(self) -> None:
        self._logs, self._inbox = (_Stream(each, self._arrived) for each in self._services)
        self._following: dict[str, _Following] = {}
        self._groups: dict[int, str] = {}
        self._leaving: list[tuple[float, int]] = []
        self._inbox_followed = False

    async def next(
        self, groups: Iterable[Listened], inbox: api.InboxTarget, seconds: float
    ) -> Heard:
        """What is heard within so many seconds, nothing if that is nothing. Raises `ServiceError`."""
        groups = list(groups)
        if self._cut_off:
            # Which frames were sent is not known; what is missed by that comes from the cursors.
            await self.close()
            self._begin()
        self._cut_off = True
        await self._follow(groups, inbox)
        self._cut_off = False
        heard = self._take(groups, inbox)
        ends = time.monotonic() + seconds
        while not (heard or self._called.is_set()) and (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([left, *self._until_due()])):
                    await self._arrived.wait()
            heard = self._take(groups, inbox)
        return heard

    def look_up(self) -> None:
        """Has `next` see that it is called."""
        self._arrived.set()

    async def close(self) -> None:
        """Ends both connections."""
        await self._logs.close()
        await self._inbox.close()

    # -- what is subscribed to

    async def _follow(self, groups: list[Listened], inbox: api.InboxTarget) -> None:
        if not self._inbox_followed:
            self._inbox_followed = True
            await self._inbox.send(_subscribe(0, api.Delivery.WAKE_ONLY, inbox=inbox))
        for group in groups:
            if not group.reads:
                await self._leave(group.id, 0)
                continue
            target = group.log_target()
            following = self._following.get(group.id)
            if following is not None and following.epoch == target.epoch:
                continue
            await self._leave(group.id, GRACE)
            self._numbers += 2
            log, box = self._numbers, self._numbers + 1
            self._following[group.id] = _Following(target.epoch, log, box)
            self._groups[log] = self._groups[box] = group.id
            await self._logs.send(_subscribe(log, api.Delivery.CONTENT, log=target))
            await self._logs.send(_subscribe(box, api.Delivery.WAKE_ONLY, box=group.box_target()))
        now = time.monotonic()
        for at, number in [entry for entry in self._leaving if entry[0] <= now]:
            self._leaving.remove((at, number))
            await self._unsubscribe(number)

    async def _leave(self, group: str, grace: float) -> None:
        following = self._following.pop(group, None)
        if following is not None:
            await self._unsubscribe(following.box)
            self._leaving.append((time.monotonic() + grace, following.log))

    async def _unsubscribe(self, number: int) -> None:
        # Unless the service ended it before.
        if self._groups.pop(number, None) is not None:
            frame = api.ClientFrame(
                api.ClientFrameType.UNSUBSCRIBE, unsubscribe=api.Unsubscribe(number)
            )
            await self._logs.send(frame)

    # -- what came

    def _take(self, groups: list[Listened], inbox: api.InboxTarget) -> Heard:
        self._arrived.clear()
        heard = Heard()
        for frame in self._inbox.take():
            # The stock of key packages comes as items, and has to be looked at as well (D-DIR-6).
            heard.inbox |= frame.woken is None or _is_news(frame.woken, inbox.from_number)
        by_id = {group.id: group for group in groups}
        for frame in self._logs.take():
            self.heard = True
            self._take_frame(frame, by_id, heard)
        now = time.monotonic()
        for name in [name for name, at in self._due.items() if at <= now]:
            del self._due[name]
            heard.ask.add(name)
        return heard

    def _take_frame(
        self, frame: api.ServerFrame, groups: dict[str, Listened], heard: Heard
    ) -> None:
        told = frame.entries or frame.woken or frame.ended
        name = self._groups.get(told.subscription) if told is not None else None
        if told is None or name is None or name not in groups:
            return
        if isinstance(told, api.Entries):
            if told.result.entries or told.result.gone is not None:
                groups[name].offer(told.result)
                heard.entries.add(name)
        elif isinstance(told, api.Woken):
            self._note_request(groups[name], told)
        else:
            # Refused, or dropped: a read says the same in a way that is acted on.
            del self._groups[told.subscription]
            heard.ask.add(name)

    def _note_request(self, group: Listened, woken: api.Woken) -> None:
        """Something is in the box: who looks first answers, so the others look later, and find it done (D-BOX-7)."""
        if not _is_news(woken, group.box_target().from_number):
            return
        longest = min(group.size() / _MEMBERS_PER_SECOND, _LONGEST_DELAY)
        at = time.monotonic() + random.uniform(0, longest)  # noqa: S311 - a time, not a secret
        self._due[group.id] = min(at, self._due.get(group.id, at))

    def _until_due(self) -> list[float]:
        now = time.monotonic()
        return [max(0.0, at - now) for at in self._due.values()]


def _is_news(woken: api.Woken, from_number: int) -> bool:
    """Whether anything stands from a number on; numbers begin at 1."""
    return woken.next_number > max(from_number, 1)


def _subscribe(
    number: int,
    delivery: api.Delivery,
    *,
    log: api.LogTarget | None = None,
    box: api.LogTarget | None = None,
    inbox: api.InboxTarget | None = None,
) -> api.ClientFrame:
    target_type = api.TargetType.INBOX
    if log is not None:
        target_type = api.TargetType.LOG
    elif box is not None:
        target_type = api.TargetType.BOX
    subscribe = api.Subscribe(number, delivery, target_type, log=log, box=box, inbox=inbox)
    return api.ClientFrame(api.ClientFrameType.SUBSCRIBE, subscribe)
