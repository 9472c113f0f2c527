"""The persistent ratchet tree: what changes make of it, what it shares, what it stores, against a slow model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from bench.shapes import build
from coterie.errors import CoterieError, RuleViolation, StorageError
from coterie.mls.crypto import suite_of
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import (
    HPKECiphertext,
    ParentNode,
    RatchetTree,
    Subtree,
    UnverifiedTree,
    UpdatePathNode,
    ciphertext_position,
    verify_parent_hashes,
    verify_structure,
)
from coterie.mls.ratchet_tree.parent_hash import _vouched
from coterie.mls.ratchet_tree.structs import (
    LeafNodeHashInput,
    ParentHashInput,
    ParentNodeHashInput,
    TreeHashInput,
)
from coterie.mls.ratchet_tree.tree import parent_hash_input
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import NodeType
from coterie.testing import MemoryStore

SUITE = suite_of(1)
POOL = build(80, "blank")
LEAVES = [leaf for _, leaf in POOL.tree.members()]


def plain_hash(tree: Subtree) -> bytes:
    """The tree hash straight from the structs of §7.8."""
    if tree.level == 0:
        leaf = tree.node if tree.members else None
        assert leaf is None or isinstance(leaf, LeafNode)
        body = LeafNodeHashInput(LeafIndex(tree.start), leaf)
        return SUITE.hash(TreeHashInput(NodeType.LEAF, body).encode())
    node = tree.node
    assert node is None or isinstance(node, ParentNode)
    halves = plain_hash(tree.left), plain_hash(tree.right)
    return SUITE.hash(TreeHashInput(NodeType.PARENT, ParentNodeHashInput(node, *halves)).encode())


def grown(tree: RatchetTree, rng: random.Random, leaf: LeafNode) -> RatchetTree:
    return tree.with_added([leaf])[0]


def pruned(tree: RatchetTree, rng: random.Random, leaf: LeafNode) -> RatchetTree:
    members = [index for index, _ in tree.members()]
    return tree.with_leaves({rng.choice(members): None}) if len(members) > 1 else tree


def committed(tree: RatchetTree, rng: random.Random, leaf: LeafNode) -> RatchetTree:
    who = rng.choice([index for index, _ in tree.members()])
    path = tree.filtered_direct_path(who)
    nodes, _ = tree.path_parents(path, [rng.randbytes(32) for _ in path])
    return tree.with_path(who, leaf, nodes)


CHANGES: list[Callable[[RatchetTree, random.Random, LeafNode], RatchetTree]] = [
    grown,
    grown,
    pruned,
    committed,
]


def histories(seed: int, steps: int = 60) -> Iterator[RatchetTree]:
    rng = random.Random(seed)
    tree = RatchetTree.of_one(SUITE, LEAVES[0])
    for step in range(1, steps):
        tree = rng.choice(CHANGES)(tree, rng, LEAVES[step])
        yield tree


@pytest.mark.parametrize("seed", range(6))
def test_counts_hashes_and_bytes_of_a_changed_tree_are_those_of_a_fresh_one(seed: int) -> None:
    for tree in histories(seed):
        fresh = UnverifiedTree.decode(tree.encode(), SUITE).trust()
        assert fresh.encode() == tree.encode()
        assert fresh.tree_hash() == tree.tree_hash() == plain_hash(tree.root)
        assert tree.member_count == sum(1 for _ in tree.members())
        assert tree.root.resolution_size == sum(1 for _ in tree.root.resolution())
        assert [t.index for t in fresh.root.resolution()] == [
            t.index for t in tree.root.resolution()
        ]


@pytest.mark.parametrize("seed", range(6))
def test_a_store_that_gets_the_changes_can_give_back_every_tree(seed: int) -> None:
    store, before = MemoryStore(), None
    for tree in histories(seed):
        puts, drops = tree.store_changes(before)
        for key in drops:
            del store.data[key]
        store.data.update(puts)
        root = tree.root.as_stored_child(SUITE)
        loaded = RatchetTree.stored(SUITE, tree.root.level, root, store)
        assert loaded.encode() == tree.encode()
        assert set(store.data) == set(tree.store_changes(None)[0])
        before = tree


@pytest.mark.parametrize("seed", range(6))
def test_what_two_trees_do_not_share_is_what_a_full_comparison_finds(seed: int) -> None:
    def places(tree: RatchetTree) -> dict[tuple[int, int, bytes], None]:
        return {(t.level, t.start, t.tree_hash(SUITE)): None for t in tree.new_nodes(None)}

    trees = list(histories(seed))
    for old, new in pairwise(trees):
        gone, gained = new.changes_since(old)
        assert {(t.level, t.start, t.tree_hash(SUITE)) for t in gained} == (
            places(new).keys() - places(old).keys()
        )
        assert {(t.level, t.start, t.tree_hash(SUITE)) for t in gone} == (
            places(old).keys() - places(new).keys()
        )


def test_a_commit_makes_new_nodes_on_one_path_only() -> None:
    tree = POOL.tree
    after = committed(tree, random.Random(1), LEAVES[0])
    assert len(after.changes_since(tree)[1]) <= tree.root.level + 1


def test_a_member_finds_its_ciphertext_where_the_sender_put_it() -> None:
    for seed in range(4):
        for tree in histories(seed, 40):
            for sender, _ in tree.members():
                check_positions(tree, sender)


def check_positions(tree: RatchetTree, sender: LeafIndex) -> None:
    for place in tree.filtered_direct_path(sender):
        keys = list(tree.recipients(place.sibling, ()))
        for leaf, node in place.sibling.members_below():
            position, held = ciphertext_position(place.sibling, leaf, {}, ())
            # A member that holds no parent's key opens what is for its leaf, if there is such a ciphertext.
            expected = tree.node(held)
            assert expected is not None
            if held == leaf.node() and expected.encryption_key in keys:
                assert keys[position] == node.encryption_key


@pytest.mark.parametrize("shape", ["blank", "warm", "half"])
def test_a_parent_without_a_node_that_vouches_for_it_is_refused(shape: str) -> None:
    tree = build(20, shape).tree
    verify_structure(tree)
    verify_parent_hashes(tree)
    for place in tree.parents():
        node = place.parent_node()
        other = ParentNode(bytes(32), node.parent_hash, node.unmerged_leaves)
        forged = RatchetTree(SUITE, with_node(tree.root, place, other))
        with pytest.raises(RuleViolation) as refused:
            verify_parent_hashes(forged)
        assert refused.value.rule == Rule.PARENT_HASH


def vouched(parent: Subtree) -> bool:
    """As the column by column check has it, for one parent by itself."""
    above, left, right = parent.parent_node(), parent.left, parent.right
    return _vouched(SUITE, above, left, right) or _vouched(SUITE, above, right, left)


@pytest.mark.parametrize("shape", ["half", "warm"])
def test_of_several_parents_without_a_node_that_vouches_the_first_is_named(shape: str) -> None:
    tree = build(20, shape).tree.with_added([LEAVES[50]])[0]
    # Adding has left some parents with an unmerged leaf, others with none.
    assert {bool(place.parent_node().unmerged_leaves) for place in tree.parents()} == {True, False}
    for place in tree.parents():
        node = place.parent_node()
        other = ParentNode(bytes(32), node.parent_hash, node.unmerged_leaves)
        forged = RatchetTree(SUITE, with_node(tree.root, place, other))
        first = next(parent for parent in forged.parents() if not vouched(parent))
        with pytest.raises(RuleViolation, match=f"below {first.index!r} "):
            verify_parent_hashes(forged)


def with_node(tree: Subtree, place: Subtree, node: ParentNode) -> Subtree:
    if tree is place:
        return Subtree.parent(node, tree.left, tree.right)
    if tree.level == 0:
        return tree
    left, right = (with_node(half, place, node) for half in (tree.left, tree.right))
    if left is tree.left and right is tree.right:
        return tree
    return Subtree.parent(tree.node, left, right)  # type: ignore[arg-type]


def test_unmerged_leaves_do_not_stop_a_parent_from_being_vouched_for() -> None:
    tree = build(11, "warm").tree
    more, positions = tree.with_added([LEAVES[70], LEAVES[71]])
    assert [int(leaf) for leaf in positions] == [11, 12]
    assert any(place.parent_node().unmerged_leaves for place in more.parents())
    verify_structure(more)
    verify_parent_hashes(more)


def test_the_parent_hash_input_is_its_struct() -> None:
    fields = b"key" * 20, b"", bytes(32)
    assert parent_hash_input(*fields) == ParentHashInput(*fields).encode()


def test_a_node_that_the_store_lost_is_named() -> None:
    tree, store = POOL.tree, MemoryStore()
    store.data.update(tree.store_changes(None)[0])
    root = tree.root.as_stored_child(SUITE)
    loaded = RatchetTree.stored(SUITE, tree.root.level, root, store)
    store.data.clear()
    with pytest.raises(StorageError, match="not in the store"):
        loaded.leaf(3)


@pytest.mark.parametrize("count", [1, 2, 9, 40])
@pytest.mark.parametrize("sizes", [(32, 48), (0, 0), (70, 20_000)])
def test_ciphertexts_of_one_size_are_read_as_if_one_by_one(
    count: int, sizes: tuple[int, int]
) -> None:
    made = tuple(HPKECiphertext(bytes([n]) * sizes[0], bytes([n]) * sizes[1]) for n in range(count))
    node = UpdatePathNode(b"key", made)
    read = UpdatePathNode.decode(node.encode())
    assert len(read.encrypted_path_secret) == count
    assert tuple(read.encrypted_path_secret) == made
    assert read == node
    assert hash(read) == hash(node)
    assert read.encrypted_path_secret[-1] == made[-1]
    assert read.encrypted_path_secret[1:3] == made[1:3]
    assert UpdatePathNode.from_json(read.to_json()) == node


def test_ciphertexts_of_different_sizes_are_read_too() -> None:
    made = tuple(HPKECiphertext(bytes(32), bytes(48 + n % 3)) for n in range(60))
    read = UpdatePathNode.decode(UpdatePathNode(b"key", made).encode())
    assert read.encrypted_path_secret == made


def test_every_ciphertext_of_a_path_is_checked_though_few_are_decoded() -> None:
    made = tuple(HPKECiphertext(bytes(32), bytes(48)) for _ in range(60))
    raw = UpdatePathNode(b"key", made).encode()
    accepted = 0
    for at in range(len(raw) - 60 * 82, len(raw)):
        # Any header that is changed makes it another encoding or none; it is never read as 60 of one size.
        changed = raw[:at] + bytes([raw[at] ^ 0x11]) + raw[at + 1 :]
        is_header = (at - (len(raw) - 60 * 82)) % 82 in {0, 33}
        try:
            sealed = UpdatePathNode.decode(changed).encrypted_path_secret
        except CoterieError:
            assert is_header
            continue
        accepted += 1
        assert not is_header or len(sealed) != 60 or len({len(c.encode()) for c in sealed}) > 1
    assert accepted >= 60 * 80
