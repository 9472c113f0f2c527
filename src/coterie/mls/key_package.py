"""Key packages: what a client publishes so that others can add it while it is away (RFC 9420 §10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from coterie.errors import RuleViolation
from coterie.mls.credential import Authenticator, Credential, authenticate_all
from coterie.mls.crypto import SignatureJob, SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import (
    Capabilities,
    Extension,
    check_extension_list,
    grease_extensions,
)
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.leaf_node import (
    LeafNode,
    LeafNodeTBS,
    Lifetime,
    check_contents,
    check_credential,
    check_lifetime,
    check_signature,
    check_source,
)
from coterie.mls.rules import Rule
from coterie.mls.tls import Struct, encode_opaque
from coterie.mls.types import CipherSuite, LeafNodeSource, ProtocolVersion

MAX_LIFETIME = 100 * 24 * 3600
"""The longest lifetime of a key package that is accepted by default: 100 days, in seconds (§7.2)."""


Progress: TypeAlias = Callable[[int, int], None]
"""Told now and then how much of how much is done."""


class KeyPackage(Struct):
    """§10."""

    version: ProtocolVersion
    cipher_suite: CipherSuite
    init_key: bytes
    leaf_node: LeafNode
    extensions: tuple[Extension, ...]
    signature: bytes

    def reference(self) -> bytes:
        """The KeyPackageRef (§5.2), Nh bytes; raises `UnsupportedError` for a suite that is unknown here."""
        return suite_of(self.cipher_suite).key_package_ref(self.encode())

    def validate(
        self,
        suite: Suite,
        authenticator: Authenticator,
        *,
        now: int | None,
        max_lifetime: int | None = MAX_LIFETIME,
    ) -> VerifiedKeyPackage:
        """Makes every check of §10.1, and those of §7.3 that need no group.

        Raises `RuleViolation` or `VerificationError`; the result is the only form in which it can be added.
        """
        self._check_contents(suite, now, max_lifetime)
        check_signature(self.leaf_node, suite)
        suite.verify_with_label(*self._signed(), rule=Rule.KEY_PACKAGE_SIGNATURE)
        check_credential(self.leaf_node, authenticator, now=now)
        return VerifiedKeyPackage(self, _DOOR)

    def _signed(self) -> SignatureJob:
        raw = self.encode()
        signed = raw[: len(raw) - len(encode_opaque(self.signature))]
        return self.leaf_node.signature_key, "KeyPackageTBS", signed, self.signature

    def check_use(self, suite: Suite, *, now: int | None, max_lifetime: int | None) -> None:
        """What is not settled for good by `validate`: version and suite are the group's (§10.1), it is in time (§7.3).

        Raises `RuleViolation`.
        """
        if self.version != ProtocolVersion.MLS10:
            msg = f"the key package is for protocol version {int(self.version)}"
            raise RuleViolation(msg, rule=Rule.KEY_PACKAGE_VERSION)
        if self.cipher_suite != suite.cipher_suite:
            msg = f"a key package of suite {int(self.cipher_suite)} in suite {int(suite.cipher_suite)}"
            raise RuleViolation(msg, rule=Rule.KEY_PACKAGE_CIPHER_SUITE)
        check_lifetime(self.leaf_node, now=now, max_lifetime=max_lifetime)

    def _check_contents(self, suite: Suite, now: int | None, max_lifetime: int | None) -> None:
        """Everything but the signatures and the credential."""
        self.check_use(suite, now=now, max_lifetime=max_lifetime)
        leaf = self.leaf_node
        check_source(leaf, LeafNodeSource.KEY_PACKAGE)
        check_contents(leaf, suite)
        check_extension_list(self.extensions)
        for extension in self.extensions:
            if not leaf.capabilities.supports_extension(extension.extension_type):
                msg = f"the key package carries extension {int(extension.extension_type)}, its leaf lists it not"
                raise RuleViolation(msg, rule=Rule.KEY_PACKAGE_EXTENSION_UNLISTED)
        suite.check_hpke_public_key(self.init_key)
        if self.init_key == leaf.encryption_key:
            msg = "the key package uses one key as init key and as encryption key"
            raise RuleViolation(msg, rule=Rule.KEY_PACKAGE_INIT_KEY)


class KeyPackageTBS(Struct):
    """§10: what a key package's signature covers."""

    version: ProtocolVersion
    cipher_suite: CipherSuite
    init_key: bytes
    leaf_node: LeafNode
    extensions: tuple[Extension, ...]


_DOOR = object()


class VerifiedKeyPackage:
    """A key package that passed every check; only `KeyPackage.validate` makes one."""

    __slots__ = ("key_package",)

    def __init__(self, key_package: KeyPackage, door: object) -> None:
        if door is not _DOOR:
            msg = "a VerifiedKeyPackage comes from KeyPackage.validate alone"
            raise TypeError(msg)
        self.key_package = key_package


def part_of(progress: Progress | None, before: int, total: int) -> Callable[[int], None] | None:
    """What a part of the work reports, after so much of the whole was done."""
    return None if progress is None else lambda done: progress(before + done, total)


def validate_all(
    packages: Sequence[KeyPackage],
    suite: Suite,
    authenticator: Authenticator,
    *,
    now: int | None,
    max_lifetime: int | None = MAX_LIFETIME,
    run: Callable[..., Iterable[Any]] = map,
    progress: Progress | None = None,
) -> list[VerifiedKeyPackage]:
    """As `KeyPackage.validate` for each; `run` is `map` or an executor's, for the signatures.

    `progress` is told how many of the signatures hold, of which each key package has two.
    """
    if not packages:
        return []
    for package in packages:
        package._check_contents(suite, now, max_lifetime)  # noqa: SLF001 - same module
    leaves = (
        (leaf.signature_key, "LeafNodeTBS", leaf.to_be_signed(b"", 0), leaf.signature)
        for leaf in (package.leaf_node for package in packages)
    )
    total, after = 2 * len(packages), len(packages)
    told = part_of(progress, 0, total)
    suite.verify_many(leaves, rule=Rule.LEAF_SIGNATURE, map=run, progress=told)
    signed = (package._signed() for package in packages)  # noqa: SLF001 - same module
    told = part_of(progress, after, total)
    suite.verify_many(signed, rule=Rule.KEY_PACKAGE_SIGNATURE, map=run, progress=told)
    holders = (
        (package.leaf_node.credential, package.leaf_node.signature_key) for package in packages
    )
    authenticate_all(authenticator, holders, now=now, run=run)
    return [VerifiedKeyPackage(package, _DOOR) for package in packages]


@dataclass(frozen=True, slots=True, repr=False)
class KeyPackageBundle:
    """A client's own key package with its private keys, kept until a Welcome for it arrives."""

    key_package: KeyPackage
    init_key: HPKEPrivateKey
    encryption_key: HPKEPrivateKey
    signature_key: SignaturePrivateKey

    def __repr__(self) -> str:
        return f"KeyPackageBundle({self.key_package!r}, private keys not shown)"


def create_key_package(
    suite: Suite,
    signature_key: SignaturePrivateKey,
    credential: Credential,
    capabilities: Capabilities,
    lifetime: Lifetime,
    *,
    rng: RandomSource,
    extensions: Iterable[Extension] = (),
    leaf_extensions: Iterable[Extension] = (),
) -> KeyPackageBundle:
    """Makes a key package with fresh init and encryption keys, signed with the signature key.

    Where the capabilities list a GREASE extension type, the key package and its leaf carry one such extension (§13.5).
    """
    extra = grease_extensions(capabilities, rng)
    encryption_key = suite.generate_hpke_key(rng)
    init_key = suite.generate_hpke_key(rng)
    leaf = LeafNodeTBS(
        encryption_key=encryption_key.public,
        signature_key=signature_key.public,
        credential=credential,
        capabilities=capabilities,
        leaf_node_source=LeafNodeSource.KEY_PACKAGE,
        lifetime=lifetime,
        parent_hash=None,
        extensions=(*leaf_extensions, *extra),
    ).sign(suite, signature_key)
    tbs = KeyPackageTBS(
        ProtocolVersion.MLS10,
        CipherSuite(suite.cipher_suite),
        init_key.public,
        leaf,
        (*extensions, *extra),
    )
    signature = suite.sign_with_label(signature_key, "KeyPackageTBS", tbs.encode())
    key_package = KeyPackage(
        tbs.version, tbs.cipher_suite, tbs.init_key, leaf, tbs.extensions, signature
    )
    return KeyPackageBundle(key_package, init_key, encryption_key, signature_key)
