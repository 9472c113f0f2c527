"""The table of recommendations, against the RFC's text and what is checked in; and those that no other test shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from coterie.errors import VerificationError
from coterie.mls.credential import Credential
from coterie.mls.group import CommitOptions, Limits
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import Proposal
from coterie.mls.types import GREASE_VALUES, WireFormat
from coterie.mls.welcome import GroupInfo
from tests.rules import shoulds
from tests.rules.test_document import HEADING
from tests.scenario.circle import CUSTOM, Circle, Names

WORD = re.compile(r"\b(SHOULD(?:\s+NOT)?|(?:NOT\s+)?RECOMMENDED)\b")


def test_every_should_of_the_rfc_is_listed_once(shared: Path) -> None:
    text = (shared / "specs/rfc9420.md").read_text()
    headings = HEADING.findall((shared / "specs/rfc9420-sections.md").read_text())
    expected = []
    for match in WORD.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        section = [name for name, start in headings if int(start) <= line][-1]
        expected.append((line, section, " ".join(match[1].split())))
    assert [(s["line"], s["section"], s["word"]) for s in shoulds.shoulds()] == expected


def test_every_should_has_its_module_and_test_or_its_reason() -> None:
    assert shoulds.faults() == []


def test_the_document_of_shoulds_is_current() -> None:
    assert shoulds.DOCUMENT.read_text() == shoulds.document()


def _greased(leaf: LeafNode) -> bool:
    listed = leaf.capabilities
    lists = (listed.cipher_suites, listed.extensions, listed.proposals, listed.credentials)
    return all(GREASE_VALUES.intersection(map(int, values)) for values in lists) and bool(
        GREASE_VALUES.intersection(int(e.extension_type) for e in leaf.extensions)
    )


def test_all_that_may_carry_a_grease_value_does() -> None:
    circle = Circle("alice", "bob")
    package = circle["bob"].bundle().key_package
    assert _greased(package.leaf_node)
    assert GREASE_VALUES.intersection(int(e.extension_type) for e in package.extensions)
    circle.commit("alice")
    for leaf in (0, 1):
        assert _greased(circle["bob"].group.member(leaf).node)
    info = circle["alice"].group.group_info().body
    assert isinstance(info, GroupInfo)
    assert GREASE_VALUES.intersection(int(e.extension_type) for e in info.extensions)


class _Expiring(Names):
    """Of bob's credentials, the one that he came with has expired."""

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        if now is not None and credential.identity == b"bob":
            raise VerificationError("the credential of bob has expired")


def test_whose_old_credential_has_expired_is_heard_and_may_replace_it() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    alice.config = replace(alice.config, authenticator=_Expiring())
    alice.restart()
    assert alice.hears(bob.group.encrypt(b"still here")) == b"still here"
    key = bob.suite.generate_signature_key(bob.rng)
    with pytest.raises(VerificationError):
        circle.tell(bob.group.propose_update(signature_key=key), besides="bob")
    circle.tell(bob.group.propose_update(credential=Credential.basic(b"bob/2")), besides="bob")
    circle.commit("alice")
    assert alice.group.member(bob.group.own_leaf).credential.identity == b"bob/2"
    assert circle.agrees()


def test_handshakes_are_private_unless_asked_otherwise() -> None:
    for private, expected in (
        (Limits().private_handshakes, WireFormat.MLS_PRIVATE_MESSAGE),
        (False, WireFormat.MLS_PUBLIC_MESSAGE),
    ):
        group = Circle("alice", "bob", private=private)["alice"].group
        assert group.propose_update().wire_format == expected


def test_resumption_keys_are_kept_of_so_many_past_epochs() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    first = alice.epoch
    for _ in range(Limits().max_resumption_psks):
        circle.commit("bob")
    assert alice.resumption_psk(first)
    circle.commit("bob")
    assert alice.resumption_psk(first) is None
    assert alice.resumption_psk(first + 1)


def test_a_commit_that_leaves_a_proposal_out_is_accepted() -> None:
    circle = Circle("alice", "bob")
    circle.tell(circle["bob"].group.propose(Proposal.custom(CUSTOM, b"waits")), besides="bob")
    pending = circle.commit("alice", options=CommitOptions(pending=False))
    assert pending.commit.proposals == ()
    assert circle.agrees()
