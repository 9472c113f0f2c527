"""The Delivery Service, for any transport: requests in, answers out, subscribers woken.

`DeliveryService.handle` takes a path of the protocol and a decoded request; HTTP and the in-process transport call it.
Logs are one database, directory and inboxes another; the only thing they share is this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery import retention
from coterie.delivery.answers import SharedReads
from coterie.delivery.directory import Directory, Identify, Woken
from coterie.delivery.directory_store import SCHEMA as DIRECTORY_SCHEMA
from coterie.delivery.directory_store import DirectoryTables
from coterie.delivery.hub import Channel, Hub
from coterie.delivery.limits import Clock, Limiter, Requester
from coterie.delivery.logs import Accepted, Logs
from coterie.delivery.metrics import Metrics
from coterie.delivery.settings import DAY, HOUR, Settings
from coterie.delivery.signatures import SignatureChecks
from coterie.delivery.sqlite_ledger import SQLiteLedger
from coterie.delivery.store import Connection, Store
from coterie.errors import StorageError
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES
from coterie.mls.tls import Struct
from coterie.mls.types import CipherSuite
from coterie.transport.api import (
    Append,
    DeliveryVersion,
    EntryKind,
    ErrorCode,
    Failure,
    InboxItem,
    PostEnvelope,
    PostRequest,
    Publish,
    Read,
    ReadBox,
    ReadBoxResult,
    ReadInbox,
    ReadInboxResult,
    ReadResult,
    ServiceInfo,
    append_to_be_signed,
)
from coterie.transport.refusal import Refused

T = TypeVar("T")
Handler = Callable[[Any, Requester], Awaitable[Struct]]
MEMORY: Final = ":memory:"
_log: Final = logging.getLogger("coterie.delivery")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the two databases are; ":memory:" for tests."""

    logs: str | Path = MEMORY
    directory: str | Path = MEMORY

    @classmethod
    def within(cls, folder: Path) -> Places:
        """The usual names in a data folder."""
        return cls(folder / "logs.db", folder / "directory.db")


class DeliveryService:
    """One service. `start` and `close` belong to an event loop; everything else is called on it."""

    def __init__(
        self,
        receipt_key: Ed25519PrivateKey,
        identify: Identify,
        *,
        places: Places | None = None,
        settings: Settings | None = None,
        clock: Clock = time.time,
        vfs: str | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._clock = clock
        places = places or Places()
        options: dict[str, Any] = {
            "queue_limit": self.settings.queue_limit,
            "batch_limit": self.settings.batch_limit,
            "reader_threads": self.settings.reader_threads,
            "vfs": vfs,
        }
        limiter = Limiter(self.settings.rates, clock)
        self._limiter = limiter
        self.logs = Logs(self.settings, limiter, receipt_key, clock)
        self.directory = Directory(self.settings, limiter, identify, clock)
        self._ledger = SQLiteLedger(places.logs, **options)
        self._store = Store(places.directory, DIRECTORY_SCHEMA, **options)
        self._signatures = SignatureChecks()
        self._under_way = 0
        self._reads = SharedReads(self._read_epoch, self._what_answers_depend_on)
        self.hub = Hub()
        self.metrics = Metrics()
        self._sweeper: asyncio.Task[None] | None = None
        self._watch = retention.ClockWatch(self.settings.clock_wait)
        self._handlers = self._routes()

    def _routes(self) -> dict[str, Handler]:
        logs, directory = self.logs, self.directory
        return {
            "logs/create": lambda r, q: self._ledger.write(lambda tx: logs.create(tx, r, q)),
            "logs/append": self._append,
            "logs/read": self._read_entries,
            "logs/entry": lambda r, q: self._read_log(q, lambda tx: logs.fetch_entry(tx, r)),
            "chunks/fetch": lambda r, q: self._read_log(q, lambda tx: logs.fetch_chunks(tx, r)),
            "chunks/put": lambda r, q: self._ledger.write(lambda tx: logs.put_chunks(tx, r, q)),
            "boxes/post": self._post_request,
            "boxes/read": lambda r, q: self._read_log(q, lambda tx: logs.read_box(tx, r)),
            "inboxes/open": lambda r, q: self._mail(lambda t: directory.open_inbox(t, r, q)),
            "inboxes/mint": lambda r, q: self._mail(lambda t: directory.mint(t, r, q)),
            "inboxes/post": self._post_envelope,
            "inboxes/read": self._read_mail,
            "inboxes/ack": lambda r, _: self._mail(lambda t: directory.acknowledge(t, r)),
            "directory/publish": self._publish,
            "directory/withdraw": lambda r, q: self._mail(lambda t: directory.withdraw(t, r, q)),
            "directory/claim": self._claim,
        }

    # -- life

    def start(self) -> None:
        """Starts retention on the running event loop."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_for_ever())

    async def close(self) -> None:
        """Stops retention, finishes what waits, closes the databases."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        await self._signatures.close()
        await self._ledger.close()
        await self._store.close()

    async def sweep(self) -> None:
        """One round of retention."""
        now = self._clock()
        while swept := await self._ledger.write(lambda tx: retention.sweep(tx, self.settings, now)):
            for log_id, epoch in swept.dropped:
                self.hub.dropped(log_id, epoch)
        await self._mail(self.directory.sweep)

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                if not await self._clock_may_be_wrong():
                    await self.sweep()
            except Exception as error:  # noqa: BLE001 - whatever it was, what is too old must go next time
                self.metrics.count("sweep_failures")
                _log.error("retention failed", extra={"reason": type(error).__name__})
            await asyncio.sleep(self.settings.sweep_interval)

    async def _clock_may_be_wrong(self) -> bool:
        watch = self._watch
        if watch.last is None:
            newest = await self._ledger.read(lambda tx: tx.newest_hour())
            watch.last = None if newest is None else float(newest * HOUR)
        known = watch.found_at is not None
        if not watch.may_be_wrong(self._clock(), time.monotonic()):
            return False
        if not known:
            _log.warning(
                "the clock went far ahead: in case it is wrong, nothing is dropped for a while",
                extra={
                    "days": int(self._clock() - (watch.last or 0)) // DAY,
                    "seconds": watch.wait,
                },
            )
        return True

    async def ready(self) -> bool:
        """Whether both databases answer."""
        try:
            await self._ledger.read(lambda tx: tx.has_log(b""))
            await self._store.read(lambda db: DirectoryTables(db).inbox(b""))
        except StorageError:
            return False
        return True

    # -- requests

    def info(self) -> ServiceInfo:
        """What the service says about itself."""
        s = self.settings
        return ServiceInfo(
            versions=(DeliveryVersion.COTERIE1,),
            receipt_key=self.logs.receipt_public_key,
            time=int(self._clock()),
            max_entry=s.max_entry,
            max_bundle=s.max_bundle,
            inline_limit=s.inline_limit,
            min_retention=s.min_retention,
            max_retention=s.max_retention,
            cipher_suites=tuple(CipherSuite(n) for n in SUPPORTED_CIPHER_SUITES),
        )

    async def handle(self, path: str, request: Struct, requester: Requester) -> Struct:
        """Answers one request; raises `Refused`, also for a database that is busy or fails."""
        handler = self._handlers.get(path)
        if handler is None:
            raise Refused(ErrorCode.UNKNOWN_PATH, "there is no such request", rule="D-TRA-1")
        try:
            return await handler(request, requester)
        except StorageError as error:
            raise Refused(
                ErrorCode.UNAVAILABLE, str(error), rule="D-REC-4", retry_after=1
            ) from error

    async def _append(self, request: Append, requester: Requester) -> Struct:
        header = request.entry.header
        only_message = header.kind is EntryKind.MESSAGE
        content = append_to_be_signed(request.entry.hash())
        self._under_way += 1
        try:
            checked = await self._signatures.check(
                header.epoch, request.signature, content, under_way=self._under_way
            )
            written = self._ledger.write(
                lambda tx: self.logs.append(tx, request, requester, checked),
                raises_first=only_message,
            )
            accepted = await _told(written, self._accepted)
        finally:
            self._under_way -= 1
        return accepted.answer

    def _accepted(self, accepted: Accepted) -> None:
        self._signatures.learn(accepted.answer.receipt.epoch, accepted.append_key)
        if accepted.stored is not None:
            self.hub.entry(accepted.stored, accepted.state)

    async def _post_request(self, request: PostRequest, requester: Requester) -> Struct:
        written = self._ledger.write(lambda tx: self.logs.post_request(tx, request, requester))
        log_id = request.log_id
        posted, _ = await _told(written, lambda done: self.hub.request(log_id, done[1]))
        return posted

    async def _post_envelope(self, request: PostEnvelope, requester: Requester) -> Struct:
        def tell(done: tuple[Struct, int | None]) -> None:
            if done[1] is not None:
                item = InboxItem(done[1], request.kem_output, request.ciphertext)
                self.hub.envelope(request.inbox_id, item)

        written = self._mail(lambda t: self.directory.post(t, request, requester))
        return (await _told(written, tell))[0]

    async def _publish(self, request: Publish, requester: Requester) -> Struct:
        def admit(db: Connection) -> None:
            self.directory.admit_publish(DirectoryTables(db), request, requester)

        await self._store.read(admit)
        loop = asyncio.get_running_loop()
        packages = await loop.run_in_executor(None, self.directory.verify_publish, request)
        return await self._mail(lambda t: self.directory.publish(t, request, packages))

    async def _claim(self, request: Any, requester: Requester) -> Struct:  # noqa: ANN401 - Claim
        def tell(done: tuple[Struct, Woken]) -> None:
            for inbox_id in done[1].inbox_ids:
                self.hub.stock(inbox_id)

        written = self._mail(lambda t: self.directory.claim(t, request, requester))
        return (await _told(written, tell))[0]

    async def _read_mail(self, request: ReadInbox, requester: Requester) -> Struct:
        self._limiter.charge("reads", requester)
        return await self.read_inbox(request)

    async def _read_log(self, requester: Requester, function: Callable[[Any], T]) -> T:
        self._limiter.charge("reads", requester)
        return await self._ledger.read(function)

    async def _read_entries(self, request: Read, requester: Requester) -> Struct:
        self._limiter.charge("reads", requester)
        return await self.read(request)

    async def _read_epoch(self, request: Read) -> ReadResult:
        return await self._ledger.read(lambda tx: self.logs.read(tx, request))

    def _what_answers_depend_on(self) -> tuple[int, int]:
        """What was written, and the hour, by which an epoch's state and age go (D-DIR-9)."""
        return self._ledger.changes, int(self._clock()) // HOUR

    def _mail(self, function: Callable[[DirectoryTables], T]) -> asyncio.Future[T]:
        return self._store.write(lambda db: function(DirectoryTables(db)))

    # -- subscriptions (hub.Source)

    async def read(self, request: Read) -> ReadResult:
        """See Source."""
        return await self._reads.read(request)

    async def read_box(self, request: ReadBox) -> ReadBoxResult:
        """See Source."""
        return await self._ledger.read(lambda tx: self.logs.read_box(tx, request))

    async def box_line(self, request: ReadBox) -> list[bytes]:
        """See Source."""
        return await self._ledger.read(lambda tx: self.logs.box_line(tx, request))

    async def read_inbox(self, request: ReadInbox) -> ReadInboxResult:
        """See Source."""
        return await self._store.read(lambda db: self.directory.read(DirectoryTables(db), request))

    def channel(
        self,
        send: Callable[[bytes], Coroutine[Any, None, None]],
        close: Callable[[Failure], Awaitable[None]],
    ) -> Channel:
        """A channel for a new connection."""
        return Channel(
            self.hub,
            self,
            send,
            close,
            self.settings.max_waiting,
            self.settings.slow_after,
            self.settings.max_subscriptions,
        )

    def gauges(self) -> dict[str, float]:
        """What the metrics show besides counters."""
        return {
            "subscriptions": self.hub.subscriptions,
            "clock_far_ahead": self._watch.found_at is not None,
            "signature_process_failures": self._signatures.failures,
            "log_writes_waiting": self._ledger.store.depth,
            "directory_writes_waiting": self._store.depth,
        }


async def _told(written: Awaitable[T], tell: Callable[[T], None]) -> T:
    """What a write gave, after `tell` has told subscribers: who asked may be cancelled meanwhile, the write is not."""
    future = asyncio.ensure_future(written)

    def tell_later(done: asyncio.Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            tell(done.result())

    try:
        result = await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(tell_later)
        raise
    tell(result)
    return result
