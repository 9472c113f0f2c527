"""Lists of revoked certificates (RFC 5280 §5), since pyca's verifier reads none.

A list counts if one of the known issuers signed it and if it is not older than the one held: a server that shows last
week's list gains nothing. Whoever asks for a verdict at a time gets one only while the list is in force: a list that
cannot be renewed is an error, not a silent pass. Verdicts that must not depend on the time do not come here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509

from coterie.errors import VerificationError
from coterie.identity.rules import CredentialRule

_KNOWN_EXTENSIONS = (x509.CRLNumber.oid, x509.AuthorityKeyIdentifier.oid)


def _refuse(what: str) -> VerificationError:
    return VerificationError(f"revocation list: {what}", rule=CredentialRule.REVOCATION_LIST)


class RevocationLists:
    """The latest list of each issuer; `issuers` are the certificates that may sign lists."""

    def __init__(self, issuers: Iterable[x509.Certificate]) -> None:
        self._issuers = tuple(issuers)
        self._lists: dict[bytes, x509.CertificateRevocationList] = {}
        self._serials: frozenset[int] = frozenset()

    def update(self, der: bytes) -> None:
        """Takes a list in DER. Raises `VerificationError` and keeps the one it has if the new one does not hold."""
        try:
            new = x509.load_der_x509_crl(der)
            number = _number(new)
        except (ValueError, x509.ExtensionNotFound) as error:
            raise _refuse(f"not one DER list with a number ({error})") from error
        unknown = [e.oid for e in new.extensions if e.critical and e.oid not in _KNOWN_EXTENSIONS]
        if unknown:
            raise _refuse(f"it has critical extensions that are not understood: {unknown}")
        if new.next_update_utc is None:
            raise _refuse("it does not say until when it is in force")
        if not any(_signed_by(new, issuer) for issuer in self._issuers):
            raise _refuse("no known issuer signed it")
        held = self._lists.get(new.issuer.public_bytes())
        if held is not None and number < _number(held):
            raise _refuse(f"number {number} is older than number {_number(held)}, which is held")
        self._lists[new.issuer.public_bytes()] = new
        self._serials = frozenset(e.serial_number for crl in self._lists.values() for e in crl)

    def fresh(self, now: int) -> bool:
        """Whether there is a list of every issuer and all are in force at `now` (seconds since 1970)."""
        held = [self._lists.get(issuer.subject.public_bytes()) for issuer in self._issuers]
        return all(crl is not None and _in_force(crl, now) for crl in held)

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers of all certificates that the lists held name, whether they are in force or not."""
        return self._serials

    def check(self, certificate: x509.Certificate, *, now: int) -> None:
        """Raises `VerificationError` if the certificate is revoked or nothing in force at `now` says that it is not."""
        crl = self._lists.get(certificate.issuer.public_bytes())
        if crl is None or not _in_force(crl, now):
            what = "no revocation list" if crl is None else "only an outdated revocation list"
            msg = f"there is {what} of the certificate's issuer; fetch it from the Authentication Service"
            raise VerificationError(msg, rule=CredentialRule.REVOCATION_UNKNOWN)
        serial = certificate.serial_number
        # The library looks through the whole list, and most certificates are in none.
        if serial in self._serials and (
            entry := crl.get_revoked_certificate_by_serial_number(serial)
        ):
            msg = f"the certificate was revoked on {entry.revocation_date_utc:%Y-%m-%d}"
            raise VerificationError(msg, rule=CredentialRule.REVOKED)


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _in_force(crl: x509.CertificateRevocationList, now: int) -> bool:
    # Only `next_update` ends it: a list of the near future, by a clock that is a little ahead, is as good.
    end = crl.next_update_utc
    return end is not None and datetime.fromtimestamp(now, UTC) <= end


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if crl.issuer != issuer.subject:
        return False
    usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    return usage.crl_sign and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
