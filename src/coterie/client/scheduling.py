"""Who commits next: an order that every member computes alike from the tree, without a vote.

A Commit is sealed to the resolutions of its committer's copath, and fills the blanks on its committer's path. So the
order goes down from the root, to the child that has the longer resolution: its side pays for the shorter one, and fills
the longer one, which everybody on the other side is spared from then on. Where both are equally long, the bits of the
epoch's number decide, one for each level: successive epochs visit all regions of the tree in turn (a van der Corput
sequence), so that blanks further down are met, and no member does all the work.

Whoever is first may be offline, and nobody knows. So turns come in slots, each with twice as many members as the one
before: however few are online, one or two of them have the first slot in which anybody is. A member's place in the
order costs one walk from the root, whatever the size of the group, and looks at no node but its path and its copath.

All of it is a preference: who commits out of turn breaks no rule, and a lost race is run again as always.
"""

from __future__ import annotations

from collections.abc import Collection

from coterie.mls.ratchet_tree import RatchetTree, Subtree
from coterie.mls.tree_math import LeafIndex

SLOT = 2
"""Seconds from one slot to the next: longer than it takes to read that somebody was first."""
FILL_SLOT = 15
"""The same where nothing waits, and a Commit would only make those that follow cheaper."""
WORTH = 64
"""How many ciphertexts a Commit must spare some later ones, to be worth making for that alone."""


def preferred(tree: RatchetTree, epoch: int = 0, leaving: Collection[int] = ()) -> LeafIndex | None:
    """The member who is first to commit in an epoch; None where all are leaving."""
    node = tree.root
    if _able(node, leaving) == 0:
        return None
    for level in range(node.level):
        node = _sides(node, epoch >> level & 1, leaving)[0]
    return LeafIndex(node.start)


def rank(
    tree: RatchetTree, leaf: LeafIndex | int, epoch: int = 0, leaving: Collection[int] = ()
) -> int:
    """How many members come before the one at `leaf`; `leaving` are leaves that do not commit any more."""
    before, node = 0, tree.root
    for level in range(node.level):
        first, second = _sides(node, epoch >> level & 1, leaving)
        if first.start <= leaf < first.start + first.size:
            node = first
        else:
            before += _able(first, leaving)
            node = second
    return before


def slot(rank: int) -> int:
    """In which slot a place in the order is: 0, then 1, then 2 and 3, then 4 to 7, and so on."""
    return rank.bit_length()


def own_turn(
    tree: RatchetTree,
    own_leaf: LeafIndex | int,
    waiting_since: int,
    now: int,
    *,
    epoch: int = 0,
    leaving: Collection[int] = (),
) -> bool:
    """Whether the member at `own_leaf` is to commit what has waited since then; times are in seconds."""
    if own_leaf in leaving:
        return False
    return now - waiting_since >= SLOT * slot(rank(tree, own_leaf, epoch, leaving))


def worth(tree: RatchetTree, leaf: LeafIndex | int) -> int:
    """To how many ciphertexts a Commit by `leaf` reduces to one, for those who commit beside its highest blank."""
    longest, node = 0, tree.root
    while node.level:
        half = node.level - 1
        node, sibling = (node.right, node.left) if leaf >> half & 1 else (node.left, node.right)
        if sibling.resolution_size and node.level and node.node is None:
            longest = max(longest, node.resolution_size)
    return longest


def own_turn_to_fill(
    tree: RatchetTree, own_leaf: LeafIndex | int, epoch_since: int, now: int, *, epoch: int = 0
) -> bool:
    """Whether the member at `own_leaf` is to commit nothing, so that its path is filled.

    After many were added in one Commit nearly all parents are blank, and each Commit is sealed to thousands of leaves.
    Commits in this order halve that with each power of two; left alone, the renewals of single members do it too, and
    need many more.
    """
    if worth(tree, own_leaf) < WORTH:
        return False
    return now - epoch_since >= FILL_SLOT * (1 + slot(rank(tree, own_leaf, epoch)))


def _sides(node: Subtree, bit: int, leaving: Collection[int]) -> tuple[Subtree, Subtree]:
    """The children, the one to commit first in front."""
    left, right = node.left, node.right
    key_left = (_able(left, leaving) > 0, left.resolution_size, not bit)
    key_right = (_able(right, leaving) > 0, right.resolution_size, bool(bit))
    return (left, right) if key_left > key_right else (right, left)


def _able(tree: Subtree, leaving: Collection[int]) -> int:
    """How many members below can commit."""
    end = tree.start + tree.size
    return tree.members - sum(1 for leaf in leaving if tree.start <= leaf < end)
