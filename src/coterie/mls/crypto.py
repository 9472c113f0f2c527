"""The cryptographic objects of RFC 9420 §5.1, §5.2, §8 and §9: everything that depends on the cipher suite.

Each cipher suite is one row of the table at the end, and `suite_of` finds it. All that a group computes goes through a
method of `Suite`, one per operation of the RFC and under its name, so that operations can be counted and nothing else
needs to know an algorithm. Signature algorithms are rows too; HPKE's are in `hpke`.

Labels are given as the RFC writes them at the place of use: the prefix "MLS 1.0 " is added here, except for RefHash,
whose labels are complete. The encoding of a label is prepared once.
"""

from __future__ import annotations

import hashlib
from builtins import map as serial_map
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest
from itertools import chain, islice
from typing import Any, Generic, TypeAlias, TypeVar

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coterie.errors import DecodeError, DecryptionError, UnsupportedError, VerificationError
from coterie.mls.hpke import (
    AEAD,
    AES_128_GCM,
    AES_256_GCM,
    CHACHA20_POLY1305,
    DHKEM_P256,
    DHKEM_P384,
    DHKEM_P521,
    DHKEM_X448,
    DHKEM_X25519,
    HKDF_SHA256,
    HKDF_SHA384,
    HKDF_SHA512,
    HPKE,
    KDF,
    KEM,
    P256_ORDER,
    P384_ORDER,
    P521_ORDER,
    HPKEPrivateKey,
    RandomSource,
    Sealer,
    nist_point,
    nist_public_bytes,
)
from coterie.mls.rules import Rule
from coterie.mls.secret import Confidential, Secret
from coterie.mls.tls import encode_opaque
from coterie.mls.types import CipherSuite

K = TypeVar("K")
T = TypeVar("T")

SignatureJob: TypeAlias = tuple[bytes, str, bytes, bytes]
"""What `verify_with_label` takes: (public key, label, content, signature)."""

_PREFIX = b"MLS 1.0 "
_BATCH = 64
"""Signatures per call of an executor: some milliseconds of work, so that handing it over does not count."""
_DRAWS = 256


# -- Signatures


@dataclass(frozen=True, slots=True)
class SignatureScheme(Generic[K]):
    """A signature algorithm over pyca's private key type `K` (§5.1.1, §5.1.2, §17.1); lengths in bytes.

    `check_public` raises ValueError for what is no public key, `verify` that or InvalidSignature; its arguments are
    public key, signature and message. `order` is the number below which a private scalar must lie, None where all bytes
    are private keys; `mask` is applied to the first byte of a candidate for a scalar.
    """

    name: str
    private_length: int
    load: Callable[[bytes], K]
    public_bytes: Callable[[K], bytes]
    sign: Callable[[K, bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], None]
    check_public: Callable[[bytes], object]
    order: int | None = None
    mask: int = 0xFF
    public_length: int | None = None
    """Where all strings of one length are taken for public keys: that length."""

    def is_private(self, private: bytes) -> bool:
        """Whether the bytes are a serialized private key: of the right length, and a scalar in range."""
        if len(private) != self.private_length:
            return False
        return self.order is None or 0 < int.from_bytes(private) < self.order

    def generate(self, rng: RandomSource) -> SignaturePrivateKey:
        """Makes a private key of the first bytes from `rng` that are one."""
        for _ in range(_DRAWS):
            private = rng(self.private_length)
            if self.mask != 0xFF:
                private = bytes((private[0] & self.mask,)) + private[1:]
            if self.is_private(private):
                return SignaturePrivateKey(self, private)
        raise ValueError(f"the random source gave no {self.name} private key in {_DRAWS} draws")


class SignaturePrivateKey(Confidential):
    """A private key for signatures, with its public key; never shows the former and cannot be pickled."""

    __slots__ = ("_key", "_private", "_public", "scheme")

    def __init__(self, scheme: SignatureScheme[Any], private: bytes) -> None:
        if not scheme.is_private(private):
            raise DecodeError(f"these {len(private)} bytes are not a {scheme.name} private key")
        self.scheme = scheme
        self._private = Secret(private)
        self._key: Any = None
        self._public: bytes | None = None

    @property
    def key(self) -> Any:  # noqa: ANN401 - pyca's type differs between schemes
        """The key as an object of pyca/cryptography, loaded at first use."""
        if self._key is None:
            self._key = self.scheme.load(self._private)
        return self._key

    @property
    def public(self) -> bytes:
        """The public key as it stands in a leaf."""
        if self._public is None:
            self._public = self.scheme.public_bytes(self.key)
        return self._public

    def private_bytes(self) -> Secret:
        """The serialized private key: the seed for EdDSA, the big-endian scalar in full length for ECDSA."""
        return self._private

    def __repr__(self) -> str:
        return f"<SignaturePrivateKey {self.scheme.name}>"


def _of_length(length: int) -> Callable[[bytes], None]:
    """The check of an EdDSA key that the library makes: what is no point of the curve only verifies nothing."""

    def check(public: bytes) -> None:
        if len(public) != length:
            raise ValueError(f"it has {len(public)} bytes, not {length}")

    return check


ED25519: SignatureScheme[Ed25519PrivateKey] = SignatureScheme(
    name="Ed25519",
    private_length=32,
    load=Ed25519PrivateKey.from_private_bytes,
    public_bytes=lambda key: key.public_key().public_bytes_raw(),
    sign=lambda key, message: key.sign(message),
    verify=lambda public, signature, message: Ed25519PublicKey.from_public_bytes(public).verify(
        signature, message
    ),
    check_public=_of_length(32),
    public_length=32,
)
ED448: SignatureScheme[Ed448PrivateKey] = SignatureScheme(
    name="Ed448",
    private_length=57,
    load=Ed448PrivateKey.from_private_bytes,
    public_bytes=lambda key: key.public_key().public_bytes_raw(),
    sign=lambda key, message: key.sign(message),
    verify=lambda public, signature, message: Ed448PublicKey.from_public_bytes(public).verify(
        signature, message
    ),
    check_public=_of_length(57),
    public_length=57,
)


def _signing_with(algorithm: hashes.HashAlgorithm) -> ec.ECDSA:
    """ECDSA with nonces derived from key and message (RFC 6979), or random ones where OpenSSL is older than 3.2."""
    try:
        return ec.ECDSA(algorithm, deterministic_signing=True)
    except UnsupportedAlgorithm:
        return ec.ECDSA(algorithm)


def _ecdsa(
    curve: ec.EllipticCurve, order: int, algorithm: hashes.HashAlgorithm
) -> SignatureScheme[ec.EllipticCurvePrivateKey]:
    signing = _signing_with(algorithm)
    verifying = ec.ECDSA(algorithm)
    return SignatureScheme(
        name=f"ECDSA {curve.name}",
        private_length=(curve.key_size + 7) // 8,
        load=lambda private: ec.derive_private_key(int.from_bytes(private), curve),
        public_bytes=nist_public_bytes,
        sign=lambda key, message: key.sign(message, signing),
        verify=lambda public, signature, message: nist_point(curve, public).verify(
            signature, message, verifying
        ),
        check_public=lambda public: nist_point(curve, public),
        order=order,
        mask=0xFF >> (-curve.key_size % 8),
    )


ECDSA_P256 = _ecdsa(ec.SECP256R1(), P256_ORDER, hashes.SHA256())
ECDSA_P384 = _ecdsa(ec.SECP384R1(), P384_ORDER, hashes.SHA384())
ECDSA_P521 = _ecdsa(ec.SECP521R1(), P521_ORDER, hashes.SHA512())


# -- Labels


@lru_cache(maxsize=1024)
def _opaque_label(label: str) -> bytes:
    """`opaque label<V>`, complete with the prefix."""
    return encode_opaque(_PREFIX + label.encode())


@lru_cache(maxsize=1024)
def _kdf_label(label: str, length: int) -> bytes:
    """KDFLabel (§8) up to its context."""
    return length.to_bytes(2) + _opaque_label(label)


@lru_cache(maxsize=1024)
def _secret_label(label: str, length: int) -> bytes:
    """KDFLabel with an empty context, and the number of HKDF-Expand's only block."""
    return _kdf_label(label, length) + b"\0\x01"


@lru_cache(maxsize=1024)
def _secret_labels(labels: tuple[str, ...], length: int) -> tuple[bytes, ...]:
    return tuple(_secret_label(label, length) for label in labels)


def _child_labels(length: int) -> tuple[bytes, bytes]:
    """KDFLabels "tree" with "left" and "right" as contexts, and the number of HKDF-Expand's only block."""
    label = _kdf_label("tree", length)
    return label + encode_opaque(b"left") + b"\x01", label + encode_opaque(b"right") + b"\x01"


def _labelled(label: str, content: bytes) -> bytes:
    """SignContent and EncryptContext (§5.1.2, §5.1.3), which have one shape."""
    return _opaque_label(label) + encode_opaque(content)


# -- Cipher suites


class Suite:
    """One cipher suite of §17.1: the operations of the RFC under their names.

    `hash_length` is KDF.Nh, `key_length` and `nonce_length` are AEAD.Nk and AEAD.Nn, all in bytes; `hash_name` is
    hashlib's, the same for suites that share their hash. Whatever bytes come
    in, verifying raises only VerificationError and opening only DecryptionError.
    """

    __slots__ = (
        "_aead_labels",
        "_child_labels",
        "_cipher",
        "_expand",
        "_generation_labels",
        "_hash",
        "_hmac",
        "_hmac_pair",
        "_hmacs",
        "cipher_suite",
        "hash_length",
        "hash_name",
        "hpke",
        "key_length",
        "name",
        "nonce_length",
        "signature",
    )

    def __init__(
        self,
        cipher_suite: CipherSuite,
        hpke: HPKE,
        hash_function: Callable[[bytes], Any],
        signature: SignatureScheme[Any],
    ) -> None:
        self.cipher_suite = cipher_suite
        self.name = cipher_suite.name
        self.hpke = hpke
        self.signature = signature
        self.hash_length = hpke.kdf.hash_length
        self.hash_name = str(hash_function(b"").name)
        self.key_length = hpke.aead.key_length
        self.nonce_length = hpke.aead.nonce_length
        self._hash = hash_function
        # MLS's MAC is HMAC with the suite's hash (§17.1), which in all suites is also the KDF's.
        self._hmac = hpke.kdf.hmac
        self._hmacs = hpke.kdf.hmacs
        self._hmac_pair = hpke.kdf.hmac_pair
        self._expand = hpke.kdf.expand
        self._cipher = hpke.aead.cipher
        # No suite's keys or nonces are longer than its hash: HKDF-Expand is one block.
        lengths = {"key": self.key_length, "nonce": self.nonce_length, "secret": self.hash_length}
        labels = tuple(_kdf_label(label, length) for label, length in lengths.items())
        self._aead_labels = labels[:2]
        self._child_labels = _child_labels(self.hash_length)
        self._generation_labels = tuple(label + b"\x04" for label in labels)

    def __repr__(self) -> str:
        return f"<Suite {self.name}>"

    # Hash and MAC

    def hash(self, data: bytes) -> bytes:
        """Hash."""
        digest: bytes = self._hash(data).digest()
        return digest

    def hash_many(self, data: list[bytes]) -> list[bytes]:
        """Hash of each."""
        function = self._hash
        return [function(each).digest() for each in data]

    def mac(self, key: bytes, data: bytes) -> bytes:
        """MAC, `hash_length` bytes."""
        return self._hmac(key, data)

    def verify_mac(self, key: bytes, data: bytes, tag: bytes, rule: str) -> None:
        """Raises VerificationError with `rule` unless `tag` is the whole MAC; takes constant time."""
        if not compare_digest(self.mac(key, data), tag):
            raise VerificationError("a MAC does not match what it should protect", rule=rule)

    # Key derivation, §8

    def extract(self, salt: bytes, ikm: bytes) -> Secret:
        """KDF.Extract, `hash_length` bytes."""
        return Secret(self._hmac(salt, ikm))

    def expand(self, prk: bytes, info: bytes, length: int) -> Secret:
        """KDF.Expand; ValueError above 255 hash lengths."""
        return Secret(self._expand(prk, info, length))

    def expand_with_label(self, secret: bytes, label: str, context: bytes, length: int) -> Secret:
        """ExpandWithLabel (§8)."""
        info = _kdf_label(label, length) + (encode_opaque(context) if context else b"\0")
        if length <= self.hash_length:
            return Secret(self._hmac(secret, info + b"\x01")[:length])
        return self.expand(secret, info, length)

    def derive_secret(self, secret: bytes, label: str) -> Secret:
        """DeriveSecret (§8), `hash_length` bytes."""
        return Secret(self._hmac(secret, _secret_label(label, self.hash_length)))

    def derive_tree_secret(self, secret: bytes, label: str, generation: int, length: int) -> Secret:
        """DeriveTreeSecret (§9.1); the context is the generation as a uint32."""
        # No suite's keys or nonces are longer than its hash: HKDF-Expand is one block.
        info = _kdf_label(label, length) + b"\x04" + generation.to_bytes(4) + b"\x01"
        return Secret(self._hmac(secret, info)[:length])

    def derive_children(self, secret: bytes) -> tuple[Secret, Secret]:
        """The secrets of the left and the right child of a node of the secret tree (§9)."""
        left, right = self._hmac_pair(secret, *self._child_labels)
        return Secret(left), Secret(right)

    def derive_secrets(self, secret: bytes, labels: tuple[str, ...]) -> list[Secret]:
        """DeriveSecret (§8) with each label."""
        infos = _secret_labels(labels, self.hash_length)
        if len(infos) == 2:
            return list(map(Secret, self._hmac_pair(secret, *infos)))
        return list(map(Secret, self._hmacs(secret, infos)))

    def derive_generation(self, secret: bytes, generation: int) -> tuple[Secret, Secret, Secret]:
        """Key, nonce and next secret of a ratchet (§9.1): DeriveTreeSecret three times."""
        end = generation.to_bytes(4) + b"\x01"
        key_head, nonce_head, secret_head = self._generation_labels
        key, nonce, after = self._hmacs(
            secret, (key_head + end, nonce_head + end, secret_head + end)
        )
        return Secret(key[: self.key_length]), Secret(nonce[: self.nonce_length]), Secret(after)

    def key_and_nonce(self, secret: bytes, context: bytes) -> tuple[Secret, Secret]:
        """ExpandWithLabel with "key" and "nonce" for the AEAD."""
        end = encode_opaque(context) + b"\x01"
        key_head, nonce_head = self._aead_labels
        key, nonce = self._hmac_pair(secret, key_head + end, nonce_head + end)
        return Secret(key[: self.key_length]), Secret(nonce[: self.nonce_length])

    # References, §5.2

    def ref_hash(self, label: str, value: bytes) -> bytes:
        """RefHash; `label` is complete, with its prefix."""
        return self.hash(encode_opaque(label.encode()) + encode_opaque(value))

    def key_package_ref(self, value: bytes) -> bytes:
        """MakeKeyPackageRef of an encoded KeyPackage."""
        return self.ref_hash("MLS 1.0 KeyPackage Reference", value)

    def proposal_ref(self, value: bytes) -> bytes:
        """MakeProposalRef of the encoded AuthenticatedContent that carries the Proposal."""
        return self.ref_hash("MLS 1.0 Proposal Reference", value)

    # Signatures, §5.1.2

    def generate_signature_key(self, rng: RandomSource) -> SignaturePrivateKey:
        """Makes a fresh key pair out of `rng`."""
        return self.signature.generate(rng)

    def load_signature_key(self, private: bytes) -> SignaturePrivateKey:
        """Takes a serialized private key; DecodeError if it is none."""
        return SignaturePrivateKey(self.signature, private)

    def check_signature_public_key(self, public: bytes) -> None:
        """Raises VerificationError unless the bytes are a public key: right length, for ECDSA a point of the curve."""
        try:
            self.signature.check_public(public)
        except ValueError as error:
            raise VerificationError(
                f"not a public key for {self.signature.name}: {error}",
                rule=Rule.SIGNATURE_PUBLIC_KEY,
            ) from None

    def check_signature_public_keys(self, keys: Sequence[bytes]) -> None:
        """Raises what `check_signature_public_key` does for the first one that is none."""
        if set(map(len, keys)) - {self.signature.public_length}:
            for public in keys:
                self.check_signature_public_key(public)

    def sign_with_label(self, key: SignaturePrivateKey, label: str, content: bytes) -> bytes:
        """SignWithLabel. A key of another suite's scheme is the caller's mistake: ValueError."""
        if key.scheme.name != self.signature.name:
            raise ValueError(f"{self.name} signs with {self.signature.name}, not {key.scheme.name}")
        # By the key's own scheme: it signs with the library that loaded it (`sodium`).
        return key.scheme.sign(key.key, _labelled(label, content))

    def verify_with_label(
        self, public: bytes, label: str, content: bytes, signature: bytes, *, rule: str
    ) -> None:
        """VerifyWithLabel: raises VerificationError with `rule` unless the signature holds."""
        try:
            self.signature.verify(public, signature, _labelled(label, content))
        except (InvalidSignature, ValueError):
            raise VerificationError(
                f"the {self.signature.name} signature for {label} does not verify", rule=rule
            ) from None

    def verify_many(
        self,
        jobs: Iterable[SignatureJob],
        *,
        rule: str,
        map: Callable[..., Iterable[tuple[int, bool]]] = serial_map,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Verifies every job in order; the first bad one raises VerificationError with `rule`, its index in the text.

        `map` works as the built-in does, for instance `ThreadPoolExecutor.map`: verifying leaves other threads running.
        The error is the same whatever runs first. `progress` is called in this thread, after each batch, with the
        number of signatures that held.
        """
        verified = 0
        for good, complete in map(self.verify_batch, batches(jobs)):
            verified += good
            if not complete:
                raise VerificationError(f"signature {verified} does not verify", rule=rule)
            if progress is not None:
                progress(verified)

    def verify_batch(self, batch: Sequence[SignatureJob]) -> tuple[int, bool]:
        """VerifyWithLabel for each until one does not hold: how many did, and whether all did."""
        verify = self.signature.verify
        for number, (public, label, content, signature) in enumerate(batch):
            try:
                verify(public, signature, _labelled(label, content))
            except (InvalidSignature, ValueError):
                return number, False
        return len(batch), True

    def judge_many(
        self,
        jobs: Iterable[SignatureJob],
        *,
        map: Callable[..., Iterable[list[bool]]] = serial_map,
    ) -> list[bool]:
        """Whether each signature holds, in order: for jobs that do not stand or fall together; `map` as above."""
        return list(chain.from_iterable(map(self.judge_batch, batches(jobs))))

    def judge_batch(self, batch: Sequence[SignatureJob]) -> list[bool]:
        """Whether each signature of one batch holds."""
        verify, verdicts = self.signature.verify, []
        for public, label, content, signature in batch:
            try:
                verify(public, signature, _labelled(label, content))
            except (InvalidSignature, ValueError):
                verdicts.append(False)
            else:
                verdicts.append(True)
        return verdicts

    # Public-key encryption, §5.1.3 and §8.3

    def generate_hpke_key(self, rng: RandomSource) -> HPKEPrivateKey:
        """Makes a fresh HPKE key pair out of `rng`."""
        return self.hpke.generate(rng)

    def derive_key_pair(self, ikm: bytes) -> HPKEPrivateKey:
        """KEM.DeriveKeyPair."""
        return self.hpke.derive_key_pair(ikm)

    def load_hpke_key(self, private: bytes, public: bytes | None = None) -> HPKEPrivateKey:
        """Takes a serialized private key; knowing its public key saves computing it. DecodeError if it is none."""
        return self.hpke.load(private, public)

    def check_hpke_public_key(self, public: bytes) -> None:
        """Raises VerificationError unless everybody can seal to this public key."""
        self.hpke.check_public_key(public)

    def check_hpke_public_keys(self, keys: Sequence[bytes]) -> None:
        """Raises what `check_hpke_public_key` does for the first one that is none."""
        self.hpke.check_public_keys(keys)

    def encrypt_with_label(
        self, public: bytes, label: str, context: bytes, plaintext: bytes, rng: RandomSource
    ) -> tuple[bytes, bytes]:
        """EncryptWithLabel: (kem_output, ciphertext). VerificationError if `public` is no public key."""
        return self.hpke.seal(public, _labelled(label, context), b"", plaintext, rng)

    def sealer(self, label: str, context: bytes) -> Sealer:
        """EncryptWithLabel for many recipients: `sealer(...).seal(public, plaintext, rng)` does each."""
        return self.hpke.sealer(_labelled(label, context))

    def decrypt_with_label(
        self,
        private: HPKEPrivateKey,
        label: str,
        context: bytes,
        kem_output: bytes,
        ciphertext: bytes,
    ) -> Secret:
        """DecryptWithLabel: the plaintext, or DecryptionError."""
        return self.hpke.open(private, kem_output, _labelled(label, context), b"", ciphertext)

    def export_seal(
        self, public: bytes, info: bytes, exporter_context: bytes, length: int, rng: RandomSource
    ) -> tuple[bytes, Secret]:
        """HPKE's export for the holder of `public`, as ExternalInit uses it: (kem_output, secret)."""
        return self.hpke.export_seal(public, info, exporter_context, length, rng)

    def export_open(
        self,
        private: HPKEPrivateKey,
        kem_output: bytes,
        info: bytes,
        exporter_context: bytes,
        length: int,
    ) -> Secret:
        """The receiver's side of `export_seal`; DecryptionError if `kem_output` is no public key."""
        return self.hpke.export_open(private, kem_output, info, exporter_context, length)

    # Content encryption

    def aead_seal(self, key: bytes, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        """AEAD.Seal; `key_length` and `nonce_length` say what to give."""
        return self._cipher(key).encrypt(nonce, plaintext, aad)

    def aead_open(
        self,
        key: bytes,
        nonce: bytes,
        aad: bytes,
        ciphertext: bytes,
        *,
        rule: str = Rule.HPKE_CIPHERTEXT,
    ) -> Secret:
        """AEAD.Open: the plaintext, or DecryptionError with `rule`."""
        try:
            return Secret(self._cipher(key).decrypt(nonce, ciphertext, aad))
        except InvalidTag:
            raise DecryptionError("a ciphertext does not open under its key", rule=rule) from None


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """What takes a public-key operation each, by as many as one thread should do at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _suite(
    number: int,
    kem: KEM,
    kdf: KDF,
    aead: AEAD,
    hash_function: Callable[[bytes], Any],
    signature: SignatureScheme[Any],
) -> Suite:
    return Suite(CipherSuite(number), HPKE(kem, kdf, aead), hash_function, signature)


_SUITES = {
    int(suite.cipher_suite): suite
    for suite in (
        _suite(1, DHKEM_X25519, HKDF_SHA256, AES_128_GCM, hashlib.sha256, ED25519),
        _suite(2, DHKEM_P256, HKDF_SHA256, AES_128_GCM, hashlib.sha256, ECDSA_P256),
        _suite(3, DHKEM_X25519, HKDF_SHA256, CHACHA20_POLY1305, hashlib.sha256, ED25519),
        _suite(4, DHKEM_X448, HKDF_SHA512, AES_256_GCM, hashlib.sha512, ED448),
        _suite(5, DHKEM_P521, HKDF_SHA512, AES_256_GCM, hashlib.sha512, ECDSA_P521),
        _suite(6, DHKEM_X448, HKDF_SHA512, CHACHA20_POLY1305, hashlib.sha512, ED448),
        _suite(7, DHKEM_P384, HKDF_SHA384, AES_256_GCM, hashlib.sha384, ECDSA_P384),
    )
}

SUPPORTED_CIPHER_SUITES: tuple[int, ...] = tuple(_SUITES)
"""The cipher suites that `suite_of` finds, in the registry's order."""


def suite_of(cipher_suite: int) -> Suite:
    """The suite with this number in the registry (§17.1), or UnsupportedError."""
    try:
        return _SUITES[cipher_suite]
    except KeyError:
        raise UnsupportedError(
            f"cipher suite {cipher_suite} is not supported; choose one of"
            f" {', '.join(map(str, SUPPORTED_CIPHER_SUITES))}",
            rule=Rule.CIPHER_SUITE,
        ) from None
