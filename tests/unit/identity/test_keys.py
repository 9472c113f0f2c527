"""Raw signature public keys, and requests signed with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import DecodeError, VerificationError
from coterie.identity.keys import load_public_key, signature_key_of, verify_signature
from coterie.identity.rules import CredentialRule
from tests.pki import KEY_KINDS, raw, sign


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_key_is_read_back_and_verifies_its_own_signatures_only(kind: str) -> None:
    key, other = KEY_KINDS[kind](), KEY_KINDS[kind]()
    assert signature_key_of(load_public_key(raw(key))) == raw(key)
    verify_signature(raw(key), b"content", sign(key, b"content"))
    for content, signature in (
        (b"contenT", sign(key, b"content")),
        (b"content", sign(other, b"content")),
        (b"content", b""),
    ):
        with pytest.raises(VerificationError) as caught:
            verify_signature(raw(key), content, signature)
        assert caught.value.rule == CredentialRule.SIGNATURE


def test_a_point_off_the_curve_a_compressed_one_and_infinity_are_refused() -> None:
    good = raw(KEY_KINDS["P-256"]())
    for bad in (
        good[:-1] + bytes((good[-1] ^ 1,)),
        b"\2" + good[1:33],
        b"\0",
        b"\6" + good[1:],
        b"\4" + bytes(64),
    ):
        with pytest.raises(DecodeError) as caught:
            load_public_key(bad)
        assert caught.value.rule == CredentialRule.PUBLIC_KEY


@given(st.binary(max_size=140).filter(lambda b: len(b) not in (32, 57)))
def test_whatever_bytes_arrive_load_public_key_raises_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        load_public_key(data)
