"""The certificate authority: one ECDSA key that signs devices' certificates and the list of the revoked ones.

It signs what it is told; who may have which certificate is decided in `service`. The root's key is ECDSA, as pyca's
verifier accepts no Ed25519 issuer. Devices' keys are of any kind that a cipher suite needs, and only their public half
ever comes here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coterie.errors import StorageError
from coterie.identity.keys import load_public_key
from coterie.identity.names import DeviceId, realm_uri
from coterie.identity.x509 import Anchor

HOUR: Final = 3600
DAY: Final = 24 * HOUR
ROOT_LIFETIME: Final = 20 * 365 * DAY
_HASHES: Final[dict[str, hashes.SHA256 | hashes.SHA384]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}


@dataclass(frozen=True, slots=True)
class Revocation:
    """A certificate that is no longer valid, by its serial number; `at` is in seconds since 1970."""

    serial: int
    at: int


def key_usage(*uses: str) -> x509.KeyUsage:
    """The extension that allows `uses`, named as pyca names them, and nothing else."""
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in uses for name in names.split()})


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class CertificateAuthority:
    """A root key and its self-signed certificate, which is the trust anchor of one realm."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate_der: bytes) -> None:
        anchor = Anchor(certificate_der)
        if anchor.certificate.public_key() != key.public_key():
            msg = "the root certificate is not for the root key; the two files must belong together"
            raise StorageError(msg)
        self.certificate = certificate_der
        self.realm = anchor.realm
        self._key = key
        self._subject = anchor.certificate.subject
        self._hash = _HASHES[key.curve.name]

    @classmethod
    def create(
        cls, realm: str, *, now: int, key: ec.EllipticCurvePrivateKey | None = None
    ) -> CertificateAuthority:
        """A new root for `realm`, valid for twenty years; `key` is ECDSA P-256 or P-384, a new P-256 key if None."""
        key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        if key.curve.name not in _HASHES:
            msg = f"a root key on {key.curve.name} is not supported; make one on P-256 or P-384"
            raise StorageError(msg)
        # Two roots of one realm must differ in name: revocation lists are found by their issuer's name.
        common_name = f"Coterie {secrets.token_hex(8)}"
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        realm_name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(realm_uri(realm))])
        start = now - now % HOUR - DAY
        builder = (
            x509.CertificateBuilder(subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(start))
            .not_valid_after(_time(start + ROOT_LIFETIME))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(realm_name, critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        certificate = builder.sign(key, _HASHES[key.curve.name])
        return cls(key, certificate.public_bytes(serialization.Encoding.DER))

    def issue(self, device: DeviceId, signature_key: bytes, *, now: int, lifetime: int) -> bytes:
        """A DER certificate that says `device` owns `signature_key` (as MLS encodes it), for `lifetime` seconds.

        It is valid from the beginning of the hour before `now`, for clocks that run behind. Raises `DecodeError` for
        bytes that are no public key.
        """
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(uri) for uri in (device.user.uri, device.uri)]
        )
        start = now - now % HOUR - HOUR
        builder = (
            x509.CertificateBuilder(self._subject, x509.Name([]), load_public_key(signature_key))
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(start))
            .not_valid_after(_time(now + lifetime))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(names, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self._key, self._hash).public_bytes(serialization.Encoding.DER)

    def revocation_list(
        self, revoked: Iterable[Revocation], *, number: int, now: int, lifetime: int
    ) -> bytes:
        """The DER list of all `revoked`, in force until `now + lifetime`; `number` grows with every list."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(_time(now))
            .next_update(_time(now) + timedelta(seconds=lifetime))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(entry.serial)
                .revocation_date(_time(entry.at))
                .build()
            )
        return builder.sign(self._key, self._hash).public_bytes(serialization.Encoding.DER)
