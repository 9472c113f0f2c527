"""The duties of a receiver that consist in refusing nothing, or in forgetting."""

from __future__ import annotations

import pytest

from coterie.errors import DecryptionError
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import ApplicationMessage, Group, ProposalReceived, StagedCommit
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal, Remove, Update
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, CredentialType, ExtensionType, ProposalType
from tests.rules.cases.leaves import referred
from tests.rules.check import consume, dump
from tests.rules.forging import PUBLIC, key_package
from tests.rules.world import NOW, Store, World, load, make

UNKNOWN, GREASE = 0xF0F0, 0x0A0A


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def _staged(world: World, proposals: list[Proposal]) -> StagedCommit:
    staged = world.member("bob").receive(world.forger().commit(proposals).data, now=NOW)
    assert isinstance(staged, StagedCommit)
    return staged


@pytest.mark.parametrize("value", [UNKNOWN, GREASE])
def test_unknown_values_in_capabilities_are_ignored(world: World, value: int) -> None:
    own = world.capabilities
    capabilities = own.replace(
        cipher_suites=(*own.cipher_suites, CipherSuite(value)),
        extensions=(*own.extensions, ExtensionType(value)),
        proposals=(*own.proposals, ProposalType(value)),
        credentials=(*own.credentials, CredentialType(value)),
    )
    package = key_package(world.suite, world.bundle("zoe"), leaf={"capabilities": capabilities})
    assert _staged(world, [Proposal.of(Add(package))]).added[0].node.capabilities == capabilities


@pytest.mark.parametrize("value", [UNKNOWN, GREASE])
def test_unknown_extensions_of_a_key_package_are_ignored(world: World, value: int) -> None:
    kind = ExtensionType(value)
    types = (*world.capabilities.extensions, kind)
    extensions = (Extension(kind, b"whatever"),)
    leaf = {
        "capabilities": world.capabilities.replace(extensions=types),
        "extensions": extensions,
    }
    package = key_package(world.suite, world.bundle("zoe"), leaf=leaf, extensions=extensions)
    assert _staged(world, [Proposal.of(Add(package))]).added[0].node.extensions == extensions


@pytest.mark.parametrize("value", [UNKNOWN, GREASE])
def test_unknown_extensions_of_a_group_info_are_ignored(world: World, value: int) -> None:
    forger, bundle = world.forger(), world.bundle("zoe")
    tree, _ = forger.epoch.tree.with_added([bundle.key_package.leaf_node])
    extensions = (
        Extension(ExtensionType(value), b"whatever"),
        Extension(ExtensionType.RATCHET_TREE, tree.encode()),
    )
    welcome = forger.welcome(bundle, tree, info={"extensions": extensions})
    group = Group.join(MLSMessage.read(welcome), bundle, world.config)
    assert group.own_leaf == 5


def test_keys_that_a_commit_replaced_are_gone(world: World) -> None:
    bob = world.member("bob")
    before = {bytes(key.private_bytes()) for key in bob._epoch.private.parents.values()}
    bob.adopt(bob.receive(world.forger().commit().data))  # type: ignore[arg-type]
    after = {bytes(key.private_bytes()) for key in bob._epoch.private.parents.values()}
    assert len(before) == len(after) == 3
    assert not before & after


def test_a_consumed_key_is_gone_and_so_is_what_it_came_from(world: World) -> None:
    bob, sent = world.member("bob"), world.forger()
    tree = bob._keys.of_epoch(bob.epoch).secret_tree  # type: ignore[union-attr]
    found = tree.find(LeafIndex(0), RatchetKind.APPLICATION, 0)
    above = {bytes(secret) for secret in tree._nodes.values()}
    assert isinstance(
        bob.receive(sent.private(sent.content(b"hello"), generation=0).data), ApplicationMessage
    )
    held = {bytes(secret) for _, secret in tree.held()}
    assert not held & {bytes(found.key), bytes(found.nonce), *above}
    with pytest.raises(DecryptionError):
        tree.find(LeafIndex(0), RatchetKind.APPLICATION, 0)


def test_removes_are_applied_before_adds_and_extensions_before_both(world: World) -> None:
    again = Add(key_package(world.suite, world.bundle("carol#2")))
    extensions = GroupContextExtensions(world.forger().context.extensions[:2])
    without = world.capabilities.replace(extensions=())
    add = Add(key_package(world.suite, world.bundle("zoe"), leaf={"capabilities": without}))
    contents = (again, add, Remove(LeafIndex(2)), extensions)
    staged = _staged(world, [Proposal.of(content) for content in contents])
    assert [member.leaf for member in staged.added] == [2, 5]


def test_an_expired_leaf_keeps_nobody_from_joining() -> None:
    world = make(warm=False)
    forger, bundle = world.forger(), world.bundle("zoe")
    old = key_package(world.suite, world.bundle("yan"), leaf={"lifetime": Lifetime(0, 10)})
    tree, _ = forger.epoch.tree.with_added([old.leaf_node, bundle.key_package.leaf_node])
    group = Group.join(MLSMessage.read(forger.welcome(bundle, tree)), bundle, world.config)
    assert group.own_leaf == 6


def test_an_external_commit_is_taken_while_an_own_commit_is_pending(world: World) -> None:
    bob = world.member("bob")
    bob.commit(now=NOW)
    zoe = world.bundle("zoe").key_package.leaf_node
    sent = world.forger().external_commit(world.key("zoe"), {"credential": zoe.credential})
    staged = bob.receive(sent.data, now=NOW)
    assert isinstance(staged, StagedCommit)
    bob.adopt(staged)
    assert bob.pending_commit is None


def test_an_echo_is_recognised_also_after_a_restart(world: World) -> None:
    store, bob = dict(world.stores["bob"]), world.member("bob")
    sent = bob.encrypt(b"hello").encode()
    store.update(bob.save().puts)
    before = dump(bob)
    assert type(bob.receive(sent)).__name__ == "OwnMessage"
    assert dump(bob) == before


def test_an_update_of_the_first_leaf_can_be_committed(world: World) -> None:
    alice, carol, bob = world.forger(), world.forger("carol"), world.member("bob")
    update = Update(alice.update_leaf())
    sent = alice.propose(update)
    bob.receive(sent.data, now=NOW)
    staged = bob.receive(carol.commit([referred(world, sent, update, 0)]).data, now=NOW)
    assert isinstance(staged, StagedCommit)
    assert [member.leaf for member in staged.updated] == [0]


def test_a_late_message_is_its_senders_though_the_leaf_is_anothers_now(world: World) -> None:
    bob, carol = world.member("bob"), world.member("carol")
    dave = world.forger("dave")
    late = dave.private(dave.content(b"late"))
    add = Proposal.of(Add(world.bundle("zoe").key_package))
    pending = carol.commit([Proposal.of(Remove(LeafIndex(3))), add], now=NOW)
    bob.adopt(bob.receive(pending.message.encode(), now=NOW), now=NOW)  # type: ignore[arg-type]
    assert bob.member(3).credential.identity == b"zoe"
    received = bob.receive(late.data, now=NOW)
    assert isinstance(received, ApplicationMessage)
    assert received.sender.credential.identity == b"dave"


def test_a_proposal_that_comes_late_is_opened_though_no_time_was_told_for_the_one_before_it(
    world: World,
) -> None:
    alice, bob = world.member("alice"), world.member("bob")
    data = world.member("carol").encrypt(b"hello")
    first, second = alice.propose_remove(3), alice.propose_remove(4)
    assert isinstance(bob.receive(second), ProposalReceived)
    assert isinstance(bob.receive(data, now=NOW), ApplicationMessage)
    assert isinstance(bob.receive(first), ProposalReceived)


def test_a_proposal_that_arrives_twice_keeps_its_place_also_after_a_restart(world: World) -> None:
    carol, bob = world.forger("carol", PUBLIC), world.member("bob")
    first, second = (carol.propose(Update(carol.update_leaf())).data for _ in range(2))
    store = Store(world.stores["bob"])
    for data in (first, second, first):
        bob.receive(data, now=NOW)
        store.apply(bob)
    again = load(store, world.config)
    assert again.pending_proposals == bob.pending_proposals
    # Of two Updates the most recent one is committed (§12.2).
    (committed,) = again.commit(now=NOW).commit.proposals
    assert committed == bob.pending_proposals[-1]


def test_an_own_key_is_gone_once_it_was_used(world: World) -> None:
    bob = world.member("bob")
    tree = bob._keys.of_epoch(bob.epoch).secret_tree  # type: ignore[union-attr]
    found = tree.find(bob.own_leaf, RatchetKind.APPLICATION, 0)
    bob.encrypt(b"hello")
    held = {bytes(secret) for _, secret in tree.held()}
    assert not held & {bytes(found.key), bytes(found.nonce)}


def test_a_commit_that_is_made_changes_nothing_but_its_generation(world: World) -> None:
    bob, twin = world.member("bob"), world.member("bob")
    bob.commit(now=NOW)
    consume(twin, (bob.own_leaf, RatchetKind.HANDSHAKE, 0))
    bob.drop_pending()
    apart = {"own messages"}
    before, after = (
        {k: v for k, v in dump(each).items() if k not in apart} for each in (twin, bob)
    )
    assert before == after
