"""The secret tree: which keys it gives, which it gives up, and when (RFC 9420 §9)."""

from __future__ import annotations

import random

import pytest

from coterie.errors import DecryptionError, StateError
from coterie.mls.crypto import suite_of
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import MessageKey, RatchetKind, RatchetLimits, SecretTree
from coterie.mls.tree_math import LeafIndex
from coterie.testing.counting import count_operations

SUITE = suite_of(1)
ROOT = Secret(bytes(range(32)))
APPLICATION, HANDSHAKE = RatchetKind.APPLICATION, RatchetKind.HANDSHAKE


def tree(leaves: int = 8, **limits: int) -> SecretTree:
    return SecretTree.of_epoch(SUITE, leaves, ROOT, RatchetLimits(**limits))


def take(secrets: SecretTree, leaf: int, generation: int, now: int = 0) -> MessageKey:
    found = secrets.find(LeafIndex(leaf), APPLICATION, generation)
    secrets.consume(found, now)
    return found


def held(secrets: SecretTree) -> set[bytes]:
    return {bytes(secret) for _, secret in secrets.held()}


def test_senders_and_receivers_derive_the_same_keys_in_any_order() -> None:
    order = [(leaf, generation) for leaf in range(8) for generation in range(4)]
    sender, receiver = tree(), tree()
    sent = {}
    for leaf, generation in order:
        key = sender.next_sending(LeafIndex(leaf), APPLICATION)
        assert key.generation == generation
        sent[leaf, generation] = (key.key, key.nonce)
    random.Random(1).shuffle(order)
    for leaf, generation in order:
        found = take(receiver, leaf, generation)
        assert (found.key, found.nonce) == sent[leaf, generation]
    assert len({key for key, _ in sent.values()}) == len(sent)


def test_the_two_ratchets_of_a_leaf_have_nothing_in_common() -> None:
    secrets = tree()
    one = secrets.next_sending(LeafIndex(3), HANDSHAKE)
    other = secrets.next_sending(LeafIndex(3), APPLICATION)
    assert one.key != other.key
    assert one.generation == other.generation == 0


def test_a_key_is_given_once() -> None:
    secrets = tree()
    take(secrets, 2, 5)
    take(secrets, 2, 1)
    for generation in (5, 1):
        with pytest.raises(DecryptionError) as refused:
            secrets.find(LeafIndex(2), APPLICATION, generation)
        assert refused.value.rule == Rule.GENERATION_USED


def test_what_a_key_came_from_is_gone_when_it_is_consumed() -> None:
    secrets = tree()
    before = held(secrets)
    found = take(secrets, 2, 0)
    after = held(secrets)
    assert before == {bytes(ROOT)}
    assert not before & after
    assert bytes(found.key) not in after
    # Three siblings of the path, two ratchets.
    assert len(after) == 5


def test_looking_for_a_key_changes_nothing() -> None:
    secrets = tree()
    secrets.take_changes()
    before = held(secrets)
    secrets.find(LeafIndex(6), APPLICATION, 9)
    assert held(secrets) == before
    assert secrets.take_changes() == {}


def test_a_key_that_was_found_before_another_leaf_settled_is_still_right() -> None:
    secrets, other = tree(), tree()
    early = secrets.find(LeafIndex(2), APPLICATION, 0)
    for leaf in (3, 6, 0):
        take(secrets, leaf, 0)
    secrets.consume(early, 0)
    for leaf in (3, 6, 0, 2):
        take(other, leaf, 0)
    assert held(secrets) == held(other)
    assert take(secrets, 2, 1).key == take(other, 2, 1).key


def test_the_way_from_the_root_is_gone_once_for_find_and_consume() -> None:
    secrets = tree(1024)
    with count_operations() as counts:
        take(secrets, 77, 0)
    assert counts["kdf"] == 2 * 10 + 2 + 3


def test_a_generation_too_far_ahead_is_refused() -> None:
    secrets = tree(max_forward=10)
    take(secrets, 1, 10)
    with pytest.raises(DecryptionError) as refused:
        secrets.find(LeafIndex(1), APPLICATION, 22)
    assert refused.value.rule == Rule.GENERATION_FORWARD
    take(secrets, 1, 21)


def test_skipped_keys_go_when_they_are_too_many() -> None:
    secrets = tree(max_skipped=3)
    take(secrets, 1, 5)
    for generation in (0, 1):
        with pytest.raises(DecryptionError):
            secrets.find(LeafIndex(1), APPLICATION, generation)
    for generation in (2, 3, 4):
        take(secrets, 1, generation)


def test_skipped_keys_go_when_they_are_too_old() -> None:
    secrets = tree(max_skipped_age=100)
    take(secrets, 1, 1, now=1000)
    take(secrets, 2, 1, now=1050)
    secrets.evict(1101)
    with pytest.raises(DecryptionError):
        secrets.find(LeafIndex(1), APPLICATION, 0)
    take(secrets, 2, 0, now=1101)


def test_skipped_keys_whose_time_nobody_told_age_from_when_it_is_told() -> None:
    secrets = tree(max_skipped_age=100)
    take(secrets, 1, 1, now=1000)
    take(secrets, 2, 1)
    take(secrets, 3, 1, now=1050)
    secrets.evict(1101)
    assert secrets.find(LeafIndex(2), APPLICATION, 0).advanced is None
    assert secrets.find(LeafIndex(3), APPLICATION, 0).advanced is None
    secrets.evict(1201)
    assert secrets.find(LeafIndex(2), APPLICATION, 0).advanced is None
    with pytest.raises(DecryptionError):
        secrets.find(LeafIndex(3), APPLICATION, 0)
    secrets.evict(1202)
    with pytest.raises(DecryptionError):
        secrets.find(LeafIndex(2), APPLICATION, 0)


def test_skipped_keys_of_a_clock_that_was_ahead_age_from_when_it_is_set_right() -> None:
    secrets = tree(max_skipped_age=100)
    take(secrets, 1, 1, now=9000)
    take(secrets, 2, 1, now=1000)
    secrets.evict(1100)
    assert secrets.find(LeafIndex(1), APPLICATION, 0).advanced is None
    assert secrets.find(LeafIndex(2), APPLICATION, 0).advanced is None
    secrets.evict(1101)
    for leaf in (1, 2):
        with pytest.raises(DecryptionError):
            secrets.find(LeafIndex(leaf), APPLICATION, 0)


def test_no_more_is_sent_than_the_limit_allows() -> None:
    secrets = tree(max_sent=2)
    for _ in range(2):
        secrets.next_sending(LeafIndex(0), APPLICATION)
    with pytest.raises(StateError, match="commit first"):
        secrets.next_sending(LeafIndex(0), APPLICATION)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_stored_step_by_step_gives_back_the_same_tree(seed: int) -> None:
    rng, secrets, store = random.Random(seed), tree(max_skipped=6), dict[bytes, bytes]()
    for step in range(1, 31):
        leaf, kind = LeafIndex(rng.randrange(8)), rng.choice(list(RatchetKind))
        if rng.random() < 0.3:
            secrets.next_sending(leaf, kind)
        else:
            generation = secrets.generation(leaf, kind) + rng.randrange(3)
            secrets.consume(secrets.find(leaf, kind, generation), step)
        for name, value in secrets.take_changes().items():
            if value is None:
                store.pop(name, None)
            else:
                store[name] = value
        loaded = SecretTree(SUITE, 8, secrets.limits)
        loaded.load(iter(store.items()))
        assert held(loaded) == held(secrets)
        assert [what for what, _ in loaded.held() if "skipped" in what] == [
            what for what, _ in secrets.held() if "skipped" in what
        ]


def test_a_tree_of_one_leaf_has_keys_too() -> None:
    one = tree(1)
    take(one, 0, 0)
    assert bytes(ROOT) not in held(one)


def test_a_message_key_does_not_print() -> None:
    found = tree().find(LeafIndex(1), APPLICATION, 0)
    assert repr(found) == "MessageKey(leaf 1, application, generation 0)"
