"""Leaf nodes: who a member is, with which keys, and what it supports (RFC 9420 §7.2 and §7.3).

The checks here need nothing but the leaf and the place it stands in; what depends on the rest of the group is in
`validation`. A leaf's signature covers everything before it, so what is verified is the slice that arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar

from coterie.errors import CoterieError, RuleViolation
from coterie.mls.credential import Authenticator, Credential, authenticate
from coterie.mls.crypto import SignatureJob, SignaturePrivateKey, Suite
from coterie.mls.extension import (
    MAX_CAPABILITIES,
    Capabilities,
    Extension,
    RequiredCapabilities,
    check_extension_list,
)
from coterie.mls.rules import Rule
from coterie.mls.tls import Interned, Struct, Uint, When, encode_opaque
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    DEFAULT_EXTENSION_TYPES,
    DEFAULT_PROPOSAL_TYPES,
    LeafNodeSource,
    ProtocolVersion,
)


class Lifetime(Struct):
    """§7.2: from and until when the leaf may be used, in seconds since 1970."""

    _detached: ClassVar[bool] = True

    not_before: Annotated[int, Uint(8)]
    not_after: Annotated[int, Uint(8)]

    def covers(self, now: int) -> bool:
        """Whether a time, in seconds since 1970, is within it."""
        return self.not_before <= now <= self.not_after


class LeafNode(Struct):
    """§7.2."""

    _detached: ClassVar[bool] = True

    encryption_key: bytes
    signature_key: bytes
    credential: Credential
    capabilities: Annotated[Capabilities, Interned()]
    leaf_node_source: LeafNodeSource
    lifetime: Annotated[Lifetime | None, When("leaf_node_source", LeafNodeSource.KEY_PACKAGE)]
    parent_hash: Annotated[bytes | None, When("leaf_node_source", LeafNodeSource.COMMIT)]
    extensions: tuple[Extension, ...]
    signature: bytes

    def to_be_signed(self, group_id: bytes, leaf_index: LeafIndex | int) -> bytes:
        """The encoding of LeafNodeTBS; a key package's leaf is bound to no group and ignores the arguments."""
        return self.to_be_signed_in(encode_opaque(group_id), leaf_index)

    def to_be_signed_in(self, group: bytes, leaf_index: int) -> bytes:
        """As `to_be_signed`, with the encoded `opaque group_id<V>`."""
        raw, length = self.encode(), len(self.signature)
        # Besides the signature its vector header, whose length the rule of §2.1.2 says.
        signed = raw[: -length - (1 if length < 64 else 2 if length < 16384 else 4)]
        if self.leaf_node_source == LeafNodeSource.KEY_PACKAGE:
            return signed
        return signed + group + leaf_index.to_bytes(4)


class LeafNodeTBS(Struct):
    """§7.2: what a leaf's signature covers."""

    encryption_key: bytes
    signature_key: bytes
    credential: Credential
    capabilities: Capabilities
    leaf_node_source: LeafNodeSource
    lifetime: Annotated[Lifetime | None, When("leaf_node_source", LeafNodeSource.KEY_PACKAGE)]
    parent_hash: Annotated[bytes | None, When("leaf_node_source", LeafNodeSource.COMMIT)]
    extensions: tuple[Extension, ...]
    group_id: Annotated[
        bytes | None, When("leaf_node_source", LeafNodeSource.UPDATE, LeafNodeSource.COMMIT)
    ] = None
    leaf_index: Annotated[
        LeafIndex | None,
        Uint(4),
        When("leaf_node_source", LeafNodeSource.UPDATE, LeafNodeSource.COMMIT),
    ] = None

    def sign(self, suite: Suite, key: SignaturePrivateKey) -> LeafNode:
        """The leaf with its signature."""
        signed = self.encode()
        signature = suite.sign_with_label(key, "LeafNodeTBS", signed)
        # The LeafNode begins with what was signed, less the place in a group.
        bound = self.leaf_node_source != LeafNodeSource.KEY_PACKAGE
        place = len(encode_opaque(self.group_id or b"")) + 4 if bound else 0
        return LeafNode.assembled(
            signed[: len(signed) - place] + encode_opaque(signature),
            self.encryption_key,
            self.signature_key,
            self.credential,
            self.capabilities,
            self.leaf_node_source,
            self.lifetime,
            self.parent_hash,
            self.extensions,
            signature,
        )


def check_signature(
    leaf: LeafNode, suite: Suite, group_id: bytes = b"", leaf_index: LeafIndex | int = 0
) -> None:
    """Raises `VerificationError` unless the leaf is signed by its own signature key (§7.3)."""
    suite.verify_with_label(
        leaf.signature_key,
        "LeafNodeTBS",
        leaf.to_be_signed(group_id, leaf_index),
        leaf.signature,
        rule=Rule.LEAF_SIGNATURE,
    )


def signature_jobs(
    members: Iterable[tuple[int, LeafNode]], group_id: bytes
) -> Iterator[SignatureJob]:
    """What `Suite.verify_many` takes, for leaves at their places in a group."""
    group = encode_opaque(group_id)
    for index, leaf in members:
        signed = leaf.to_be_signed_in(group, index)
        yield leaf.signature_key, "LeafNodeTBS", signed, leaf.signature


def check_source(leaf: LeafNode, source: LeafNodeSource) -> None:
    """Raises `RuleViolation` unless the leaf says that it comes from where it was found (§7.3)."""
    if leaf.leaf_node_source != source:
        msg = (
            f"the leaf says it comes from {leaf.leaf_node_source.name}, it stands in {source.name}"
        )
        raise RuleViolation(msg, rule=Rule.LEAF_SOURCE)


def check_lifetime(leaf: LeafNode, *, now: int | None, max_lifetime: int | None) -> None:
    """Raises `RuleViolation` where a key package's lifetime is too long, or does not include `now` (§7.2, §7.3).

    `now` is None where the leaf was accepted long ago, `max_lifetime` (seconds) None where no limit applies.
    """
    lifetime = leaf.lifetime
    if lifetime is None:
        return
    total = lifetime.not_after - lifetime.not_before
    if total < 0 or (max_lifetime is not None and total > max_lifetime):
        msg = f"a lifetime of {total} seconds, at most {max_lifetime} are accepted"
        raise RuleViolation(msg, rule=Rule.LEAF_LIFETIME_MAXIMUM)
    if now is not None and not lifetime.covers(now):
        word = "is not valid yet" if now < lifetime.not_before else "has expired"
        msg = f"the leaf {word}: it is valid from {lifetime.not_before} to {lifetime.not_after}"
        raise RuleViolation(msg, rule=Rule.LEAF_LIFETIME)


def check_contents(leaf: LeafNode, suite: Suite) -> None:
    """The checks of §7.2 and §7.3 that need the leaf alone: keys, extensions, capabilities."""
    suite.check_hpke_public_key(leaf.encryption_key)
    suite.check_signature_public_key(leaf.signature_key)
    _check_capabilities_once(leaf.capabilities, suite)
    if leaf.extensions:
        _check_extensions(leaf)
    _check_credential_listed(leaf)


def check_all(leaves: Sequence[LeafNode], suite: Suite, *, max_lifetime: int | None) -> None:
    """`check_contents` and `check_lifetime` (without the time) for each: raises for the first leaf that fails.

    One kind of check after the other, what many leaves share only once; where one fails, leaf by leaf.
    """
    try:
        suite.check_hpke_public_keys([leaf.encryption_key for leaf in leaves])
        suite.check_signature_public_keys([leaf.signature_key for leaf in leaves])
        alike = {
            (id(leaf.capabilities), int(leaf.credential.credential_type)): leaf for leaf in leaves
        }
        for leaf in alike.values():
            _check_capabilities_once(leaf.capabilities, suite)
            _check_credential_listed(leaf)
        for leaf in leaves:
            if leaf.extensions:
                _check_extensions(leaf)
            if leaf.lifetime is not None:
                check_lifetime(leaf, now=None, max_lifetime=max_lifetime)
    except CoterieError:
        for leaf in leaves:
            check_contents(leaf, suite)
            check_lifetime(leaf, now=None, max_lifetime=max_lifetime)
        raise


def _check_extensions(leaf: LeafNode) -> None:
    check_extension_list(leaf.extensions)
    for extension in leaf.extensions:
        if not leaf.capabilities.supports_extension(extension.extension_type):
            msg = f"the leaf carries extension {int(extension.extension_type)} without listing it"
            raise RuleViolation(msg, rule=Rule.LEAF_EXTENSION_UNLISTED)


def _check_credential_listed(leaf: LeafNode) -> None:
    if leaf.credential.credential_type not in leaf.capabilities.credentials:
        msg = (
            f"the leaf does not list its own credential type {int(leaf.credential.credential_type)}"
        )
        raise RuleViolation(msg, rule=Rule.LEAF_CREDENTIAL_UNLISTED)


_ACCEPTED: set[tuple[int, bytes]] = set()
_MOST_ACCEPTED = 4096


def _check_capabilities_once(capabilities: Capabilities, suite: Suite) -> None:
    """As `check_capabilities`; what was accepted before is not looked at again, since most leaves' are alike."""
    known = (suite.cipher_suite, capabilities.encode())
    if known not in _ACCEPTED:
        check_capabilities(capabilities, suite)
        if len(_ACCEPTED) >= _MOST_ACCEPTED:
            _ACCEPTED.clear()
        _ACCEPTED.add(known)


def check_capabilities(capabilities: Capabilities, suite: Suite) -> None:
    """Raises `RuleViolation` for capabilities that no client of this suite and version may state (§7.2)."""
    if ProtocolVersion.MLS10 not in capabilities.versions:
        msg = "the leaf does not support the protocol version MLS 1.0"
        raise RuleViolation(msg, rule=Rule.LEAF_VERSION)
    if suite.cipher_suite not in capabilities.cipher_suites:
        msg = f"the leaf does not support cipher suite {int(suite.cipher_suite)}"
        raise RuleViolation(msg, rule=Rule.LEAF_CIPHER_SUITE)
    listed = DEFAULT_EXTENSION_TYPES.intersection(capabilities.extensions)
    if listed or DEFAULT_PROPOSAL_TYPES.intersection(capabilities.proposals):
        msg = "the leaf lists a default extension or proposal type as a capability"
        raise RuleViolation(msg, rule=Rule.CAPABILITIES_DEFAULT)
    for values in (
        capabilities.versions,
        capabilities.cipher_suites,
        capabilities.extensions,
        capabilities.proposals,
        capabilities.credentials,
    ):
        if len(values) > MAX_CAPABILITIES:
            msg = f"a list of {len(values)} capabilities, at most {MAX_CAPABILITIES} are accepted"
            raise RuleViolation(msg, rule=Rule.CAPABILITIES_BOUND)


def check_required(leaf: LeafNode, required: RequiredCapabilities | None) -> None:
    """Raises `RuleViolation` unless the leaf supports what the group requires (§7.3, §11.1)."""
    if required is None:
        return
    own = leaf.capabilities
    missing = [
        *(f"extension {int(t)}" for t in required.extension_types if not own.supports_extension(t)),
        *(f"proposal {int(t)}" for t in required.proposal_types if not own.supports_proposal(t)),
        *(f"credential {int(t)}" for t in required.credential_types if t not in own.credentials),
    ]
    if missing:
        msg = f"the group requires what the leaf does not support: {', '.join(missing)}"
        raise RuleViolation(msg, rule=Rule.LEAF_REQUIRED_CAPABILITIES)


def check_credential(leaf: LeafNode, authenticator: Authenticator, *, now: int | None) -> None:
    """Asks the application's Authentication Service; raises its `VerificationError` (§5.3.1)."""
    authenticate(authenticator, leaf.credential, leaf.signature_key, now=now)
