"""Names of users and devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import DecodeError
from coterie.identity.names import (
    DeviceId,
    UserId,
    device_of_uris,
    realm_of_uri,
    realm_uri,
)
from coterie.identity.rules import CredentialRule

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
REALMS = st.sampled_from(["localhost", "example.org", "a-b.c3.example"])
DEVICES = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)


@given(NAMES, REALMS, DEVICES)
def test_a_device_is_read_back_from_its_two_uris(name: str, realm: str, device: str) -> None:
    expected = DeviceId(UserId(name, realm), device)
    assert device_of_uris([expected.uri, expected.user.uri]) == expected
    assert UserId.parse(str(expected.user)) == expected.user


@pytest.mark.parametrize(
    "name",
    ["", "Alice", "al ice", "ålice", ".alice", "-a", "a" * 65, "a/b", "a\n", "a@b", "\u0430lice"],
)
def test_a_user_name_is_refused(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        UserId(name, "example.org")
    assert caught.value.rule == CredentialRule.USER_NAME


@pytest.mark.parametrize(
    "realm", ["", "Example.org", "a..b", "-a.b", "a-.b", "a b", "a" * 64, "a/b", "a:1", "ab." * 90]
)
def test_a_realm_is_refused(realm: str) -> None:
    with pytest.raises(DecodeError) as caught:
        UserId("alice", realm)
    assert caught.value.rule == CredentialRule.REALM


@pytest.mark.parametrize("device", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(DecodeError) as caught:
        DeviceId(UserId("alice", "example.org"), device)
    assert caught.value.rule == CredentialRule.DEVICE


def test_a_bare_name_is_of_the_default_realm_and_of_none_without_one() -> None:
    assert UserId.parse("alice", default_realm="example.org") == UserId("alice", "example.org")
    assert UserId.parse("alice@b.example", default_realm="example.org").realm == "b.example"
    with pytest.raises(DecodeError, match="names no realm"):
        UserId.parse("alice")


def test_a_realms_uri_names_the_realm_and_others_do_not() -> None:
    assert realm_of_uri(realm_uri("example.org")) == "example.org"
    for uri in ("mimi://example.org/u/alice", "https://example.org", "example.org", "mimi://"):
        assert realm_of_uri(uri) is None
