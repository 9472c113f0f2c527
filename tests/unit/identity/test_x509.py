"""Chains of certificates: every rule of `coterie.identity.x509`, with a chain that breaks it and one that does not."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import CoterieError, DecodeError, VerificationError
from coterie.identity.rules import CredentialRule
from coterie.identity.x509 import (
    _KNOWN,
    MAX_CHAIN,
    Anchor,
    ChainVerifier,
    forget_end_entities,
    load_certificate,
)
from tests import pki
from tests.pki import ALICE, BOB, DAY, KEY_KINDS, NOW, Recipe, raw

ROOT = pki.root()
VERIFIER = ChainVerifier([ROOT.build()])


def refused(chain: list[bytes], key: bytes, *, now: int | None = NOW, by: Any = VERIFIER) -> str:
    with pytest.raises((VerificationError, DecodeError)) as caught:
        by.verify(chain, key, now=now)
    assert caught.value.rule is not None
    return caught.value.rule


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("now", [NOW, None])
def test_a_sound_certificate_names_its_device_whatever_kind_of_key_it_has(
    kind: str, now: int | None
) -> None:
    recipe = pki.leaf(key=KEY_KINDS[kind]())
    assert VERIFIER.verify([recipe.build(ROOT)], raw(recipe.key), now=now) == ALICE


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_a_root_may_have_either_curve(curve: Any) -> None:
    root = ROOT.but(key=ec.generate_private_key(curve()))
    recipe = pki.leaf()
    chain = [recipe.build(root)]
    assert ChainVerifier([root.build()]).verify(chain, raw(recipe.key), now=NOW) == ALICE


def test_an_intermediate_leads_to_the_root_and_the_root_may_be_sent_along() -> None:
    middle, recipe = pki.intermediate(), pki.leaf()
    chain = [recipe.build(middle), middle.build(ROOT)]
    assert VERIFIER.verify(chain, raw(recipe.key), now=NOW) == ALICE
    sent_along = [*chain, ROOT.build()]
    assert VERIFIER.verify(sent_along, raw(recipe.key), now=NOW) == ALICE
    assert refused(chain[:1], raw(recipe.key)) == CredentialRule.CHAIN


def test_a_certificate_for_another_key_is_refused() -> None:
    assert refused([pki.leaf().build(ROOT)], raw(pki.leaf().key)) == CredentialRule.LEAF_KEY


def test_a_root_that_is_not_an_anchor_is_refused_even_if_it_has_the_same_name() -> None:
    recipe, other = pki.leaf(), pki.root()
    assert refused([recipe.build(other)], raw(recipe.key)) == CredentialRule.CHAIN
    assert refused([recipe.build(other), other.build()], raw(recipe.key)) == CredentialRule.CHAIN


WRONG_LEAVES: dict[str, dict[str, Any]] = {
    "is a CA": {"constraints": (True, None)},
    "may also sign certificates": {"usages": ("digital_signature", "key_cert_sign")},
    "may also sign lists": {"usages": ("digital_signature", "crl_sign")},
    "may not sign": {"usages": ("key_agreement",)},
    "does not say what its key is for": {"usages": None},
    "has no alternative name": {"uris": ()},
    "has a critical extension that nobody knows": {
        "extra": (
            (
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\5\0"),
                True,
            ),
        )
    },
    "is for servers only": {
        "extra": ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),)
    },
}


@pytest.mark.parametrize("what", WRONG_LEAVES)
@pytest.mark.parametrize("now", [NOW, None])
def test_an_end_entity_is_refused_that(what: str, now: int | None) -> None:
    recipe = pki.leaf().but(**WRONG_LEAVES[what])
    assert refused([recipe.build(ROOT)], raw(recipe.key), now=now) == CredentialRule.CHAIN


WRONG_SUBJECTS = {
    "no device": (ALICE.user.uri,),
    "no user": (ALICE.uri,),
    "another user than its device's": (BOB.user.uri, ALICE.uri),
    "two users": (ALICE.user.uri, BOB.user.uri, ALICE.uri),
    "two devices": (ALICE.user.uri, ALICE.uri, pki.ALICE_TABLET.uri),
    "another kind of thing beside": (ALICE.user.uri, ALICE.uri, "mimi://example.org/r/room"),
    "only what is not ours": ("https://example.org/alice",),
    "a user in capitals": ("mimi://example.org/u/Alice", ALICE.uri),
}


@pytest.mark.parametrize("what", WRONG_SUBJECTS)
def test_an_end_entity_is_refused_that_names(what: str) -> None:
    recipe = pki.leaf().but(uris=WRONG_SUBJECTS[what])
    rule = refused([recipe.build(ROOT)], raw(recipe.key))
    assert rule in {CredentialRule.SUBJECT, CredentialRule.USER_NAME}


WRONG_AUTHORITIES: dict[str, dict[str, Any]] = {
    "is no CA": {"constraints": (False, None)},
    "has no basic constraints": {"constraints": None},
    "may not sign certificates": {"usages": ("crl_sign",)},
    "is not valid yet": {"start": NOW + DAY},
    "is no longer valid": {"end": NOW - 3600},
    "has an Ed25519 key": {"key": ed25519.Ed25519PrivateKey.generate()},
}


@pytest.mark.parametrize("what", WRONG_AUTHORITIES)
def test_an_intermediate_is_refused_that(what: str) -> None:
    middle, recipe = pki.intermediate().but(**WRONG_AUTHORITIES[what]), pki.leaf()
    chain = [recipe.build(middle), middle.build(ROOT)]
    assert refused(chain, raw(recipe.key)) == CredentialRule.CHAIN


def test_a_path_longer_than_the_root_allows_is_refused() -> None:
    strict = pki.root(path_length=0)
    by = ChainVerifier([strict.build()])
    middle, recipe = pki.intermediate(), pki.leaf()
    assert by.verify([recipe.build(strict)], raw(recipe.key), now=NOW) == ALICE
    chain = [recipe.build(middle), middle.build(strict)]
    assert refused(chain, raw(recipe.key), by=by) == CredentialRule.CHAIN


def test_a_device_cannot_issue_for_another() -> None:
    insider = pki.leaf(key=ec.generate_private_key(ec.SECP256R1())).but(subject="Insider")
    forged = pki.leaf(BOB)
    chain = [forged.build(insider), insider.build(ROOT)]
    assert refused(chain, raw(forged.key)) == CredentialRule.CHAIN


def test_a_certificate_signed_by_another_key_than_its_issuers_is_refused() -> None:
    recipe = pki.leaf()
    forged = recipe.build(ROOT, signer=ec.generate_private_key(ec.SECP256R1()))
    assert refused([forged], raw(recipe.key)) == CredentialRule.CHAIN


def test_validity_is_judged_at_the_time_given() -> None:
    recipe = pki.leaf()
    chain, key = [recipe.build(ROOT)], raw(recipe.key)
    assert refused(chain, key, now=recipe.start - 1) == CredentialRule.CHAIN
    assert VERIFIER.verify(chain, key, now=recipe.start) == ALICE
    assert VERIFIER.verify(chain, key, now=recipe.end) == ALICE
    assert refused(chain, key, now=recipe.end + 1) == CredentialRule.CHAIN


def test_without_a_time_an_expired_certificate_holds_but_not_one_older_than_its_root() -> None:
    expired = pki.leaf().but(start=NOW - DAY, end=NOW - DAY + 1)
    assert VERIFIER.verify([expired.build(ROOT)], raw(expired.key), now=None) == ALICE
    older = pki.leaf().but(start=ROOT.start - 1)
    assert refused([older.build(ROOT)], raw(older.key), now=None) == CredentialRule.CHAIN


def test_an_expired_root_vouches_for_nobody() -> None:
    root = ROOT.but(end=NOW - 1)
    recipe = pki.leaf()
    by = ChainVerifier([root.build()])
    assert refused([recipe.build(root)], raw(recipe.key), by=by) == CredentialRule.CHAIN


def test_an_anchor_vouches_for_its_own_realm_only() -> None:
    other = pki.root("other.example")
    by = ChainVerifier([ROOT.build(), other.build()])
    recipe = pki.leaf()
    assert by.verify([recipe.build(ROOT)], raw(recipe.key), now=NOW) == ALICE
    assert refused([recipe.build(other)], raw(recipe.key), by=by) == CredentialRule.ANCHOR_REALM


def test_a_chain_has_one_to_eight_certificates() -> None:
    recipe = pki.leaf()
    key, der = raw(recipe.key), recipe.build(ROOT)
    assert refused([], key) == CredentialRule.CHAIN_LENGTH
    many = [der] + [pki.intermediate().build(ROOT) for _ in range(MAX_CHAIN)]
    assert refused(many, key) == CredentialRule.CHAIN_LENGTH
    assert VERIFIER.verify(many[:MAX_CHAIN], key, now=NOW) == ALICE


def test_an_rsa_key_is_no_members_key() -> None:
    recipe = pki.leaf(key=rsa.generate_private_key(65537, 2048))
    assert refused([recipe.build(ROOT)], b"\0" * 32) == CredentialRule.PUBLIC_KEY


def test_bytes_after_a_certificate_are_refused() -> None:
    recipe = pki.leaf()
    assert refused([recipe.build(ROOT) + b"\0"], raw(recipe.key)) == CredentialRule.CERTIFICATE


NO_ANCHORS: dict[str, Recipe] = {
    "no realm": ROOT.but(uris=()),
    "two realms": ROOT.but(uris=("mimi://a.example", "mimi://b.example")),
    "no CA": ROOT.but(constraints=(False, None)),
    "no basic constraints": ROOT.but(constraints=None),
    "no right to sign certificates": ROOT.but(usages=("digital_signature",)),
    "no key usage": ROOT.but(usages=None),
}


@pytest.mark.parametrize("what", NO_ANCHORS)
def test_an_anchor_is_refused_that_has(what: str) -> None:
    with pytest.raises(VerificationError) as caught:
        Anchor(NO_ANCHORS[what].build())
    assert caught.value.rule == CredentialRule.ANCHOR


def test_a_verifier_without_anchors_cannot_be_made() -> None:
    with pytest.raises(VerificationError, match="trust anchor"):
        ChainVerifier([])


def test_errors_do_not_carry_the_certificates_names() -> None:
    recipe = pki.leaf()
    with pytest.raises(VerificationError) as caught:
        VERIFIER.verify([recipe.build(pki.root())], raw(recipe.key), now=NOW)
    assert "alice" not in str(caught.value)


SOUND = pki.leaf()
SOUND_DER = SOUND.build(ROOT)


@given(st.integers(0, len(SOUND_DER) - 1), st.integers(1, 255))
def test_a_certificate_with_any_byte_changed_is_refused_in_our_own_words(at: int, by: int) -> None:
    damaged = bytearray(SOUND_DER)
    damaged[at] ^= by
    with pytest.raises(CoterieError):
        VERIFIER.verify([bytes(damaged)], raw(SOUND.key), now=NOW)


@given(st.binary(max_size=200))
def test_whatever_bytes_arrive_load_certificate_raises_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        load_certificate(data)


def test_reading_certificates_in_several_threads_leaves_the_filters_of_warnings_alone() -> None:
    der, before = ROOT.build(), list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load_certificate, [der] * 400))
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


def test_of_certificates_that_were_read_only_so_many_short_entries_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coterie.identity.x509._MOST_KNOWN", 3)
    forget_end_entities()
    long = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.2"), bytes(9000)),)
    for _ in range(8):
        # Nobody signed it that is trusted: whoever can send bytes can send it.
        recipe = pki.leaf().but(extra=((*long, False),))
        assert refused([recipe.build(pki.root())], raw(recipe.key)) == CredentialRule.CHAIN
        assert 1 <= len(_KNOWN) <= 3
    kept = sum(len(name) + len(read.signature_key) for name, read in _KNOWN.items())
    assert kept <= 3 * (32 + 133)
    forget_end_entities()
    assert not _KNOWN
