"""TreeKEM between one sender and every receiver, in trees of all shapes (RFC 9420 §7.4-§7.6)."""

from __future__ import annotations

import os

import pytest

from bench.shapes import SHAPES, Shape, build
from coterie.errors import DecryptionError
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.ratchet_tree import HPKECiphertext, UpdatePath, UpdatePathNode
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.treekem import derive_path, keys_above, open_path, seal_path

CONTEXT = b"the provisional GroupContext"


def update_of(
    shape: Shape, sender: int, new: tuple[int, ...] = ()
) -> tuple[UpdatePath, Secret, dict[NodeIndex, HPKEPrivateKey]]:
    tree, suite = shape.tree, shape.suite
    path = derive_path(suite, tree, LeafIndex(sender), os.urandom)
    nodes = seal_path(suite, tree, path, CONTEXT, new, os.urandom)
    leaf = tree.leaf(sender)
    assert leaf is not None
    return UpdatePath(leaf, nodes), path.commit_secret, path.keys()


def received(
    shape: Shape, update: UpdatePath, sender: int, receiver: int, new: tuple[int, ...] = ()
) -> tuple[dict[NodeIndex, HPKEPrivateKey], Secret]:
    private = shape.epoch(receiver).private
    path = shape.tree.filtered_direct_path(sender)
    return open_path(shape.suite, private, path, update, CONTEXT, new)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3, 7, 16, 21])
def test_every_member_derives_the_secret_of_every_sender(n: int, shape: str) -> None:
    made = build(n, shape)
    for sender in range(0, n, 3):
        update, secret, keys = update_of(made, sender)
        for receiver in set(range(n)) - {sender}:
            found, commit_secret = received(made, update, sender, receiver)
            assert commit_secret == secret
            assert {i: key.public for i, key in found.items()} == {i: keys[i].public for i in found}
            assert all(index.covers(LeafIndex(receiver)) for index in found)


def test_new_leaves_get_no_ciphertext_and_the_others_still_find_theirs() -> None:
    made = build(21, "blank")
    new = (5, 6, 13)
    update, secret, _ = update_of(made, 2, new)
    plain, _, _ = update_of(made, 2)
    sealed = [sum(len(n.encrypted_path_secret) for n in u.nodes) for u in (update, plain)]
    assert sealed[1] - sealed[0] == len(new)
    for receiver in set(range(21)) - {2, *new}:
        assert received(made, update, 2, receiver, new)[1] == secret


def test_a_ciphertext_of_another_context_does_not_open() -> None:
    made = build(7, "warm")
    update, _, _ = update_of(made, 0)
    path = made.tree.filtered_direct_path(0)
    with pytest.raises(DecryptionError) as refused:
        open_path(made.suite, made.epoch(6).private, path, update, b"another context", ())
    assert refused.value.rule == Rule.PATH_SECRET_OPENS


def test_a_path_secret_that_does_not_give_the_public_key_is_refused() -> None:
    made = build(7, "warm")
    update, _, _ = update_of(made, 0)
    other, _, _ = update_of(made, 0)
    top = UpdatePathNode(
        other.nodes[-1].encryption_key, tuple(update.nodes[-1].encrypted_path_secret)
    )
    forged = UpdatePath(update.leaf_node, (*update.nodes[:-1], top))
    for receiver in range(1, 7):
        with pytest.raises(DecryptionError) as refused:
            received(made, forged, 0, receiver)
        assert refused.value.rule == Rule.PATH_SECRET_MATCHES


def test_a_path_secret_of_the_wrong_length_is_refused() -> None:
    made = build(7, "warm")
    suite, path = made.suite, made.tree.filtered_direct_path(0)
    update, _, _ = update_of(made, 0)
    place = path[-1]
    public = next(made.tree.recipients(place.sibling, ()))
    sealed = suite.sealer("UpdatePathNode", CONTEXT).seal(public, bytes(31), os.urandom)
    top = UpdatePathNode(update.nodes[-1].encryption_key, (HPKECiphertext(*sealed),))
    forged = UpdatePath(update.leaf_node, (*update.nodes[:-1], top))
    with pytest.raises(DecryptionError) as refused:
        received(made, forged, 0, 6)
    assert refused.value.rule == Rule.PATH_SECRET_MATCHES


def test_new_members_get_the_secret_of_the_lowest_node_above_them() -> None:
    made = build(21, "half")
    path = derive_path(made.suite, made.tree, LeafIndex(4), os.urandom)
    for leaf in range(21):
        above = [step for step in path.steps if step.node.index.covers(LeafIndex(leaf))]
        secret = path.secret_for(LeafIndex(leaf))
        assert secret == above[0].path_secret
        keys, after = keys_above(
            made.suite,
            [step.node for step in above],
            [step.key.public for step in above],
            above[0].path_secret,
        )
        assert after == path.commit_secret
        assert keys.keys() == {step.node.index for step in above}


def test_private_keys_of_blanked_nodes_are_dropped() -> None:
    made = build(16, "warm")
    private = made.epoch(3).private
    assert len(private.parents) == 4
    blanked = made.tree.with_leaves({LeafIndex(9): None})
    assert private.fitting(blanked, {}).parents.keys() == {
        index for index in private.parents if not index.covers(LeafIndex(9))
    }
    assert "3" in repr(private)
    assert "Secret" not in repr(private)
