"""The rules of docs/delivery-protocol.md for logs, chunks and boxes, as functions of one transaction.

Each method is one request: it checks in the order of D-ENT-4 and raises `Refused` before it writes anything. Time comes
from the clock that is given, rates from the limiter, storage from the transaction; nothing here waits, sends or logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.delivery.ledger import EntryRow, Epoch, LogTransaction
from coterie.delivery.limits import Limiter, Requester
from coterie.delivery.settings import HOUR, Settings
from coterie.delivery.signature_worker import holds
from coterie.delivery.signatures import Checked
from coterie.transport.api import (
    ZERO32,
    Access,
    Append,
    Appended,
    BoxItem,
    Chunk,
    Chunks,
    CreateLogRequest,
    Entry,
    EntryKind,
    EntryPart,
    EpochName,
    EpochState,
    ErrorCode,
    FetchChunks,
    FetchEntry,
    LostRace,
    Posted,
    PostRequest,
    PutChunksRequest,
    PutChunksResult,
    Read,
    ReadBox,
    ReadBoxResult,
    ReadResult,
    Receipt,
    StoredEntry,
    append_to_be_signed,
    receipt_to_be_signed,
    token_fits,
)
from coterie.transport.refusal import Refused

REQUEST_SIZES: Final = (4096, 8192, 16384)
_REQUESTS_PER_READ: Final = 200
_SHARE: Final = 2
"""Chunks uploaded apart and successors may fill one part of so many of a branch's quota (D-RET-3)."""
_RATES: Final = {
    EntryKind.MESSAGE: "appends",
    EntryKind.BUNDLE: "bundles",
    EntryKind.CORRECTION: "corrections",
    EntryKind.SUCCESSOR: "successors",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an append did: the answer, and the entry as subscribers get it, None for a repetition."""

    answer: Appended
    stored: StoredEntry | None
    state: EpochState
    append_key: bytes


class Logs:
    """The service's side of sections 2 to 6, 8, 10 and 15."""

    def __init__(
        self,
        settings: Settings,
        limiter: Limiter,
        receipt_key: Ed25519PrivateKey,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._receipt_key = receipt_key
        self._clock = clock
        self.receipt_public_key = receipt_key.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw
        )

    # -- logs and entries

    def create(
        self, tx: LogTransaction, request: CreateLogRequest, requester: Requester
    ) -> Appended:
        """Makes a log (section 6)."""
        create = request.create
        self._check_chunks(create.chunks)
        _verify(create.first.append_key, request.signature, create.to_be_signed(), "D-LOG-1")
        name = EpochName(create.log_id, ZERO32, create.first).name()
        if tx.has_log(create.log_id):
            return self._created_before(tx.epoch(name), create.hash())
        bounds = (self._settings.min_retention, self._settings.max_retention)
        if not bounds[0] <= create.retention <= bounds[1]:
            raise Refused(
                ErrorCode.BAD_RETENTION,
                f"a retention of {create.retention} s; this service keeps {bounds[0]} to {bounds[1]} s",
                rule="D-LOG-3",
            )
        self._limiter.charge("logs", requester)
        log = tx.add_log(create.log_id, create.retention)
        opening = self._receipt(name, 0, ZERO32, create.hash())
        hour = self._hour()
        key = tx.add_epoch(
            log, name, create.first, opening, parent=None, opener=0, new_branch=True, hour=hour
        )
        tx.put_chunks(tx.epoch_at(key), create.chunks, hour)
        return Appended(opening)

    def _created_before(self, epoch: Epoch | None, create_hash: bytes) -> Appended:
        if epoch is None or epoch.opening.entry_hash != create_hash:
            raise Refused(
                ErrorCode.ID_REUSED,
                "a log with this id exists; draw another id at random",
                rule="D-LOG-2",
            )
        return Appended(epoch.opening)

    def append(
        self,
        tx: LogTransaction,
        request: Append,
        requester: Requester,
        checked: Checked | None = None,
    ) -> Accepted:
        """Appends an entry (sections 2, 4 and 8), or answers a repetition as the first time.

        `checked` is the check of its signature, where that was made before; it counts for what it was made of only.
        """
        entry, header = request.entry, request.entry.header
        self._check_sizes(request)
        epoch = self._epoch(tx, request.log_id, header.epoch)
        entry_hash = entry.hash()
        key, content = epoch.access.append_key, append_to_be_signed(entry_hash)
        if checked != Checked(key, request.signature, content):
            _verify(key, request.signature, content, "D-ENT-1")
        before = tx.entry_by_id(epoch, header.id)
        if before is not None:
            return self._repeated(tx, epoch, before, entry_hash)
        state = self._state(epoch)
        self._check_state(tx, epoch, entry, state)
        if header.correction is not None:
            opened = tx.epoch(_next_name(epoch, header.correction.next))
            if opened is not None:
                return self._opened_before(tx, epoch, opened, state)
        self._limiter.charge(_RATES[header.kind], requester, *self._scope(epoch, header.kind))
        self._check_quota(tx, epoch, request)
        return self._accept(tx, epoch, request, entry_hash)

    @staticmethod
    def _scope(epoch: Epoch, kind: EntryKind) -> tuple[bytes, ...]:
        return () if kind is EntryKind.MESSAGE else (epoch.log_id,)

    def _check_sizes(self, request: Append) -> None:
        entry, header = request.entry, request.entry.header
        if header.kind is not EntryKind.BUNDLE:
            _limit("the entry", len(entry.encode()), self._settings.max_entry)
        if (header.kind is EntryKind.CORRECTION) == bool(entry.sealed):
            raise Refused(
                ErrorCode.MALFORMED,
                "a correction has no sealed content, every other entry has some",
                rule="D-ENT-6",
            )
        added = () if header.bundle is None else header.bundle.added
        self._limit_count(len(added))
        self._check_chunks(request.chunks)
        if not {chunk.address() for chunk in request.chunks} <= set(added):
            raise Refused(
                ErrorCode.MALFORMED,
                "the request has a chunk that the entry's header does not list as added",
                rule="D-BUN-5" if header.bundle is not None else "D-ENT-6",
            )

    def _repeated(
        self, tx: LogTransaction, epoch: Epoch, before: EntryRow, entry_hash: bytes
    ) -> Accepted:
        if before.receipt.entry_hash != entry_hash:
            raise Refused(
                ErrorCode.ID_REUSED,
                "another entry has this id in this epoch; draw another id at random",
                rule="D-ENT-3",
            )
        opened = None if before.opened is None else tx.epoch_at(before.opened).opening
        return Accepted(
            Appended(before.receipt, opened), None, self._state(epoch), epoch.access.append_key
        )

    def _check_state(
        self, tx: LogTransaction, epoch: Epoch, entry: Entry, state: EpochState
    ) -> None:
        header = entry.header
        if header.kind is EntryKind.MESSAGE and state is not EpochState.OPEN:
            raise Refused(
                ErrorCode.EPOCH_ENDED,
                "the epoch has ended: read on, and seal the message in the next one",
                rule="D-ENT-5",
                lost_race=self._lost_race(tx, epoch, ZERO32),
            )
        if header.bundle is not None:
            self._check_swap(tx, epoch, header.bundle.last_candidate, state)
            if tx.epoch(_next_name(epoch, header.bundle.next)) is not None:
                raise _bad_access("an epoch with this access exists here", "D-BUN-6")
        if header.correction is not None:
            candidate = tx.candidate_by_hash(epoch, header.correction.candidate)
            if candidate is None:
                raise Refused(
                    ErrorCode.UNKNOWN_CANDIDATE,
                    "the correction names an entry that is no candidate of this epoch",
                    rule="D-COR-2",
                )

    def _check_swap(
        self, tx: LogTransaction, epoch: Epoch, named: bytes, state: EpochState
    ) -> None:
        newest = tx.newest_candidate(epoch)
        if named != (ZERO32 if newest is None else newest.receipt.hash()):
            raise Refused(
                ErrorCode.LOST_RACE,
                "another candidate than the one named is the newest: read on and judge it",
                rule="D-BUN-3",
                lost_race=self._lost_race(tx, epoch, named),
            )
        if state is EpochState.CLOSED:
            raise Refused(
                ErrorCode.EPOCH_CLOSED,
                "the epoch takes no more candidates: ask to be added again",
                rule="D-RET-2",
            )

    def _lost_race(self, tx: LogTransaction, epoch: Epoch, named: bytes) -> LostRace | None:
        """The newest candidate, and the first one after the one that the sender named (D-BUN-4)."""
        candidates = tx.candidates(epoch)
        if not candidates:
            return None
        hashes = [row.receipt.hash() for row in candidates]
        after = hashes.index(named) + 1 if named in hashes else 0
        read_from = candidates[min(after, len(candidates) - 1)].receipt.number
        winner = tx.read(
            epoch,
            candidates[-1].receipt.number,
            max_bytes=1,
            inline_limit=self._settings.inline_limit,
        )[0]
        return LostRace(winner, read_from)

    def _opened_before(
        self, tx: LogTransaction, epoch: Epoch, opened: Epoch, state: EpochState
    ) -> Accepted:
        opener = tx.receipt_at(epoch, opened.opener)
        answer = Appended(opener, opened.opening)
        return Accepted(answer, None, state, epoch.access.append_key)

    def _check_quota(self, tx: LogTransaction, epoch: Epoch, request: Append) -> None:
        if request.entry.header.kind is EntryKind.MESSAGE:
            return
        usage = tx.usage(epoch.branch)
        size = len(request.entry.encode())
        size += sum(len(chunk.data) for chunk in request.chunks)
        header = request.entry.header
        first = header.bundle is not None and epoch.first_candidate_hour is None
        successor = header.kind is EntryKind.SUCCESSOR
        most = self._settings.bundle_quota // (_SHARE if successor else 1)
        if (usage.bundles if first or successor else 0) + size > most:
            raise Refused(
                ErrorCode.QUOTA,
                f"the bundles of this branch of the log exceed {most} bytes",
                rule="D-RET-3",
                retry_after=HOUR,
            )

    def _accept(
        self, tx: LogTransaction, epoch: Epoch, request: Append, entry_hash: bytes
    ) -> Accepted:
        entry, header = request.entry, request.entry.header
        head = tx.head(epoch)
        receipt = self._receipt(epoch.name, head.number + 1, head.hash(), entry_hash)
        body, hour = entry.encode(), self._hour()
        first_candidate = header.bundle is not None and epoch.first_candidate_hour is None
        opened = self._open(tx, epoch, request, receipt, first_candidate=first_candidate)
        row = EntryRow(
            header.kind, receipt, len(body), hour, None if opened is None else opened.key
        )
        usage = tx.add_entry(epoch, row, header.id, body, first_candidate=first_candidate)
        if usage.messages > self._settings.message_quota:
            tx.drop_oldest_messages(epoch, usage.messages - self._settings.message_quota)
        ended = first_candidate or epoch.first_candidate_hour is not None
        inline = entry if len(body) <= self._settings.inline_limit else None
        return Accepted(
            Appended(receipt, None if opened is None else opened.opening),
            StoredEntry(receipt, inline, len(body)),
            EpochState.ENDED if ended else EpochState.OPEN,
            epoch.access.append_key,
        )

    def _open(
        self,
        tx: LogTransaction,
        epoch: Epoch,
        request: Append,
        receipt: Receipt,
        *,
        first_candidate: bool,
    ) -> Epoch | None:
        """Opens the epoch that a bundle or a correction claims (D-BUN-7, D-COR-2, D-REC-3)."""
        claim = request.entry.header.bundle or request.entry.header.correction
        if claim is None:
            return None
        if tx.is_ancestor_key(epoch, claim.next.append_key):
            raise _bad_access("the append key is that of this epoch or an ancestor", "D-ACC-6")
        name = _next_name(epoch, claim.next)
        opening = self._receipt(name, 0, receipt.hash(), receipt.entry_hash)
        hour = self._hour()
        key = tx.add_epoch(
            epoch.log,
            name,
            claim.next,
            opening,
            parent=epoch,
            opener=receipt.number,
            new_branch=not first_candidate,
            hour=hour,
        )
        opened = tx.epoch_at(key)
        if request.entry.header.bundle is not None:
            self._store_chunks(tx, opened, request, hour)
        return opened

    @staticmethod
    def _store_chunks(tx: LogTransaction, opened: Epoch, request: Append, hour: int) -> None:
        bundle = request.entry.header.bundle
        added = () if bundle is None else bundle.added
        tx.put_chunks(opened, request.chunks, hour)
        missing = tx.missing_chunks(opened.log, added)
        if missing:
            raise Refused(
                ErrorCode.MISSING_CHUNK,
                f"{len(missing)} chunks that the bundle lists are neither in it nor stored",
                rule="D-BUN-5",
            )
        tx.renew_chunks(opened, added, hour)

    # -- reading

    def read(self, tx: LogTransaction, request: Read) -> ReadResult:
        """Answers the entries of an epoch from a number on (D-REC-6)."""
        epoch = self._readable(tx, request.log_id, request.epoch, request.token)
        start = max(request.from_number, 1)
        gone = None
        if start <= epoch.gone_through:
            gone = tx.receipt_at(epoch, epoch.gone_through)
            start = epoch.gone_through + 1
        entries = tx.read(
            epoch,
            start,
            max_bytes=min(request.max_bytes, self._settings.max_read),
            inline_limit=self._settings.inline_limit,
        )
        next_number = entries[-1].receipt.number + 1 if entries else start
        return ReadResult(gone, tuple(entries), next_number, tx.head(epoch), self._state(epoch))

    def fetch_entry(self, tx: LogTransaction, request: FetchEntry) -> EntryPart:
        """Answers a part of one entry (D-REC-7)."""
        epoch = self._readable(tx, request.log_id, request.epoch, request.token)
        row = tx.entry_at(epoch, request.number)
        if row is None:
            raise Refused(
                ErrorCode.MALFORMED,
                f"the epoch has no entry number {request.number}",
                rule="D-REC-7",
            )
        length = min(request.length or self._settings.max_read, self._settings.max_read)
        part = tx.body_part(epoch, request.number, request.offset, length)
        if part is None:
            raise _gone("the entry")
        return EntryPart(row.receipt, row.size, part)

    def fetch_chunks(self, tx: LogTransaction, request: FetchChunks) -> Chunks:
        """Answers chunks by address, as many of the first ones as fit (D-CHK-5)."""
        epoch = self._readable(tx, request.log_id, request.epoch, request.token)
        self._limit_count(len(request.addresses))
        return Chunks(tuple(tx.chunks(epoch.log, request.addresses, self._settings.max_read)))

    def put_chunks(
        self, tx: LogTransaction, request: PutChunksRequest, requester: Requester
    ) -> PutChunksResult:
        """Stores and renews chunks (D-CHK-7)."""
        put = request.put
        self._check_chunks(put.chunks)
        self._limit_count(len(put.renewed))
        epoch = self._epoch(tx, put.log_id, put.epoch)
        _verify(epoch.access.append_key, request.signature, put.to_be_signed(), "D-CHK-7")
        if epoch.first_candidate_hour is not None:
            raise Refused(
                ErrorCode.EPOCH_ENDED, "the epoch has ended: use the present one", rule="D-CHK-7"
            )
        self._limiter.charge("chunk_uploads", requester, epoch.log_id)
        size = sum(len(chunk.data) for chunk in put.chunks)
        most = self._settings.bundle_quota // _SHARE
        if tx.usage(epoch.branch).bundles + size > most:
            raise Refused(
                ErrorCode.QUOTA,
                f"chunks and bundles of this branch exceed {most} bytes",
                rule="D-CHK-7",
                retry_after=HOUR,
            )
        hour = self._hour()
        tx.put_chunks(epoch, put.chunks, hour)
        tx.renew_chunks(epoch, put.renewed, hour)
        return PutChunksResult(tuple(tx.missing_chunks(epoch.log, put.renewed)))

    # -- boxes

    def post_request(
        self, tx: LogTransaction, request: PostRequest, requester: Requester
    ) -> tuple[Posted, BoxItem]:
        """Puts a request into a box (D-BOX-1)."""
        epoch = self._epoch(tx, request.log_id, request.epoch)
        if not token_fits(request.box_token, epoch.access.box_hash):
            raise _bad_token("D-BOX-1")
        size = len(request.request.ciphertext)
        if size not in REQUEST_SIZES or len(request.request.kem_output) > 2048:
            raise Refused(
                ErrorCode.BAD_SIZE,
                f"a request of {size} bytes; it must be padded to one of {REQUEST_SIZES}",
                rule="D-BOX-2",
            )
        self._limiter.charge("requests", requester)
        self._limiter.charge("requests_to_box", epoch.name)
        if tx.count_requests(epoch.log) >= self._settings.max_requests:
            raise Refused(ErrorCode.QUOTA, "the box is full", rule="D-BOX-1", retry_after=HOUR)
        number = tx.add_request(epoch, request.request, self._hour())
        return Posted(number), BoxItem(number, epoch.name, request.request)

    def read_box(self, tx: LogTransaction, request: ReadBox) -> ReadBoxResult:
        """Answers the requests to the boxes of an epoch and its ancestors (D-BOX-3)."""
        epoch = self._readable(tx, request.log_id, request.epoch, request.token)
        items = tuple(tx.requests(epoch, request.from_number, _REQUESTS_PER_READ))
        next_number = items[-1].number + 1 if items else max(request.from_number, 1)
        return ReadBoxResult(items, next_number)

    def box_line(self, tx: LogTransaction, request: ReadBox) -> list[bytes]:
        """The epochs whose boxes a reader of this one reads."""
        epoch = self._readable(tx, request.log_id, request.epoch, request.token)
        return tx.ancestry(epoch)

    # -- what they share

    def _hour(self) -> int:
        """Stored times are rounded down to the hour (D-DIR-9)."""
        return int(self._clock()) // HOUR

    def _receipt(self, epoch: bytes, number: int, previous: bytes, entry_hash: bytes) -> Receipt:
        tbs = receipt_to_be_signed(epoch, number, previous, entry_hash)
        return Receipt(epoch, number, previous, entry_hash, self._receipt_key.sign(tbs))

    def _state(self, epoch: Epoch) -> EpochState:
        if epoch.first_candidate_hour is None:
            return EpochState.OPEN
        age = self._hour() - epoch.first_candidate_hour
        return EpochState.CLOSED if age * HOUR > epoch.retention else EpochState.ENDED

    @staticmethod
    def _epoch(tx: LogTransaction, log_id: bytes, name: bytes) -> Epoch:
        epoch = tx.epoch(name)
        if epoch is None or epoch.log_id != log_id:
            raise Refused(
                ErrorCode.UNKNOWN_EPOCH,
                "no such epoch is known here; it never was, or its log was dropped",
                rule="D-REC-8",
            )
        if epoch.gone:
            raise _gone("the epoch")
        return epoch

    def _readable(self, tx: LogTransaction, log_id: bytes, name: bytes, token: bytes) -> Epoch:
        epoch = tx.epoch(name)
        known = epoch is not None and epoch.log_id == log_id
        if known and epoch is not None and not token_fits(token, epoch.access.read_hash):
            raise _bad_token("D-ACC-5")
        return self._epoch(tx, log_id, name)

    def _check_chunks(self, chunks: tuple[Chunk, ...]) -> None:
        self._limit_count(len(chunks))
        for chunk in chunks:
            _limit("a chunk", len(chunk.data), self._settings.max_chunk)

    def _limit_count(self, count: int) -> None:
        if count > self._settings.max_chunks:
            raise Refused(
                ErrorCode.TOO_LARGE,
                f"{count} chunks in one request; at most {self._settings.max_chunks} are allowed",
                rule="D-TRA-4",
            )


def _next_name(epoch: Epoch, access: Access) -> bytes:
    return EpochName(epoch.log_id, epoch.name, access).name()


def _limit(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise Refused(
            ErrorCode.TOO_LARGE,
            f"{what} has {size} bytes, at most {limit} are allowed",
            rule="D-TRA-4",
        )


def _verify(key: bytes, signature: bytes, content: bytes, rule: str) -> None:
    if not holds(key, signature, content):
        raise Refused(
            ErrorCode.BAD_SIGNATURE,
            "the signature does not verify under the epoch's append key",
            rule=rule,
        )


def _bad_access(why: str, rule: str) -> Refused:
    return Refused(ErrorCode.BAD_ACCESS, f"the next access is refused: {why}", rule=rule)


def _bad_token(rule: str) -> Refused:
    return Refused(ErrorCode.BAD_TOKEN, "the token is not the one of this epoch", rule=rule)


def _gone(what: str) -> Refused:
    return Refused(
        ErrorCode.GONE, f"{what} was dropped, since it was older than the log keeps", rule="D-REC-8"
    )
