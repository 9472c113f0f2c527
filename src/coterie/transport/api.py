"""The requests, answers and sealed contents of the delivery protocol, declared once for both sides.

Every struct of `docs/delivery-protocol.md` stands here under the same name, with the same fields in the same order; a
test compares them. The derivations that both sides or several clients must make alike (names, hashes, bytes to be
signed) are methods beside the structs. No secret is derived here: labels of exporters are given as constants.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Final, TypeAlias

from coterie.mls.tls import Fixed, Gen, Struct, Uint, Uint8Enum, Uint16Enum, When
from coterie.mls.types import CipherSuite

ZERO32: Final = bytes(32)
MEDIA_TYPE: Final = "application/vnd.coterie.v1"
VERSION_HEADER: Final = "Coterie-Version"
SUBPROTOCOL: Final = "coterie.v1"
BINDING_EXTENSION: Final = 0xF0C1
INBOX_EXTENSION: Final = 0xF0C2

# Labels for the MLS exporter, with the log id as context and 32 as length (D-ACC-2).
EXPORT_APPEND_SEED: Final = b"coterie append"
EXPORT_READ_TOKEN: Final = b"coterie read"
EXPORT_ENVELOPE_SECRET: Final = b"coterie envelope"
EXPORT_STATE_SECRET: Final = b"coterie state"
EXPORT_BOX_SEED: Final = b"coterie box"
EXPORT_BOX_TOKEN: Final = b"coterie box write"

# Info strings of HKDF-Expand and HPKE, and labels of SignWithLabel.
ENTRY_KEY_INFO: Final = b"coterie entry v1"
CHUNK_KEY_INFO: Final = b"coterie chunk v1"
BOX_INFO: Final = b"coterie box v1"
INBOX_INFO: Final = b"coterie inbox v1"
MANIFEST_LABEL: Final = b"CoterieManifest"
SUCCESSOR_LABEL: Final = b"CoterieSuccessor"

_NAME_LABEL: Final = b"coterie epoch v1"
_APPEND_LABEL: Final = b"coterie append v1"
_CREATE_LABEL: Final = b"coterie create v1"
_CHUNKS_LABEL: Final = b"coterie chunks v1"
_RECEIPT_LABEL: Final = b"coterie receipt v1"


class Bytes(Fixed):
    """A string of fixed length under the name that the protocol gives it; another length is not encoded."""

    def __init__(self, length: int, name: str = "") -> None:
        super().__init__(length)
        self.name = name

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        what = self.name or "the field"
        gen.add(
            f"if len({value}) != {self.length}: "
            f"raise ValueError('{what} has %d bytes, must have {self.length}' % len({value}))",
            indent,
        )
        super().encode_source(gen, value, indent)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"{self.name} {name}" if self.name else super().presentation(name)


Hash: TypeAlias = Annotated[bytes, Bytes(32, "Hash")]
Id: TypeAlias = Annotated[bytes, Bytes(32, "Id")]
Token: TypeAlias = Annotated[bytes, Bytes(32, "Token")]
PublicKey: TypeAlias = Annotated[bytes, Bytes(32, "PublicKey")]
Signature: TypeAlias = Annotated[bytes, Bytes(64, "Signature")]
Uint8: TypeAlias = Annotated[int, Uint(1)]
Uint32: TypeAlias = Annotated[int, Uint(4)]
Uint64: TypeAlias = Annotated[int, Uint(8)]


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def token_fits(token: bytes, expected_hash: bytes) -> bool:
    """Whether `token` is the one whose hash is given, in constant time (D-ACC-5)."""
    return hmac.compare_digest(sha256(token), expected_hash)


class DeliveryVersion(Uint16Enum):
    """The version of this protocol."""

    COTERIE1 = 1


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
        return sha256(_NAME_LABEL + self.encode())


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
    return _RECEIPT_LABEL + epoch + number.to_bytes(8) + previous + entry_hash


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
    return _APPEND_LABEL + entry_hash


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
        return _CHUNKS_LABEL + sha256(self.encode())


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
        return _CREATE_LABEL + self.hash()


class CreateLogRequest(Struct):
    """CreateLog, signed under its own append key."""

    create: CreateLog
    signature: Signature


# -- 10. Request boxes (before section 9, whose frames carry them)


class RequestKind(Uint8Enum):
    """Whether somebody asks to come in or back in."""

    JOIN = 1
    RETURN = 2


class Replaced(Struct):
    """The leaf that a returning member asks to be replaced."""

    leaf_index: Uint32
    leaf_node_hash: Hash


class RequestContent(Struct):
    """The plaintext of a request (D-BOX-2)."""

    kind: RequestKind
    key_package: bytes
    ticket: Token
    replaced: Annotated[Replaced | None, When("kind", RequestKind.RETURN)] = None
    note: bytes = b""
    padding: bytes = b""


class SealedRequest(Struct):
    """A request under HPKE."""

    kem_output: bytes
    ciphertext: bytes


class PostRequest(Struct):
    """The request to put a request into an epoch's box."""

    log_id: Id
    epoch: Hash
    box_token: Token
    request: SealedRequest


class Posted(Struct):
    """The number under which a box keeps a request."""

    number: Uint64


class ReadBox(Struct):
    """The request for an epoch's box and its ancestors' (D-BOX-3)."""

    log_id: Id
    epoch: Hash
    token: Token
    from_number: Uint64 = 0


class BoxItem(Struct):
    """A request as a box has it, and the epoch whose box it is."""

    number: Uint64
    epoch: Hash
    request: SealedRequest


class ReadBoxResult(Struct):
    """Requests in order of arrival."""

    items: tuple[BoxItem, ...]
    next_number: Uint64


class Link(Struct):
    """What a person is given to ask for admission (D-BOX-5)."""

    service: bytes
    cipher_suite: CipherSuite
    log_id: Id
    epoch: Hash
    box_token: Token
    box_key: bytes


# -- 11. ReInit and re-forming


class SuccessorTBS(Struct):
    """What is signed about the group that follows a ReInit."""

    group_info: bytes
    log_id: Id


class SuccessorContent(Struct):
    """The content of a successor entry."""

    leaf_index: Uint32
    tbs: SuccessorTBS
    signature: bytes


# -- 12. Inboxes


class InboxInfo(Struct):
    """The KeyPackage extension that says where its Welcome goes."""

    inbox_id: Id
    inbox_key: bytes


class OpenInbox(Struct):
    """The request for an inbox."""

    inbox_id: Id
    token_hash: Hash


class MintTickets(Struct):
    """The owner's request to accept tickets with these hashes (SHA-256)."""

    inbox_id: Id
    token: Token
    ticket_hashes: tuple[Hash, ...]


class PostEnvelope(Struct):
    """The request to put an envelope into an inbox (D-INB-3)."""

    inbox_id: Id
    ticket: Token
    kem_output: bytes
    ciphertext: bytes


class ReadInbox(Struct):
    """The owner's request for what is in the inbox."""

    inbox_id: Id
    token: Token
    from_number: Uint64 = 0


class InboxItem(Struct):
    """An envelope as the inbox has it."""

    number: Uint64
    kem_output: bytes
    ciphertext: bytes


class Stock(Struct):
    """How many key packages of a suite are left (D-DIR-6)."""

    cipher_suite: CipherSuite
    available: Uint32
    last_resort_used: Uint8


class ReadInboxResult(Struct):
    """Envelopes in order of arrival, and the stock of key packages."""

    items: tuple[InboxItem, ...]
    next_number: Uint64
    stock: tuple[Stock, ...]


class AckInbox(Struct):
    """The owner's request to delete envelopes up to a number."""

    inbox_id: Id
    token: Token
    through_number: Uint64


class Done(Struct):
    """The answer that says no more than that it is done."""

    version: DeliveryVersion = DeliveryVersion.COTERIE1


class EnvelopeKind(Uint8Enum):
    """What is inside an envelope."""

    WELCOME = 1
    REQUEST = 2


class WelcomeContent(Struct):
    """What a new member gets (D-INB-7)."""

    service: bytes
    log_id: Id
    parent: Hash
    read_token: Token
    opening: Receipt
    state: ChunkRef | None
    welcome: bytes


class EnvelopeContent(Struct):
    """The plaintext of an inbox envelope (D-INB-5)."""

    kind: EnvelopeKind
    welcome: Annotated[WelcomeContent | None, When("kind", EnvelopeKind.WELCOME)] = None
    request: Annotated[RequestContent | None, When("kind", EnvelopeKind.REQUEST)] = None
    padding: bytes = b""


# -- 13. The directory


class KeyPackageMessage(Struct):
    """An MLSMessage with a KeyPackage."""

    message: bytes


class KeyPackageReference(Struct):
    """A KeyPackageRef (RFC 9420 §5.2)."""

    reference: bytes


class Publish(Struct):
    """The request to publish key packages under a name."""

    version: DeliveryVersion
    name: bytes
    inbox_id: Id
    token: Token
    key_packages: tuple[KeyPackageMessage, ...]
    last_resort: tuple[KeyPackageMessage, ...] = ()


class PublishResult(Struct):
    """What the directory has now."""

    stock: tuple[Stock, ...]


class Withdraw(Struct):
    """The request to hand out certain key packages no more."""

    inbox_id: Id
    token: Token
    references: tuple[KeyPackageReference, ...]


class Claim(Struct):
    """The request for one key package of each device of a user."""

    version: DeliveryVersion
    name: bytes
    cipher_suites: tuple[CipherSuite, ...]


class Claimed(Struct):
    """A key package (an MLSMessage) and the ticket for its inbox."""

    key_package: bytes
    ticket: Token


class ClaimResult(Struct):
    """One package for each device that has one."""

    packages: tuple[Claimed, ...]


# -- 14. Errors and the service's own data


class ErrorCode(Uint16Enum):
    """Why a request was refused (section 14)."""

    MALFORMED = 1
    UNSUPPORTED_VERSION = 2
    UNKNOWN_EPOCH = 3
    GONE = 4
    BAD_TOKEN = 5
    BAD_SIGNATURE = 6
    ID_REUSED = 7
    EPOCH_ENDED = 8
    EPOCH_CLOSED = 9
    LOST_RACE = 10
    BAD_ACCESS = 11
    MISSING_CHUNK = 12
    UNKNOWN_CANDIDATE = 13
    TOO_LARGE = 14
    BAD_SIZE = 15
    BAD_RETENTION = 16
    RATE_LIMITED = 17
    QUOTA = 18
    UNKNOWN_NAME = 19
    NONE_LEFT = 20
    BAD_CREDENTIAL = 21
    BAD_KEY_PACKAGE = 22
    TICKET_USED = 23
    UNKNOWN_INBOX = 24
    TOO_SLOW = 25
    UNAVAILABLE = 26
    INTERNAL = 27
    UNKNOWN_PATH = 28


class LostRace(Struct):
    """The candidate that was first, and where to read on (D-BUN-4)."""

    winner: StoredEntry
    read_from: Uint64


class Failure(Struct):
    """The answer to a request that was refused; `message` is UTF-8, `retry_after` in seconds."""

    code: ErrorCode
    message: bytes
    retry_after: Annotated[int | None, Uint(4)] = None
    lost_race: LostRace | None = None


class ServiceInfo(Struct):
    """What the service says about itself; `time` is Unix time in seconds, sizes are in bytes."""

    versions: tuple[DeliveryVersion, ...]
    receipt_key: PublicKey
    time: Uint64
    max_entry: Uint32
    max_bundle: Uint32
    inline_limit: Uint32
    min_retention: Uint32
    max_retention: Uint32
    cipher_suites: tuple[CipherSuite, ...]


# -- 9. Subscriptions


class TargetType(Uint8Enum):
    """What is subscribed to."""

    LOG = 1
    BOX = 2
    INBOX = 3


class LogTarget(Struct):
    """An epoch, or its boxes, from a number on."""

    log_id: Id
    epoch: Hash
    token: Token
    from_number: Uint64 = 0


class InboxTarget(Struct):
    """An inbox, from a number on."""

    inbox_id: Id
    token: Token
    from_number: Uint64 = 0


class Delivery(Uint8Enum):
    """Whether content is sent, or only that there is some."""

    CONTENT = 1
    WAKE_ONLY = 2


class Subscribe(Struct):
    """A client's frame that starts a subscription."""

    subscription: Uint32
    delivery: Delivery
    target_type: TargetType
    log: Annotated[LogTarget | None, When("target_type", TargetType.LOG)] = None
    box: Annotated[LogTarget | None, When("target_type", TargetType.BOX)] = None
    inbox: Annotated[InboxTarget | None, When("target_type", TargetType.INBOX)] = None


class Unsubscribe(Struct):
    """A client's frame that ends a subscription."""

    subscription: Uint32


class ClientFrameType(Uint8Enum):
    """The frames of a client."""

    SUBSCRIBE = 1
    UNSUBSCRIBE = 2


class ClientFrame(Struct):
    """One WebSocket message of a client."""

    frame_type: ClientFrameType
    subscribe: Annotated[Subscribe | None, When("frame_type", ClientFrameType.SUBSCRIBE)] = None
    unsubscribe: Annotated[Unsubscribe | None, When("frame_type", ClientFrameType.UNSUBSCRIBE)] = (
        None
    )


class Woken(Struct):
    """There is something from this number on."""

    subscription: Uint32
    next_number: Uint64


class Entries(Struct):
    """Entries of a log."""

    subscription: Uint32
    result: ReadResult


class BoxItems(Struct):
    """Requests of a box."""

    subscription: Uint32
    result: ReadBoxResult


class InboxItems(Struct):
    """Envelopes of an inbox."""

    subscription: Uint32
    result: ReadInboxResult


class Ended(Struct):
    """A subscription is over, why, and the number to go on from."""

    subscription: Uint32
    next_number: Uint64
    failure: Failure


class ServerFrameType(Uint8Enum):
    """The frames of the service."""

    WOKEN = 1
    ENTRIES = 2
    BOX_ITEMS = 3
    INBOX_ITEMS = 4
    ENDED = 5


class ServerFrame(Struct):
    """One WebSocket message of the service."""

    frame_type: ServerFrameType
    woken: Annotated[Woken | None, When("frame_type", ServerFrameType.WOKEN)] = None
    entries: Annotated[Entries | None, When("frame_type", ServerFrameType.ENTRIES)] = None
    box_items: Annotated[BoxItems | None, When("frame_type", ServerFrameType.BOX_ITEMS)] = None
    inbox_items: Annotated[InboxItems | None, When("frame_type", ServerFrameType.INBOX_ITEMS)] = (
        None
    )
    ended: Annotated[Ended | None, When("frame_type", ServerFrameType.ENDED)] = None


OPERATIONS: Final[dict[str, tuple[type[Struct], type[Struct]]]] = {
    "logs/create": (CreateLogRequest, Appended),
    "logs/append": (Append, Appended),
    "logs/read": (Read, ReadResult),
    "logs/entry": (FetchEntry, EntryPart),
    "chunks/fetch": (FetchChunks, Chunks),
    "chunks/put": (PutChunksRequest, PutChunksResult),
    "boxes/post": (PostRequest, Posted),
    "boxes/read": (ReadBox, ReadBoxResult),
    "inboxes/open": (OpenInbox, Done),
    "inboxes/mint": (MintTickets, Done),
    "inboxes/post": (PostEnvelope, Done),
    "inboxes/read": (ReadInbox, ReadInboxResult),
    "inboxes/ack": (AckInbox, Done),
    "directory/publish": (Publish, PublishResult),
    "directory/withdraw": (Withdraw, PublishResult),
    "directory/claim": (Claim, ClaimResult),
}
"""Paths under `/v1/`, with the structs of request and answer (D-TRA-1)."""
