"""Positions in the array form of the ratchet tree (RFC 9420 §4.1 and appendix C).

Leaves and nodes have index types of their own, so that one is never taken for the other: leaf i is node 2i, and the
level of a node is the number of ones at the end of its index. All trees here are full: the number of leaves is a power
of two. Everything is arithmetic on indices; the tree itself is in `ratchet_tree`.
"""

from __future__ import annotations

from coterie.errors import StateError


class LeafIndex(int):
    """The place of a member among the leaves, from 0."""

    __slots__ = ()

    def node(self) -> NodeIndex:
        """The node of this leaf."""
        return NodeIndex(2 * self)

    def __repr__(self) -> str:
        return f"leaf {int(self)}"


class NodeIndex(int):
    """The place of a node in the array form of the tree, from 0, leaves and parents in order."""

    __slots__ = ()

    def level(self) -> int:
        """The height above the leaves: 0 for a leaf."""
        return (self ^ (self + 1)).bit_length() - 1

    def is_leaf(self) -> bool:
        """Whether this is a leaf."""
        return not self & 1

    def leaf(self) -> LeafIndex:
        """The leaf at this node; raises `StateError` for a parent."""
        if self & 1:
            msg = f"node {int(self)} is not a leaf"
            raise StateError(msg)
        return LeafIndex(self >> 1)

    def left(self) -> NodeIndex:
        """The left child; raises `StateError` for a leaf."""
        return NodeIndex(self ^ (1 << self._child_level()))

    def right(self) -> NodeIndex:
        """The right child; raises `StateError` for a leaf."""
        return NodeIndex(self ^ (3 << self._child_level()))

    def _child_level(self) -> int:
        level = self.level()
        if level == 0:
            msg = f"node {int(self)} is a leaf and has no children"
            raise StateError(msg)
        return level - 1

    def parent(self) -> NodeIndex:
        """The parent, whatever the size of the tree; the caller knows where the root is."""
        level = self.level()
        return NodeIndex((self | (1 << level)) & ~(1 << (level + 1)))

    def sibling(self) -> NodeIndex:
        """The other child of the parent."""
        parent = self.parent()
        return parent.right() if self < parent else parent.left()

    def first_leaf(self) -> LeafIndex:
        """The leftmost leaf below (or at) this node."""
        return LeafIndex((self + 1 - (1 << self.level())) >> 1)

    def leaf_count(self) -> int:
        """How many leaves the subtree under this node has."""
        return 1 << self.level()

    def covers(self, leaf: LeafIndex) -> bool:
        """Whether the leaf lies below (or at) this node."""
        return (leaf >> self.level()) == (self.first_leaf() >> self.level())

    def __repr__(self) -> str:
        return f"node {int(self)}"


def node_width(leaf_count: int) -> int:
    """The number of nodes of a tree with `leaf_count` leaves."""
    return 0 if leaf_count == 0 else 2 * leaf_count - 1


def tree_depth(leaf_count: int) -> int:
    """The level of the root of a full tree that has room for `leaf_count` leaves."""
    return max(leaf_count - 1, 0).bit_length()


def root(leaf_count: int) -> NodeIndex:
    """The root of the full tree that has room for `leaf_count` leaves."""
    return NodeIndex((1 << tree_depth(leaf_count)) - 1)


def node_at(level: int, leaf: int) -> NodeIndex:
    """The node at `level` above the leaf."""
    return NodeIndex(((leaf >> level) << (level + 1)) + (1 << level) - 1)


def direct_path(leaf: LeafIndex, depth: int) -> tuple[NodeIndex, ...]:
    """The nodes above a leaf, lowest first and the root at level `depth` included."""
    return tuple(node_at(level, leaf) for level in range(1, depth + 1))


def copath(leaf: LeafIndex, depth: int) -> tuple[NodeIndex, ...]:
    """The siblings of the leaf and of the nodes above it, the root's excepted, lowest first."""
    return tuple(node_at(level, (leaf >> level ^ 1) << level) for level in range(depth))


def common_ancestor_level(a: LeafIndex, b: LeafIndex) -> int:
    """The level of the lowest node above both leaves; 0 where they are the same."""
    return int(a ^ b).bit_length()
