"""Boxes, inboxes and the directory, and what members seal for one another (sections 10 to 13)."""

from __future__ import annotations

from typing import Annotated

from coterie.mls.tls import Struct, Uint8Enum, When
from coterie.mls.types import CipherSuite
from coterie.transport.api.base import (
    DeliveryVersion,
    Hash,
    Id,
    Token,
    Uint8,
    Uint32,
    Uint64,
)
from coterie.transport.api.logs import (
    ChunkRef,
    Receipt,
)

# -- 10. Request boxes


class RequestKind(Uint8Enum):
    """Whether somebody asks to come in or back in, or says that it does not come."""

    JOIN = 1
    RETURN = 2
    DECLINE = 3


class Replaced(Struct):
    """The leaf that a returning member asks to be replaced."""

    leaf_index: Uint32
    leaf_node_hash: Hash


class RequestTBS(Struct):
    """What who asks signs (D-BOX-10); `requested_at` is in seconds since 1970."""

    log_id: Id
    kind: RequestKind
    key_package: bytes
    ticket: Token
    requested_at: Uint64
    replaced: Annotated[Replaced | None, When("kind", RequestKind.RETURN)] = None
    note: bytes = b""


class RequestContent(Struct):
    """The plaintext of a request (D-BOX-2)."""

    tbs: RequestTBS
    signature: bytes
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
    CALL = 3


class WelcomeContent(Struct):
    """What a new member gets (D-INB-7)."""

    service: bytes
    log_id: Id
    parent: Hash
    read_token: Token
    opening: Receipt
    state: ChunkRef | None
    welcome: bytes


class Call(Struct):
    """Where a member that was not heard of for long can ask to be added again, and who says so (D-BOX-14)."""

    box: Link
    user: bytes


class EnvelopeContent(Struct):
    """The plaintext of an inbox envelope (D-INB-5)."""

    kind: EnvelopeKind
    welcome: Annotated[WelcomeContent | None, When("kind", EnvelopeKind.WELCOME)] = None
    request: Annotated[RequestContent | None, When("kind", EnvelopeKind.REQUEST)] = None
    call: Annotated[Call | None, When("kind", EnvelopeKind.CALL)] = None
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
