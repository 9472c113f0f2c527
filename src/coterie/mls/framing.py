"""Messages: their structs, what is signed, public messages and transcript hashes (RFC 9420 §6, §8.2).

What was decoded is an `AuthenticatedContent`, whose name is the RFC's: nothing about it is authentic yet. Only
`verify_content` turns it into a `VerifiedContent`, the one form in which content is acted upon. What is signed and
hashed is put together from the slices that arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from coterie.errors import RuleViolation, StateError
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage
from coterie.mls.proposal import Commit, Proposal
from coterie.mls.rules import Rule
from coterie.mls.tls import GIVEN, Given, Select, Struct, Uint, When, encode_opaque
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, ProtocolVersion, Sender, SenderType, WireFormat
from coterie.mls.welcome import GroupInfo, Welcome

CONTENT_TYPES = {
    ContentType.APPLICATION: bytes,
    ContentType.PROPOSAL: Proposal,
    ContentType.COMMIT: Commit,
}


class FramedContent(Struct):
    """§6; `body` is the application data, the Proposal or the Commit."""

    group_id: bytes
    epoch: Annotated[int, Uint(8)]
    sender: Sender
    authenticated_data: bytes
    content_type: ContentType
    body: Annotated[bytes | Proposal | Commit, Select("content_type", CONTENT_TYPES)]


def encode_member_content(
    group_id: bytes,
    epoch: int,
    leaf: LeafIndex,
    authenticated_data: bytes,
    content_type: ContentType,
    encoded_body: bytes,
) -> bytes:
    """The encoding of a member's FramedContent: written out, since every private message has one."""
    return b"".join(
        (
            encode_opaque(group_id),
            epoch.to_bytes(8),
            b"\x01",
            leaf.to_bytes(4),
            encode_opaque(authenticated_data),
            bytes((content_type,)),
            encoded_body,
        )
    )


class FramedContentAuthData(Struct):
    """§6.1; reading or writing it needs the content type (`given`)."""

    signature: bytes
    confirmation_tag: Annotated[bytes | None, When(GIVEN, ContentType.COMMIT)] = None


class AuthenticatedContent(Struct):
    """§6.1: content with what should authenticate it, not verified."""

    wire_format: WireFormat
    content: FramedContent
    auth: Annotated[FramedContentAuthData, Given("content.content_type")]


class FramedContentTBS(Struct):
    """§6.1: what a message's signature covers."""

    version: ProtocolVersion
    wire_format: WireFormat
    content: FramedContent
    context: Annotated[
        GroupContext | None,
        When("content.sender.sender_type", SenderType.MEMBER, SenderType.NEW_MEMBER_COMMIT),
    ] = None


class AuthenticatedContentTBM(Struct):
    """§6.2: what a membership tag covers."""

    content_tbs: FramedContentTBS
    auth: Annotated[FramedContentAuthData, Given("content_tbs.content.content_type")]


class PublicMessage(Struct):
    """§6.2."""

    content: FramedContent
    auth: Annotated[FramedContentAuthData, Given("content.content_type")]
    membership_tag: Annotated[
        bytes | None, When("content.sender.sender_type", SenderType.MEMBER)
    ] = None


class PrivateMessage(Struct):
    """§6.3."""

    group_id: bytes
    epoch: Annotated[int, Uint(8)]
    content_type: ContentType
    authenticated_data: bytes
    encrypted_sender_data: bytes
    ciphertext: bytes


MessageBody = PublicMessage | PrivateMessage | Welcome | GroupInfo | KeyPackage


class MLSMessage(Struct):
    """§6."""

    version: ProtocolVersion
    wire_format: WireFormat
    body: Annotated[
        MessageBody,
        Select(
            "wire_format",
            {
                WireFormat.MLS_PUBLIC_MESSAGE: PublicMessage,
                WireFormat.MLS_PRIVATE_MESSAGE: PrivateMessage,
                WireFormat.MLS_WELCOME: Welcome,
                WireFormat.MLS_GROUP_INFO: GroupInfo,
                WireFormat.MLS_KEY_PACKAGE: KeyPackage,
            },
        ),
    ]

    @classmethod
    def of(cls, body: MessageBody) -> MLSMessage:
        """The message that carries a body."""
        return cls(ProtocolVersion.MLS10, _WIRE_FORMATS[type(body)], body)

    @classmethod
    def read(cls, data: bytes) -> MLSMessage:
        """Decodes a message and refuses versions other than MLS 1.0 (§6, §10)."""
        message = cls.decode(data)
        if message.version != ProtocolVersion.MLS10:
            msg = f"a message of protocol version {int(message.version)}, only MLS 1.0 is spoken"
            raise RuleViolation(msg, rule=Rule.MESSAGE_VERSION)
        body = message.body
        if isinstance(body, KeyPackage) and body.version != message.version:
            msg = "a key package of another protocol version than the message it comes in"
            raise RuleViolation(msg, rule=Rule.KEY_PACKAGE_VERSION)
        return message


_WIRE_FORMATS: dict[type, WireFormat] = {
    PublicMessage: WireFormat.MLS_PUBLIC_MESSAGE,
    PrivateMessage: WireFormat.MLS_PRIVATE_MESSAGE,
    Welcome: WireFormat.MLS_WELCOME,
    GroupInfo: WireFormat.MLS_GROUP_INFO,
    KeyPackage: WireFormat.MLS_KEY_PACKAGE,
}


class ConfirmedTranscriptHashInput(Struct):
    """§8.2."""

    wire_format: WireFormat
    content: FramedContent
    signature: bytes


class InterimTranscriptHashInput(Struct):
    """§8.2."""

    confirmation_tag: bytes


_WITH_CONTEXT = frozenset({SenderType.MEMBER, SenderType.NEW_MEMBER_COMMIT})


def content_to_be_signed(
    wire_format: WireFormat, content: FramedContent, context: GroupContext
) -> bytes:
    """The encoding of FramedContentTBS (§6.1), from the slices that are there."""
    head = b"\x00\x01" + wire_format.to_bytes(2) + content.encode()
    if content.sender.sender_type in _WITH_CONTEXT:
        return head + context.encode()
    return head


def sign_data(
    suite: Suite, key: SignaturePrivateKey, encoded_content: bytes, context: GroupContext
) -> bytes:
    """The signature of application data of a member, as `sign_content` makes it, over content that is encoded."""
    tbs = b"\x00\x01\x00\x02" + encoded_content + context.encode()
    return suite.sign_with_label(key, "FramedContentTBS", tbs)


def sign_content(
    suite: Suite,
    key: SignaturePrivateKey,
    wire_format: WireFormat,
    content: FramedContent,
    context: GroupContext,
) -> bytes:
    """The signature of a FramedContentAuthData (§6.1)."""
    tbs = content_to_be_signed(wire_format, content, context)
    return suite.sign_with_label(key, "FramedContentTBS", tbs)


_DOOR = object()
B = TypeVar("B", bytes, Proposal, Commit)


class VerifiedContent:
    """Content whose signature was verified; only `verify_content` and the signer itself make one."""

    __slots__ = ("auth", "content", "wire_format")

    def __init__(
        self,
        wire_format: WireFormat,
        content: FramedContent,
        auth: FramedContentAuthData,
        door: object,
    ) -> None:
        if door is not _DOOR:
            msg = "a VerifiedContent comes from verify_content alone"
            raise TypeError(msg)
        self.wire_format = wire_format
        self.content = content
        self.auth = auth

    @property
    def sender(self) -> Sender:
        """Who signed it."""
        return self.content.sender

    def body(self, kind: type[B]) -> B:
        """The body, which the content type says is of this kind."""
        found = self.content.body
        if not isinstance(found, kind):
            msg = f"the content is a {type(found).__name__}, not a {kind.__name__}"
            raise TypeError(msg)
        return found

    def authenticated_content(self) -> AuthenticatedContent:
        """The struct, as proposal references are made of it (§5.2)."""
        return AuthenticatedContent(self.wire_format, self.content, self.auth)


def verify_content(
    suite: Suite, message: AuthenticatedContent, signature_key: bytes, context: GroupContext
) -> VerifiedContent:
    """Raises `VerificationError` unless the signature is by this key over this content (§6.1)."""
    suite.verify_with_label(
        signature_key,
        "FramedContentTBS",
        content_to_be_signed(message.wire_format, message.content, context),
        message.auth.signature,
        rule=Rule.CONTENT_SIGNATURE,
    )
    return VerifiedContent(message.wire_format, message.content, message.auth, _DOOR)


def verify_contents(
    suite: Suite,
    messages: Iterable[tuple[AuthenticatedContent, bytes, GroupContext]],
    run: Callable[..., Iterable[list[bool]]],
) -> list[VerifiedContent | None]:
    """`verify_content` of many, in order; None where it would raise. `run` is `map` or an executor's."""
    contents, jobs = [], []
    for message, signature_key, context in messages:
        tbs = content_to_be_signed(message.wire_format, message.content, context)
        jobs.append((signature_key, "FramedContentTBS", tbs, message.auth.signature))
        contents.append(message)
    return [
        VerifiedContent(message.wire_format, message.content, message.auth, _DOOR)
        if holds
        else None
        for message, holds in zip(contents, suite.judge_many(jobs, map=run), strict=True)
    ]


def own_content(
    wire_format: WireFormat, content: FramedContent, auth: FramedContentAuthData
) -> VerifiedContent:
    """Content that this client signed a moment ago."""
    return VerifiedContent(wire_format, content, auth, _DOOR)


def protect_public(
    suite: Suite,
    content: FramedContent,
    auth: FramedContentAuthData,
    context: GroupContext,
    membership_key: bytes | None,
) -> PublicMessage:
    """Frames signed content in the clear, with a membership tag where a member sends it (§6.2).

    Raises `StateError` for application data, which is never sent in the clear (§6).
    """
    if content.content_type == ContentType.APPLICATION:
        msg = "application data is sent as a PrivateMessage only: use protect_private"
        raise StateError(msg, rule=Rule.APPLICATION_PUBLIC)
    tag = None
    if membership_key is not None:
        tag = suite.mac(membership_key, _to_be_maced(content, auth, context))
    return PublicMessage(content, auth, tag)


def unprotect_public(
    suite: Suite, message: PublicMessage, context: GroupContext, membership_key: bytes | None
) -> AuthenticatedContent:
    """Checks a member's membership tag (§6.2) and refuses application data in the clear (§6).

    `membership_key` is None for an observer, who has none and cannot check the tag. Raises `RuleViolation` or
    `VerificationError`.
    """
    content = message.content
    if content.content_type == ContentType.APPLICATION:
        msg = "application data came as a PublicMessage"
        raise RuleViolation(msg, rule=Rule.APPLICATION_PUBLIC)
    if content.sender.sender_type == SenderType.MEMBER and membership_key is not None:
        suite.verify_mac(
            membership_key,
            _to_be_maced(content, message.auth, context),
            message.membership_tag or b"",
            rule=Rule.MEMBERSHIP_TAG,
        )
    return AuthenticatedContent(WireFormat.MLS_PUBLIC_MESSAGE, content, message.auth)


def _to_be_maced(
    content: FramedContent, auth: FramedContentAuthData, context: GroupContext
) -> bytes:
    tbs = content_to_be_signed(WireFormat.MLS_PUBLIC_MESSAGE, content, context)
    return tbs + auth.encode(content.content_type)


def confirmed_transcript_hash(
    suite: Suite,
    interim: bytes,
    wire_format: WireFormat,
    content: FramedContent,
    signature: bytes,
) -> bytes:
    """The confirmed transcript hash of the epoch that a Commit begins (§8.2)."""
    head = interim + int(wire_format).to_bytes(2)
    return suite.hash(head + content.encode() + encode_opaque(signature))


def interim_transcript_hash(suite: Suite, confirmed: bytes, confirmation_tag: bytes) -> bytes:
    """The interim transcript hash, into which the next Commit is hashed (§8.2)."""
    return suite.hash(confirmed + encode_opaque(confirmation_tag))
