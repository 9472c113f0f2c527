"""Whether a client is a member already, asked of the index and not of the tree."""

from __future__ import annotations

from bench.shapes import build
from coterie.mls.credential import Credential


def test_a_member_is_known_by_its_credential_and_a_stranger_is_not() -> None:
    group = build(5).member(0)
    assert all(group.has_client(Credential.basic(b"member %d" % n)) for n in range(5))
    assert not group.has_client(Credential.basic(b"member 5"))
