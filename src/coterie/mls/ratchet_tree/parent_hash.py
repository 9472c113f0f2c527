"""What a joiner checks of the shape of a tree that somebody else gives it (RFC 9420 §7.9.2, §12.4.3.1).

Strategy: a node D can vouch for exactly one parent, its nearest ancestor that is not blank, and for each child of a
parent there is at most one such D. So each parent needs one or two hashes, and the work is linear in the tree (times
its depth where there are unmerged leaves).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from coterie.errors import RuleViolation
from coterie.mls.crypto import Suite
from coterie.mls.ratchet_tree.structs import ParentNode
from coterie.mls.ratchet_tree.subtree import Subtree
from coterie.mls.ratchet_tree.tree import RatchetTree, parent_hash_input
from coterie.mls.rules import Rule
from coterie.mls.tls import encode_varint


def verify_structure(tree: RatchetTree) -> None:
    """Raises `RuleViolation` unless every parent's unmerged leaves are what they may be (§7.1, §12.4.3.1)."""
    for parent in tree.parents():
        unmerged = parent.node.unmerged_leaves  # type: ignore[union-attr]
        if not unmerged:
            continue
        if any(a >= b for a, b in pairwise(unmerged)):
            msg = f"the unmerged leaves of {parent.index!r} are not in ascending order"
            raise RuleViolation(msg, rule=Rule.UNMERGED_ORDER)
        for leaf in unmerged:
            _check_unmerged(parent, leaf)


def _check_unmerged(parent: Subtree, leaf: int) -> None:
    if not parent.covers(leaf):
        msg = f"{parent.index!r} has leaf {int(leaf)} as unmerged, which is not below it"
        raise RuleViolation(msg, rule=Rule.UNMERGED_DESCENDANT)
    if parent.leaf_at(leaf) is None:
        msg = f"{parent.index!r} has leaf {int(leaf)} as unmerged, which is blank"
        raise RuleViolation(msg, rule=Rule.UNMERGED_BLANK)
    below = parent
    while below.level > 1:
        below = below.left if leaf < below.right_start else below.right
        node = below.node
        if isinstance(node, ParentNode):
            # What is further down is checked when this node's own list is.
            place = bisect_left(node.unmerged_leaves, leaf)
            if node.unmerged_leaves[place : place + 1] != (leaf,):
                msg = f"leaf {int(leaf)} is unmerged at {parent.index!r} and not at {below.index!r}"
                raise RuleViolation(msg, rule=Rule.UNMERGED_INTERMEDIATE)
            return


def verify_parent_hashes(tree: RatchetTree) -> None:
    """Raises `RuleViolation` unless some node below vouches for every parent (§7.9.2)."""
    suite, parents = tree.suite, tree.parents()
    plain: list[Subtree] = []
    with_unmerged: list[Subtree] = []
    for parent in parents:
        (with_unmerged if parent.node.unmerged_leaves else plain).append(parent)  # type: ignore[union-attr]
    failed = _uncarried(suite, _uncarried(suite, plain, on_left=True), on_left=False)
    failed += [parent for parent in with_unmerged if not _is_vouched(suite, parent)]
    if failed:
        wrong = set(map(id, failed))
        first = next(parent for parent in parents if id(parent) in wrong)
        msg = f"no node below {first.index!r} carries its parent hash"
        raise RuleViolation(msg, rule=Rule.PARENT_HASH)


def _is_vouched(suite: Suite, parent: Subtree) -> bool:
    """Whether a parent with unmerged leaves is vouched for."""
    above, left, right = parent.parent_node(), parent.left, parent.right
    return _vouched(suite, above, left, right) or _vouched(suite, above, right, left)


def _uncarried(suite: Suite, parents: Sequence[Subtree], *, on_left: bool) -> list[Subtree]:
    """The parents, none with unmerged leaves, whose hash is not in the one node of the left (or right) resolution.

    All inputs first and then all hashes: with 50,000 members a call for each would cost as much as its hash.
    """
    header = encode_varint(suite.hash_length)
    without, asked, carried, inputs = [], [], [], []
    for parent in parents:
        child, sibling = (parent.left, parent.right) if on_left else (parent.right, parent.left)
        node = child.node if child.resolution_size == 1 else None
        if child.resolution_size == 1 and node is None:
            node = next(child.resolution()).node
        if node is None or not node.parent_hash:
            without.append(parent)
            continue
        asked.append(parent)
        carried.append(node.parent_hash)
        # A ParentHashInput begins as the ParentNode does, whose last field is empty here.
        beginning = parent.node.encode()[:-1]  # type: ignore[union-attr]
        inputs.append(beginning + header + (sibling._hash or sibling.tree_hash(suite)))
    hashes = suite.hash_many(inputs)
    without += [
        parent
        for parent, expected, found in zip(asked, carried, hashes, strict=True)
        if expected != found
    ]
    return without


def _vouched(suite: Suite, above: ParentNode, child: Subtree, sibling: Subtree) -> bool:
    """Whether the one node that may, below `child`, has the hash of a parent with unmerged leaves."""
    at = _beside_unmerged(child, _below(above.unmerged_leaves, child))
    if at is None or at.node is None or not at.node.parent_hash:
        return False
    sibling = without_leaves(sibling, _below(above.unmerged_leaves, sibling))
    fields = parent_hash_input(above.encryption_key, above.parent_hash, sibling.tree_hash(suite))
    return at.node.parent_hash == suite.hash(fields)


def _beside_unmerged(child: Subtree, unmerged: Sequence[int]) -> Subtree | None:
    """The only node of the resolution besides the unmerged leaves, where there is only one."""
    if child.resolution_size != 1 + len(unmerged):
        return None
    leaves = set(unmerged)
    others = [tree for tree in child.resolution() if tree.level or tree.start not in leaves]
    return others[0] if len(others) == 1 else None


def _below(leaves: Sequence[int], tree: Subtree) -> Sequence[int]:
    return leaves[bisect_left(leaves, tree.start) : bisect_left(leaves, tree.start + tree.size)]


def without_leaves(tree: Subtree, leaves: Sequence[int]) -> Subtree:
    """The subtree as it was before the sorted leaves were added: blank, and unmerged nowhere (§7.9)."""
    if not leaves:
        return tree
    if tree.level == 0:
        return Subtree.blank(0, tree.start)
    middle = bisect_left(leaves, tree.right_start)
    node = tree.node
    if isinstance(node, ParentNode):
        dropped = set(leaves)
        kept = tuple(leaf for leaf in node.unmerged_leaves if leaf not in dropped)
        node = ParentNode(node.encryption_key, node.parent_hash, kept)
    return Subtree.parent(
        node,  # type: ignore[arg-type]
        without_leaves(tree.left, leaves[:middle]),
        without_leaves(tree.right, leaves[middle:]),
    )
