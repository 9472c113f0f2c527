"""What stands just inside of a limit is accepted: limits are where they are said to be."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.interop.negative import PROPOSAL
from coterie.mls.framing import MLSMessage
from coterie.mls.group import ApplicationMessage, Group, ProposalReceived, StagedCommit
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import MAX_LIFETIME
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, PreSharedKey, Proposal, ReInit, Remove
from coterie.mls.ratchet_tree import UnverifiedTree
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ProposalType, ProtocolVersion, Sender, SenderType
from coterie.mls.validation import CommittedProposal, list_for_commit
from coterie.mls.validation.proposal_list import MAX_PROPOSALS, MAX_PSKS, check_psks
from tests.rules.cases.after import BRANCH, REINIT, announced, continuing, ended
from tests.rules.cases.registry import CASES
from tests.rules.check import join
from tests.rules.forging import PUBLIC, key_package
from tests.rules.world import NOW, Join, World, config, load, make


@pytest.fixture(scope="module")
def world() -> World:
    return make()


@pytest.mark.parametrize("generation", [0, 999, 1000])
def test_a_generation_may_be_a_thousand_ahead(world: World, generation: int) -> None:
    forger = world.forger()
    sent = forger.private(forger.content(b"hello"), generation=generation)
    assert isinstance(world.member("bob").receive(sent.data), ApplicationMessage)


def _proposed(world: World, content: Any) -> object:
    return world.member("bob").receive(world.forger().propose(content).data, now=NOW)


@pytest.mark.parametrize(
    "lifetime",
    [Lifetime(NOW, NOW), Lifetime(NOW - 5, NOW), Lifetime(NOW, NOW + MAX_LIFETIME)],
)
def test_the_ends_of_a_lifetime_belong_to_it(world: World, lifetime: Lifetime) -> None:
    package = key_package(world.suite, world.bundle("zoe"), leaf={"lifetime": lifetime})
    assert isinstance(_proposed(world, Add(package)), ProposalReceived)


def test_a_leaf_may_list_256_types(world: World) -> None:
    types = (PROPOSAL, *(ProposalType(0xF100 + n) for n in range(255)))
    leaf = {"capabilities": world.capabilities.replace(proposals=types)}
    package = key_package(world.suite, world.bundle("zoe"), leaf=leaf)
    assert isinstance(_proposed(world, Add(package)), ProposalReceived)


def test_a_reinit_may_keep_the_version_or_go_beyond_it(world: World) -> None:
    for version in (1, 2):
        suite = CipherSuite(world.suite.cipher_suite)
        reinit = ReInit(b"next", ProtocolVersion(version), suite, ())
        assert isinstance(_proposed(world, reinit), ProposalReceived)


def test_as_many_proposals_as_may_be_are_kept(world: World) -> None:
    bob = load(world.stores["bob"], config(world.rng, max_proposals=1))
    sent = world.forger("alice", PUBLIC).propose(Remove(LeafIndex(3)))
    assert isinstance(bob.receive(sent.data), ProposalReceived)
    assert isinstance(bob.receive(sent.data), ProposalReceived)


def test_as_many_pre_shared_keys_as_can_be_counted_are_taken(world: World) -> None:
    length = world.suite.hash_length
    psks = [PreSharedKeyID.external(b"%d" % n, bytes(length)) for n in range(MAX_PSKS)]
    check_psks(psks, length, None)


def test_as_many_proposals_as_a_commit_may_cover_are_taken(world: World) -> None:
    custom = CommittedProposal(
        Proposal.custom(PROPOSAL, b""), Sender(SenderType.MEMBER, LeafIndex(0))
    )
    found = list_for_commit([custom] * MAX_PROPOSALS, LeafIndex(1), world.suite.hash_length, 1)
    assert len(found.all) == MAX_PROPOSALS


def test_a_tree_of_the_largest_size_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = world.member("alice").tree.encode()
    monkeypatch.setattr("coterie.mls.ratchet_tree.tree.MAX_LEAVES", 5)
    assert UnverifiedTree.decode(encoded, world.suite).trust().member_count == 5


def test_a_pre_shared_key_that_all_have_is_taken(world: World) -> None:
    psk = PreSharedKeyID.external(b"shared", world.rng(world.suite.hash_length))
    sent = world.forger().commit([PreSharedKey(psk)], path=None)
    assert isinstance(world.member("bob").receive(sent.data, now=NOW), StagedCommit)


def test_a_newcomer_can_join_and_hear(world: World) -> None:
    bundle = world.bundle("zoe")
    sent, epoch = world.forger().commit_and_epoch([Add(bundle.key_package)])
    bob = world.member("bob")
    bob.adopt(bob.receive(sent.data, now=NOW))  # type: ignore[arg-type]
    assert bob.context == epoch.context
    forger = world.forger()
    welcome = forger.welcome(bundle, epoch.tree, context={"epoch": epoch.context.epoch})
    assert Group.join(MLSMessage.read(welcome), bundle, world.config).epoch == bob.epoch


def test_a_newcomer_takes_its_path_secret() -> None:
    world = make(passive=True)
    assert len(world.member("bob")._epoch.private.parents) == 3
    staged = world.member("bob").receive(world.forger().commit().data, now=NOW)
    assert isinstance(staged, StagedCommit)


def test_a_group_of_all_members_may_follow_a_reinit(world: World) -> None:
    over = ended(world)
    attack = continuing(over, REINIT, extensions=announced(world).extensions)
    assert isinstance(attack, Join)
    assert attack.continues is not None
    old = load(attack.continues, over.config)
    assert join(attack, over, old).group_id == b"the next group"


def test_a_branch_may_have_all_members(world: World) -> None:
    attack = continuing(world, BRANCH, extensions=announced(world).extensions)
    assert isinstance(attack, Join)
    assert join(attack, world, world.member("bob")).epoch == 1


def test_a_custom_proposal_that_all_support_is_taken(world: World) -> None:
    sent = world.forger().commit([Proposal.custom(PROPOSAL, b"")], path=None)
    assert isinstance(world.member("bob").receive(sent.data), StagedCommit)


def test_cases_name_every_rule() -> None:
    assert {case.rule for case in CASES} == set(Rule)
