"""Subscriptions: who waits for what, and what reaches them (section 9).

A `Channel` is one connection. What is new goes from a write straight to the channels that are up to date, as bytes that
are made once for all of them; a channel that is behind reads from storage until it has caught up. A channel holds a
bounded queue: if its reader takes too little for too long, it alone is closed, and resumes from its cursor (D-SUB-4).

Everything here runs on one event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from coterie.errors import StorageError
from coterie.transport.api import (
    BoxItem,
    ClientFrame,
    ClientFrameType,
    Delivery,
    Ended,
    EpochState,
    ErrorCode,
    Failure,
    InboxItem,
    LogTarget,
    Read,
    ReadBox,
    ReadBoxResult,
    ReadInbox,
    ReadInboxResult,
    ReadResult,
    ServerFrame,
    ServerFrameType,
    StoredEntry,
    Subscribe,
    TargetType,
    Woken,
)
from coterie.transport.refusal import Refused

Topic = tuple[TargetType, bytes]

LARGEST: Final = 2**63 - 1
"""No entry has this number."""


class Source(Protocol):
    """Where a channel reads what it has missed."""

    async def read(self, request: Read) -> ReadResult:
        """Entries of an epoch."""

    async def read_box(self, request: ReadBox) -> ReadBoxResult:
        """Requests of a box."""

    async def box_line(self, request: ReadBox) -> list[bytes]:
        """The epochs whose boxes a reader of one reads."""

    async def read_inbox(self, request: ReadInbox) -> ReadInboxResult:
        """Envelopes of an inbox."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription of a channel. `seen` is the highest number known to exist, `next` the next to be delivered."""

    channel: Channel
    request: Subscribe
    topic: Topic | None
    next: int
    live: bool = False
    seen: int = 0
    line: frozenset[bytes] = frozenset()
    """The epochs whose boxes it reads."""


class Hub:
    """All subscriptions of a service."""

    def __init__(self) -> None:
        self._topics: dict[Topic, dict[Subscription, None]] = {}
        self._lines: WeakValueDictionary[bytes, frozenset[bytes]] = WeakValueDictionary()

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return sum(map(len, self._topics.values()))

    def add(self, subscription: Subscription) -> None:
        """Registers a subscription under its topic."""
        if subscription.topic is not None:
            self._topics.setdefault(subscription.topic, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Forgets a subscription."""
        topic = subscription.topic
        waiting = None if topic is None else self._topics.get(topic)
        if topic is not None and waiting is not None:
            waiting.pop(subscription, None)
            if not waiting:
                del self._topics[topic]

    def line(self, epoch: bytes, names: list[bytes]) -> frozenset[bytes]:
        """The epochs whose boxes a reader of one reads, the same object for all: there may be thousands of both."""
        known = self._lines.get(epoch)
        if known is None:
            # It never grows; of epochs that are gone meanwhile nothing comes.
            known = self._lines[epoch] = frozenset(names)
        return known

    def entry(self, stored: StoredEntry, state: EpochState) -> None:
        """An entry was accepted: to all who wait for it."""
        receipt = stored.receipt
        waiting = self._topics.get((TargetType.LOG, receipt.epoch))
        if waiting:
            result = ReadResult(None, (stored,), receipt.number + 1, receipt, state)
            tail = result.encode()
            self._deliver(waiting, receipt.number, ServerFrameType.ENTRIES, tail)

    def request(self, log_id: bytes, item: BoxItem) -> None:
        """A request was put into a box of a log."""
        of_log = self._topics.get((TargetType.BOX, log_id), ())
        waiting = [each for each in of_log if item.epoch in each.line]
        if waiting:
            tail = ReadBoxResult((item,), item.number + 1).encode()
            self._deliver(waiting, item.number, ServerFrameType.BOX_ITEMS, tail)

    def envelope(self, inbox_id: bytes, item: InboxItem) -> None:
        """An envelope was put into an inbox."""
        waiting = self._topics.get((TargetType.INBOX, inbox_id))
        if waiting:
            tail = ReadInboxResult((item,), item.number + 1, ()).encode()
            self._deliver(waiting, item.number, ServerFrameType.INBOX_ITEMS, tail)

    def dropped(self, log_id: bytes, epoch: bytes) -> None:
        """An epoch is gone: its subscriptions end (D-SUB-5)."""
        for topic in ((TargetType.LOG, epoch), (TargetType.BOX, log_id)):
            for subscription in list(self._topics.get(topic, ())):
                subscription.channel.dropped(subscription, epoch)

    def stock(self, inbox_id: bytes) -> None:
        """The owner of an inbox should hear of its stock (D-DIR-6): its channels read it."""
        for subscription in list(self._topics.get((TargetType.INBOX, inbox_id), ())):
            subscription.channel.refresh(subscription)

    def _deliver(
        self,
        waiting: Iterable[Subscription],
        number: int,
        frame_type: ServerFrameType,
        tail: bytes,
    ) -> None:
        frames: dict[int, bytes] = {}
        for subscription in list(waiting):
            subscription.seen = max(subscription.seen, number)
            if not subscription.live or number < subscription.next:
                continue
            if number > subscription.next and subscription.request.log is not None:
                subscription.channel.fell_behind(subscription)
                continue
            ident = subscription.request.subscription
            if subscription.request.delivery is Delivery.WAKE_ONLY:
                subscription.channel.wake(subscription)
                continue
            frame = frames.get(ident)
            if frame is None:
                frame = frames[ident] = _framed(frame_type, ident, tail)
            # Numbers of a box are those of its log, so they may have gaps; those of an epoch have none.
            subscription.next = number + 1
            subscription.channel.push(frame)


@dataclass(slots=True, eq=False)
class Channel:
    """One connection: its subscriptions, and what waits to be sent."""

    hub: Hub
    source: Source
    send: Callable[[bytes], Coroutine[Any, None, None]]
    close: Callable[[Failure], Awaitable[None]]
    max_waiting: int
    slow_after: float
    max_subscriptions: int
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    _queue: deque[bytes] = field(default_factory=deque)
    _waiting: int = 0
    _sender: asyncio.Task[None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: bool = False

    # -- what the client sends

    def receive(self, frame: ClientFrame) -> None:
        """Acts on a frame; raises `Refused` for one that ends the connection."""
        if frame.frame_type is ClientFrameType.UNSUBSCRIBE and frame.unsubscribe is not None:
            subscription = self.subscriptions.pop(frame.unsubscribe.subscription, None)
            if subscription is not None:
                self.hub.remove(subscription)
        elif frame.subscribe is not None:
            self._check(frame.subscribe)
            self._start(self._subscribe(frame.subscribe))

    def _check(self, request: Subscribe) -> None:
        if request.subscription in self.subscriptions:
            raise Refused(
                ErrorCode.MALFORMED,
                f"subscription {request.subscription} exists on this connection",
                rule="D-SUB-1",
            )
        if len(self.subscriptions) >= self.max_subscriptions:
            raise Refused(
                ErrorCode.TOO_LARGE,
                f"{self.max_subscriptions} subscriptions on one connection are the most",
                rule="D-TRA-4",
            )
        inbox = request.target_type is TargetType.INBOX
        # All that are there agree, so one of them tells.
        other = next(iter(self.subscriptions.values()), None)
        if other is not None and (other.request.target_type is TargetType.INBOX) is not inbox:
            raise Refused(
                ErrorCode.MALFORMED,
                "inboxes and logs are subscribed to on different connections",
                rule="D-SUB-7",
            )
        placeholder = Subscription(self, request, None, 0)
        self.subscriptions[request.subscription] = placeholder

    async def _subscribe(self, request: Subscribe) -> None:
        subscription = self.subscriptions.get(request.subscription)
        if subscription is None:
            return
        try:
            subscription.line = await self._line(request)
            subscription.topic = _topic(request)
            if not self._has(subscription):
                return
            self.hub.add(subscription)
            subscription.next = _from_number(request)
            await self._catch_up(subscription, first=True)
        except (Refused, StorageError) as error:
            self._end(subscription, error)

    def _has(self, subscription: Subscription) -> bool:
        """Whether it goes on: the client may have ended it, and given its number to another one, at any await."""
        return self.subscriptions.get(subscription.request.subscription) is subscription

    async def _line(self, request: Subscribe) -> frozenset[bytes]:
        if request.box is None:
            return frozenset()
        box = request.box
        names = await self.source.box_line(ReadBox(box.log_id, box.epoch, box.token))
        return self.hub.line(box.epoch, names)

    def _end(self, subscription: Subscription, error: Refused | StorageError) -> None:
        refused = error
        if not isinstance(refused, Refused):
            refused = Refused(ErrorCode.UNAVAILABLE, str(error), rule="D-SUB-5", retry_after=1)
        number = subscription.request.subscription
        if self._has(subscription):
            del self.subscriptions[number]
            self.hub.remove(subscription)
            ended = Ended(number, subscription.next, refused.failure())
            self.push(ServerFrame(ServerFrameType.ENDED, ended=ended).encode())

    # -- what the client gets

    async def _catch_up(self, subscription: Subscription, *, first: bool = False) -> None:
        """Sends what storage has until nothing newer is known, then goes live."""
        while not subscription.live:
            seen = subscription.seen
            await self._drained()
            if not self._has(subscription):
                return
            frame, next_number, complete = await self._page(subscription)
            if not self._has(subscription):
                return
            if first or next_number > subscription.next:
                self._send_page(subscription, frame, next_number)
                first = False
            subscription.next = max(subscription.next, next_number)
            subscription.live = complete and subscription.seen == seen

    def _send_page(self, subscription: Subscription, frame: bytes, next_number: int) -> None:
        if subscription.request.delivery is Delivery.WAKE_ONLY:
            woken = Woken(subscription.request.subscription, next_number)
            frame = ServerFrame(ServerFrameType.WOKEN, woken=woken).encode()
        self.push(frame)

    async def _page(self, subscription: Subscription) -> tuple[bytes, int, bool]:
        """What storage has from the cursor on, as a frame; where to go on; whether that is all."""
        request, number = subscription.request, subscription.request.subscription
        start = subscription.next
        if request.log is not None:
            log = request.log
            if request.delivery is Delivery.WAKE_ONLY:
                # The head tells, and nothing else is sent.
                head = (await self._read(log, LARGEST)).head
                return b"", max(start, head.number + 1), True
            read = await self._read(log, start)
            # The answer is the same struct for all who asked alike, and keeps its encoding.
            frame = _framed(ServerFrameType.ENTRIES, number, read.encode())
            return frame, read.next_number, read.next_number > read.head.number
        if request.box is not None:
            box = request.box
            items = await self.source.read_box(ReadBox(box.log_id, box.epoch, box.token, start))
            frame = _framed(ServerFrameType.BOX_ITEMS, number, items.encode())
            return frame, items.next_number, not items.items
        inbox = await self._read_inbox(request, start)
        frame = _framed(ServerFrameType.INBOX_ITEMS, number, inbox.encode())
        return frame, inbox.next_number, not inbox.items

    async def _read(self, log: LogTarget, start: int) -> ReadResult:
        # A frame must be taken within `slow_after`, or a reader of a slow link would never get past it.
        most = self.max_waiting // 2
        return await self.source.read(Read(log.log_id, log.epoch, log.token, start, most))

    async def _read_inbox(self, request: Subscribe, start: int) -> ReadInboxResult:
        token = b"" if request.inbox is None else request.inbox.token
        return await self.source.read_inbox(ReadInbox(_inbox_id(request), token, start))

    def wake(self, subscription: Subscription) -> None:
        """Says that there is something new, by the number that comes after it."""
        subscription.next = subscription.seen + 1
        woken = Woken(subscription.request.subscription, subscription.next)
        self.push(ServerFrame(ServerFrameType.WOKEN, woken=woken).encode())

    def fell_behind(self, subscription: Subscription) -> None:
        """Goes back to reading from storage, for a number that did not come in its turn."""
        subscription.live = False
        self._start(self._catch_up_again(subscription))

    async def _catch_up_again(self, subscription: Subscription) -> None:
        try:
            await self._catch_up(subscription)
        except (Refused, StorageError) as error:
            self._end(subscription, error)

    def dropped(self, subscription: Subscription, epoch: bytes) -> None:
        """Ends a subscription to an epoch that is gone; who reads its box for a later epoch goes on."""
        target = subscription.request.log or subscription.request.box
        if target is not None and target.epoch == epoch:
            why = "the epoch was dropped, since it was older than the log keeps"
            self._end(subscription, Refused(ErrorCode.GONE, why, rule="D-SUB-5"))

    def refresh(self, subscription: Subscription) -> None:
        """Sends the stock of an inbox."""
        self._start(self._refresh(subscription))

    async def _refresh(self, subscription: Subscription) -> None:
        try:
            result = await self._read_inbox(subscription.request, 2**62)
        except (Refused, StorageError) as error:
            self._end(subscription, error)
            return
        if not self._has(subscription):
            return
        number = subscription.request.subscription
        only_stock = ReadInboxResult((), subscription.next, result.stock)
        self.push(_framed(ServerFrameType.INBOX_ITEMS, number, only_stock.encode()))

    def push(self, frame: bytes) -> None:
        """Queues a frame; a channel whose reader is too slow is closed (D-SUB-4)."""
        if self._closed:
            return
        if self._waiting and self._waiting + len(frame) > self.max_waiting:
            self._too_slow()
            return
        if self._sender is None:
            # Nearly always the transport takes the frame at once, and a task for it would cost as much as sending.
            sending = self.send(frame)
            try:
                blocked = sending.send(None)
            except StopIteration:
                return
            except (OSError, RuntimeError):
                # The connection is gone and its handler will hear of it; the others must not.
                self.shut()
                return
            self._waiting = len(frame)
            rest = _resume(sending, blocked)
            self._sender = asyncio.get_running_loop().create_task(self._drain(rest, len(frame)))
            return
        self._queue.append(frame)
        self._waiting += len(frame)

    async def _drain(self, sending: Awaitable[None], size: int) -> None:
        """Finishes what the transport did not take at once, then what has queued up behind it."""
        try:
            while True:
                async with asyncio.timeout(self.slow_after):
                    await sending
                self._waiting -= size
                if not self._queue:
                    break
                frame = self._queue.popleft()
                sending, size = self.send(frame), len(frame)
        except TimeoutError:
            self._sender = None
            self._too_slow()
        except (OSError, RuntimeError):
            self._sender = None
            self.shut()
        else:
            self._sender = None

    async def _drained(self) -> None:
        """Waits until the queue is half empty, so that catching up never overruns a reader."""
        while self._waiting > self.max_waiting // 2 and self._sender is not None:
            await asyncio.wait({self._sender}, timeout=0.05)

    def _too_slow(self) -> None:
        failure = Failure(
            ErrorCode.TOO_SLOW,
            b"the reader took too little for too long; resume after the last entry it has [D-SUB-4]",
            1,
        )
        self.shut()
        task = asyncio.get_running_loop().create_task(self._close(failure))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, failure: Failure) -> None:
        await self.close(failure)

    def shut(self) -> None:
        """Forgets all subscriptions and stops sending."""
        self._closed = True
        self._queue.clear()
        for subscription in self.subscriptions.values():
            self.hub.remove(subscription)
        self.subscriptions.clear()
        for task in (*self._tasks, *([self._sender] if self._sender else [])):
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs work as far as it gets at once, which is often to its end, and the rest as a task."""
        try:
            blocked = work.send(None)
        except StopIteration:
            return
        # A channel that is shut before the task has begun leaves nobody to ask how what it waited for ended. Who
        # only lets others go first (`asyncio.sleep(0)`) waits for nothing.
        if blocked is not None:
            blocked.add_done_callback(_heard)
        task = asyncio.get_running_loop().create_task(_go_on(work, blocked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _heard(future: asyncio.Future[Any]) -> None:
    """Takes an error off a future, so that asyncio does not complain of it with what the request held."""
    if not future.cancelled():
        future.exception()


async def _go_on(sending: Coroutine[Any, None, None], blocked: Any) -> None:  # noqa: ANN401
    """What a task can be made of: a generator no longer is, from Python 3.12."""
    await _resume(sending, blocked)


@coroutine
def _resume(sending: Coroutine[Any, None, None], blocked: Any) -> Generator[Any, None, None]:  # noqa: ANN401
    """Goes on with a coroutine that was started outside a task and waits for the future `blocked`."""
    while True:
        try:
            try:
                yield blocked
            except BaseException as error:  # noqa: BLE001 - handed on: a cancellation, usually
                blocked = sending.throw(error)
            else:
                blocked = sending.send(None)
        except StopIteration:
            return


def _framed(frame_type: ServerFrameType, subscription: int, tail: bytes) -> bytes:
    """A ServerFrame that brings something to a subscription, from the encoding of what it brings."""
    return bytes((frame_type,)) + subscription.to_bytes(4) + tail


def _from_number(request: Subscribe) -> int:
    target = request.log or request.box or request.inbox
    return 1 if target is None else max(target.from_number, 1)


def _inbox_id(request: Subscribe) -> bytes:
    return b"" if request.inbox is None else request.inbox.inbox_id


def _topic(request: Subscribe) -> Topic:
    if request.log is not None:
        return (TargetType.LOG, request.log.epoch)
    if request.box is not None:
        return (TargetType.BOX, request.box.log_id)
    return (TargetType.INBOX, _inbox_id(request))
