"""Every kind of proposal, once, and what a Commit makes of those that do not fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from coterie.errors import DecryptionError, RuleViolation, StateError
from coterie.mls.credential import Credential
from coterie.mls.extension import Extension, capabilities
from coterie.mls.group import CommitOptions, StagedCommit, commit
from coterie.mls.group_context import GroupContext
from coterie.mls.proposal import Add, PreSharedKey, Proposal, ReInit, Remove
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType, ProtocolVersion
from coterie.mls.validation import CommittedProposal, Policy, ProposalList, PublicState
from tests.scenario.circle import CUSTOM, NAME, SUITE, Circle


def test_a_custom_proposal_is_carried_to_everybody() -> None:
    circle = Circle("alice", "bob")
    circle.tell(circle["bob"].group.propose(Proposal.custom(CUSTOM, b"let us vote")), besides="bob")
    pending = circle.commit("alice", options=CommitOptions(path=False))
    assert [entry.proposal.content for entry in pending.commit.proposals] == [b"let us vote"]
    assert circle.agrees()


def test_a_custom_proposal_of_a_type_that_nobody_registered_is_refused() -> None:
    with pytest.raises(RuleViolation) as caught:
        Circle("alice", "bob")["alice"].group.propose(Proposal.custom(0xF00F, b"?"))
    assert caught.value.rule == Rule.LIST_CUSTOM_SUPPORT


def test_the_groups_extensions_are_replaced() -> None:
    circle = Circle("alice", "bob")
    named = (Extension(ExtensionType(NAME), b"the inner circle"),)
    circle.tell(circle["alice"].group.propose_extensions(named), besides="alice")
    circle.commit("bob")
    assert circle["alice"].group.context.extensions == named
    assert circle.agrees()


def test_an_extension_that_a_member_does_not_support_is_refused() -> None:
    circle = Circle("alice", "bob")
    unknown = (Extension(ExtensionType(0xF00E), b""),)
    circle["alice"].group.propose_extensions(unknown)
    pending = circle["alice"].group.commit()
    assert pending.commit.proposals == (), "a proposal that cannot be valid was committed"


def test_an_external_key_is_mixed_in_by_those_who_have_it() -> None:
    circle = Circle("alice", "bob")
    for person in circle.people.values():
        person.psks[b"spoken"] = b"between us" * 3
    psk = circle["alice"].group.external_psk(b"spoken")
    circle.commit("alice", [Proposal.of(PreSharedKey(psk))], CommitOptions(path=False))
    assert circle.agrees()


def test_a_key_that_is_not_held_is_no_fault_of_the_committer() -> None:
    circle = Circle("alice", "bob")
    circle["alice"].psks[b"spoken"] = b"to alice alone"
    psk = circle["alice"].group.external_psk(b"spoken")
    with pytest.raises(DecryptionError) as caught:
        circle.commit("alice", [Proposal.of(PreSharedKey(psk))])
    assert caught.value.rule == Rule.PSK_UNKNOWN


def test_a_waiting_key_that_the_committer_does_not_hold_is_left_out() -> None:
    circle = Circle("alice", "bob")
    circle["alice"].psks[b"spoken"] = b"to alice alone"
    psk = circle["alice"].group.external_psk(b"spoken")
    circle.tell(circle["alice"].group.propose_psk(psk), besides="alice")
    assert circle.commit("bob").commit.proposals == ()
    assert circle.agrees()


def test_a_past_epochs_resumption_key_is_mixed_in() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    shared = alice.epoch
    circle.commit("alice")
    circle.commit("bob", [Proposal.of(PreSharedKey(alice.application_psk(shared)))])
    assert circle.agrees()


def test_of_two_updates_by_one_member_the_later_is_committed() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"].group
    circle.tell(bob.propose_update(), besides="bob")
    circle.tell(bob.propose_update(), besides="bob")
    last = bob.pending_proposals[-1].reference
    pending = circle.commit("alice")
    assert [entry.reference for entry in pending.commit.proposals] == [last]
    assert circle.agrees()


def test_a_remove_goes_before_an_update_of_the_same_member() -> None:
    circle = Circle("alice", "bob", "carol")
    circle.tell(circle["bob"].group.propose_update(), besides="bob")
    circle.tell(circle["carol"].group.propose_remove(circle["bob"].group.own_leaf), besides="carol")
    circle.commit("alice")
    assert list(circle.people) == ["alice", "carol"]
    assert circle.agrees()


def test_a_waiting_add_of_somebody_who_is_in_already_is_left_out() -> None:
    circle = Circle("alice", "bob")
    again = circle.person("bob")
    add = circle["alice"].group.propose(
        Proposal.of(Add(again.bundle().key_package)), now=circle.clock()
    )
    circle.tell(add, besides="alice")
    other = circle.person("carol")
    pending = circle.add("bob", other)
    assert [member.credential.identity for member in pending.commit.added] == [b"carol"]
    assert circle.agrees()


def test_an_add_by_value_of_somebody_who_is_in_already_is_refused() -> None:
    circle = Circle("alice", "bob")
    with pytest.raises(RuleViolation) as caught:
        circle.commit("alice", [Proposal.of(Add(circle.person("bob").bundle().key_package))])
    assert caught.value.rule == Rule.LIST_SAME_CLIENT


def test_a_waiting_add_whose_lifetime_is_over_is_left_out() -> None:
    circle = Circle("alice", "bob")
    bundle = circle.person("carol").bundle()
    add = circle["alice"].group.propose_add(circle["alice"].verified(bundle), now=circle.clock())
    circle.tell(add, besides="alice")
    circle.clock.advance(8 * 24 * 3600)
    assert circle.commit("bob").commit.added == ()
    assert circle.agrees()


def test_an_update_brings_a_new_signature_key_credential_and_capabilities() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"]
    key = SUITE.generate_signature_key(bob.rng)
    new = capabilities(
        cipher_suites=[1], proposals=[CUSTOM], extensions=[NAME, 0xF0AA], rng=bob.rng
    )
    update = bob.group.propose_update(
        signature_key=key, credential=Credential.basic(b"bob/2"), capabilities=new
    )
    bob.save()
    circle.tell(update, besides="bob")
    bob.restart()
    circle.commit("alice")
    member = circle["alice"].group.member(bob.group.own_leaf)
    assert member.signature_key == key.public
    assert member.credential.identity == b"bob/2"
    assert 0xF0AA in member.node.capabilities.extensions
    assert circle["alice"].hears(bob.group.encrypt(b"signed anew")) == b"signed anew"


def test_a_commit_brings_a_new_leaf_even_where_no_path_was_asked_for() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"]
    key = SUITE.generate_signature_key(alice.rng)
    pending = alice.group.commit(
        [Proposal.custom(CUSTOM, b"needs no path")],
        signature_key=key,
        credential=Credential.basic(b"alice/2"),
        extensions=(Extension(ExtensionType.APPLICATION_ID, b"phone"),),
        options=CommitOptions(path=False),
    )
    circle.adopt(pending.message, besides="alice")
    alice.group.adopt(pending)
    member = circle["bob"].group.member(0)
    assert (member.signature_key, member.credential.identity) == (key.public, b"alice/2")
    assert member.node.extensions == (Extension(ExtensionType.APPLICATION_ID, b"phone"),)
    assert circle.agrees()


def test_a_committer_commits_neither_its_own_update_nor_its_own_removal() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    circle.tell(alice.propose_update(), besides="alice")
    circle.tell(alice.propose_remove(alice.own_leaf), besides="alice")
    assert circle.commit("alice").commit.proposals == ()
    with pytest.raises(RuleViolation) as caught:
        alice.commit([Proposal.of(Remove(alice.own_leaf))])
    assert caught.value.rule == Rule.LIST_OWN_REMOVE


def test_what_waited_does_not_outlive_its_epoch() -> None:
    circle = Circle("alice", "bob")
    circle.tell(circle["bob"].group.propose_update(), besides="bob")
    circle.commit("alice", options=CommitOptions(pending=False))
    assert circle["alice"].group.pending_proposals == ()
    assert circle["bob"].group.pending_proposals == ()
    assert not any("Update" in held.what for held in circle["bob"].group.secrets_held())


def test_a_second_commit_needs_the_first_adopted_or_dropped() -> None:
    alice = Circle("alice", "bob")["alice"].group
    alice.commit()
    with pytest.raises(StateError, match="pending"):
        alice.commit()
    alice.drop_pending()
    assert isinstance(alice.commit().commit, StagedCommit)


def test_one_that_does_not_fit_does_not_keep_the_others_out() -> None:
    circle = Circle("alice", "bob", "carol")
    again = circle.person("bob").bundle().key_package
    alice = circle["alice"].group
    circle.tell(alice.propose(Proposal.of(Add(again)), now=circle.clock()), besides="alice")
    circle.tell(circle["carol"].group.propose_update(), besides="carol")
    pending = circle.commit("bob")
    assert [member.credential.identity for member in pending.commit.updated] == [b"carol"]
    assert pending.commit.added == ()
    assert circle.agrees()


class NobodyLeaves:
    """Rules of a group in which nobody is removed."""

    def check_commit(
        self,
        before: GroupContext,
        tree: RatchetTree,
        committer: int | None,
        proposals: ProposalList,
    ) -> None:
        if proposals.removes:
            msg = "nobody is removed from this group"
            raise RuleViolation(msg, rule="group/nobody-leaves", leaf=committer)


def test_the_groups_own_rules_bind_who_commits_and_who_receives() -> None:
    circle = Circle("alice", "bob", "carol")
    alice, bob = circle["alice"].group, circle["bob"].group
    alice._config = replace(alice._config, rules=NobodyLeaves())
    with pytest.raises(RuleViolation) as caught:
        alice.commit([Proposal.of(Remove(bob.own_leaf))])
    assert caught.value.rule == "group/nobody-leaves"
    circle.tell(circle["carol"].group.propose_remove(bob.own_leaf), besides="carol")
    assert circle.commit("alice").commit.removed == ()

    bob._config = replace(bob._config, rules=NobodyLeaves())
    against = circle["carol"].group.commit([Proposal.of(Remove(alice.own_leaf))])
    with pytest.raises(RuleViolation) as caught:
        bob.receive(against.message.encode())
    assert (caught.value.rule, caught.value.leaf) == ("group/nobody-leaves", 2)


def test_many_bad_proposals_keep_the_good_ones_in_their_order() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    for number in range(20):
        custom = Proposal.custom(CUSTOM, b"%d" % number)
        circle.tell(alice.propose(custom), besides="alice")
        if number % 7 == 3:
            again = circle.person("bob")
            again.key = SUITE.generate_signature_key(circle["alice"].rng)
            add = Proposal.of(Add(again.bundle().key_package))
            circle.tell(alice.propose(add, now=circle.clock()), besides="alice")
    assert len(circle["bob"].group.pending_proposals) == 23
    pending = circle.commit("bob")
    contents = [entry.proposal.content for entry in pending.commit.proposals]
    assert contents == [b"%d" % number for number in range(20)]
    assert circle.agrees()


def test_who_proposes_much_that_is_bad_costs_a_committer_little_and_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried, check = [0], commit._check_proposals

    def counted(
        state: PublicState,
        committer: LeafIndex,
        plan: commit.CommitPlan,
        proposals: Sequence[CommittedProposal],
        policy: Policy,
        *,
        now: int | None,
    ) -> None:
        tried[0] += len(proposals)
        check(state, committer, plan, proposals, policy, now=now)

    monkeypatch.setattr(commit, "_check_proposals", counted)
    monkeypatch.setattr(commit, "_MOST_TRIED", 0)
    circle = Circle("alice", "bob", "carol", private=False)
    bob, carol = circle["bob"].group, circle["carol"].group
    for number in range(250):
        circle.tell(bob.propose(Proposal.custom(CUSTOM, b"%d" % number)), besides="bob")
        circle.tell(bob.propose_psk(bob.external_psk(b"nobody has it")), besides="bob")
    circle.tell(carol.propose(Proposal.custom(CUSTOM, b"carol's")), besides="carol")
    contents = [entry.proposal.content for entry in circle.commit("alice").commit.proposals]
    assert contents[-1] == b"carol's"
    assert contents[:-1] == [b"%d" % number for number in range(len(contents) - 1)]
    assert 10 < len(contents) < 250
    assert tried[0] < (commit._TRIED_EACH + 1) * 501
    assert circle.agrees()


def test_a_waiting_reinit_is_committed_when_nothing_else_waits() -> None:
    circle = Circle("alice", "bob", "carol")
    reinit = ReInit(b"again", ProtocolVersion.MLS10, CipherSuite(1), ())
    circle.tell(circle["carol"].group.propose_reinit(reinit), besides="carol")
    circle.tell(circle["bob"].group.propose_update(), besides="bob")
    assert circle.commit("alice").commit.reinit is None
    circle.tell(circle["carol"].group.propose_reinit(reinit), besides="carol")
    assert circle.commit("alice").commit.reinit == reinit
    assert circle.agrees()


def test_what_waits_is_committed_in_the_order_of_arrival_also_after_a_restart() -> None:
    circle = Circle("alice", "bob")
    for number in range(5):
        proposal = Proposal.custom(CUSTOM, b"%d" % number)
        circle.tell(circle["alice"].group.propose(proposal), besides="alice")
    circle["bob"].restart()
    contents = [entry.proposal.content for entry in circle.commit("bob").commit.proposals]
    assert contents == [b"0", b"1", b"2", b"3", b"4"]


def test_a_leaf_where_nobody_is_has_no_member() -> None:
    alice = Circle("alice", "bob")["alice"].group
    assert alice.member(1).credential.identity == b"bob"
    with pytest.raises(StateError, match="no member at leaf 2"):
        alice.member(2)
