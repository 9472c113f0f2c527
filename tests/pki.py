"""Certificates with one thing wrong: a builder with a knob for everything that verification checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.authentication.ca import key_usage
from coterie.identity.names import DeviceId, UserId

NOW = 1_800_000_000
DAY = 86_400
REALM = "example.org"
ALICE = DeviceId(UserId("alice", REALM), "a1" * 16)
ALICE_TABLET = DeviceId(UserId("alice", REALM), "a2" * 16)
BOB = DeviceId(UserId("bob", REALM), "b1" * 16)

KEY_KINDS: dict[str, Any] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
}
_HASHES: dict[str, Any] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def raw(private_key: Any) -> bytes:
    """The public key as MLS encodes it."""
    public = private_key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return bytes(public.public_bytes_raw())


def sign(private_key: Any, content: bytes) -> bytes:
    """A signature as MLS encodes it."""
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        return private_key.sign(content, ec.ECDSA(_HASHES[private_key.curve.name]))
    return bytes(private_key.sign(content))


def name(common_name: str) -> x509.Name:
    """A subject with a common name, or the empty one."""
    pairs = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(pairs)


@dataclass(frozen=True)
class Recipe:
    """One certificate; replace what shall be wrong with it."""

    subject: str
    uris: tuple[str, ...]
    constraints: tuple[bool, int | None] | None
    usages: tuple[str, ...] | None
    start: int = NOW - DAY
    end: int = NOW + 30 * DAY
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def build(self, issuer: Recipe | None = None, *, signer: Any = None) -> bytes:
        """The DER certificate, signed by the issuer (itself if None) or by another key."""
        issuer = self if issuer is None else issuer
        signing_key = issuer.key if signer is None else signer
        builder = (
            x509.CertificateBuilder(name(issuer.subject), name(self.subject), self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(self.start, UTC))
            .not_valid_after(datetime.fromtimestamp(self.end, UTC))
        )
        for extension, critical in self._extensions(issuer):
            builder = builder.add_extension(extension, critical=critical)
        curve = getattr(getattr(signing_key, "curve", None), "name", "")
        return builder.sign(signing_key, _HASHES.get(curve)).public_bytes(Encoding.DER)

    def _extensions(self, issuer: Recipe) -> list[tuple[x509.ExtensionType, bool]]:
        found: list[tuple[x509.ExtensionType, bool]] = list(self.extra)
        if self.constraints is not None:
            found.append((x509.BasicConstraints(*self.constraints), True))
        if self.usages is not None:
            found.append((key_usage(*self.usages), True))
        if self.uris:
            values = [x509.UniformResourceIdentifier(uri) for uri in self.uris]
            found.append((x509.SubjectAlternativeName(values), not self.subject))
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        found.append((identifier, False))
        if issuer is not self:
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
            found.append((authority, False))
        return found

    def but(self, **changes: Any) -> Recipe:
        """The same with some things changed."""
        return replace(self, **changes)


def root(realm: str = REALM, path_length: int | None = None) -> Recipe:
    """A sound root of a realm."""
    uris = (f"mimi://{realm}",)
    return Recipe(f"Root of {realm}", uris, (True, path_length), ("key_cert_sign", "crl_sign"))


def intermediate() -> Recipe:
    """A sound CA below a root."""
    return Recipe("Intermediate", (), (True, None), ("key_cert_sign", "crl_sign"))


def leaf(device: DeviceId = ALICE, key: Any = None) -> Recipe:
    """A sound device's certificate."""
    key = ed25519.Ed25519PrivateKey.generate() if key is None else key
    uris = (device.user.uri, device.uri)
    return Recipe("", uris, (False, None), ("digital_signature",), key=key)
