"""Positions in the tree, compared with a tree that is built node by node (RFC 9420 §4.1, appendix C)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import StateError
from coterie.mls.tree_math import (
    LeafIndex,
    NodeIndex,
    common_ancestor_level,
    copath,
    direct_path,
    node_at,
    node_width,
    root,
    tree_depth,
)

LEAVES = st.integers(0, (1 << 24) - 1).map(LeafIndex)
NODES = st.integers(0, (1 << 25) - 2).map(NodeIndex)


def built(depth: int) -> dict[int, tuple[int | None, int | None, range]]:
    """For each node of a full tree its children and the leaves below it, by in-order numbering."""
    nodes: dict[int, tuple[int | None, int | None, range]] = {}

    def build(first: int, size: int) -> int:
        if size == 1:
            nodes[2 * first] = (None, None, range(first, first + 1))
            return 2 * first
        left = build(first, size // 2)
        right = build(first + size // 2, size // 2)
        index = 2 * first + size - 1
        nodes[index] = (left, right, range(first, first + size))
        return index

    build(0, 1 << depth)
    return nodes


@pytest.mark.parametrize("depth", range(7))
def test_children_parents_and_siblings_are_those_of_a_tree_that_is_built(depth: int) -> None:
    nodes = built(depth)
    assert node_width(1 << depth) == len(nodes)
    for number, (left, right, below) in nodes.items():
        node = NodeIndex(number)
        assert node.is_leaf() == (left is None)
        assert node.leaf_count() == len(below)
        assert node.first_leaf() == below[0]
        assert all(node.covers(LeafIndex(leaf)) == (leaf in below) for leaf in range(1 << depth))
        if left is not None and right is not None:
            assert (node.left(), node.right()) == (left, right)
            assert NodeIndex(left).parent() == NodeIndex(right).parent() == node
            assert (NodeIndex(left).sibling(), NodeIndex(right).sibling()) == (right, left)


@pytest.mark.parametrize("depth", range(7))
def test_the_direct_path_is_what_covers_a_leaf_and_the_copath_what_is_beside_it(depth: int) -> None:
    nodes = built(depth)
    for leaf in range(1 << depth):
        index = LeafIndex(leaf)
        path = direct_path(index, depth)
        above = sorted(
            (n for n, (left, _, below) in nodes.items() if left is not None and leaf in below),
            key=lambda n: len(nodes[n][2]),
        )
        assert list(path) == above
        beside = [NodeIndex(n).sibling() for n in (index.node(), *path) if n != root(1 << depth)]
        assert list(copath(index, depth)) == beside


@pytest.mark.parametrize(
    ("leaves", "depth", "top"), [(1, 0, 0), (2, 1, 1), (3, 2, 3), (4, 2, 3), (5, 3, 7), (9, 4, 15)]
)
def test_the_root_is_that_of_the_smallest_full_tree(leaves: int, depth: int, top: int) -> None:
    assert tree_depth(leaves) == depth
    assert root(leaves) == top
    assert root(leaves).level() == depth


def test_a_tree_without_leaves_has_no_nodes() -> None:
    assert node_width(0) == 0


def test_leaf_and_node_name_each_other() -> None:
    assert LeafIndex(5).node() == NodeIndex(10)
    assert NodeIndex(10).leaf() == LeafIndex(5)
    assert repr(LeafIndex(5)) == "leaf 5"
    assert repr(NodeIndex(10)) == "node 10"


def test_a_parent_is_no_leaf_and_a_leaf_has_no_children() -> None:
    with pytest.raises(StateError, match="not a leaf"):
        NodeIndex(3).leaf()
    for step in (NodeIndex.left, NodeIndex.right):
        with pytest.raises(StateError, match="no children"):
            step(NodeIndex(4))


@given(NODES)
def test_a_node_is_a_child_of_its_parent_and_the_sibling_of_its_sibling(node: NodeIndex) -> None:
    parent = node.parent()
    assert node in {parent.left(), parent.right()}
    assert parent.level() == node.level() + 1
    assert node.sibling() != node
    assert node.sibling().sibling() == node
    assert node_at(node.level(), node.first_leaf()) == node


@given(LEAVES, LEAVES)
def test_the_lowest_common_ancestor_covers_both_and_its_children_do_not(
    a: LeafIndex, b: LeafIndex
) -> None:
    level = common_ancestor_level(a, b)
    ancestor = node_at(level, a)
    assert ancestor.covers(a)
    assert ancestor.covers(b)
    if a != b:
        assert not (ancestor.left().covers(a) and ancestor.left().covers(b))
        assert not (ancestor.right().covers(a) and ancestor.right().covers(b))
    else:
        assert ancestor == a.node()
