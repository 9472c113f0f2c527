"""Errors, subscriptions, and which request is answered by what (sections 9 and 14)."""

from __future__ import annotations

from typing import Annotated, Final

from coterie.mls.tls import Struct, Uint, Uint8Enum, Uint16Enum, When
from coterie.mls.types import CipherSuite
from coterie.transport.api.base import (
    DeliveryVersion,
    Hash,
    Id,
    PublicKey,
    Token,
    Uint32,
    Uint64,
)
from coterie.transport.api.logs import (
    Append,
    Appended,
    Chunks,
    CreateLogRequest,
    EntryPart,
    FetchChunks,
    FetchEntry,
    PutChunksRequest,
    PutChunksResult,
    Read,
    ReadResult,
    StoredEntry,
)
from coterie.transport.api.mail import (
    AckInbox,
    Claim,
    ClaimResult,
    Done,
    MintTickets,
    OpenInbox,
    Posted,
    PostEnvelope,
    PostRequest,
    Publish,
    PublishResult,
    ReadBox,
    ReadBoxResult,
    ReadInbox,
    ReadInboxResult,
    Withdraw,
)

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
    """There is something before this number, unless the reader stands there already (D-SUB-2)."""

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
