"""Hybrid Public Key Encryption, RFC 9180, in base mode: seal, open, export, and key pairs from a seed.

Used by `crypto` only; knows nothing of MLS but the ids of rules in its errors. Curves, ciphers and hashes are those of
pyca/cryptography and hashlib; the HMACs between them are composed here (docs/decisions/0010-hpke-composed.md says why
and what guards it). A row of `KEMS`, `KDFS` or `AEADS` is one algorithm of the HPKE registry; `HPKE` is a triple of
them with all constants of the labelled key derivation prepared, and `Sealer` adds what is constant for one `info` and
many recipients, as in an UpdatePath.

Every operation is a function of its arguments and of the bytes that `rng` returns, so that histories replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.errors import DecodeError, DecryptionError, VerificationError
from coterie.mls.rules import Rule
from coterie.mls.secret import Confidential, Secret

RandomSource: TypeAlias = Callable[[int], bytes]
"""Given a length, returns that many random bytes: `os.urandom`, unless a history is replayed."""

HMAC: TypeAlias = Callable[[bytes, bytes], bytes]
Extract: TypeAlias = Callable[[bytes], bytes]
HMACPair: TypeAlias = Callable[[bytes, bytes, bytes], tuple[bytes, bytes]]
K = TypeVar("K")
T = TypeVar("T")

_BATCH = 64
"""Seals per call of an executor: some milliseconds of work, so that handing it over does not count."""
_VERSION = b"HPKE-v1"
_IPAD = bytes(byte ^ 0x36 for byte in range(256))
_OPAD = bytes(byte ^ 0x5C for byte in range(256))
_MAX_BLOCKS = 255


# -- KDF


def _hmac_with(hash_function: Callable[[bytes], Any], block_length: int) -> HMAC:
    """Make HMAC (RFC 2104) of two calls of a hashlib function: `hmac.digest` takes two thirds longer."""

    def hmac(key: bytes, message: bytes) -> bytes:
        if len(key) > block_length:
            key = hash_function(key).digest()
        pad = key.ljust(block_length, b"\0")
        inner: bytes = hash_function(pad.translate(_IPAD) + message).digest()
        outer: bytes = hash_function(pad.translate(_OPAD) + inner).digest()
        return outer

    return hmac


def _extract_with(hash_function: Callable[[bytes], Any], block_length: int) -> Extract:
    """Make HMAC under the empty key, which is HKDF-Extract without a salt: the hashed pads are always the same."""
    pad = bytes(block_length)
    inner = hash_function(pad.translate(_IPAD)).copy
    outer = hash_function(pad.translate(_OPAD)).copy

    def extract(message: bytes) -> bytes:
        first, second = inner(), outer()
        first.update(message)
        second.update(first.digest())
        digest: bytes = second.digest()
        return digest

    return extract


def _hmacs_with(
    hash_function: Callable[[bytes], Any], block_length: int
) -> Callable[[bytes, Sequence[bytes]], list[bytes]]:
    """Make HMAC under one key for several messages, one at least: the key's pads are made and hashed once."""

    def hmacs(key: bytes, messages: Sequence[bytes]) -> list[bytes]:
        if len(key) > block_length:
            key = hash_function(key).digest()
        pad = key.ljust(block_length, b"\0")
        inner, outer = hash_function(pad.translate(_IPAD)), hash_function(pad.translate(_OPAD))
        copy_inner, copy_outer, digests = inner.copy, outer.copy, []
        for message in messages[:-1]:
            first, second = copy_inner(), copy_outer()
            first.update(message)
            second.update(first.digest())
            digests.append(second.digest())
        # The last one takes over what the others copied.
        inner.update(messages[-1])
        outer.update(inner.digest())
        digests.append(outer.digest())
        return digests

    return hmacs


def _hmac_pair_with(hash_function: Callable[[bytes], Any], block_length: int) -> HMACPair:
    """Make HMAC under one key for two messages, as most keys of MLS are used.

    The second message takes over the states that the first copied: a fifth less than two HMACs with common pads.
    """

    def hmac_pair(key: bytes, one: bytes, other: bytes) -> tuple[bytes, bytes]:
        if len(key) > block_length:
            key = hash_function(key).digest()
        pad = key.ljust(block_length, b"\0")
        inner, outer = hash_function(pad.translate(_IPAD)), hash_function(pad.translate(_OPAD))
        first, second = inner.copy(), outer.copy()
        first.update(one)
        second.update(first.digest())
        inner.update(other)
        outer.update(inner.digest())
        return second.digest(), outer.digest()

    return hmac_pair


@dataclass(frozen=True, slots=True)
class KDF:
    """HKDF with one hash function (RFC 9180, section 7.2); `hash_length` is Nh, in bytes."""

    kdf_id: int
    name: str
    hash_length: int
    hmac: HMAC
    hmacs: Callable[[bytes, Sequence[bytes]], list[bytes]]
    hmac_pair: HMACPair
    extract: Extract
    """HKDF-Extract without a salt (RFC 5869, section 2.2)."""

    def expand(self, prk: bytes, info: bytes, length: int) -> bytes:
        """Derive `length` bytes from `prk`, at most 255 hash lengths (RFC 5869, section 2.3)."""
        if length <= self.hash_length:
            return self.hmac(prk, info + b"\x01")[:length]
        if length > _MAX_BLOCKS * self.hash_length:
            raise ValueError(
                f"{self.name} gives at most {_MAX_BLOCKS * self.hash_length} bytes, not {length}"
            )
        block = output = b""
        for counter in range(1, -(-length // self.hash_length) + 1):
            block = self.hmac(prk, block + info + bytes((counter,)))
            output += block
        return output[:length]


def _kdf(kdf_id: int, hash_function: Callable[[bytes], Any]) -> KDF:
    state = hash_function(b"")
    block_length: int = state.block_size
    return KDF(
        kdf_id,
        f"HKDF-{state.name.upper()}",
        state.digest_size,
        _hmac_with(hash_function, block_length),
        _hmacs_with(hash_function, block_length),
        _hmac_pair_with(hash_function, block_length),
        _extract_with(hash_function, block_length),
    )


HKDF_SHA256 = _kdf(0x0001, hashlib.sha256)
HKDF_SHA384 = _kdf(0x0002, hashlib.sha384)
HKDF_SHA512 = _kdf(0x0003, hashlib.sha512)
KDFS = {kdf.kdf_id: kdf for kdf in (HKDF_SHA256, HKDF_SHA384, HKDF_SHA512)}


# -- AEAD


@dataclass(frozen=True, slots=True)
class AEAD:
    """An AEAD algorithm (RFC 9180, section 7.3); lengths are Nk and Nn, in bytes."""

    aead_id: int
    name: str
    key_length: int
    nonce_length: int
    cipher: Callable[[bytes], AESGCM | ChaCha20Poly1305]


AES_128_GCM = AEAD(0x0001, "AES-128-GCM", 16, 12, AESGCM)
AES_256_GCM = AEAD(0x0002, "AES-256-GCM", 32, 12, AESGCM)
CHACHA20_POLY1305 = AEAD(0x0003, "ChaCha20Poly1305", 32, 12, ChaCha20Poly1305)
AEADS = {aead.aead_id: aead for aead in (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305)}


# -- KEM


@dataclass(frozen=True, slots=True)
class Curve(Generic[K]):
    """Diffie-Hellman on one curve, as functions over pyca's private key type `K` and serialized public keys.

    `check_public` and `exchange` raise ValueError for what is no public key, or gives the all-zero shared secret.
    `order` is the number below which a private scalar must lie, None where all bytes are private keys; `mask` is
    applied to the first byte of a candidate for a scalar. Lengths are those of serialized keys, in bytes.
    """

    private_length: int
    public_length: int
    load: Callable[[bytes], K]
    public_bytes: Callable[[K], bytes]
    exchange: Callable[[K, bytes], bytes]
    check_public: Callable[[bytes], object]
    order: int | None = None
    mask: int = 0xFF
    releases_gil: bool = False
    """Whether loading keys and exchanging let other threads run."""
    refused: frozenset[bytes] | None = None
    """Where given: all strings of the right length that are no public keys; so many keys are checked at once."""

    def are_public(self, keys: Collection[bytes]) -> bool:
        """Say whether it is plain that all are public keys; False says nothing."""
        if self.refused is None:
            return False
        return self.refused.isdisjoint(keys) and set(map(len, keys)) <= {self.public_length}

    def is_private(self, private: bytes) -> bool:
        """Say whether the bytes are a serialized private key: of the right length, and a scalar in range."""
        if len(private) != self.private_length:
            return False
        return self.order is None or 0 < int.from_bytes(private) < self.order


def _refuse(length: int, low_order: frozenset[bytes]) -> Callable[[bytes], None]:
    """Make the check for a Montgomery curve, on which all strings are points but a few are of low order.

    With those every exchange gives zero (RFC 7748, section 6): whoever put one into a tree would stop all others from
    committing. `low_order` holds every string that stands for one.
    """

    def check(public: bytes) -> None:
        if len(public) != length:
            raise ValueError(f"it has {len(public)} bytes, not {length}")
        if public in low_order:
            raise ValueError("it is a point of low order")

    return check


def _low_order_x25519() -> frozenset[bytes]:
    """Give all strings for points of low order on Curve25519 and its twist: not reduced, the highest bit ignored."""
    p = 2**255 - 19
    order_8 = 0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F
    other_8 = 0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0
    points = (0, 1, order_8, other_8, p - 1, p, p + 1)
    return frozenset((u | bit).to_bytes(32, "little") for u in points for bit in (0, 1 << 255))


def _low_order_x448() -> frozenset[bytes]:
    """Give all strings for points of low order on Curve448 and its twist: not reduced."""
    p = 2**448 - 2**224 - 1
    return frozenset(u.to_bytes(56, "little") for u in (0, 1, p - 1, p, p + 1))


_LOW_ORDER_X25519 = _low_order_x25519()
_LOW_ORDER_X448 = _low_order_x448()


X25519_BY_OPENSSL: Curve[X25519PrivateKey] = Curve(
    private_length=32,
    public_length=32,
    load=X25519PrivateKey.from_private_bytes,
    public_bytes=lambda key: key.public_key().public_bytes_raw(),
    exchange=lambda key, public: key.exchange(X25519PublicKey.from_public_bytes(public)),
    check_public=_refuse(32, _LOW_ORDER_X25519),
    refused=_LOW_ORDER_X25519,
)
_X448: Curve[X448PrivateKey] = Curve(
    private_length=56,
    public_length=56,
    load=X448PrivateKey.from_private_bytes,
    public_bytes=lambda key: key.public_key().public_bytes_raw(),
    exchange=lambda key, public: key.exchange(X448PublicKey.from_public_bytes(public)),
    check_public=_refuse(56, _LOW_ORDER_X448),
    refused=_LOW_ORDER_X448,
)


def nist_point(curve: ec.EllipticCurve, public: bytes) -> ec.EllipticCurvePublicKey:
    """Decode an uncompressed point; ValueError for every other format and for points that are not on the curve."""
    if len(public) != 1 + 2 * ((curve.key_size + 7) // 8):
        raise ValueError("it is not as long as an uncompressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, public)


def nist_public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Encode a private key's public key as an uncompressed point."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _nist(curve: ec.EllipticCurve, order: int) -> Curve[ec.EllipticCurvePrivateKey]:
    length = (curve.key_size + 7) // 8
    ecdh = ec.ECDH()
    return Curve(
        private_length=length,
        public_length=1 + 2 * length,
        load=lambda private: ec.derive_private_key(int.from_bytes(private), curve),
        public_bytes=nist_public_bytes,
        exchange=lambda key, public: key.exchange(ecdh, nist_point(curve, public)),
        check_public=lambda public: nist_point(curve, public),
        order=order,
        mask=0xFF >> (-curve.key_size % 8),
    )


P256_ORDER = 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF
P384_ORDER = 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D
P521_ORDER = 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7


class KEM:
    """A DHKEM (RFC 9180, section 4.1): one curve with the KDF that the registry pairs with it."""

    __slots__ = (
        "_dkp_label",
        "_eae_label",
        "_secret_label",
        "_sk_labels",
        "curve",
        "kdf",
        "kem_id",
        "name",
    )

    def __init__(self, kem_id: int, name: str, curve: Curve[Any], kdf: KDF) -> None:
        self.kem_id = kem_id
        self.name = name
        self.curve = curve
        self.kdf = kdf
        prefix = _VERSION + b"KEM" + kem_id.to_bytes(2)
        length = curve.private_length.to_bytes(2)
        self._eae_label = prefix + b"eae_prk"
        self._secret_label = kdf.hash_length.to_bytes(2) + prefix + b"shared_secret"
        self._dkp_label = prefix + b"dkp_prk"
        self._sk_labels = (
            (length + prefix + b"sk",)
            if curve.order is None
            else tuple(length + prefix + b"candidate" + bytes((n,)) for n in range(256))
        )

    def derive_key_pair(self, ikm: bytes) -> HPKEPrivateKey:
        """Derive a key pair from input keying material (section 7.1.3), which should have Nsk bytes of entropy."""
        curve = self.curve
        dkp_prk = self.kdf.extract(self._dkp_label + ikm)
        for label in self._sk_labels:
            private = self.kdf.expand(dkp_prk, label, curve.private_length)
            if curve.mask != 0xFF:
                private = bytes((private[0] & curve.mask,)) + private[1:]
            if curve.is_private(private):
                return HPKEPrivateKey(self, private)
        raise ValueError(f"{self.name}: no key pair can be derived from this seed; use another")

    def generate(self, rng: RandomSource) -> HPKEPrivateKey:
        """Make a key pair of Nsk bytes from `rng`: by `derive_key_pair`, or those bytes where all are private keys."""
        seed = rng(self.curve.private_length)
        return (
            HPKEPrivateKey(self, seed) if self.curve.order is None else self.derive_key_pair(seed)
        )

    def check_public_key(self, public: bytes) -> None:
        """Raise VerificationError unless the bytes are a public key that a message can be sealed to."""
        try:
            self.curve.check_public(public)
        except ValueError as error:
            raise _bad_public_key(self, error) from None

    def encap(self, public: bytes, rng: RandomSource) -> tuple[bytes, bytes]:
        """Make a shared secret for the holder of `public`: (shared_secret, enc). VerificationError if it is no key."""
        ephemeral = self.generate(rng)
        enc = ephemeral.public
        try:
            dh = self.curve.exchange(ephemeral.key, public)
        except ValueError as error:
            raise _bad_public_key(self, error) from None
        return self._shared_secret(dh, enc + public), enc

    def decap(self, private: HPKEPrivateKey, enc: bytes) -> bytes:
        """Compute the shared secret from `enc`. DecryptionError if that is no public key."""
        try:
            dh = self.curve.exchange(private.key, enc)
        except ValueError:
            raise _cannot_open(f"the KEM output is not a {self.name} public key") from None
        return self._shared_secret(dh, enc + private.public)

    def _shared_secret(self, dh: bytes, kem_context: bytes) -> bytes:
        """ExtractAndExpand of section 4.1; the shared secret is always as long as the hash."""
        kdf = self.kdf
        eae_prk = kdf.extract(self._eae_label + dh)
        return kdf.hmac(eae_prk, self._secret_label + kem_context + b"\x01")


class HPKEPrivateKey(Confidential):
    """A private key with its public key; never shows the former and cannot be pickled.

    The work of loading (one base-point multiplication) is done when a key is first used. `public`, if the caller knows
    it, is taken at its word: a wrong one makes every opening fail.
    """

    __slots__ = ("_key", "_private", "_public", "kem")

    def __init__(self, kem: KEM, private: bytes, public: bytes | None = None) -> None:
        if not kem.curve.is_private(private):
            raise DecodeError(f"these {len(private)} bytes are not a {kem.name} private key")
        self.kem = kem
        self._private = Secret(private)
        self._public = public
        self._key: Any = None

    @property
    def key(self) -> Any:  # noqa: ANN401 - pyca's type differs between curves
        """The key as an object of pyca/cryptography, for exchanges."""
        if self._key is None:
            self._key = self.kem.curve.load(self._private)
        return self._key

    @property
    def public(self) -> bytes:
        """The serialized public key."""
        if self._public is None:
            self._public = self.kem.curve.public_bytes(self.key)
        return self._public

    def private_bytes(self) -> Secret:
        """Return the serialized private key, as RFC 9180 writes it."""
        return self._private

    def __repr__(self) -> str:
        """Show the KEM and nothing of the key."""
        return f"<HPKEPrivateKey {self.kem.name}>"


DHKEM_P256 = KEM(0x0010, "DHKEM(P-256)", _nist(ec.SECP256R1(), P256_ORDER), HKDF_SHA256)
DHKEM_P384 = KEM(0x0011, "DHKEM(P-384)", _nist(ec.SECP384R1(), P384_ORDER), HKDF_SHA384)
DHKEM_P521 = KEM(0x0012, "DHKEM(P-521)", _nist(ec.SECP521R1(), P521_ORDER), HKDF_SHA512)
DHKEM_X25519 = KEM(0x0020, "DHKEM(X25519)", X25519_BY_OPENSSL, HKDF_SHA256)
DHKEM_X448 = KEM(0x0021, "DHKEM(X448)", _X448, HKDF_SHA512)
KEMS = {kem.kem_id: kem for kem in (DHKEM_P256, DHKEM_P384, DHKEM_P521, DHKEM_X25519, DHKEM_X448)}


# -- HPKE


class HPKE:
    """One triple of algorithms, in base mode, one message per encapsulation (RFC 9180, sections 5 and 6).

    Public keys that are none raise
    VerificationError, ciphertexts that do not open DecryptionError; nothing else is raised for bytes from outside.
    """

    __slots__ = (
        "_exp_label",
        "_hmac",
        "_hmac_pair",
        "_info_label",
        "_key_label",
        "_mode_and_psk_id_hash",
        "_nonce_label",
        "_sec_label",
        "_secret_label",
        "aead",
        "kdf",
        "kem",
    )

    def __init__(self, kem: KEM, kdf: KDF, aead: AEAD) -> None:
        self.kem = kem
        self.kdf = kdf
        self.aead = aead
        self._hmac = kdf.hmac
        self._hmac_pair = kdf.hmac_pair
        ids = (kem.kem_id, kdf.kdf_id, aead.aead_id)
        prefix = _VERSION + b"HPKE" + b"".join(number.to_bytes(2) for number in ids)
        self._mode_and_psk_id_hash = b"\0" + kdf.extract(prefix + b"psk_id_hash")
        self._info_label = prefix + b"info_hash"
        self._secret_label = prefix + b"secret"
        self._key_label = aead.key_length.to_bytes(2) + prefix + b"key"
        self._nonce_label = aead.nonce_length.to_bytes(2) + prefix + b"base_nonce"
        self._exp_label = kdf.hash_length.to_bytes(2) + prefix + b"exp"
        self._sec_label = prefix + b"sec"

    # Keys

    def generate(self, rng: RandomSource) -> HPKEPrivateKey:
        """Make a fresh key pair out of `rng`."""
        return self.kem.generate(rng)

    def derive_key_pair(self, ikm: bytes) -> HPKEPrivateKey:
        """DeriveKeyPair (section 7.1.3): always the same key pair from the same `ikm`."""
        return self.kem.derive_key_pair(ikm)

    def load(self, private: bytes, public: bytes | None = None) -> HPKEPrivateKey:
        """Take a serialized private key; knowing its public key saves computing it. DecodeError if it is none."""
        return HPKEPrivateKey(self.kem, private, public)

    def check_public_key(self, public: bytes) -> None:
        """Raise VerificationError unless a message can be sealed to this public key."""
        self.kem.check_public_key(public)

    def check_public_keys(self, keys: Sequence[bytes]) -> None:
        """Raise what `check_public_key` does for the first one that is none."""
        if not self.kem.curve.are_public(keys):
            for public in keys:
                self.kem.check_public_key(public)

    # Messages

    def sealer(self, info: bytes) -> Sealer:
        """Prepare to seal to many recipients under the same `info`."""
        return Sealer(self, self._context(info))

    def seal(
        self, public: bytes, info: bytes, aad: bytes, plaintext: bytes, rng: RandomSource
    ) -> tuple[bytes, bytes]:
        """SealBase (section 6.1): returns (kem_output, ciphertext)."""
        shared_secret, kem_output = self.kem.encap(public, rng)
        key, nonce = self._key_and_nonce(shared_secret, self._context(info))
        return kem_output, self.aead.cipher(key).encrypt(nonce, plaintext, aad)

    def open(
        self, private: HPKEPrivateKey, kem_output: bytes, info: bytes, aad: bytes, ciphertext: bytes
    ) -> Secret:
        """OpenBase (section 6.1): returns the plaintext, or raises DecryptionError."""
        shared_secret = self.kem.decap(private, kem_output)
        key, nonce = self._key_and_nonce(shared_secret, self._context(info))
        try:
            return Secret(self.aead.cipher(key).decrypt(nonce, ciphertext, aad))
        except InvalidTag:
            raise _cannot_open("its tag does not verify under this private key") from None

    def export_seal(
        self, public: bytes, info: bytes, exporter_context: bytes, length: int, rng: RandomSource
    ) -> tuple[bytes, Secret]:
        """SendExportBase (section 6.2): returns (kem_output, a secret of `length` bytes)."""
        shared_secret, kem_output = self.kem.encap(public, rng)
        return kem_output, self._export(shared_secret, info, exporter_context, length)

    def export_open(
        self,
        private: HPKEPrivateKey,
        kem_output: bytes,
        info: bytes,
        exporter_context: bytes,
        length: int,
    ) -> Secret:
        """ReceiveExportBase (section 6.2): returns a secret of `length` bytes."""
        shared_secret = self.kem.decap(private, kem_output)
        return self._export(shared_secret, info, exporter_context, length)

    # The key schedule of section 5.1, for mode base: no PSK

    def _context(self, info: bytes) -> bytes:
        """Compute key_schedule_context, which depends on `info` alone."""
        return self._mode_and_psk_id_hash + self.kdf.extract(self._info_label + info)

    def _key_and_nonce(self, shared_secret: bytes, context: bytes) -> tuple[bytes, bytes]:
        secret = self._hmac(shared_secret, self._secret_label)
        end = context + b"\x01"
        key, nonce = self._hmac_pair(secret, self._key_label + end, self._nonce_label + end)
        return key[: self.aead.key_length], nonce[: self.aead.nonce_length]

    def _export(
        self, shared_secret: bytes, info: bytes, exporter_context: bytes, length: int
    ) -> Secret:
        secret = self._hmac(shared_secret, self._secret_label)
        exporter_secret = self._hmac(secret, self._exp_label + self._context(info) + b"\x01")
        label = length.to_bytes(2) + self._sec_label + exporter_context
        return Secret(self.kdf.expand(exporter_secret, label, length))


class Sealer:
    """Seals to any number of recipients under one `info` and no associated data."""

    __slots__ = ("_context", "_hpke")

    def __init__(self, hpke: HPKE, context: bytes) -> None:
        self._hpke = hpke
        self._context = context

    def seal(self, public: bytes, plaintext: bytes, rng: RandomSource) -> tuple[bytes, bytes]:
        """SealBase (section 6.1): returns (kem_output, ciphertext)."""
        hpke = self._hpke
        shared_secret, kem_output = hpke.kem.encap(public, rng)
        key, nonce = hpke._key_and_nonce(shared_secret, self._context)  # noqa: SLF001 - same module
        return kem_output, hpke.aead.cipher(key).encrypt(nonce, plaintext, b"")

    def seal_many(
        self,
        jobs: Iterable[tuple[bytes, bytes]],
        rng: RandomSource,
        run: Callable[..., Iterable[Any]] = map,
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `seal` for each (public key, plaintext), in order.

        `run` is `map` or an executor's, used where the curve lets other threads run. All that `rng` gives is taken in
        the order of the jobs, in this thread: the result is the same whoever runs.
        """
        curve = self._hpke.kem.curve
        if run is map or not curve.releases_gil:
            for public, plaintext in jobs:
                yield self.seal(public, plaintext, rng)
            return
        drawn = ((public, plaintext, rng(curve.private_length)) for public, plaintext in jobs)
        for sealed in run(self._seal_batch, _batches(drawn)):
            yield from sealed

    def _seal_batch(self, batch: list[tuple[bytes, bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [
            self.seal(public, plaintext, lambda _length, seed=seed: seed)  # type: ignore[misc]
            for public, plaintext, seed in batch
        ]


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _bad_public_key(kem: KEM, cause: Exception) -> VerificationError:
    return VerificationError(
        f"not a {kem.name} public key: {cause}; refuse what it came in",
        rule=Rule.HPKE_PUBLIC_KEY,
    )


def _cannot_open(why: str) -> DecryptionError:
    return DecryptionError(f"an HPKE ciphertext does not open: {why}", rule=Rule.HPKE_CIPHERTEXT)
