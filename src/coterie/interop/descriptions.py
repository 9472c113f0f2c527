"""What requests of the interop harness describe, in the terms of the core."""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from coterie.errors import DecodeError, StateError, UnsupportedError
from coterie.mls.crypto import Suite, suite_of
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Group
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackage, KeyPackageBundle
from coterie.mls.proposal import Add, GroupContextExtensions, PreSharedKey, Proposal, ReInit, Remove
from coterie.mls.ratchet_tree import UnverifiedTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType, ProtocolVersion
from coterie.mls.welcome import GroupInfo


def options_of(request: Any) -> CommitOptions:
    """How a Commit is made, from the request."""
    return CommitOptions(path=request.force_path, tree_inside=not request.external_tree)


def reinit_of(group_id: bytes, cipher_suite: int, extensions: Iterable[Any]) -> ReInit:
    """A ReInit for version mls10."""
    suite = CipherSuite(cipher_suite)
    return ReInit(group_id, ProtocolVersion.MLS10, suite, extensions_of(extensions))


def package_fields(bundle: KeyPackageBundle) -> dict[str, bytes]:
    """A key package and its private keys, as answers carry them."""
    return {
        "key_package": MLSMessage.of(bundle.key_package).encode(),
        "init_priv": bytes(bundle.init_key.private_bytes()),
        "encryption_priv": bytes(bundle.encryption_key.private_bytes()),
        "signature_priv": bytes(bundle.signature_key.private_bytes()),
    }


def key_package_of(message: bytes) -> KeyPackage:
    """The key package of a message; raises `DecodeError` for another message."""
    body = MLSMessage.read(message).body
    if not isinstance(body, KeyPackage):
        msg = f"expected a key package, found a {type(body).__name__}"
        raise DecodeError(msg)
    return body


def group_info_of(message: bytes) -> GroupInfo:
    """The GroupInfo of a message; raises `DecodeError` for another message."""
    body = MLSMessage.read(message).body
    if not isinstance(body, GroupInfo):
        msg = f"expected a GroupInfo, found a {type(body).__name__}"
        raise DecodeError(msg)
    return body


def member_named(group: Group, identity: bytes) -> LeafIndex:
    """The leaf of the member with this identity."""
    for member in group.members():
        if member.credential.identity == identity:
            return member.leaf
    msg = f"there is no member {identity!r}"
    raise StateError(msg)


def leaf_named(info: GroupInfo, suite: Suite, tree: bytes | None, identity: bytes) -> LeafIndex:
    """The leaf of the member with this identity, in the tree of a GroupInfo or beside it."""
    for extension in info.extensions:
        if extension.extension_type == ExtensionType.RATCHET_TREE:
            tree = extension.extension_data
    if tree is None:
        msg = "the ratchet tree is neither in the GroupInfo nor beside it"
        raise StateError(msg)
    for leaf, node in UnverifiedTree.decode(tree, suite).trust().members():
        if node.credential.identity == identity:
            return leaf
    msg = f"there is no member {identity!r}"
    raise StateError(msg)


def described_from_outside(
    info: GroupInfo,
    tree: bytes | None,
    wanted: Any,
) -> Proposal:
    """An external sender's proposal from its description."""
    suite = suite_of(info.group_context.cipher_suite)
    kind = wanted.proposal_type.decode()
    match kind:
        case "add":
            return Proposal.of(Add(key_package_of(wanted.key_package)))
        case "remove":
            return Proposal.of(Remove(leaf_named(info, suite, tree, wanted.removed_id)))
        case "externalPSK":
            nonce = os.urandom(suite.hash_length)
            return Proposal.of(PreSharedKey(PreSharedKeyID.external(wanted.psk_id, nonce)))
        case "groupContextExtensions":
            return Proposal.of(GroupContextExtensions(extensions_of(wanted.extensions)))
        case "reinit":
            return Proposal.of(reinit_of(wanted.group_id, wanted.cipher_suite, wanted.extensions))
    msg = f"an external sender cannot propose {kind!r}"
    raise UnsupportedError(msg)


def extensions_of(given: Iterable[Any]) -> tuple[Extension, ...]:
    """Extensions as requests carry them."""
    return tuple(Extension(ExtensionType(e.extension_type), e.extension_data) for e in given)
