"""What the logs and boxes need from storage, written down: a second implementation, clustered, can stand behind it.

The unit is a transaction on one log: a function of `LogTransaction` that reads, decides and writes. An implementation
owes three things. All writes of a transaction become durable together before `Ledger.write` returns, or none do; two
transactions on one log are as if one came after the other, so that what was compared still holds when it is swapped;
and a transaction that raises has changed nothing. `logs` holds every rule; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from coterie.transport.api import (
    Access,
    BoxItem,
    Chunk,
    EntryKind,
    Receipt,
    SealedRequest,
    StoredEntry,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch as it is stored. `key` and `log` are the storage's own handles, `hour` values are hours since 1970."""

    key: int
    log: int
    log_id: bytes
    retention: int
    name: bytes
    parent: int | None
    depth: int
    branch: int
    access: Access
    opening: Receipt
    opener: int
    gone: bool
    gone_through: int
    first_candidate_hour: int | None
    opened_hour: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry without its bytes. `opened` is the handle of the epoch that it opened, if any."""

    kind: EntryKind
    receipt: Receipt
    size: int
    hour: int
    opened: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that a branch holds."""

    messages: int
    bundles: int


@dataclass(frozen=True, slots=True)
class Ages:
    """Hours of an epoch's newest entry, newest candidate and oldest message that is kept; None if there is none."""

    newest: int | None
    newest_candidate: int | None
    oldest_message: int | None


class LogTransaction(Protocol):
    """One transaction on the logs."""

    def epoch(self, name: bytes) -> Epoch | None:
        """The epoch of a name."""

    def epoch_at(self, key: int) -> Epoch:
        """The epoch of a handle that the storage gave."""

    def has_log(self, log_id: bytes) -> bool:
        """Whether the log exists."""

    def add_log(self, log_id: bytes, retention: int) -> int:
        """Makes a log; returns its handle."""

    def add_epoch(
        self,
        log: int,
        name: bytes,
        access: Access,
        opening: Receipt,
        *,
        parent: Epoch | None,
        opener: int,
        new_branch: bool,
        hour: int,
    ) -> int:
        """Makes an epoch, in its parent's branch or a new one; returns its handle."""

    def is_ancestor_key(self, epoch: Epoch, append_key: bytes) -> bool:
        """Whether the epoch or one of its known ancestors has this append key."""

    def entry_by_id(self, epoch: Epoch, id: bytes) -> EntryRow | None:
        """The entry of an id in an epoch, also where its bytes were dropped."""

    def entry_at(self, epoch: Epoch, number: int) -> EntryRow | None:
        """The entry of a number."""

    def receipt_at(self, epoch: Epoch, number: int) -> Receipt:
        """The receipt of a number that the epoch is known to have, dropped or not."""

    def head(self, epoch: Epoch) -> Receipt:
        """The newest receipt."""

    def candidates(self, epoch: Epoch) -> list[EntryRow]:
        """All candidates in order."""

    def newest_candidate(self, epoch: Epoch) -> EntryRow | None:
        """The last candidate."""

    def candidate_by_hash(self, epoch: Epoch, entry_hash: bytes) -> EntryRow | None:
        """The candidate of an entry hash."""

    def add_entry(
        self, epoch: Epoch, row: EntryRow, id: bytes, body: bytes, *, first_candidate: bool
    ) -> Usage:
        """Adds an entry under the receipt's number; it counts in the branch of the epoch it opens, or its own.

        Returns what that branch holds now.
        """

    def read(
        self, epoch: Epoch, from_number: int, *, max_bytes: int, inline_limit: int
    ) -> list[StoredEntry]:
        """Entries in order from a number on, at least one if there is one."""

    def body_part(self, epoch: Epoch, number: int, offset: int, length: int) -> bytes | None:
        """A part of an entry's bytes; None where they were dropped."""

    def usage(self, branch: int) -> Usage:
        """What a branch holds."""

    def drop_oldest_messages(self, epoch: Epoch, need: int) -> int:
        """Drops messages of the epoch's branch, oldest first, until `need` bytes are free; returns how many are."""

    def missing_chunks(self, log: int, addresses: Iterable[bytes]) -> list[bytes]:
        """Which addresses the log does not have."""

    def put_chunks(self, epoch: Epoch, chunks: Iterable[Chunk], hour: int) -> None:
        """Stores chunks, or renews those that are stored."""

    def renew_chunks(self, epoch: Epoch, addresses: Iterable[bytes], hour: int) -> None:
        """Sets the age of chunks to zero."""

    def chunks(self, log: int, addresses: Sequence[bytes], max_bytes: int) -> list[Chunk | None]:
        """Chunks in the order asked, until they exceed `max_bytes`; at least one."""

    def add_request(self, epoch: Epoch, request: SealedRequest, hour: int) -> int:
        """Puts a request into the epoch's box; returns its number, which grows within the log."""

    def count_requests(self, log: int) -> int:
        """How many requests the log's boxes keep."""

    def requests(self, epoch: Epoch, from_number: int, limit: int) -> list[BoxItem]:
        """Requests to the boxes of the epoch and its ancestors that are not gone, from a number on."""

    def ancestry(self, epoch: Epoch) -> list[bytes]:
        """The names of the epoch and its ancestors that are not gone."""

    def due_epochs(self, hour: int, limit: int) -> list[Epoch]:
        """Epochs in which retention may have something to do at an hour."""

    def drop_messages_before(self, epoch: Epoch, hour: int) -> bool:
        """Drops messages of an epoch that are older, as many as are quickly dropped; returns whether it was all."""

    def drop_epoch(self, epoch: Epoch) -> bool:
        """Drops all of an epoch but what says that it is gone; its log too, if it was the last one.

        The epoch is gone at once. False means that something of it is left, and that this must be called again.
        """

    def ages(self, epoch: Epoch) -> Ages:
        """The hours that retention goes by."""

    def newest_hour(self) -> int | None:
        """The hour in which something was stored last, of what is still kept; None where nothing is."""

    def set_due(self, epoch: Epoch, hour: int) -> None:
        """Notes when retention may next have something to do in the epoch."""

    def drop_old(self, hour: int, request_hour: int) -> bool:
        """Drops chunks older than their log's retention and requests older than an hour; whether it was all."""


class Ledger(Protocol):
    """A storage of logs."""

    @property
    def changes(self) -> int:
        """A number that is another one once a write is durable, before anybody is told of it.

        Answers are shared among readers while it stays the same. A storage that others write too, without knowing of
        it, may give another number each time.
        """

    def write(
        self, function: Callable[[LogTransaction], T], *, raises_first: bool = False
    ) -> Awaitable[T]:
        """Runs a transaction; done when it is durable. `raises_first`: it raises before it writes or not at all."""

    async def read(self, function: Callable[[LogTransaction], T]) -> T:
        """Runs a transaction that writes nothing, on what is durable."""

    async def close(self) -> None:
        """Finishes what waits."""
