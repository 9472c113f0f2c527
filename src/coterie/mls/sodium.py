"""libsodium beside OpenSSL, for Ed25519 and for X25519: faster, and X25519 lets other threads run.

Nothing is used of it until `use_libsodium` is called, which an application does once, before it has keys; it needs the
extra `fast` (PyNaCl). Members who judge a signature differently fork a group, so OpenSSL's verdict stays the only one:

- The two differ where a signature's A or R is a point of small order or A is not canonical (libsodium refuses, OpenSSL
  computes). There are few such strings; where one occurs, OpenSSL is asked.
- Both compute without the cofactor and refuse S >= L. A version of libsodium that does not is found by the cases in
  `_CASES`, and is not used.
- Signatures are the same to the last bit: Ed25519 is deterministic.
- X25519 agrees for all strings: both ignore the highest bit, reduce, and refuse an all-zero result.

`docs/decisions/0111-libsodium-beside-openssl.md` has the table and the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.errors import UnsupportedError
from coterie.mls.crypto import ED25519, SignatureScheme, suite_of
from coterie.mls.hpke import DHKEM_X25519, X25519_BY_OPENSSL, Curve
from coterie.mls.secret import Confidential, Secret

_ED25519_SUITES = (1, 3)
_LONGEST = 1 << 16
"""Longer messages go to OpenSSL: PyNaCl copies what it verifies, twice."""
_LONGEST_SIGNED = 1 << 13
"""As above, for signing, which reads a message twice: OpenSSL hashes faster."""


def _delicate() -> frozenset[bytes]:
    """All strings for points of small order, and all for y-coordinates that are not reduced (RFC 8032, 5.1.3)."""
    p = 2**255 - 19
    order_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    small = (0, 1, p - 1, order_8, p - order_8)
    return frozenset(
        (y | bit).to_bytes(32, "little")
        for y in (*small, *range(p, 1 << 255))
        for bit in (0, 1 << 255)
    )


_DELICATE = _delicate()


@dataclass(slots=True, eq=False, repr=False)
class SodiumKey(Confidential):
    """Seed and public key, which libsodium wants in one string; apart, so that only the seed is a secret."""

    seed: Secret
    public: bytes
    _by_openssl: Ed25519PrivateKey | None = field(default=None, init=False)

    @property
    def by_openssl(self) -> Ed25519PrivateKey:
        """The same key for OpenSSL, loaded at first use: loading takes as long as signing."""
        if self._by_openssl is None:
            self._by_openssl = ED25519.load(self.seed)
        return self._by_openssl

    def __repr__(self) -> str:
        return "<SodiumKey Ed25519>"


@dataclass(frozen=True, slots=True)
class Library:
    """What is used of libsodium: errors are ValueError and InvalidSignature, as OpenSSL's are."""

    verify: Callable[[bytes, bytes, bytes], None]
    """Of public key, signature and message."""
    exchange: Callable[[bytes, bytes], bytes]
    """Of private and public key."""
    public_bytes: Callable[[bytes], bytes]
    """Of a private key."""
    signing_public: Callable[[bytes], bytes]
    """Of a seed: the public key."""
    sign: Callable[[bytes, bytes], bytes]
    """Of seed with public key, and message."""


def load() -> Library:
    """The library as it is; raises `UnsupportedError` where the extra `fast` is not installed."""
    try:
        from nacl import bindings, exceptions  # noqa: PLC0415 - an extra
    except ImportError:
        msg = "PyNaCl is not installed: install coterie[fast]"
        raise UnsupportedError(msg) from None
    open_signed, multiply = bindings.crypto_sign_open, bindings.crypto_scalarmult

    def verify(public: bytes, signature: bytes, message: bytes) -> None:
        if len(public) != 32 or len(signature) != 64:
            raise InvalidSignature
        try:
            open_signed(signature + message, public)
        except exceptions.BadSignatureError:
            raise InvalidSignature from None

    def exchange(private: bytes, public: bytes) -> bytes:
        if len(public) != 32:
            raise ValueError(f"it has {len(public)} bytes, not 32")
        try:
            return multiply(private, public)
        except exceptions.RuntimeError:
            raise ValueError("it is a point of low order") from None

    return Library(
        verify,
        exchange,
        bindings.crypto_scalarmult_base,
        lambda seed: bindings.crypto_sign_seed_keypair(seed)[0],
        lambda key, message: bindings.crypto_sign(message, key)[:64],
    )


# Public key, message, R, S, verdict: made by `python -m bench.edge_cases`.
_CASES: tuple[tuple[str, str, str, str, bool], ...] = (
    (  # honest
        "0f34e1337dd67e79fb9be07159c9637202775a23bbc03fc89a44ea7158e20873",
        "6d657373616765",
        "be3c3b354d2fae11a013e1ce8fe9209a6b2bdb21853745538c85c0ce08bb403b",
        "581187cc668ffc15ada61fcfd80a8f2c81f8ea317615f53667bf6c6445597f0e",
        True,
    ),
    (  # S + 1 L
        "0f34e1337dd67e79fb9be07159c9637202775a23bbc03fc89a44ea7158e20873",
        "6d657373616765",
        "be3c3b354d2fae11a013e1ce8fe9209a6b2bdb21853745538c85c0ce08bb403b",
        "45e57c2981f20e6e83431772b7046e4181f8ea317615f53667bf6c6445597f1e",
        False,
    ),
    (  # A of mixed order, equation holds
        "0948876618284039cdacc6ea81b796eea4c7903a76a1c3a825cfad86b34d87ea",
        "34",
        "be3c3b354d2fae11a013e1ce8fe9209a6b2bdb21853745538c85c0ce08bb403b",
        "776a73108daa38fa94f81dbf63754ffcec769a2b361270cf3c4dda579622870c",
        True,
    ),
    (  # A of mixed order, holds only times 8
        "0948876618284039cdacc6ea81b796eea4c7903a76a1c3a825cfad86b34d87ea",
        "30",
        "be3c3b354d2fae11a013e1ce8fe9209a6b2bdb21853745538c85c0ce08bb403b",
        "716262b6f0091ff111dafc5fac7f2fdd8c315ce80bf11d4b854415a1b791f307",
        False,
    ),
    (  # R of mixed order, holds only times 8
        "0f34e1337dd67e79fb9be07159c9637202775a23bbc03fc89a44ea7158e20873",
        "6d657373616765",
        "6e264c3a1bb902a6c668711ed8b3d8b7ded9f26c724b323800c8b5fe147f2931",
        "b329ac30d22818ccb87e7ac0a5aed6ceae70c87c7faffe66ac5266dd4784b800",
        False,
    ),
    (  # A and R of mixed order, equation holds
        "0948876618284039cdacc6ea81b796eea4c7903a76a1c3a825cfad86b34d87ea",
        "3136",
        "f56133b597ab9a9e3d049e1b264df1f41f49e851d7884e0d0f1ef842231bcc68",
        "9a7fd37008f73f93fc5c52d36edd805f57590d7aa4acdf3985f58c7320aa9a00",
        True,
    ),
)


def check(library: Library) -> None:
    """Raises `UnsupportedError` where a library judges what distinguishes libraries otherwise than OpenSSL does."""
    for *strings, valid in _CASES:
        public, message, r, s = map(bytes.fromhex, strings)
        try:
            library.verify(public, r + s, message)
        except (InvalidSignature, ValueError):
            accepted = False
        else:
            accepted = True
        if accepted is not valid:
            msg = "this libsodium verifies signatures by another equation than OpenSSL: not used"
            raise UnsupportedError(msg)


def verifier(library: Library) -> Callable[[bytes, bytes, bytes], None]:
    """Verifies Ed25519 by a library with OpenSSL's verdict, whatever the bytes are."""
    quick, careful = library.verify, ED25519.verify

    def verify(public: bytes, signature: bytes, message: bytes) -> None:
        if public in _DELICATE or signature[:32] in _DELICATE or len(message) > _LONGEST:
            careful(public, signature, message)
        else:
            quick(public, signature, message)

    return verify


def signer(library: Library) -> SignatureScheme[SodiumKey]:
    """Ed25519, signing by a library and verifying by it with OpenSSL's verdict."""
    quick, by_openssl = library.sign, ED25519.sign

    def sign(key: SodiumKey, message: bytes) -> bytes:
        if len(message) > _LONGEST_SIGNED:
            return by_openssl(key.by_openssl, message)
        return quick(key.seed + key.public, message)

    return SignatureScheme(
        name=ED25519.name,
        private_length=ED25519.private_length,
        load=lambda private: SodiumKey(Secret(private), library.signing_public(private)),
        public_bytes=lambda key: key.public,
        sign=sign,
        verify=verifier(library),
        check_public=ED25519.check_public,
        public_length=ED25519.public_length,
    )


def use_libsodium() -> None:
    """From now on, in all groups of this process; call it before there are keys.

    Raises `UnsupportedError` where the extra `fast` is not installed, or its libsodium judges otherwise than OpenSSL;
    then nothing has changed.
    """
    library = load()
    check(library)
    scheme = signer(library)
    for number in _ED25519_SUITES:
        suite_of(number).signature = scheme
    DHKEM_X25519.curve = Curve(
        private_length=X25519_BY_OPENSSL.private_length,
        public_length=X25519_BY_OPENSSL.public_length,
        load=lambda private: private,
        public_bytes=library.public_bytes,
        exchange=library.exchange,
        check_public=X25519_BY_OPENSSL.check_public,
        releases_gil=True,
        refused=X25519_BY_OPENSSL.refused,
    )


def use_openssl() -> None:
    """Undoes `use_libsodium`; HPKE keys that were used in between must not be used on."""
    for number in _ED25519_SUITES:
        suite_of(number).signature = ED25519
    DHKEM_X25519.curve = X25519_BY_OPENSSL
