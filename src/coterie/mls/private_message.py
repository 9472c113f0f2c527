"""Private messages: content and sender encrypted under keys of the secret tree (RFC 9420 §6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, NamedTuple

from coterie.errors import DecodeError, DecryptionError
from coterie.mls.crypto import Suite
from coterie.mls.framing import (
    CONTENT_TYPES,
    AuthenticatedContent,
    FramedContent,
    FramedContentAuthData,
    PrivateMessage,
    encode_member_content,
)
from coterie.mls.hpke import RandomSource
from coterie.mls.proposal import Commit, Proposal
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import MessageKey, RatchetKind, SecretTree
from coterie.mls.tls import GIVEN, Fixed, Given, Rest, Select, Struct, Uint, encode_opaque
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender, SenderType, WireFormat


class PrivateMessageContent(Struct):
    """§6.3.1; reading or writing it needs the content type (`given`)."""

    body: Annotated[bytes | Proposal | Commit, Select(GIVEN, CONTENT_TYPES)]
    auth: Annotated[FramedContentAuthData, Given(GIVEN)]
    padding: Annotated[bytes, Rest()]


class PrivateContentAAD(Struct):
    """§6.3.1."""

    group_id: bytes
    epoch: Annotated[int, Uint(8)]
    content_type: ContentType
    authenticated_data: bytes


class SenderData(Struct):
    """§6.3.2."""

    leaf_index: Annotated[LeafIndex, Uint(4)]
    generation: Annotated[int, Uint(4)]
    reuse_guard: Annotated[bytes, Fixed(4)]


class SenderDataAAD(Struct):
    """§6.3.2."""

    group_id: bytes
    epoch: Annotated[int, Uint(8)]
    content_type: ContentType


class Padding(Enum):
    """How the length of a message is hidden (§15.1)."""

    NONE = "none"
    BLOCK = "block"
    """Up to the next multiple of 256 bytes."""
    PADME = "padme"
    """Padmé: the length keeps so many leading bits that at most 12 % is added and few lengths remain."""

    def length(self, size: int) -> int:
        """How many bytes of padding a content of `size` bytes gets."""
        if self is Padding.NONE:
            return 0
        if self is Padding.BLOCK:
            return -size % _BLOCK
        exponent = max(size, 2).bit_length() - 1
        free = exponent - exponent.bit_length()
        return -size % (1 << max(free, _SMALLEST_PADME))


_BLOCK = 256
_SMALLEST_PADME = 4


def ratchet_of(content_type: ContentType) -> RatchetKind:
    """Which ratchet encrypts content of a type (§9.1)."""
    if content_type == ContentType.APPLICATION:
        return RatchetKind.APPLICATION
    return RatchetKind.HANDSHAKE


def protect_private(
    suite: Suite,
    key: MessageKey,
    sender_data_secret: bytes,
    content: FramedContent,
    auth: FramedContentAuthData,
    padding: Padding,
    rng: RandomSource,
) -> PrivateMessage:
    """Encrypts signed content under a key that the sender's ratchet gave up (§6.3)."""
    signed = _body_slice(content) + auth.encode(content.content_type)
    head = PrivateHead(
        content.group_id, content.epoch, content.content_type, content.authenticated_data
    )
    return seal_private(suite, key, sender_data_secret, head, signed, padding, rng)


class PrivateHead(NamedTuple):
    """What a PrivateMessage begins with."""

    group_id: bytes
    epoch: int
    content_type: ContentType
    authenticated_data: bytes


def seal_private(
    suite: Suite,
    key: MessageKey,
    sender_data_secret: bytes,
    head: PrivateHead,
    signed: bytes,
    padding: Padding,
    rng: RandomSource,
) -> PrivateMessage:
    """Encrypts `signed`, a PrivateMessageContent without its padding, and the sender data (§6.3.1, §6.3.2)."""
    plaintext = signed + bytes(padding.length(len(signed)))
    group_id, epoch, content_type, authenticated_data = head
    sender_aad = _sender_data_aad(group_id, epoch, content_type)
    # PrivateContentAAD is the beginning of the PrivateMessage, SenderDataAAD that of PrivateContentAAD.
    aad = sender_aad + encode_opaque(authenticated_data)
    reuse_guard = rng(4)
    ciphertext = suite.aead_seal(key.key, _guarded(key.nonce, reuse_guard), aad, plaintext)
    sender_data = key.leaf.to_bytes(4) + key.generation.to_bytes(4) + reuse_guard
    sd_key, sd_nonce = sender_data_key(suite, sender_data_secret, ciphertext)
    encrypted = suite.aead_seal(sd_key, sd_nonce, sender_aad, sender_data)
    raw = aad + encode_opaque(encrypted) + encode_opaque(ciphertext)
    return PrivateMessage.assembled(raw, *head, encrypted, ciphertext)


def _body_slice(content: FramedContent) -> bytes:
    body = content.body
    return encode_opaque(body) if isinstance(body, bytes) else body.encode()


def _guarded(nonce: bytes, reuse_guard: bytes) -> bytes:
    first = int.from_bytes(nonce[:4]) ^ int.from_bytes(reuse_guard)
    return first.to_bytes(4) + nonce[4:]


def _sender_data_aad(group_id: bytes, epoch: int, content_type: ContentType) -> bytes:
    return encode_opaque(group_id) + epoch.to_bytes(8) + bytes((content_type,))


def sender_data_key(
    suite: Suite, sender_data_secret: bytes, ciphertext: bytes
) -> tuple[Secret, Secret]:
    """Key and nonce of the sender data, from a sample of the ciphertext (§6.3.2)."""
    return suite.key_and_nonce(sender_data_secret, ciphertext[: suite.hash_length])


def open_sender_data(
    suite: Suite, message: PrivateMessage, sender_data_secret: bytes
) -> SenderData:
    """Who sent it, claimed so far (§6.3.2); raises `DecryptionError` or `DecodeError`."""
    key, nonce = sender_data_key(suite, sender_data_secret, message.ciphertext)
    head = _sender_data_aad(message.group_id, message.epoch, message.content_type)
    try:
        data = suite.aead_open(key, nonce, head, message.encrypted_sender_data)
    except DecryptionError as error:
        msg = "the sender data does not open with this epoch's keys"
        raise DecryptionError(msg, rule=Rule.SENDER_DATA) from error
    return SenderData.decode(data)


@dataclass(frozen=True, slots=True)
class OpenedMessage:
    """What a private message held: content that is not verified, and the key that is not consumed."""

    content: AuthenticatedContent
    key: MessageKey


def open_private(
    suite: Suite, message: PrivateMessage, sender: SenderData, secret_tree: SecretTree
) -> OpenedMessage:
    """Decrypts the content (§6.3.1) and changes nothing.

    Raises `DecryptionError` where no key is held or it does not open, `DecodeError` for malformed content or padding.
    """
    key = secret_tree.find(sender.leaf_index, ratchet_of(message.content_type), sender.generation)
    return OpenedMessage(open_content(suite, message, sender, key.key, key.nonce), key)


def open_content(
    suite: Suite, message: PrivateMessage, sender: SenderData, key: Secret, nonce: Secret
) -> AuthenticatedContent:
    """Decrypts the content with the key and nonce of its generation; raises as `open_private` does."""
    head = _sender_data_aad(message.group_id, message.epoch, message.content_type)
    try:
        plaintext = suite.aead_open(
            key,
            _guarded(nonce, sender.reuse_guard),
            head + encode_opaque(message.authenticated_data),
            message.ciphertext,
        )
    except DecryptionError as error:
        msg = f"the message does not open with generation {sender.generation} of its sender"
        raise DecryptionError(msg, rule=Rule.PRIVATE_CONTENT) from error
    return _assemble(message, sender, plaintext)


def _assemble(
    message: PrivateMessage, sender: SenderData, plaintext: bytes
) -> AuthenticatedContent:
    """The content out of the slices of plaintext and frame, so that the signature is checked over what came."""
    content_type = message.content_type
    inner = PrivateMessageContent.decode(plaintext, given=content_type)
    if inner.padding.count(0) != len(inner.padding):
        msg = "the padding of a private message is not all zeros"
        raise DecodeError(msg, rule=Rule.PADDING)
    auth = inner.auth.encode(content_type)
    body = plaintext[: len(plaintext) - len(inner.padding) - len(auth)]
    leaf = sender.leaf_index
    head = message.group_id, message.epoch
    raw = encode_member_content(*head, leaf, message.authenticated_data, content_type, body)
    content = FramedContent.assembled(
        raw,
        *head,
        Sender(SenderType.MEMBER, leaf),
        message.authenticated_data,
        content_type,
        inner.body,
    )
    return AuthenticatedContent(WireFormat.MLS_PRIVATE_MESSAGE, content, inner.auth)
