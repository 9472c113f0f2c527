"""Revocation lists that the CA itself signed and that must not be taken all the same."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from coterie.authentication.ca import DAY, CertificateAuthority
from coterie.errors import VerificationError
from coterie.identity.revocation import RevocationLists
from coterie.identity.rules import CredentialRule
from coterie.identity.x509 import Anchor
from tests.pki import NOW, REALM

CA = CertificateAuthority.create(REALM, now=NOW)
TIME_LENGTH = 15
"""A UTCTime with its header, in bytes."""


def _lists() -> RevocationLists:
    return RevocationLists([Anchor(CA.certificate).certificate])


def _list(number: int = 1) -> bytes:
    return CA.revocation_list([], number=number, now=NOW, lifetime=DAY)


def _sequence(*parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes((size,)) if size < 128 else b"\x81" + bytes((size,))
    return b"\x30" + (length if size < 256 else b"\x82" + size.to_bytes(2)) + body


def _signed(to_be_signed: bytes, like: bytes) -> bytes:
    """A list of these bytes, signed by the CA with the algorithm of another."""
    crl = x509.load_der_x509_crl(like)
    signature = CA._key.sign(to_be_signed, ec.ECDSA(hashes.SHA256()))
    rest = like[like.index(crl.tbs_certlist_bytes) + len(crl.tbs_certlist_bytes) :]
    algorithm = rest[: 2 + rest[1]]
    bits = b"\0" + signature
    return _sequence(to_be_signed, algorithm, b"\x03" + bytes((len(bits),)) + bits)


def _content(der: bytes) -> bytes:
    """The content of a SEQUENCE with a header of three or four bytes."""
    return der[2 + (der[1] & 0x7F) :] if der[1] & 0x80 else der[2:]


def test_what_the_tests_build_is_taken() -> None:
    like = _list()
    content = _content(x509.load_der_x509_crl(like).tbs_certlist_bytes)
    held = _lists()
    held.update(_signed(_sequence(content), like))
    assert held.fresh(NOW)


def test_a_list_without_an_end_is_refused() -> None:
    like = _list()
    content = _content(x509.load_der_x509_crl(like).tbs_certlist_bytes)
    # The first time is when it was made, the second until when it holds.
    second = content.index(b"\x17\x0d", content.index(b"\x17\x0d") + 2)
    endless = _signed(_sequence(content[:second], content[second + TIME_LENGTH :]), like)
    assert x509.load_der_x509_crl(endless).next_update_utc is None
    with pytest.raises(VerificationError, match="until when") as caught:
        _lists().update(endless)
    assert caught.value.rule == CredentialRule.REVOCATION_LIST


def test_a_critical_extension_that_is_not_understood_is_refused() -> None:
    issuer = Anchor(CA.certificate).certificate.subject
    made = x509.load_der_x509_crl(_list())
    assert made.next_update_utc is not None
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(made.last_update_utc)
        .next_update(made.next_update_utc)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for critical in (False, True):
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        der = (
            builder.add_extension(unknown, critical=critical)
            .sign(CA._key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )
        if not critical:
            _lists().update(der)
            continue
        with pytest.raises(VerificationError, match="not understood"):
            _lists().update(der)


def test_the_same_list_may_be_given_twice_and_an_older_one_not() -> None:
    held = _lists()
    for number in (2, 2, 3):
        held.update(_list(number))
    with pytest.raises(VerificationError, match="older than number 3"):
        held.update(_list(2))
