"""§7.1, §7.9.2 and §12.4.3.3: ratchet trees that nobody should believe, in a Welcome that is right otherwise."""

from __future__ import annotations

from collections.abc import Callable

from coterie.mls import ratchet_tree
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, UnverifiedTree
from coterie.mls.rules import Rule
from coterie.mls.tls import encode_opaque
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.types import LeafNodeSource
from tests.rules.cases.joining import newcomer, welcome_with_tree
from tests.rules.cases.registry import case
from tests.rules.forging import Forger, encode_tree, sign_leaf
from tests.rules.world import Attack, Call, Join, World

Nodes = list[LeafNode | ParentNode | None]
ROOT, LEFT, LEFTMOST, RIGHT = 7, 3, 1, 11


def nodes_of(tree: RatchetTree) -> Nodes:
    """The array form."""
    last = max(leaf for leaf, _ in tree.members())
    return [tree.node(NodeIndex(n)) for n in range(2 * last + 1)]


def changed(title: str, rule: Rule) -> Callable[[Callable[[World, Nodes], None]], None]:
    """A case that changes some nodes of a warm tree with a newcomer in it."""

    def add(change: Callable[[World, Nodes], None]) -> None:
        def make(w: World, f: Forger) -> Attack:
            bundle, tree = newcomer(w, f)
            nodes = nodes_of(tree)
            change(w, nodes)
            return Join(bundle, f.welcome(bundle, encode_tree(nodes)))

        case(rule, title)(make)

    return add


def _unmerge(nodes: Nodes, place: int, *leaves: int) -> None:
    node = nodes[place]
    assert isinstance(node, ParentNode)
    nodes[place] = node.replace(unmerged_leaves=tuple(map(LeafIndex, leaves)))


@changed("unmerged leaves in the wrong order", Rule.UNMERGED_ORDER)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 5, 4)


@changed("one unmerged leaf twice", Rule.UNMERGED_ORDER)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 5, 5)


@changed("an unmerged leaf of another subtree", Rule.UNMERGED_DESCENDANT)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, LEFT, 4)


@changed("an unmerged leaf outside of the tree", Rule.UNMERGED_DESCENDANT)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 5, 99)


@changed("an unmerged leaf that is blank", Rule.UNMERGED_BLANK)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 5, 7)


@changed("an unmerged leaf beyond the end of the array", Rule.UNMERGED_BLANK)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 5, 6)


@changed("an unmerged leaf that is merged further down", Rule.UNMERGED_INTERMEDIATE)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 1, 5)


@changed("an unmerged leaf that is merged two levels down", Rule.UNMERGED_INTERMEDIATE)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 2, 5)
    _unmerge(nodes, LEFT, 2)


@changed("a root that nobody vouches for", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    node = nodes[ROOT]
    assert isinstance(node, ParentNode)
    nodes[ROOT] = node.replace(encryption_key=w.suite.generate_hpke_key(w.rng).public)


@changed("a parent with another parent hash", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    node = nodes[LEFTMOST]
    assert isinstance(node, ParentNode)
    nodes[LEFTMOST] = node.replace(parent_hash=bytes(w.suite.hash_length))


@changed("parents whose hashes are empty", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    for place in (LEFT, LEFTMOST):
        node = nodes[place]
        assert isinstance(node, ParentNode)
        nodes[place] = node.replace(parent_hash=b"")


@changed("a parent where there was none", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    key = w.suite.generate_hpke_key(w.rng).public
    nodes[9] = ParentNode(key, b"", (LeafIndex(5),))


@changed("a leaf that was replaced under its parent", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    nodes[2] = w.bundle("mallory").key_package.leaf_node


@changed("an unmerged leaf that nobody saw arrive", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    _unmerge(nodes, ROOT, 4, 5)


@changed("a parent over nothing but blank leaves", Rule.PARENT_HASH)
def _(w: World, nodes: Nodes) -> None:
    nodes[4] = nodes[6] = None


@changed("two parents with one encryption key", Rule.UNIQUE_ENCRYPTION_KEY)
def _(w: World, nodes: Nodes) -> None:
    # A chain that somebody made by hand, every link of it right but for the key.
    key = nodes[RIGHT - 3]
    assert isinstance(key, LeafNode)
    _hand_made(w, nodes, key.encryption_key)


@changed("a parent with a key that is none", Rule.HPKE_PUBLIC_KEY)
def _(w: World, nodes: Nodes) -> None:
    first = nodes[0]
    assert isinstance(first, LeafNode)
    _hand_made(w, nodes, bytes(len(first.encryption_key)))


def _hand_made(w: World, nodes: Nodes, key: bytes) -> None:
    """Blanks all parents but the lowest on the left, which gets this key; alice's leaf vouches for it."""
    nodes[1::2] = [None] * len(nodes[1::2])
    parent = ParentNode(key, b"", ())
    sibling = UnverifiedTree.decode(encode_tree([nodes[2]]), w.suite).trust()
    sibling_hash = w.suite.hash(b"\x01" + (1).to_bytes(4) + b"\x01" + sibling.leaf(0).encode())  # type: ignore[union-attr]
    parent_hash = w.suite.hash(
        encode_opaque(key) + encode_opaque(b"") + encode_opaque(sibling_hash)
    )
    leaf = nodes[0]
    assert isinstance(leaf, LeafNode)
    nodes[0] = sign_leaf(
        w.suite,
        leaf,
        w.key("alice"),
        leaf_node_source=LeafNodeSource.COMMIT,
        lifetime=None,
        parent_hash=parent_hash,
        group_id=b"the group",
        leaf_index=LeafIndex(0),
    )
    nodes[1] = parent


# -- the array


def _array(title: str, rule: Rule) -> Callable[[Callable[[World, Nodes], bytes]], None]:
    """A case with an array of nodes that is no tree."""

    def add(change: Callable[[World, Nodes], bytes]) -> None:
        def make(w: World, f: Forger) -> Attack:
            return welcome_with_tree(w, f, change(w, nodes_of(f.epoch.tree)))

        case(rule, title)(make)

    return add


@_array("a leaf where a parent should be", Rule.TREE_NODE_PARITY)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([nodes[0], nodes[2], nodes[4]])


@_array("a parent where a leaf should be", Rule.TREE_NODE_PARITY)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([nodes[1], *nodes[1:]])


@_array("a tree with a blank node at its end", Rule.TREE_TRAILING_BLANK)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([*nodes, None])


@_array("a tree with blank nodes up to its full width", Rule.TREE_TRAILING_BLANK)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([*nodes, *([None] * (15 - len(nodes)))])


@_array("a tree of nothing", Rule.TREE_TRAILING_BLANK)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([])


@_array("a tree that ends with a parent", Rule.TREE_LENGTH)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([*nodes[:8]])


@_array("a tree of a leaf and a parent", Rule.TREE_LENGTH)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree([nodes[0], nodes[1]])


@_array("a tree with a byte after its end", Rule.TRAILING_BYTES)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree(nodes) + b"\0"


@_array("a tree without its last byte", Rule.TRUNCATED)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_tree(nodes)[:-1]


@_array("a tree of no bytes", Rule.TRUNCATED)
def _(w: World, nodes: Nodes) -> bytes:
    return b""


@_array("a tree that ends inside a node's head", Rule.TRUNCATED)
def _(w: World, nodes: Nodes) -> bytes:
    return encode_opaque(b"\x01")


@_array("a tree that ends inside a leaf", Rule.VECTOR_OVERRUN)
def _(w: World, nodes: Nodes) -> bytes:
    node = nodes[0]
    assert isinstance(node, LeafNode)
    return encode_opaque(b"\x01\x01" + node.encode()[:20])


@_array("a presence octet of 2 in a tree", Rule.PRESENCE_OCTET)
def _(w: World, nodes: Nodes) -> bytes:
    node = nodes[0]
    assert isinstance(node, LeafNode)
    return encode_opaque(b"\x02\x01" + node.encode())


@_array("a node type that there is not", Rule.ENUM_VALUE)
def _(w: World, nodes: Nodes) -> bytes:
    node = nodes[0]
    assert isinstance(node, LeafNode)
    return encode_opaque(b"\x01\x03" + node.encode())


@case(Rule.TREE_SIZE, "a tree that is larger than what is read")
def _(w: World, f: Forger) -> Attack:
    encoded = f.epoch.tree.encode()

    def read() -> object:
        module = ratchet_tree.tree
        whole, module.MAX_LEAVES = module.MAX_LEAVES, 4
        try:
            return UnverifiedTree.decode(encoded, w.suite)
        finally:
            module.MAX_LEAVES = whole

    return Call(read)
