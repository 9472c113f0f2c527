"""The interface of RFC 9750 §4 over X.509, and revocation."""

from __future__ import annotations

import pytest

from coterie.authentication.ca import DAY, CertificateAuthority, Revocation
from coterie.client.cores import on_all_cores
from coterie.errors import CoterieError, VerificationError
from coterie.identity.issuer import X509Issuer, presented_by
from coterie.identity.names import DeviceId
from coterie.identity.revocation import RevocationLists
from coterie.identity.rules import CredentialRule
from coterie.identity.x509 import Anchor, load_certificate
from coterie.mls.credential import Credential, authenticate_all
from tests import pki
from tests.pki import ALICE, ALICE_TABLET, BOB, NOW, REALM, raw

KEY = raw(pki.leaf().key)
CA = CertificateAuthority.create(REALM, now=NOW)
ISSUER = X509Issuer([CA.certificate])


def credential(device: DeviceId, key: bytes = KEY) -> Credential:
    return Credential.x509((CA.issue(device, key, now=NOW, lifetime=30 * DAY),))


def lists() -> RevocationLists:
    return RevocationLists([Anchor(CA.certificate).certificate])


def serial(of: Credential) -> int:
    return load_certificate(of.identity).serial_number


def test_a_credential_is_valid_for_its_device_and_its_user_and_for_nobody_else() -> None:
    alice = credential(ALICE)
    for reference in (ALICE, ALICE.user):
        assert ISSUER.validate(alice, reference, signature_key=KEY, now=NOW) == ALICE
    for reference in (ALICE_TABLET, BOB, BOB.user):
        with pytest.raises(VerificationError) as caught:
            ISSUER.validate(alice, reference, signature_key=KEY, now=NOW)
        assert caught.value.rule == CredentialRule.REFERENCE


def test_the_cores_hook_accepts_what_holds_and_raises_verification_error_for_the_rest() -> None:
    ISSUER.authenticate(credential(ALICE), KEY, now=None)
    for bad in (
        Credential.basic(b"alice"),
        Credential.x509(()),
        Credential.x509((b"junk",)),
        credential(ALICE, raw(pki.leaf().key)),
    ):
        with pytest.raises(VerificationError):
            ISSUER.authenticate(bad, KEY, now=NOW)


def test_same_client_is_one_device_and_same_user_one_user() -> None:
    renewed = credential(ALICE, raw(pki.leaf().key))
    assert ISSUER.same_client(credential(ALICE), renewed)
    assert ISSUER.client_id(credential(ALICE)) == ISSUER.client_id(renewed)
    assert ISSUER.client_id(credential(ALICE)) != ISSUER.client_id(credential(ALICE_TABLET))
    assert not ISSUER.same_client(credential(ALICE), credential(ALICE_TABLET))
    assert ISSUER.same_user(credential(ALICE), credential(ALICE_TABLET))
    assert not ISSUER.same_user(credential(ALICE), credential(BOB))


def test_what_names_nobody_is_the_same_as_nothing() -> None:
    for nobody in (Credential.basic(b"alice"), Credential.x509(()), Credential.x509((b"junk",))):
        assert not ISSUER.same_client(nobody, nobody)
        assert not ISSUER.same_user(nobody, nobody)
        with pytest.raises(VerificationError):
            ISSUER.client_id(nobody)
        with pytest.raises(CoterieError):
            presented_by(nobody)


def test_a_successor_is_of_the_same_device() -> None:
    ISSUER.valid_successor(credential(ALICE), credential(ALICE, raw(pki.leaf().key)))
    for other in (ALICE_TABLET, BOB):
        with pytest.raises(VerificationError) as caught:
            ISSUER.valid_successor(credential(ALICE), credential(other))
        assert caught.value.rule == CredentialRule.SUCCESSOR


def test_a_revoked_certificate_is_refused_at_a_time_and_not_where_no_time_counts() -> None:
    alice, bob = credential(ALICE), credential(BOB)
    held = lists()
    issuer = X509Issuer([CA.certificate], revocations=held)
    revoked = [Revocation(serial(alice), NOW)]
    held.update(CA.revocation_list(revoked, number=1, now=NOW, lifetime=DAY))
    issuer.authenticate(bob, KEY, now=NOW)
    issuer.authenticate(alice, KEY, now=None)
    with pytest.raises(VerificationError) as caught:
        issuer.authenticate(alice, KEY, now=NOW)
    assert caught.value.rule == CredentialRule.REVOKED


def test_without_a_list_in_force_nobody_is_accepted() -> None:
    held = lists()
    issuer = X509Issuer([CA.certificate], revocations=held)
    assert not held.fresh(NOW)
    with pytest.raises(VerificationError) as caught:
        issuer.authenticate(credential(ALICE), KEY, now=NOW)
    assert caught.value.rule == CredentialRule.REVOCATION_UNKNOWN
    held.update(CA.revocation_list([], number=1, now=NOW, lifetime=DAY))
    assert held.fresh(NOW + DAY)
    issuer.authenticate(credential(ALICE), KEY, now=NOW + DAY)
    assert not held.fresh(NOW + DAY + 1)
    with pytest.raises(VerificationError) as caught:
        issuer.authenticate(credential(ALICE), KEY, now=NOW + DAY + 1)
    assert caught.value.rule == CredentialRule.REVOCATION_UNKNOWN


def test_an_older_list_does_not_replace_a_newer_one() -> None:
    alice, held = credential(ALICE), lists()
    issuer = X509Issuer([CA.certificate], revocations=held)
    old = CA.revocation_list([], number=1, now=NOW, lifetime=30 * DAY)
    held.update(old)
    held.update(
        CA.revocation_list([Revocation(serial(alice), NOW)], number=2, now=NOW, lifetime=DAY)
    )
    with pytest.raises(VerificationError) as caught:
        held.update(old)
    assert caught.value.rule == CredentialRule.REVOCATION_LIST
    with pytest.raises(VerificationError) as caught:
        issuer.authenticate(alice, KEY, now=NOW)
    assert caught.value.rule == CredentialRule.REVOKED


def test_a_list_by_somebody_else_or_changed_on_the_way_is_refused() -> None:
    held = lists()
    other = CertificateAuthority.create(REALM, now=NOW)
    good = CA.revocation_list([], number=1, now=NOW, lifetime=DAY)
    changed = good[:-1] + bytes((good[-1] ^ 1,))
    for bad in (
        other.revocation_list([], number=9, now=NOW, lifetime=DAY),
        changed,
        b"",
        good + b"\0",
    ):
        with pytest.raises(VerificationError) as caught:
            held.update(bad)
        assert caught.value.rule == CredentialRule.REVOCATION_LIST
    assert not held.fresh(NOW)


def test_several_threads_may_ask_at_once() -> None:
    assert ISSUER.thread_safe
    good = [(credential(ALICE), KEY) for _ in range(200)]
    authenticate_all(ISSUER, good, now=NOW, run=on_all_cores)
    bad = [*good[:150], (credential(BOB, raw(pki.leaf().key)), KEY), *good[150:]]
    with pytest.raises(VerificationError) as caught:
        authenticate_all(ISSUER, bad, now=NOW, run=on_all_cores)
    assert caught.value.rule == CredentialRule.LEAF_KEY
