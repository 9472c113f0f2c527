"""`PublicGroup`: what an observer sees, follows and refuses."""

from __future__ import annotations

import pytest

from coterie.errors import CoterieError, DecodeError, EpochError, RuleViolation, StateError
from coterie.mls.extension import Extension, RequiredCapabilities
from coterie.mls.external import new_member_add
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.proposal import Add, Proposal, ReInit, Remove
from coterie.mls.public_group import ProposalReceived, PublicCommit, PublicGroup, Sealed
from coterie.mls.rules import Rule
from coterie.mls.types import CipherSuite, ContentType, ExtensionType, ProtocolVersion
from tests.scenario.circle import CUSTOM, Circle
from tests.scenario.test_external import enter


def observed(*names: str) -> tuple[Circle, PublicGroup]:
    circle = Circle(*names, private=False)
    first = circle[names[0]]
    info = MLSMessage.read(first.group.group_info().encode())
    return circle, PublicGroup.follow(info, first.config.policy())


def follow(observer: PublicGroup, message: MLSMessage) -> PublicCommit:
    received = observer.receive(message.encode())
    assert isinstance(received, PublicCommit)
    observer.adopt(received)
    return received


def same(observer: PublicGroup, circle: Circle, name: str) -> bool:
    group = circle[name].group
    return (
        observer.context.encode() == group.context.encode()
        and observer.tree.encode() == group.tree.encode()
        and observer.interim_transcript_hash == group._epoch.interim_transcript_hash
    )


def test_an_observer_follows_proposals_commits_and_external_commits() -> None:
    circle, observer = observed("alice", "bob", "carol")
    update = circle["bob"].group.propose_update()
    circle.tell(update, besides="bob")
    seen = observer.receive(update.encode())
    assert isinstance(seen, ProposalReceived)
    assert seen.reference == observer.pending_proposals[0].reference

    commit = follow(observer, circle.add("alice", circle.person("dave")).message)
    assert [member.credential.identity for member in commit.added] == [b"dave"]
    assert [member.credential.identity for member in commit.updated] == [b"bob"]
    assert same(observer, circle, "carol")
    assert observer.pending_proposals == ()

    external = follow(observer, enter(circle, circle.person("eve")))
    assert external.external
    assert external.committer.credential.identity == b"eve"
    assert same(observer, circle, "eve")

    removed = follow(observer, circle.commit("eve", [Proposal.of(Remove(0))]).message)  # type: ignore[arg-type]
    assert [member.credential.identity for member in removed.removed] == [b"alice"]
    assert same(observer, circle, "bob")
    names = [member.credential.identity for member in observer.members()]
    assert names == [m.credential.identity for m in circle["bob"].group.members()]


def test_a_commit_that_was_not_adopted_changes_nothing() -> None:
    circle, observer = observed("alice", "bob")
    before = observer.context.encode()
    pending = circle["alice"].group.commit()
    observer.receive(pending.message.encode())
    assert observer.context.encode() == before
    other = circle["bob"].group.commit()
    follow(observer, other.message)
    with pytest.raises(EpochError) as caught:
        observer.receive(pending.message.encode())
    assert caught.value.stale


def test_a_staged_commit_is_adopted_in_its_own_epoch_only() -> None:
    circle, observer = observed("alice", "bob")
    staged = observer.receive(circle["alice"].group.commit().message.encode())
    assert isinstance(staged, PublicCommit)
    observer.adopt(staged)
    with pytest.raises(StateError):
        observer.adopt(staged)


def test_a_changed_signature_is_refused() -> None:
    circle, observer = observed("alice", "bob")
    message = circle["alice"].group.commit().message
    body = message.body
    assert isinstance(body, PublicMessage)
    signature = bytes((body.auth.signature[0] ^ 1,)) + body.auth.signature[1:]
    forged = MLSMessage.of(body.replace(auth=body.auth.replace(signature=signature)))
    with pytest.raises(CoterieError) as caught:
        observer.receive(forged.encode())
    assert caught.value.rule == Rule.CONTENT_SIGNATURE


def test_of_a_private_message_an_observer_sees_its_epoch_and_type() -> None:
    circle, observer = observed("alice", "bob")
    secret = circle["alice"].group.encrypt(b"for bob")
    assert observer.receive(secret.encode()) == Sealed(observer.epoch, ContentType.APPLICATION)


def test_what_is_no_message_of_the_group_is_refused() -> None:
    circle, observer = observed("alice", "bob")
    other, _ = observed("alice", "bob")
    other["alice"].create(b"another circle")
    with pytest.raises(RuleViolation) as caught:
        observer.receive(other["alice"].group.commit().message.encode())
    assert caught.value.rule == Rule.GROUP_ID
    with pytest.raises(DecodeError):
        observer.receive(circle["alice"].group.group_info().encode())
    with pytest.raises(DecodeError):
        PublicGroup.follow(circle["alice"].group.commit().message, circle["alice"].config.policy())


def test_the_tree_can_be_beside_the_group_info() -> None:
    circle, _ = observed("alice", "bob")
    alice = circle["alice"]
    bare = alice.group.group_info(tree=False)
    with pytest.raises(RuleViolation) as caught:
        PublicGroup.follow(bare, alice.config.policy())
    assert caught.value.rule == Rule.TREE_MISSING
    observer = PublicGroup.follow(bare, alice.config.policy(), tree=alice.group.tree.encode())
    assert same(observer, circle, "bob")


def test_after_a_reinit_an_observer_takes_nothing_more() -> None:
    circle, observer = observed("alice", "bob")
    reinit = ReInit(b"again", ProtocolVersion.MLS10, CipherSuite(1), ())
    follow(observer, circle.commit("alice", [Proposal.of(reinit)]).message)
    assert observer.reinit == reinit
    dave = circle.person("dave")
    with pytest.raises(RuleViolation) as caught:
        observer.receive(new_member_add(observer.context, dave.bundle().key_package, dave.key))
    assert caught.value.rule == Rule.AFTER_REINIT


def test_an_observer_keeps_as_many_proposals_as_it_may() -> None:
    circle, _ = observed("alice", "bob")
    alice = circle["alice"]
    info = alice.group.group_info()
    observer = PublicGroup.follow(info, alice.config.policy(), max_proposals=1)
    observer.receive(alice.group.propose_update())
    with pytest.raises(RuleViolation) as caught:
        observer.receive(alice.group.propose_update())
    assert caught.value.rule == Rule.PROPOSAL_COUNT


# -- key packages against the group


def test_a_key_package_that_fits_the_group_is_verified_by_members_and_observers() -> None:
    circle, observer = observed("alice", "bob")
    package = circle.person("carol").bundle().key_package
    now = circle.clock()
    assert observer.check_key_package(package, now=now).key_package == package
    assert circle["bob"].group.check_key_package(package, now=now).key_package == package


def test_a_key_package_of_who_is_in_the_group_is_refused() -> None:
    circle, observer = observed("alice", "bob")
    with pytest.raises(RuleViolation) as caught:
        observer.check_key_package(circle.person("bob").bundle().key_package)
    assert caught.value.rule == Rule.LIST_SAME_CLIENT


def test_an_expired_key_package_is_refused() -> None:
    circle, observer = observed("alice")
    package = circle.person("bob").bundle().key_package
    with pytest.raises(RuleViolation) as caught:
        observer.check_key_package(package, now=circle.clock.advance(30 * 24 * 3600))
    assert caught.value.rule == Rule.LEAF_LIFETIME


def test_a_key_package_without_what_the_group_requires_is_refused() -> None:
    circle, observer = observed("alice", "bob")
    required = RequiredCapabilities(proposal_types=(CUSTOM,))  # type: ignore[arg-type]
    extension = Extension(ExtensionType.REQUIRED_CAPABILITIES, required.encode())
    circle.tell(circle["alice"].group.propose_extensions([extension]), besides="alice")
    observer.receive(
        MLSMessage.read(circle["alice"].group.propose_extensions([extension]).encode())
    )
    pending = circle["alice"].group.commit()
    follow(observer, pending.message)
    poor = circle.person("carol")
    fine = poor.bundle().key_package
    observer.check_key_package(fine)
    poor.capabilities = lambda: fine.leaf_node.capabilities.replace(proposals=())  # type: ignore[method-assign]
    with pytest.raises(RuleViolation) as caught:
        observer.check_key_package(poor.bundle().key_package)
    assert caught.value.rule == Rule.LEAF_REQUIRED_CAPABILITIES


def test_an_invalid_add_is_not_kept() -> None:
    circle, observer = observed("alice", "bob")
    person = circle.person("carol")
    package = person.bundle().key_package
    broken = package.replace(init_key=package.leaf_node.encryption_key)
    message = new_member_add(observer.context, broken, person.key)
    with pytest.raises(CoterieError):
        observer.receive(message)
    assert observer.pending_proposals == ()
    assert isinstance(Proposal.of(Add(package)), Proposal)
