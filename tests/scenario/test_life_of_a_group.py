"""Create, add, talk, update, remove: once, readably, in every suite."""

from __future__ import annotations

import pytest

from coterie.errors import EpochError, RuleViolation, StateError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import (
    CommitOptions,
    Epoch,
    Group,
    OwnMessage,
    ProposalReceived,
    StagedCommit,
)
from coterie.mls.key_schedule import EpochSecrets
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.rules import Rule
from tests.scenario.circle import Circle


@pytest.mark.parametrize("suite", range(1, 8))
def test_a_group_of_any_suite_talks_adds_updates_and_removes(suite: int) -> None:
    circle = Circle("alice", "bob", "carol", suite=suite)
    hello = circle["alice"].group.encrypt(b"hello", authenticated_data=b"to all")
    assert circle["bob"].hears(hello) == circle["carol"].hears(hello) == b"hello"

    circle.tell(circle["carol"].group.propose_update(), besides="carol")
    circle.commit("bob", [Proposal.of(Remove(circle["alice"].group.own_leaf))])
    assert list(circle.people) == ["bob", "carol"]
    assert circle.agrees()
    assert circle["carol"].hears(circle["bob"].group.encrypt(b"still here")) == b"still here"


def test_results_say_who_did_what() -> None:
    circle = Circle("alice", "bob", "carol")
    alice, bob, carol = (circle[name].group for name in circle.people)
    update = circle["carol"].group.propose_update()
    received = bob.receive(update.encode())
    assert isinstance(received, ProposalReceived)
    assert received.sender.leaf_index == carol.own_leaf
    circle["alice"].group.receive(update.encode())

    dave = circle.person("dave")
    pending = alice.commit([Proposal.of(Add(dave.bundle().key_package))], now=circle.clock())
    staged = bob.receive(pending.message.encode())
    assert isinstance(staged, StagedCommit)
    assert staged.committer.credential.identity == b"alice"
    assert [member.credential.identity for member in staged.added] == [b"dave"]
    assert [member.credential.identity for member in staged.updated] == [b"carol"]
    assert staged.removed == ()
    assert not staged.external
    assert staged.epoch == bob.epoch


def test_a_removed_member_can_neither_read_nor_write_any_more() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"].group
    circle.commit("alice", [Proposal.of(Remove(bob.own_leaf))])
    secret = circle["alice"].group.encrypt(b"without bob")
    with pytest.raises(StateError):
        bob.receive(secret.encode())
    with pytest.raises(StateError):
        bob.encrypt(b"let me in")
    assert not bob.is_active
    assert bob.secrets_held() == []
    with pytest.raises(StateError):
        bob.export_secret("files", b"", 32)
    circle.clock.advance(1)


def _secrets(epoch: Epoch) -> set[bytes]:
    found = {bytes(getattr(epoch.secrets, field.name)) for field in EpochSecrets._fields}
    return found | {epoch.private.leaf_key.private_bytes(), epoch.signature_key.private_bytes()}


def test_a_removed_members_group_has_no_secret_left_in_memory_or_in_the_store() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"]
    before = _secrets(bob.group._epoch)
    circle.commit("alice", [Proposal.of(Remove(bob.group.own_leaf))])
    assert len(before) == 10
    assert not _secrets(bob.group._epoch) & before
    assert bob.store.data == {}


def test_a_member_that_has_not_seen_its_removal_reads_nothing_of_what_follows() -> None:
    circle = Circle("alice", "bob", "carol")
    behind = Group.load(
        circle["bob"].store.entries(), circle["bob"].store.copy(), circle["bob"].config
    )
    circle.commit("alice", [Proposal.of(Remove(behind.own_leaf))])
    with pytest.raises(EpochError) as caught:
        behind.receive(circle["alice"].group.encrypt(b"without bob").encode())
    assert not caught.value.stale


def test_an_own_message_that_comes_back_is_known_after_a_restart_too() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"]
    message = alice.group.encrypt(b"echo").encode()
    alice.save()
    assert isinstance(alice.group.receive(message), OwnMessage)
    alice.restart()
    assert isinstance(alice.group.receive(message), OwnMessage)


def test_data_is_not_sent_while_proposals_wait() -> None:
    circle = Circle("alice", "bob")
    circle.tell(circle["bob"].group.propose_update(), besides="bob")
    with pytest.raises(StateError, match="commit them"):
        circle["alice"].group.encrypt(b"too early")
    circle.commit("alice")
    assert circle["bob"].hears(circle["alice"].group.encrypt(b"now")) == b"now"


def test_all_members_export_the_same_secret_of_the_length_that_is_asked_for() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"].group, circle["bob"].group
    exported = alice.export_secret("files", b"context", 40)
    assert len(exported) == 40
    assert exported == bob.export_secret("files", b"context", 40)
    assert exported != bob.export_secret("files", b"another", 40)


def test_a_group_id_that_the_client_has_already_is_refused() -> None:
    circle = Circle("alice")
    bob = circle.person("bob")
    bundle = bob.bundle()
    pending = circle.commit("alice", [Proposal.of(Add(bundle.key_package))])
    assert pending.welcome is not None
    welcome = MLSMessage.read(pending.welcome.encode())
    with pytest.raises(StateError) as caught:
        Group.join(welcome, bundle, bob.config, groups=frozenset({b"the circle"}))
    assert caught.value.rule == Rule.GROUP_ID_UNIQUE
    assert Group.join(welcome, bundle, bob.config).epoch == 1


def test_a_group_cannot_be_made_with_an_id_that_the_client_has_already() -> None:
    alice = Circle("alice").person("another alice")
    with pytest.raises(StateError) as caught:
        Group.create(
            b"the circle",
            alice.suite,
            alice.key,
            alice.credential,
            alice.capabilities(),
            alice.config,
            lifetime=alice.lifetime,
            groups=frozenset({b"the circle"}),
        )
    assert caught.value.rule == Rule.GROUP_ID_UNIQUE


def test_adding_needs_the_time_and_a_lifetime_that_covers_it() -> None:
    circle = Circle("alice")
    add = Proposal.of(Add(circle.person("bob").bundle().key_package))
    alice = circle["alice"].group
    with pytest.raises(StateError, match="time"):
        alice.commit([add])
    with pytest.raises(StateError, match="time"):
        alice.propose(add)
    circle.clock.advance(8 * 24 * 3600)
    with pytest.raises(RuleViolation) as caught:
        alice.commit([add], now=circle.clock())
    assert caught.value.rule == Rule.LEAF_LIFETIME


def test_new_members_can_be_welcomed_one_by_one() -> None:
    circle = Circle("alice")
    people = [circle.person(name) for name in ("bob", "carol", "dave")]
    bundles = [person.bundle() for person in people]
    alice = circle["alice"].group
    options = CommitOptions(members_per_welcome=1, tree_inside=False)
    adds = [Proposal.of(Add(bundle.key_package)) for bundle in bundles]
    pending = alice.commit(adds, now=circle.clock(), options=options)
    alice.adopt(pending)
    assert pending.welcome is None
    for person, bundle, welcome in zip(people, bundles, pending.welcomes, strict=True):
        read = MLSMessage.read(welcome.encode())
        with pytest.raises(RuleViolation) as caught:
            Group.join(read, bundle, person.config)
        assert caught.value.rule == Rule.TREE_MISSING
        joined = Group.join(read, bundle, person.config, tree=alice.tree.encode())
        assert joined.epoch_authenticator == alice.epoch_authenticator
    with pytest.raises(RuleViolation) as caught:
        Group.join(pending.welcomes[0], bundles[1], people[1].config)
    assert caught.value.rule == Rule.WELCOME_KEY_PACKAGE
