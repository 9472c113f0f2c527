"""Vectors of messages: messages and message-protection (RFC 9420 §6, §12)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from coterie.errors import StateError
from coterie.interop.structs import RatchetTreeList
from coterie.interop.vectors.kind import Case, Generated, Kind, Mismatch, expect
from coterie.interop.vectors.secrets import context_of
from coterie.interop.vectors.sources import SimulatedGroup, welcome_of
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.framing import (
    AuthenticatedContent,
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    protect_public,
    sign_content,
    unprotect_public,
    verify_content,
)
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.hpke import RandomSource
from coterie.mls.private_message import (
    Padding,
    open_private,
    open_sender_data,
    protect_private,
    ratchet_of,
)
from coterie.mls.proposal import (
    Add,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tls import JSON, Struct
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    CipherSuite,
    ContentType,
    ProtocolVersion,
    ResumptionPSKUsage,
    Sender,
    SenderType,
    WireFormat,
)
from coterie.mls.welcome import GroupSecrets, PathSecret

S = TypeVar("S", bound=Struct)

# -- messages

_MESSAGES: dict[str, tuple[WireFormat, ContentType | None]] = {
    "mls_welcome": (WireFormat.MLS_WELCOME, None),
    "mls_group_info": (WireFormat.MLS_GROUP_INFO, None),
    "mls_key_package": (WireFormat.MLS_KEY_PACKAGE, None),
    "public_message_application": (WireFormat.MLS_PUBLIC_MESSAGE, ContentType.APPLICATION),
    "public_message_proposal": (WireFormat.MLS_PUBLIC_MESSAGE, ContentType.PROPOSAL),
    "public_message_commit": (WireFormat.MLS_PUBLIC_MESSAGE, ContentType.COMMIT),
    "private_message": (WireFormat.MLS_PRIVATE_MESSAGE, None),
}
_STRUCTS: dict[str, type[Struct]] = {
    "ratchet_tree": RatchetTreeList,
    "group_secrets": GroupSecrets,
    "add_proposal": Add,
    "update_proposal": Update,
    "remove_proposal": Remove,
    "pre_shared_key_proposal": PreSharedKey,
    "re_init_proposal": ReInit,
    "external_init_proposal": ExternalInit,
    "group_context_extensions_proposal": GroupContextExtensions,
    "commit": Commit,
}


def verify_messages(case: Case) -> None:
    """Every struct decodes, and encodes to the same bytes when it is made anew from its JSON form."""
    for name, cls in _STRUCTS.items():
        _verify_struct(name, cls, case.data(name))
    for name, (wire_format, content_type) in _MESSAGES.items():
        message = _verify_struct(name, MLSMessage, case.data(name))
        expect(f"{name}: wire_format", message.wire_format, wire_format)
        if isinstance(message.body, PublicMessage):
            expect(f"{name}: content_type", message.body.content.content_type, content_type)


def _verify_struct(name: str, cls: type[S], data: bytes) -> S:
    struct = cls.decode(data)
    expect(f"{name}, encoded again", cls.from_json(struct.to_json()).encode(), data)
    return struct


def generate_messages(suite: Suite, rng: RandomSource) -> Generated:
    """One case, out of a group of three."""
    group = SimulatedGroup(suite, rng, private=False)
    welcome = welcome_of(group.add(2))
    first, second = group.groups[:2]
    private = first.encrypt(rng(50))
    update = second.propose_update()
    group.deliver(update, second)
    commit = first.commit().message
    content = FramedContent(
        first.group_id,
        first.epoch,
        Sender(SenderType.MEMBER, LeafIndex(0)),
        b"",
        ContentType.APPLICATION,
        rng(50),
    )
    application = PublicMessage(content, FramedContentAuthData(rng(64)), rng(suite.hash_length))
    package = group.new_client().key_package
    encoded: dict[str, bytes] = {
        "mls_welcome": welcome.encode(),
        "mls_group_info": first.group_info().encode(),
        "mls_key_package": MLSMessage.of(package).encode(),
        "ratchet_tree": first.tree.encode(),
        **_loose_structs(suite, rng),
        "add_proposal": Add(package).encode(),
        # What follows proposal_type, two bytes, is the Update.
        "update_proposal": _body_of(update, Proposal).encode()[2:],
        "commit": _body_of(commit, Commit).encode(),
        "public_message_application": MLSMessage.of(application).encode(),
        "public_message_proposal": update.encode(),
        "public_message_commit": commit.encode(),
        "private_message": private.encode(),
    }
    return [{name: data.hex() for name, data in encoded.items()}]


def _body_of(message: MLSMessage, cls: type[S]) -> S:
    """The body of a PublicMessage that was just made."""
    body = message.body
    if not isinstance(body, PublicMessage) or not isinstance(body.content.body, cls):
        msg = f"expected a PublicMessage with a {cls.__name__}, found {body!r}"
        raise StateError(msg)
    return body.content.body


def _loose_structs(suite: Suite, rng: RandomSource) -> dict[str, bytes]:
    """Structs that need no group to be well-formed."""
    size, number = suite.hash_length, CipherSuite(suite.cipher_suite)
    usage = ResumptionPSKUsage.APPLICATION
    psk = PreSharedKeyID.resumption(usage, rng(16), int.from_bytes(rng(4)), rng(size))
    secrets = GroupSecrets(Secret(rng(size)), PathSecret(Secret(rng(size))), (psk,))
    return {
        "group_secrets": secrets.encode(),
        "remove_proposal": Remove(LeafIndex(int.from_bytes(rng(4)))).encode(),
        "pre_shared_key_proposal": PreSharedKey(psk).encode(),
        "re_init_proposal": ReInit(rng(16), ProtocolVersion.MLS10, number, ()).encode(),
        "external_init_proposal": ExternalInit(rng(32)).encode(),
        "group_context_extensions_proposal": GroupContextExtensions(()).encode(),
    }


# -- message-protection


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The one epoch of a message-protection case, with a group of two; leaf 1 sends."""

    suite: Suite
    context: GroupContext
    encryption_secret: bytes
    sender_data_secret: bytes
    membership_key: bytes
    signature_key: SignaturePrivateKey

    def content(self, kind: ContentType, body: bytes | Proposal | Commit) -> FramedContent:
        sender = Sender(SenderType.MEMBER, LeafIndex(1))
        return FramedContent(self.context.group_id, self.context.epoch, sender, b"", kind, body)

    def secret_tree(self) -> SecretTree:
        return SecretTree.of_epoch(self.suite, 2, Secret(self.encryption_secret))

    def sign(self, wire_format: WireFormat, content: FramedContent) -> FramedContentAuthData:
        suite = self.suite
        signature = sign_content(suite, self.signature_key, wire_format, content, self.context)
        commit = content.content_type == ContentType.COMMIT
        return FramedContentAuthData(signature, bytes(suite.hash_length) if commit else None)

    def protect_public(self, content: FramedContent) -> bytes:
        auth = self.sign(WireFormat.MLS_PUBLIC_MESSAGE, content)
        message = protect_public(self.suite, content, auth, self.context, self.membership_key)
        return MLSMessage.of(message).encode()

    def protect_private(self, content: FramedContent, rng: RandomSource) -> bytes:
        auth = self.sign(WireFormat.MLS_PRIVATE_MESSAGE, content)
        key = self.secret_tree().next_sending(LeafIndex(1), ratchet_of(content.content_type))
        message = protect_private(
            self.suite, key, self.sender_data_secret, content, auth, Padding.PADME, rng
        )
        return MLSMessage.of(message).encode()

    def open_public(self, name: str, data: bytes) -> FramedContent:
        body = MLSMessage.read(data).body
        if not isinstance(body, PublicMessage):
            msg = f"{name} is not a PublicMessage"
            raise Mismatch(msg)
        return self._verified(unprotect_public(self.suite, body, self.context, self.membership_key))

    def open_private(self, name: str, data: bytes) -> FramedContent:
        body = MLSMessage.read(data).body
        if not isinstance(body, PrivateMessage):
            msg = f"{name} is not a PrivateMessage"
            raise Mismatch(msg)
        sender = open_sender_data(self.suite, body, self.sender_data_secret)
        return self._verified(open_private(self.suite, body, sender, self.secret_tree()).content)

    def _verified(self, content: AuthenticatedContent) -> FramedContent:
        return verify_content(self.suite, content, self.signature_key.public, self.context).content


_BODIES: dict[str, tuple[ContentType, type[Proposal | Commit] | None]] = {
    "proposal": (ContentType.PROPOSAL, Proposal),
    "commit": (ContentType.COMMIT, Commit),
    "application": (ContentType.APPLICATION, None),
}


def verify_message_protection(case: Case) -> None:
    """Public and private framing of a proposal, a Commit and application data, both ways."""
    suite = case.suite
    context = context_of(
        suite,
        case.data("group_id"),
        case.number("epoch"),
        case.data("tree_hash"),
        case.data("confirmed_transcript_hash"),
    )
    key = case.signature_key("signature_priv", suite)
    expect("signature_pub", key.public, case.data("signature_pub"))
    epoch = _Epoch(
        suite,
        context,
        case.data("encryption_secret"),
        case.data("sender_data_secret"),
        case.data("membership_key"),
        key,
    )
    for name, (kind, cls) in _BODIES.items():
        raw = case.data(name)
        content = epoch.content(kind, raw if cls is None else cls.decode(raw))
        private = case.data(f"{name}_priv"), epoch.protect_private(content, os.urandom)
        for data in private:
            expect(f"{name}_priv", epoch.open_private(f"{name}_priv", data), content)
        if cls is None:
            _expect_refused(epoch, content)
            continue
        for data in (case.data(f"{name}_pub"), epoch.protect_public(content)):
            expect(f"{name}_pub", epoch.open_public(f"{name}_pub", data), content)


def _expect_refused(epoch: _Epoch, content: FramedContent) -> None:
    try:
        epoch.protect_public(content)
    except StateError:
        return
    msg = "application data could be protected as a PublicMessage"
    raise Mismatch(msg)


def generate_message_protection(suite: Suite, rng: RandomSource) -> Generated:
    """One case."""
    size = suite.hash_length
    context = context_of(suite, rng(32), int.from_bytes(rng(3)), rng(size), rng(size))
    key = suite.generate_signature_key(rng)
    epoch = _Epoch(suite, context, rng(size), rng(size), rng(size), key)
    bodies: dict[str, tuple[bytes, FramedContent]] = {}
    for name, body in (
        ("proposal", Proposal.of(Remove(LeafIndex(int.from_bytes(rng(4)))))),
        ("commit", Commit((), None)),
        ("application", rng(77)),
    ):
        raw = body if isinstance(body, bytes) else body.encode()
        bodies[name] = raw, epoch.content(_BODIES[name][0], body)
    case: dict[str, JSON] = {
        "cipher_suite": int(suite.cipher_suite),
        "group_id": context.group_id.hex(),
        "epoch": context.epoch,
        "tree_hash": context.tree_hash.hex(),
        "confirmed_transcript_hash": context.confirmed_transcript_hash.hex(),
        "signature_priv": key.private_bytes().hex(),
        "signature_pub": key.public.hex(),
        "encryption_secret": epoch.encryption_secret.hex(),
        "sender_data_secret": epoch.sender_data_secret.hex(),
        "membership_key": epoch.membership_key.hex(),
    }
    for name, (raw, content) in bodies.items():
        case[name] = raw.hex()
        case[f"{name}_priv"] = epoch.protect_private(content, rng).hex()
        if name != "application":
            case[f"{name}_pub"] = epoch.protect_public(content).hex()
    return [case]


MESSAGES = Kind(
    "messages",
    frozenset({"mls_welcome", "mls_group_info", "ratchet_tree", "group_secrets"}),
    verify_messages,
    generate_messages,
    has_suites=False,
)
MESSAGE_PROTECTION = Kind(
    "message-protection",
    frozenset({"cipher_suite", "membership_key", "proposal_pub", "application_priv"}),
    verify_message_protection,
    generate_message_protection,
)
