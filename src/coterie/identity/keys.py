"""Devices' signature keys as MLS writes them (RFC 9420 §5.1.1), and what is signed with them outside a group.

The kind of a key follows from the length of its public key: Ed25519 32 bytes, Ed448 57, and the uncompressed points of
P-256, P-384 and P-521 with 65, 97 and 133. ECDSA signatures are DER over the suite's hash, as in TLS 1.3. What a device
signs for a service starts with a label of its own, so that no such signature can be taken for one inside a group, whose
labels all start with "MLS 1.0 ".
"""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.errors import DecodeError, VerificationError
from coterie.identity.rules import CredentialRule

PublicKey: TypeAlias = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | ec.EllipticCurvePublicKey

_CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {
    65: ec.SECP256R1,
    97: ec.SECP384R1,
    133: ec.SECP521R1,
}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def load_public_key(signature_key: bytes) -> PublicKey:
    """The key behind an MLS SignaturePublicKey; raises `DecodeError` for bytes that are none."""
    try:
        if len(signature_key) == 32:
            return ed25519.Ed25519PublicKey.from_public_bytes(signature_key)
        if len(signature_key) == 57:
            return ed448.Ed448PublicKey.from_public_bytes(signature_key)
        if len(signature_key) in _CURVES and signature_key[0] == 4:
            curve = _CURVES[len(signature_key)]()
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, signature_key)
    except ValueError:
        pass
    msg = (
        f"{len(signature_key)} bytes that are no signature public key: expected Ed25519 (32 bytes), Ed448 (57) "
        "or an uncompressed point of P-256 (65), P-384 (97) or P-521 (133)"
    )
    raise DecodeError(msg, rule=CredentialRule.PUBLIC_KEY)


def signature_key_of(public_key: object) -> bytes:
    """The MLS SignaturePublicKey of a key that was read from a certificate; `DecodeError` for other kinds."""
    if isinstance(public_key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return public_key.public_bytes_raw()
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in _HASHES:
        return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    msg = f"a {type(public_key).__name__} cannot be a member's signature key"
    raise DecodeError(msg, rule=CredentialRule.PUBLIC_KEY)


def verify_signature(signature_key: bytes, content: bytes, signature: bytes) -> None:
    """Raises `VerificationError` unless `signature` is the key's over `content`, `DecodeError` if there is no key.

    `content` must say what it is for (see `coterie.transport`), as the same key signs in groups.
    """
    key = load_public_key(signature_key)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(_HASHES[key.curve.name]))
        else:
            key.verify(signature, content)
    except InvalidSignature:
        msg = "the signature is not by the key that the request names"
        raise VerificationError(msg, rule=CredentialRule.SIGNATURE) from None
