"""This device's identity: certificate, keys, inbox and key packages (delivery protocol, sections 12 and 13)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated

from coterie.client.content import EXTENSION_TYPES, INBOX_EXTENSION
from coterie.errors import DecodeError, DecryptionError, StateError, VerificationError
from coterie.identity.issuer import X509Issuer, presented_by
from coterie.identity.names import UserId
from coterie.identity.revocation import RevocationLists
from coterie.identity.x509 import Anchor, load_certificate
from coterie.mls.credential import Certificate, Credential
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, SignaturePrivateKey, suite_of
from coterie.mls.extension import Capabilities, Extension, capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_package import KeyPackage, KeyPackageBundle, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct, Uint
from coterie.mls.types import CredentialType
from coterie.transport import api

DEFAULT_SUITE = 1
KEY_PACKAGE_LIFETIME = 90 * 24 * 3600
"""Seconds for which a published key package can be used."""
_BACKDATED = 3600
_SMALLEST_ENVELOPE = 4096
_SIZES = 7
_TAG = 16


class StoredIdentity(Struct):
    """What a device keeps of its enrolment."""

    server: bytes
    user: bytes
    realm: bytes
    device: bytes
    cipher_suite: Annotated[int, Uint(2)]
    anchors: tuple[Certificate, ...]
    chain: tuple[Certificate, ...]
    signature_key: Secret
    receipt_key: bytes
    inbox_id: bytes
    inbox_token: Secret


class StoredAttempt(Struct):
    """An enrolment that was begun: a code is good for one key, so that it is repeated with the same."""

    user: bytes
    code: Secret
    cipher_suite: Annotated[int, Uint(2)]
    signature_key: Secret


class StoredPackage(Struct):
    """A published key package with its private keys."""

    key_package: KeyPackage
    init_key: Secret
    encryption_key: Secret
    inbox_key: Secret
    last_resort: Annotated[int, Uint(1)]


@dataclass(frozen=True, slots=True, repr=False)
class Package:
    """A key package of this device with the key of its envelopes."""

    bundle: KeyPackageBundle
    inbox_key: HPKEPrivateKey
    last_resort: bool

    @property
    def reference(self) -> bytes:
        """The KeyPackageRef."""
        return self.bundle.key_package.reference()

    @property
    def cipher_suite(self) -> int:
        """The suite of the group that it can be added to."""
        return int(self.bundle.key_package.cipher_suite)

    @property
    def not_after(self) -> int:
        """When it expires, in seconds since 1970."""
        lifetime = self.bundle.key_package.leaf_node.lifetime
        return 0 if lifetime is None else lifetime.not_after

    def stored(self) -> bytes:
        """As it is stored."""
        bundle = self.bundle
        return StoredPackage(
            bundle.key_package,
            bundle.init_key.private_bytes(),
            bundle.encryption_key.private_bytes(),
            self.inbox_key.private_bytes(),
            int(self.last_resort),
        ).encode()

    def open(self, item: api.InboxItem) -> api.EnvelopeContent | None:
        """What an envelope holds, None where it is not for this key package (D-INB-5)."""
        info, suite = api.INBOX_INFO + self.reference, suite_of(self.cipher_suite)
        try:
            data = suite.hpke.open(self.inbox_key, item.kem_output, info, b"", item.ciphertext)
            return api.EnvelopeContent.decode(bytes(data))
        except (DecryptionError, VerificationError, DecodeError):
            return None


class SigningKey:
    """The device's key as the Authentication Service's client wants it."""

    def __init__(self, key: SignaturePrivateKey) -> None:
        self._key = key

    @property
    def signature_key(self) -> bytes:
        """The public key as MLS encodes it."""
        return self._key.public

    def sign(self, content: bytes) -> bytes:
        """The signature over `content`."""
        return self._key.scheme.sign(self._key.key, content)


class Identity:
    """One enrolled device."""

    def __init__(self, stored: StoredIdentity) -> None:
        self.stored = stored
        self.suite = suite_of(stored.cipher_suite)
        self.signature_key = self.suite.load_signature_key(stored.signature_key)
        self.credential = Credential.x509(tuple(c.cert_data for c in stored.chain))
        anchors = [c.cert_data for c in stored.anchors]
        self.revocations = RevocationLists([Anchor(anchor).certificate for anchor in anchors])
        self.issuer = X509Issuer(anchors, revocations=self.revocations)

    def replaced(self, chain: tuple[Certificate, ...], now: int) -> StoredIdentity:
        """What is kept of the enrolment with another chain; raises `VerificationError` for one that proves less.

        It must be of the same device, for the same key, and in force: nobody would take another one from this device.
        """
        credential = Credential.x509(tuple(c.cert_data for c in chain))
        key = self.signature_key.public
        try:
            self.issuer.authenticate(credential, key, now=now)
            self.issuer.valid_successor(self.credential, credential)
        except DecodeError as error:
            raise VerificationError(str(error.args[0]), rule=error.rule) from error
        return self.stored.replace(chain=chain)

    def renew(self, stored: StoredIdentity) -> None:
        """Takes a new chain, once it is stored; whoever has this object shows it from now on."""
        self.stored = stored
        self.credential = Credential.x509(tuple(c.cert_data for c in stored.chain))

    @property
    def user(self) -> str:
        """`name@realm` of this device's user."""
        return f"{self.stored.user.decode()}@{self.stored.realm.decode()}"

    def full_name(self, name: str) -> str:
        """`name@realm` of a user who may be named without the realm; raises `StateError` for what is no name."""
        try:
            return str(UserId.parse(name, default_realm=self.stored.realm.decode()))
        except DecodeError as error:
            msg = f"{name!r} is no user's name: {error.args[0]}"
            raise StateError(msg) from error

    def user_of(self, tree: RatchetTree, leaf: int) -> str:
        """`name@realm` of the member at a leaf; raises `VerificationError` where its credential names nobody."""
        node = tree.leaf(leaf)
        if node is None:
            msg = f"there is no member at leaf {leaf}"
            raise VerificationError(msg)
        return self.user_of_credential(node.credential)

    def client_id(self, credential: Credential) -> bytes:
        """What all credentials of one device share."""
        return self.issuer.client_id(credential)

    @staticmethod
    def user_of_credential(credential: Credential) -> str:
        """`name@realm` that a credential names."""
        return str(presented_by(credential).user)

    def revoked_serials(self) -> frozenset[int]:
        """The serial numbers of certificates that are known to be revoked."""
        return self.revocations.serials

    def is_revoked(self, credential: Credential) -> bool:
        """Whether a member's certificate is known to be revoked; one realm's numbers are unique."""
        content = credential.content
        if isinstance(content, bytes) or not content:
            return False
        serial = load_certificate(content[0].cert_data).serial_number
        return serial in self.revocations.serials

    def renewal_due(self, now: int) -> bool:
        """Whether two thirds of the certificate's lifetime are over."""
        certificate = load_certificate(self.stored.chain[0].cert_data)
        start = certificate.not_valid_before_utc.timestamp()
        end = certificate.not_valid_after_utc.timestamp()
        return now >= start + (end - start) * 2 / 3

    @property
    def suites(self) -> tuple[int, ...]:
        """The suites that this device can use: its own first, then all others in which its key can sign."""
        own = self.suite.cipher_suite
        others = (n for n in SUPPORTED_CIPHER_SUITES if n != own)
        scheme = self.suite.signature
        return (int(own), *(n for n in others if suite_of(n).signature is scheme))

    def capabilities(self) -> Capabilities:
        """What this client supports, with GREASE."""
        return capabilities(
            cipher_suites=self.suites,
            credentials=[CredentialType.X509],
            extensions=EXTENSION_TYPES,
            rng=secrets.token_bytes,
        )

    def lifetime(self, now: int) -> Lifetime:
        """The lifetime of a key package made now."""
        return Lifetime(now - _BACKDATED, now + KEY_PACKAGE_LIFETIME)

    def new_package(
        self, now: int, cipher_suite: int | None = None, *, last_resort: bool = False
    ) -> Package:
        """A fresh key package of a suite (this device's own if none), bound to this device's inbox (D-INB-1)."""
        suite = self.suite if cipher_suite is None else suite_of(cipher_suite)
        inbox_key = suite.generate_hpke_key(secrets.token_bytes)
        info = api.InboxInfo(self.stored.inbox_id, inbox_key.public)
        bundle = create_key_package(
            suite,
            self.signature_key,
            self.credential,
            self.capabilities(),
            self.lifetime(now),
            rng=secrets.token_bytes,
            extensions=[Extension(INBOX_EXTENSION, info.encode())],
        )
        return Package(bundle, inbox_key, last_resort)

    def load_package(self, value: bytes) -> Package:
        """A key package that was stored."""
        stored = StoredPackage.decode(value)
        suite = suite_of(stored.key_package.cipher_suite)
        bundle = KeyPackageBundle(
            stored.key_package,
            suite.load_hpke_key(stored.init_key, stored.key_package.init_key),
            suite.load_hpke_key(stored.encryption_key, stored.key_package.leaf_node.encryption_key),
            self.signature_key,
        )
        return Package(bundle, suite.load_hpke_key(stored.inbox_key), bool(stored.last_resort))


def inbox_of(package: KeyPackage) -> api.InboxInfo:
    """Where Welcomes for a key package go.

    Raises `DecodeError` where it does not say, `VerificationError` where nothing can be sealed to the key it names.
    """
    for extension in package.extensions:
        if extension.extension_type == INBOX_EXTENSION:
            info = api.InboxInfo.decode(extension.extension_data)
            suite_of(package.cipher_suite).hpke.check_public_key(info.inbox_key)
            return info
    msg = "the key package names no inbox"
    raise DecodeError(msg, rule="D-DIR-1")


def seal_envelope(
    package: KeyPackage, ticket: bytes, content: api.EnvelopeContent
) -> api.PostEnvelope:
    """An envelope for whoever published the key package, of one of few sizes (D-INB-5).

    Raises `StateError` where the content is larger than an envelope can be.
    """
    suite, info = suite_of(package.cipher_suite), inbox_of(package)
    bare = len(content.encode())
    for doubling in range(_SIZES):
        target = (_SMALLEST_ENVELOPE << doubling) - _TAG
        for header in (1, 2, 4):
            length = target - bare - header + 1
            filled = content.replace(padding=bytes(max(length, 0)))
            if length >= 0 and len(filled.encode()) == target:
                sealed = suite.hpke.seal(
                    info.inbox_key,
                    api.INBOX_INFO + package.reference(),
                    b"",
                    filled.encode(),
                    secrets.token_bytes,
                )
                return api.PostEnvelope(info.inbox_id, ticket, *sealed)
    msg = f"a Welcome of {bare} bytes does not fit an envelope"
    raise StateError(msg)


def read_key_package(message: bytes) -> KeyPackage:
    """The key package of an MLSMessage; raises `DecodeError` where it is something else."""
    body = MLSMessage.read(message).body
    if not isinstance(body, KeyPackage):
        msg = "the directory gave something that is no key package"
        raise DecodeError(msg, rule="D-DIR-3")
    return body
