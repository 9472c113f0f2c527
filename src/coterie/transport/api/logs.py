"""Logs: names, entries, receipts, bundles and chunks (docs/delivery-protocol.md, sections 1 to 6)."""

from __future__ import annotations

from typing import Annotated

from coterie.mls.tls import Struct, Uint8Enum, When
from coterie.transport.api.base import (
    APPEND_LABEL,
    CHUNKS_LABEL,
    CREATE_LABEL,
    NAME_LABEL,
    RECEIPT_LABEL,
    Bytes,
    DeliveryVersion,
    Hash,
    Id,
    PublicKey,
    Signature,
    Token,
    Uint8,
    Uint32,
    Uint64,
    sha256,
)

# -- 1. Names and keys


class Access(Struct):
    """What the service knows of an epoch's keys (D-ACC-4)."""

    append_key: PublicKey
    read_hash: Hash
    box_hash: Hash


class EpochName(Struct):
    """What an epoch's name is the hash of (D-ACC-4)."""

    log_id: Id
    parent: Hash
    access: Access

    def name(self) -> bytes:
        """The epoch's name, 32 bytes."""
        return sha256(NAME_LABEL + self.encode())


class Receipt(Struct):
    """The service's signed statement that an entry has a number in an epoch (section 3)."""

    epoch: Hash
    number: Uint64
    previous: Hash
    entry_hash: Hash
    signature: Signature

    def to_be_signed(self) -> bytes:
        """The bytes under `signature` (D-REC-1)."""
        return receipt_to_be_signed(self.epoch, self.number, self.previous, self.entry_hash)

    def hash(self) -> bytes:
        """The receipt's hash, which does not cover the signature (D-REC-1)."""
        return sha256(self.to_be_signed())


def receipt_to_be_signed(epoch: bytes, number: int, previous: bytes, entry_hash: bytes) -> bytes:
    """The bytes that a receipt's signature covers, whose SHA-256 is the receipt's hash (D-REC-1)."""
    return RECEIPT_LABEL + epoch + number.to_bytes(8) + previous + entry_hash


class PredecessorType(Uint8Enum):
    """Why a group follows another."""

    REINIT = 1
    REFORM = 2


class Predecessor(Struct):
    """The group that a group follows (section 11)."""

    predecessor_type: PredecessorType
    group_id: bytes
    log_id: Id
    epoch: Hash
    head: Receipt


class DeliveryBinding(Struct):
    """The GroupContext extension that binds a group to its log (D-ACC-9)."""

    version: DeliveryVersion
    service: bytes
    receipt_key: PublicKey
    log_id: Id
    retention: Uint32
    predecessor: Predecessor | None = None


# -- 2. Entries


class EntryKind(Uint8Enum):
    """What the service sees of an entry's purpose."""

    MESSAGE = 1
    BUNDLE = 2
    CORRECTION = 3
    SUCCESSOR = 4


class Bundle(Struct):
    """The visible part of an entry that ends an epoch."""

    last_candidate: Hash
    next: Access
    added: tuple[Hash, ...]


class Correction(Struct):
    """The visible part of an entry that opens the epoch which its sender derived."""

    candidate: Hash
    next: Access


class EntryHeader(Struct):
    """What the service sees of an entry, and what the envelope authenticates."""

    version: DeliveryVersion
    kind: EntryKind
    epoch: Hash
    id: Id
    bundle: Annotated[Bundle | None, When("kind", EntryKind.BUNDLE)] = None
    correction: Annotated[Correction | None, When("kind", EntryKind.CORRECTION)] = None


class Entry(Struct):
    """One entry of a log."""

    header: EntryHeader
    sealed: bytes

    def hash(self) -> bytes:
        """The entry's hash (D-ENT-1)."""
        return sha256(self.encode())


class Chunk(Struct):
    """One encrypted part of the group's state; its address is the hash of `data`."""

    data: bytes

    def address(self) -> bytes:
        """The chunk's address (D-CHK-3)."""
        return sha256(self.data)


class Append(Struct):
    """The request to append an entry."""

    log_id: Id
    entry: Entry
    signature: Signature
    chunks: tuple[Chunk, ...] = ()


def append_to_be_signed(entry_hash: bytes) -> bytes:
    """The bytes under the signature of an Append (D-ENT-1)."""
    return APPEND_LABEL + entry_hash


class ContentKind(Uint8Enum):
    """What is inside an entry, which only members see."""

    APPLICATION = 1
    PROPOSAL = 2
    COMMIT = 3
    SUCCESSOR = 4


class SealedContent(Struct):
    """The plaintext of an entry (D-ENT-7)."""

    kind: ContentKind
    head: Receipt
    content: bytes
    padding: bytes = b""


# -- 3. Receipts and reading


class StoredEntry(Struct):
    """An entry as the log has it; `entry` is absent where it exceeds the inline limit (D-REC-7)."""

    receipt: Receipt
    entry: Entry | None
    size: Uint32


class Appended(Struct):
    """The answer to an append: its receipt, and the opening receipt of the epoch that it opened, if any."""

    receipt: Receipt
    opened: Receipt | None = None


class Read(Struct):
    """The request for an epoch's entries from a number on."""

    log_id: Id
    epoch: Hash
    token: Token
    from_number: Uint64 = 0
    max_bytes: Uint32 = 0xFFFFFFFF


class EpochState(Uint8Enum):
    """Whether an epoch has no candidate, has one, or takes no more of them."""

    OPEN = 1
    ENDED = 2
    CLOSED = 3


class ReadResult(Struct):
    """Entries in order, and where to read on (D-REC-6, D-REC-8)."""

    gone: Receipt | None
    entries: tuple[StoredEntry, ...]
    next_number: Uint64
    head: Receipt
    state: EpochState


class FetchEntry(Struct):
    """The request for a part of one large entry (D-REC-7)."""

    log_id: Id
    epoch: Hash
    token: Token
    number: Uint64
    offset: Uint32 = 0
    length: Uint32 = 0


class EntryPart(Struct):
    """A part of the encoded entry that the receipt covers."""

    receipt: Receipt
    size: Uint32
    part: bytes


# -- 4. Bundles


class ManifestTBS(Struct):
    """What a committer signs about its bundle (D-BUN-2)."""

    epoch: Hash
    id: Id
    last_candidate: Hash
    next: Access
    commit_hash: Hash
    state_root: Hash
    head: Hash
    leaf_index: Uint32


class Manifest(Struct):
    """The committer's statement, signed with its leaf key."""

    tbs: ManifestTBS
    signature: bytes


class CommitContent(Struct):
    """The content of a bundle's envelope."""

    manifest: Manifest
    commit: bytes


# -- 5. State in chunks


class ChunkRef(Struct):
    """Where a chunk is and what opens it."""

    address: Hash
    key: Annotated[bytes, Bytes(32)]


class ChunkPosition(Struct):
    """The subtree that a chunk covers (D-CHK-1)."""

    level: Uint8
    index: Uint32


class ChunkContent(Struct):
    """The plaintext of a chunk; `nodes` is an encoded `optional<Node> nodes<V>` (D-CHK-2)."""

    nodes: bytes
    children: tuple[ChunkRef | None, ...] = ()


class FetchChunks(Struct):
    """The request for chunks by address."""

    log_id: Id
    epoch: Hash
    token: Token
    addresses: tuple[Hash, ...]


class Chunks(Struct):
    """The chunks asked for, in the order asked, absent where not stored."""

    chunks: tuple[Chunk | None, ...]


class PutChunks(Struct):
    """The request to store chunks again and to renew others (D-CHK-7)."""

    log_id: Id
    epoch: Hash
    id: Id
    renewed: tuple[Hash, ...]
    chunks: tuple[Chunk, ...]

    def to_be_signed(self) -> bytes:
        """The bytes under the signature."""
        return CHUNKS_LABEL + sha256(self.encode())


class PutChunksRequest(Struct):
    """PutChunks, signed under the epoch's append key."""

    put: PutChunks
    signature: Signature


class PutChunksResult(Struct):
    """Which addresses of `renewed` the service does not have."""

    missing: tuple[Hash, ...]


# -- 6. Creating a log


class CreateLog(Struct):
    """The request for a new log."""

    version: DeliveryVersion
    log_id: Id
    first: Access
    retention: Uint32
    chunks: tuple[Chunk, ...] = ()

    def hash(self) -> bytes:
        """The `entry_hash` of the first epoch's opening receipt (D-REC-3)."""
        return sha256(self.encode())

    def to_be_signed(self) -> bytes:
        """The bytes under the signature (D-LOG-1)."""
        return CREATE_LABEL + self.hash()


class CreateLogRequest(Struct):
    """CreateLog, signed under its own append key."""

    create: CreateLog
    signature: Signature
