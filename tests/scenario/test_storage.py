"""Saving and loading: a group lives on over restarts, by deltas alone, and no secret stays that should be gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coterie.errors import (
    CoterieError,
    DecryptionError,
    EpochError,
    RuleViolation,
    StateError,
    StorageError,
)
from coterie.mls.framing import AuthenticatedContent, MLSMessage, PrivateMessage, PublicMessage
from coterie.mls.group import CommitOptions, Group, Limits, OwnMessage, StagedCommit
from coterie.mls.group.state import GROUP_KEY, PENDING_KEY, StoredProposal
from coterie.mls.private_message import open_sender_data
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.rules import Rule
from coterie.mls.types import WireFormat
from coterie.testing import MemoryStore
from tests.scenario.circle import CUSTOM, Circle, Person


def generation(reader: Person, message: MLSMessage) -> int:
    body = message.body
    assert isinstance(body, PrivateMessage)
    secret = reader.group._epoch.secrets.sender_data_secret
    return open_sender_data(reader.group.suite, body, secret).generation


def test_everybody_can_restart_at_any_time() -> None:
    circle = Circle("alice", "bob", "carol")
    late = circle["carol"].group.encrypt(b"late")
    circle["carol"].save()
    for _ in range(3):
        for person in circle.people.values():
            person.restart()
        circle.tell(circle["bob"].group.propose_update(), besides="bob")
        circle["bob"].save()
        for person in circle.people.values():
            person.restart()
        circle.commit("alice")
        assert circle.agrees()
    circle["bob"].restart()
    assert circle["bob"].hears(late) == b"late"


def test_a_pending_commit_is_adopted_after_a_restart() -> None:
    circle = Circle("alice", "bob")
    alice, carol = circle["alice"], circle.person("carol")
    bundle = carol.bundle()
    add = Proposal.of(Add(bundle.key_package))
    made = alice.group.commit([add], now=circle.clock())
    alice.save()
    alice.restart()
    pending = alice.group.pending_commit
    assert pending is not None
    assert (pending.message, pending.welcomes) == (made.message, made.welcomes)
    assert pending.commit.added[0].credential.identity == b"carol"
    circle.adopt(pending.message, besides="alice")
    echo = alice.group.receive(pending.message.encode())
    assert isinstance(echo, OwnMessage)
    assert echo.pending
    alice.group.adopt(pending)
    alice.save()
    alice.restart()
    assert circle.agrees()
    assert alice.group.pending_commit is None


def test_a_commit_that_lost_its_race_is_gone_and_its_generation_burnt() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    lost = alice.group.commit()
    alice.save()
    used = generation(bob, lost.message)
    alice.restart()
    alice.group.drop_pending()
    alice.save()
    alice.restart()
    assert alice.group.pending_commit is None
    again = alice.group.commit()
    assert generation(bob, again.message) == used + 1


def test_the_winning_commit_of_another_takes_the_place_of_ones_own() -> None:
    circle = Circle("alice", "bob")
    circle["alice"].group.commit()
    circle.commit("bob")
    assert circle["alice"].group.pending_commit is None
    assert circle.agrees()


def test_a_commit_that_was_dropped_can_still_be_adopted_while_its_epoch_lasts() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    pending = alice.commit()
    alice.drop_pending()
    circle.adopt(pending.message, besides="alice")
    alice.adopt(pending)
    assert circle.agrees()
    with pytest.raises(StateError, match="ends epoch"):
        alice.adopt(pending)


def test_a_commit_of_another_group_is_not_adopted() -> None:
    alice, carol = Circle("alice")["alice"].group, Circle("carol")["carol"]
    carol.create(b"another circle")
    foreign = carol.group.commit()
    with pytest.raises(StateError, match="another group"):
        alice.adopt(foreign)


def test_a_message_that_breaks_a_rule_costs_its_generation_also_in_the_store() -> None:
    circle = Circle("alice", "bob", "carol")
    alice, bob = circle["alice"], circle["bob"]
    update = alice.group.propose_update()
    commit = circle["carol"]
    commit.group.receive(update.encode())
    pending = commit.group.commit()
    with pytest.raises(RuleViolation) as caught:
        bob.group.receive(pending.message.encode())
    assert caught.value.rule == Rule.PROPOSAL_UNKNOWN
    bob.save()
    bob.restart()
    with pytest.raises(DecryptionError) as again:
        bob.group.receive(pending.message.encode())
    assert again.value.rule == Rule.GENERATION_USED


def test_junk_changes_nothing() -> None:
    circle = Circle("alice", "bob")
    message = circle["alice"].group.encrypt(b"true").encode()
    before = dict(circle["bob"].store.data)
    for place in (-1, -20, -40, 30):
        junk = bytearray(message)
        junk[place] ^= 1
        with pytest.raises(CoterieError):
            circle["bob"].group.receive(bytes(junk))
    circle["bob"].save()
    assert circle["bob"].store.data == before
    assert circle["bob"].hears(MLSMessage.read(message)) == b"true"


def test_a_group_is_loaded_though_more_waits_than_may_be_kept_by_now() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"]
    for number in range(3):
        circle.tell(circle["bob"].group.propose(Proposal.custom(CUSTOM, b"%d" % number)), "bob")
    alice.config = replace(alice.config, limits=replace(alice.limits, max_proposals=2))
    alice.restart()
    assert len(alice.group.pending_proposals) == 3
    circle.commit("alice")
    assert circle.agrees()


def test_a_removed_members_store_is_emptied() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"]
    assert len(bob.store) > 10
    circle.commit("alice", [Proposal.of(Remove(bob.group.own_leaf))])
    assert len(bob.store) == 0


def test_a_store_without_a_group_or_of_another_format_says_so() -> None:
    config = Circle("alice")["alice"].config
    with pytest.raises(StorageError, match="no group"):
        Group.load({}, MemoryStore(), config)
    with pytest.raises(StorageError, match="format 200"):
        Group.load({b"g": b"\xc8"}, MemoryStore(), config)


def test_a_damaged_store_says_so() -> None:
    alice = Circle("alice")["alice"]
    entries = alice.store.entries()
    entries[b"g"] = entries[b"g"][:100]
    with pytest.raises(StorageError, match="damaged"):
        Group.load(entries, alice.store, alice.config)


def test_a_store_with_entries_of_different_moments_says_so() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"]
    alice.group.commit()
    alice.save()
    before = alice.store.copy()
    circle.commit("bob")
    pending, present = before.data[PENDING_KEY], before.data[GROUP_KEY]
    for mixed in ({PENDING_KEY: pending}, {GROUP_KEY: present}):
        entries = {**alice.store.entries(), **mixed}
        with pytest.raises(StorageError, match="different moments"):
            Group.load(entries, MemoryStore({**before.data, **alice.store.data}), alice.config)


def test_a_stored_proposal_that_is_none_says_so() -> None:
    circle = Circle("alice", "bob", private=False)
    alice = circle["alice"]
    message = circle["bob"].group.commit().message.body
    assert isinstance(message, PublicMessage)
    content = AuthenticatedContent(WireFormat.MLS_PUBLIC_MESSAGE, message.content, message.auth)
    entries = {**alice.store.entries(), b"p/1": StoredProposal(0, content).encode()}
    with pytest.raises(StorageError, match="damaged"):
        Group.load(entries, alice.store, alice.config)


def test_the_store_holds_no_nodes_and_counters_that_a_fresh_one_would_not() -> None:
    circle = Circle("alice", "bob", "carol", "dave")
    alice = circle["alice"]
    for name in ("bob", "carol", "dave", "alice") * 3:
        circle.commit(name)
    joined = circle.person("eve")
    circle.add("bob", joined)
    for _ in range(5):
        circle.commit("alice")

    def kept(person: Person, prefix: bytes) -> set[bytes]:
        return {key for key in person.store.data if key.startswith(prefix)}

    assert kept(alice, b"i/") == kept(joined, b"i/")
    assert kept(alice, b"n/") == kept(joined, b"n/")


def test_a_node_that_went_and_came_back_between_two_saves_is_still_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circle = Circle("alice", "bob", "carol")
    bob, dave = circle["bob"], circle.person("dave")
    with monkeypatch.context() as patched:
        patched.setattr(bob, "save", lambda: None)
        circle.add("alice", dave, options=CommitOptions(path=False))
        # The node above carol goes for good with the epoch before.
        for _ in range(Limits().max_past_epochs):
            circle.commit("alice")
        circle.commit("alice", [Proposal.of(Remove(dave.group.own_leaf))])
    bob.save()
    bob.restart()
    assert circle.agrees()


# -- what is held, and for how long


def what(person: Person) -> set[tuple[str, int]]:
    return {(held.what, held.epoch) for held in person.group.secrets_held()}


def test_held_secrets_are_named_with_their_epoch_and_reason() -> None:
    circle = Circle("alice", "bob")
    bob = circle["bob"]
    epoch = bob.group.epoch
    names = what(bob)
    for name in ("exporter_secret", "init_secret", "leaf private key", "signature private key"):
        assert (name, epoch) in names
    bob.group.propose_update()
    bob.group.commit()
    assert {("keys of an own Update", epoch), ("the pending epoch", epoch + 1)} <= what(bob)
    assert all(held.why for held in bob.group.secrets_held())


def test_past_epochs_are_given_up_by_number() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    epoch = alice.group.epoch
    late = [alice.group.encrypt(b"%d" % n) for n in range(2)]
    alice.save()
    for _ in range(Limits().max_past_epochs):
        circle.commit("alice")
    assert bob.hears(late[0]) == b"0"
    circle.commit("alice")
    with pytest.raises(EpochError):
        bob.group.receive(late[1].encode())
    assert all(number > epoch for name, number in what(bob) if name != "resumption key")


def test_past_epochs_and_skipped_keys_are_given_up_by_age() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    first, second, third = (alice.group.encrypt(b"%d" % n) for n in range(3))
    assert bob.hears(third) == b"2"
    assert bob.hears(first) == b"0"
    assert any(name.startswith("skipped") for name, _ in what(bob))
    circle.clock.advance(Limits().max_past_age + 1)
    bob.group.expire(circle.clock())
    bob.save()
    bob.restart()
    assert not any(name.startswith("skipped") for name, _ in what(bob))
    with pytest.raises(DecryptionError):
        bob.group.receive(second.encode())
    circle.commit("alice")
    late = bob.group.epoch - 1
    assert ("sender_data_secret", late) in what(bob)
    bob.group.expire(circle.clock() + Limits().max_past_age + 1)
    assert ("sender_data_secret", late) not in what(bob)


def test_an_epoch_goes_with_a_later_one_that_is_too_old_also_when_clocks_were_set_back() -> None:
    circle = Circle("alice", "bob")
    alice, bob = circle["alice"], circle["bob"]
    late, now = bob.group.encrypt(b"late"), circle.clock()
    bob.save()
    circle.clock.now = now + 24 * 3600
    circle.commit("alice")
    circle.clock.now = now
    circle.commit("bob")
    alice.group.expire(now + Limits().max_past_age + 1)
    alice.save()
    alice.restart()
    with pytest.raises(EpochError):
        alice.group.receive(late.encode())


def test_a_past_epoch_of_a_clock_that_was_ahead_ages_from_when_it_is_set_right() -> None:
    circle = Circle("alice", "bob")
    alice, now = circle["alice"], circle.clock()
    circle.clock.now = 2 * now
    circle.commit("alice")
    late = alice.group.epoch - 1
    alice.group.expire(now)
    alice.save()
    alice.restart()
    alice.group.expire(now + Limits().max_past_age)
    assert ("sender_data_secret", late) in what(alice)
    alice.group.expire(now + Limits().max_past_age + 1)
    assert ("sender_data_secret", late) not in what(alice)


def test_no_result_of_a_commit_prints_a_secret() -> None:
    circle = Circle("alice", "bob")
    alice = circle["alice"].group
    pending = alice.commit()
    staged = circle["bob"].group.receive(pending.message.encode())
    assert isinstance(staged, StagedCommit)
    secret = bytes(staged.following().epoch.secrets.exporter_secret)
    for shown in (repr(pending), repr(staged), repr(alice), repr(alice.secrets_held())):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
