"""Private messages: padding, tampering, what is left behind (RFC 9420 §6.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.shapes import build
from coterie.errors import CoterieError, DecodeError, DecryptionError
from coterie.mls.framing import FramedContent, FramedContentAuthData, MLSMessage, PrivateMessage
from coterie.mls.group import ApplicationMessage
from coterie.mls.group.commit import sign
from coterie.mls.group.sending import send
from coterie.mls.private_message import (
    Padding,
    PrivateContentAAD,
    SenderData,
    SenderDataAAD,
    open_private,
    open_sender_data,
    protect_private,
)
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import MessageKey, RatchetKind, SecretTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender, SenderType, WireFormat

SHAPE = build(4, "warm")
SUITE = SHAPE.suite
SECRET = SHAPE.secrets.sender_data_secret


def secrets() -> SecretTree:
    return SecretTree.of_epoch(SUITE, 4, SHAPE.encryption_secret)


def content(data: bytes = b"hello", authenticated_data: bytes = b"seen by all") -> FramedContent:
    sender = Sender(SenderType.MEMBER, LeafIndex(1))
    return FramedContent(b"gid", 7, sender, authenticated_data, ContentType.APPLICATION, data)


def sealed(
    what: FramedContent, padding: Padding = Padding.PADME, key: MessageKey | None = None
) -> PrivateMessage:
    key = key or secrets().next_sending(LeafIndex(1), RatchetKind.APPLICATION)
    auth = FramedContentAuthData(bytes(64))
    return protect_private(SUITE, key, SECRET, what, auth, padding, lambda n: b"\x5a" * n)


def opened(message: PrivateMessage, tree: SecretTree | None = None) -> FramedContent:
    sender = open_sender_data(SUITE, message, SECRET)
    return open_private(SUITE, message, sender, tree or secrets()).content.content


@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("length", [0, 1, 31, 255, 256, 257, 5000])
def test_what_is_sealed_opens_as_the_same_content(length: int, padding: Padding) -> None:
    what = content(bytes(length))
    found = opened(sealed(what, padding))
    assert found == what
    assert found.encode() == what.encode()


def test_content_put_together_from_slices_has_the_encoding_of_its_fields() -> None:
    found = opened(sealed(content(b"x" * 300, b"y" * 70)))
    assert found.encode() == found.replace(body=found.body).encode()


@pytest.mark.parametrize("length", [0, 63, 64, 1_024, 20_000])
def test_data_is_sent_as_content_is(length: int) -> None:
    config = replace(SHAPE.config, rng=lambda n: b"\x5a" * n)
    quick, plain = SHAPE.member(1, config), SHAPE.member(1, config)
    data, authenticated_data = b"d" * length, b"a" * (length // 2)
    sent = quick.encrypt(data, authenticated_data=authenticated_data)
    epoch, keys = plain._epoch, plain._keys
    what = epoch.content(ContentType.APPLICATION, data, authenticated_data)
    signed = sign(epoch, WireFormat.MLS_PRIVATE_MESSAGE, what)
    message = send(epoch, keys, config, what, signed.auth)
    assert sent.encode() == message.encode()
    assert sent == message
    # What was put together from bytes has the encoding of its fields.
    assert isinstance(sent.body, PrivateMessage)
    assert MLSMessage.of(sent.body.replace()).encode() == sent.encode()
    assert quick.save().puts == plain.save().puts
    received = SHAPE.member(2).receive(sent.encode())
    assert isinstance(received, ApplicationMessage)
    assert (received.data, received.authenticated_data) == (data, authenticated_data)


@given(st.integers(0, 1 << 24))
def test_padding_hides_lengths_and_adds_little(size: int) -> None:
    assert Padding.NONE.length(size) == 0
    assert (size + Padding.BLOCK.length(size)) % 256 == 0
    added = Padding.PADME.length(size)
    assert 0 <= added <= max(0.12 * size, 16)
    padded = size + added
    # Few lengths remain: as many leading bits as the length of the length has.
    assert padded % (1 << max(0, padded.bit_length() - 1 - padded.bit_length().bit_length())) == 0


@pytest.mark.parametrize("field", ["group_id", "authenticated_data", "ciphertext"])
def test_whatever_is_changed_under_way_the_message_does_not_open(field: str) -> None:
    message, tree = sealed(content()), secrets()
    value = getattr(message, field)
    for at in range(len(value)):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(DecryptionError):
            opened(message.replace(**{field: changed}), tree)
    assert opened(message, tree) == content()


def test_sender_data_that_was_changed_is_named_as_such() -> None:
    message = sealed(content())
    changed = bytes([message.encrypted_sender_data[0] ^ 1]) + message.encrypted_sender_data[1:]
    with pytest.raises(DecryptionError) as refused:
        opened(message.replace(encrypted_sender_data=changed))
    assert refused.value.rule == Rule.SENDER_DATA


def test_padding_that_is_not_zero_is_refused() -> None:
    what, tree = content(), secrets()
    key = secrets().next_sending(LeafIndex(1), RatchetKind.APPLICATION)
    plaintext = b"\x05hello" + FramedContentAuthData(bytes(64)).encode(ContentType.APPLICATION)
    reuse_guard, nonce = b"\x5a" * 4, key.nonce
    guarded = bytes(a ^ b for a, b in zip(nonce[:4], reuse_guard, strict=True)) + nonce[4:]
    kind = ContentType.APPLICATION
    aad = PrivateContentAAD(b"gid", 7, kind, what.authenticated_data).encode()
    ciphertext = SUITE.aead_seal(key.key, guarded, aad, plaintext + b"\0\0\1\0")
    message = PrivateMessage(b"gid", 7, kind, what.authenticated_data, b"", ciphertext)
    sender = SenderData(LeafIndex(1), 0, reuse_guard)
    with pytest.raises(DecodeError) as refused:
        open_private(SUITE, message, sender, tree)
    assert refused.value.rule == Rule.PADDING


def test_the_associated_data_are_the_structs_of_the_protocol() -> None:
    message, kind = sealed(content(b"", b"z" * 100)), ContentType.APPLICATION
    sample = message.ciphertext[: SUITE.hash_length]
    key = SUITE.expand_with_label(SECRET, "key", sample, SUITE.key_length)
    nonce = SUITE.expand_with_label(SECRET, "nonce", sample, SUITE.nonce_length)
    aad = SenderDataAAD(b"gid", 7, kind).encode()
    data = SUITE.aead_open(key, nonce, aad, message.encrypted_sender_data)
    assert SenderData.decode(data) == SenderData(LeafIndex(1), 0, b"\x5a" * 4)


def test_the_reuse_guard_changes_the_nonce() -> None:
    key = secrets().next_sending(LeafIndex(1), RatchetKind.APPLICATION)
    auth = FramedContentAuthData(bytes(64))
    made = set()
    for byte in range(4):
        rng = bytes([byte]).__mul__
        message = protect_private(SUITE, key, SECRET, content(), auth, Padding.NONE, rng)
        made.add(message.ciphertext)
    assert len(made) == 4


def test_junk_under_anothers_generation_does_not_consume_it() -> None:
    sender, receiver = SHAPE.member(1), SHAPE.member(2)
    message = sender.encrypt(b"hello")
    body = message.body
    assert isinstance(body, PrivateMessage)
    junk = message.replace(body=body.replace(ciphertext=bytes(len(body.ciphertext))))
    with pytest.raises(CoterieError):
        receiver.receive(junk.encode())
    got = receiver.receive(message.encode())
    assert isinstance(got, ApplicationMessage)
    assert got.data == b"hello"
