"""Chains of X.509 certificates: from a leaf's signature key to a trust anchor (RFC 9420 §5.3, RFC 5280 §6).

pyca's verifier builds the path and checks signatures, names, basic constraints, path length, key usage, validity and
critical extensions; around it stands what it leaves to its caller: that the certificate's key is the leaf's, that the
end entity may sign, which user and device it names, that the anchor vouches for that realm, and revocation.

`now` is seconds since 1970, or None for a verdict that must be the same for every member at any time: then the chain is
judged as of the moment from which the end entity's certificate is valid, and revocation is not asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
)
from cryptography.x509.verification import (
    VerificationError as PathError,
)

from coterie.errors import DecodeError, VerificationError
from coterie.identity.keys import signature_key_of
from coterie.identity.names import DeviceId, device_of_uris, realm_of_uri
from coterie.identity.revocation import RevocationLists
from coterie.identity.rules import CredentialRule

MAX_CHAIN = 8
"""Certificates in one credential, the end entity's included."""

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def load_certificate(der: bytes) -> x509.Certificate:
    """Reads one DER certificate; raises `DecodeError` for anything else."""
    try:
        with warnings.catch_warnings():
            # What the library will refuse one day (a serial number that is not positive) is refused here today.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            # The lazy parts are read here, so that nothing after this raises on bytes from outside.
            certificate.public_key()
            list(certificate.extensions)
            certificate.subject.public_bytes()
    except (*_UNREADABLE, CryptographyDeprecationWarning) as error:
        msg = f"not a DER certificate: {error}"
        raise DecodeError(msg, rule=CredentialRule.CERTIFICATE) from error
    return certificate


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def presented_device(certificate: x509.Certificate) -> DeviceId:
    """The device that an end entity's certificate names; `DecodeError` where it does not name exactly one."""
    return device_of_uris(_uris(certificate))


class Anchor:
    """A CA certificate that is trusted to vouch for the names of one realm, which its own SAN names.

    Raises `DecodeError` if the bytes are no certificate, `VerificationError` if it is no CA of one realm.
    """

    def __init__(self, der: bytes) -> None:
        self.certificate = load_certificate(der)
        realms = [r for r in map(realm_of_uri, _uris(self.certificate)) if r is not None]
        if len(realms) != 1 or not _is_ca(self.certificate):
            msg = "a trust anchor must be a CA certificate that names its realm, as mimi://realm, once"
            raise VerificationError(msg, rule=CredentialRule.ANCHOR)
        self.realm = realms[0]


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def _may_sign(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        msg = "the key usage of the end entity must allow digital signatures, and no certificates or lists"
        raise ValueError(msg)


def _is_no_ca(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints | None) -> None:
    if constraints is not None and constraints.ca:
        msg = "the end entity must not be a CA"
        raise ValueError(msg)


_END_ENTITY = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.KeyUsage, Criticality.CRITICAL, _may_sign)
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_no_ca)
)
_AUTHORITY = ExtensionPolicy.webpki_defaults_ca()


class ChainVerifier:
    """Verifies chains against trust anchors, and against revocation lists if there are any.

    `anchors` are DER certificates, those that a group pins or an installation trusts.
    """

    def __init__(
        self, anchors: Iterable[bytes], *, revocations: RevocationLists | None = None
    ) -> None:
        self.anchors = tuple(map(Anchor, anchors))
        if not self.anchors:
            msg = "without a trust anchor no certificate can be verified"
            raise VerificationError(msg, rule=CredentialRule.ANCHOR)
        self.revocations = revocations
        self._store = Store([anchor.certificate for anchor in self.anchors])
        self._realms = {anchor.certificate: anchor.realm for anchor in self.anchors}

    def verify(self, chain: Sequence[bytes], signature_key: bytes, *, now: int | None) -> DeviceId:
        """The device that the chain proves to own `signature_key`.

        `chain` is DER certificates, the end entity's first; anchors may be left out. Raises `DecodeError` for bytes
        that are no certificates, `VerificationError` where the chain does not hold.
        """
        if not 1 <= len(chain) <= MAX_CHAIN:
            msg = f"a chain of {len(chain)} certificates; it must have 1 to {MAX_CHAIN}"
            raise VerificationError(msg, rule=CredentialRule.CHAIN_LENGTH)
        leaf, *others = map(load_certificate, chain)
        if signature_key_of(leaf.public_key()) != signature_key:
            msg = "the certificate is for another key than the leaf's signature key"
            raise VerificationError(msg, rule=CredentialRule.LEAF_KEY)
        path = self._path(leaf, others, now)
        device = presented_device(leaf)
        realm = self._realms[path[-1]]
        if device.user.realm != realm:
            msg = f"the authority of {realm} cannot vouch for {device.user}"
            raise VerificationError(msg, rule=CredentialRule.ANCHOR_REALM)
        if self.revocations is not None and now is not None:
            for certificate in path[:-1]:
                self.revocations.check(certificate, now=now)
        return device

    def _path(
        self, leaf: x509.Certificate, others: list[x509.Certificate], now: int | None
    ) -> list[x509.Certificate]:
        time = leaf.not_valid_before_utc if now is None else datetime.fromtimestamp(now, UTC)
        policies = PolicyBuilder().store(self._store).time(time)
        policies = policies.extension_policies(ca_policy=_AUTHORITY, ee_policy=_END_ENTITY)
        try:
            return policies.build_client_verifier().verify(leaf, others).chain
        except (PathError, ValueError, x509.UnsupportedGeneralNameType) as error:
            msg = f"the certificate does not lead to a trust anchor: {_reason(error)}"
            raise VerificationError(msg, rule=CredentialRule.CHAIN) from error


def _reason(error: Exception) -> str:
    # pyca appends a dump of the certificate, which has names in it.
    return str(error).partition(" (encountered processing")[0]
