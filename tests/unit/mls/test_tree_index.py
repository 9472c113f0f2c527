"""The counters of a tree: kept by changes, they are always those of counting anew."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bench.shapes import build
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tree_index import (
    INDEX_PREFIX,
    IndexView,
    TreeIndex,
    added_up,
    changes_between,
    client_name,
    encryption_key_name,
    entries,
    signature_key_name,
    type_name,
)
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CredentialType, ExtensionType
from coterie.testing import MemoryStore

AUTHENTICATOR = AcceptAnything()
POOL = build(60, "blank")
LEAVES = [leaf for _, leaf in POOL.tree.members()]


def counted(tree: RatchetTree) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for node in tree.new_nodes(None):
        found.update(entries(node.node, AUTHENTICATOR))
    return found


def nonzero(index: TreeIndex, names: Counter[bytes]) -> Counter[bytes]:
    return Counter({name: index.count(name) for name in names if index.count(name)})


def changed(tree: RatchetTree, rng: random.Random, step: int) -> RatchetTree:
    members = [leaf for leaf, _ in tree.members()]
    choice = rng.randrange(4)
    if choice == 0 and len(members) > 1:
        return tree.with_leaves({rng.choice(members): None})
    if choice == 1:
        who = rng.choice(members)
        path = tree.filtered_direct_path(who)
        nodes, _ = tree.path_parents(path, [rng.randbytes(32) for _ in path])
        old = tree.leaf(who)
        assert old is not None
        renewed = old.replace(encryption_key=rng.randbytes(32))
        return tree.with_path(who, renewed, nodes)
    return tree.with_added([LEAVES[step]])[0]


@pytest.mark.parametrize("seed", range(5))
def test_counters_that_follow_changes_are_those_of_counting_anew(seed: int) -> None:
    rng, tree = random.Random(seed), RatchetTree.of_one(POOL.suite, LEAVES[0])
    index, store, names = TreeIndex.of_tree(tree, AUTHENTICATOR), MemoryStore(), Counter[bytes]()
    for step in range(1, 50):
        store.data.update({k: v for k, v in index.take_changes().items() if v is not None})
        new = changed(tree, rng, step)
        changes = changes_between(tree, new, AUTHENTICATOR)
        expected = counted(new)
        names += expected
        view = IndexView(index, changes)
        assert all(view.count(name) == expected[name] for name in names)
        index.apply(changes)
        assert nonzero(index, names) == expected
        assert nonzero(TreeIndex.of_tree(new, AUTHENTICATOR), names) == expected
        for name, value in index.take_changes().items():
            if value is None:
                store.data.pop(name, None)
            else:
                store.data[name] = value
        loaded = TreeIndex(store)
        assert nonzero(loaded, names) == expected
        assert loaded.credential_types_in_use() == index.credential_types_in_use()
        tree = new


@pytest.mark.parametrize("seed", range(5))
def test_two_changes_added_up_are_the_change_from_the_first_tree_to_the_last(seed: int) -> None:
    rng, trees = random.Random(seed), [POOL.tree]
    for step in range(12):
        trees.append(changed(trees[-1], rng, step))
    for first in range(4):
        for then in range(first, 8):
            for last in range(then, 12):
                start, middle, end = trees[first], trees[then], trees[last]
                one = changes_between(start, middle, AUTHENTICATOR)
                two = changes_between(middle, end, AUTHENTICATOR)
                assert added_up(one, two) == changes_between(start, end, AUTHENTICATOR)


def test_many_new_members_count_as_one_by_one() -> None:
    old = RatchetTree.of_one(POOL.suite, LEAVES[0])
    other = LEAVES[2].replace(
        capabilities=LEAVES[2].capabilities.replace(extensions=(ExtensionType(0xF00D),)),
        credential=Credential(CredentialType(0xF00F), b"somebody"),
    )
    # Two objects for equal capabilities, two leaves of one client, and a key that stands twice.
    alike = LEAVES[3].replace(
        capabilities=LeafNode.decode(LEAVES[3].encode()).capabilities.replace()
    )
    new = old.with_added([LEAVES[1], other, alike, LEAVES[3], LEAVES[4]])[0]
    expected = counted(new)
    expected.subtract(counted(old))
    changes = changes_between(old, new, AUTHENTICATOR)
    assert changes == {name: count for name, count in expected.items() if count}
    assert changes[client_name(AUTHENTICATOR.client_id(alike.credential))] == 2


def test_a_commit_that_renews_only_keys_changes_only_their_counters() -> None:
    tree = build(16, "warm").tree
    path = tree.filtered_direct_path(5)
    nodes, _ = tree.path_parents(path, [bytes([n]) * 32 for n in range(len(path))])
    old = tree.leaf(5)
    assert old is not None
    new = tree.with_path(LeafIndex(5), old.replace(encryption_key=b"k"), nodes)
    changes = changes_between(tree, new, AUTHENTICATOR)
    assert {name[:1] for name in changes} == {b"e"}
    assert len(changes) == 2 * (1 + len(path))


def test_duplicate_keys_are_found_and_other_counters_are_none() -> None:
    tree = RatchetTree.of_one(POOL.suite, LEAVES[0]).with_added([LEAVES[1], LEAVES[0]])[0]
    found = dict(TreeIndex.of_tree(tree, AUTHENTICATOR).duplicates())
    assert found == {
        encryption_key_name(LEAVES[0].encryption_key): 2,
        signature_key_name(LEAVES[0].signature_key): 2,
    }
    assert not list(TreeIndex.of_tree(POOL.tree, AUTHENTICATOR).duplicates())


def test_a_client_with_two_leaves_is_counted_twice_whoever_asks_first() -> None:
    other = LEAVES[1].replace(credential=LEAVES[0].credential)
    tree = RatchetTree.of_one(POOL.suite, LEAVES[0]).with_added([other, LEAVES[2]])[0]
    name = client_name(AUTHENTICATOR.client_id(LEAVES[0].credential))
    assert TreeIndex.of_tree(tree, AUTHENTICATOR).count(name) == 2
    index = TreeIndex.of_tree(tree, AUTHENTICATOR)
    index.apply({name: -1})
    assert index.count(name) == 1
    assert TreeIndex.of_tree(tree, AUTHENTICATOR).take_changes()[INDEX_PREFIX + name] == b"2"


def test_a_key_that_is_gone_counts_nothing_before_and_after_a_save() -> None:
    index, name = (
        TreeIndex.of_tree(POOL.tree, AUTHENTICATOR),
        signature_key_name(LEAVES[0].signature_key),
    )
    index.apply({name: -1})
    assert index.count(name) == 0
    assert index.take_changes()[INDEX_PREFIX + name] is None
    assert index.count(name) == 0


def test_an_empty_index_counts_nothing() -> None:
    index = TreeIndex()
    assert index.count(client_name(b"nobody")) == 0
    assert index.credential_types_in_use() == frozenset()
    assert index.take_changes() == {}


def test_the_first_save_of_an_index_has_every_counter() -> None:
    index = TreeIndex.of_tree(POOL.tree, AUTHENTICATOR)
    saved = index.take_changes()
    for name in counted(POOL.tree):
        assert INDEX_PREFIX + name in saved
    assert saved[INDEX_PREFIX + type_name(b"u", CredentialType.BASIC)] == b"60"
    assert index.take_changes() == {}
