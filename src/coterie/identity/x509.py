"""Chains of X.509 certificates: from a leaf's signature key to a trust anchor (RFC 9420 §5.3, RFC 5280 §6).

pyca's verifier builds the path and checks signatures, names, basic constraints, path length, key usage, validity and
critical extensions; around it stands what it leaves to its caller: that the certificate's key is the leaf's, that the
end entity may sign, which user and device it names, that the anchor vouches for that realm, and revocation.

`now` is seconds since 1970, or None for a verdict that must be the same for every member at any time: then the chain is
judged as of the moment from which the end entity's certificate is valid, and revocation is not asked for.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
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

_FILTERS = threading.Lock()
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
        # Filters of warnings are the whole process's: of two threads that change them one would leave its own behind.
        with _FILTERS, warnings.catch_warnings():
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


@dataclass(frozen=True, slots=True)
class EndEntity:
    """What a certificate says of the device that it is for, as far as it does not depend on who signed it."""

    signature_key: bytes
    device: DeviceId | None
    """None where it does not name exactly one."""
    misuse: str | None
    """Why the key may not sign as a device, None where it may."""


_KNOWN: dict[bytes, EndEntity] = {}
"""By the certificate's hash: a certificate may be long, and anybody may send many."""
_MOST_KNOWN = 65536


def read_end_entity(der: bytes) -> EndEntity:
    """Reads an end entity's certificate, or remembers it: who joins a group asks for each member's twice.

    Raises `DecodeError` for what is no certificate, or of no kind of key that devices have.
    """
    name = sha256(der).digest()
    known = _KNOWN.get(name)
    if known is None:
        certificate = load_certificate(der)
        signature_key = signature_key_of(certificate.public_key())
        try:
            device = device_of_uris(_uris(certificate))
        except DecodeError:
            device = None
        known = EndEntity(signature_key, device, _misuse(certificate))
        if len(_KNOWN) >= _MOST_KNOWN:
            forget_end_entities()
        _KNOWN[name] = known
    return known


def forget_end_entities() -> None:
    """Forgets what certificates said, which costs no more than reading them again."""
    _KNOWN.clear()


def presented_device(der: bytes) -> DeviceId:
    """The device that an end entity's certificate names; `DecodeError` where it does not name exactly one."""
    return read_end_entity(der).device or device_of_uris(_uris(load_certificate(der)))


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


def _misuse(certificate: x509.Certificate) -> str | None:
    """Why an end entity's key may not sign, or None.

    Not in `_END_ENTITY`, where it would be a call out of the library and back for each: a third of a verification.
    """
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        return "the key usage of the end entity must allow digital signatures, and no certificates or lists"
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None
    return "the end entity must not be a CA" if constraints.ca else None


_END_ENTITY = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.KeyUsage, Criticality.CRITICAL, None)
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
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
        read = read_end_entity(chain[0])
        others = [load_certificate(der) for der in chain[1:]]
        if read.signature_key != signature_key:
            msg = "the certificate is for another key than the leaf's signature key"
            raise VerificationError(msg, rule=CredentialRule.LEAF_KEY)
        path = self._path(x509.load_der_x509_certificate(chain[0]), others, now)
        if read.misuse is not None:
            raise _no_path(read.misuse)
        device = presented_device(chain[0])
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
            raise _no_path(_reason(error)) from error


def _no_path(why: str) -> VerificationError:
    msg = f"the certificate does not lead to a trust anchor: {why}"
    return VerificationError(msg, rule=CredentialRule.CHAIN)


def _reason(error: Exception) -> str:
    # pyca appends a dump of the certificate, which has names in it.
    return str(error).partition(" (encountered processing")[0]
