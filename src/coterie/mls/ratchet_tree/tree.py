"""The ratchet tree that a group has in one epoch (RFC 9420 §4, §7.4-§7.9, §12.3): a value that is never changed.

Every operation returns another tree that shares all unchanged subtrees with this one.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import ReferenceType, ref

from coterie.errors import DecodeError, RuleViolation, StorageError
from coterie.mls.crypto import Suite
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree.structs import ParentNode
from coterie.mls.ratchet_tree.subtree import (
    NODE_PREFIX,
    NodeStore,
    StoredChild,
    Subtree,
    hash_level,
    leaf_level,
    parent_level,
)
from coterie.mls.rules import Rule
from coterie.mls.tls import decode_varint, encode_opaque, encode_varint
from coterie.mls.tree_math import LeafIndex, NodeIndex, tree_depth

Nodes = tuple[Subtree, ...]
Levels = Sequence[list[Subtree]]

MAX_LEAVES = 1 << 24
"""The largest tree that is read: 16,777,216 leaves."""
_MANY_YOUNG = 20_000
"""So many new objects take a collection some milliseconds."""


@dataclass(slots=True)
class PathNode:
    """A node of a filtered direct path (§4.1.2) with the child of it that is on the copath; nobody changes it.

    Not frozen, since each Commit makes one for each level: setting a field of a frozen dataclass is a call.
    """

    index: NodeIndex
    level: int
    sibling: Subtree


class RatchetTree:
    """A tree of members' leaves and of parents; immutable."""

    __slots__ = ("__weakref__", "_changes", "_leaves", "_levels", "_parents", "root", "suite")

    def __init__(self, suite: Suite, root: Subtree, levels: Levels = ()) -> None:
        """`levels` are all subtrees by level, where they are at hand: whoever looks at all of them is faster then."""
        self.suite = suite
        self.root = root
        self._levels = levels
        self._leaves: list[LeafNode] = []
        self._parents: list[Subtree] = []
        self._changes: tuple[ReferenceType[RatchetTree], Nodes, Nodes] | None = None

    @classmethod
    def of_one(cls, suite: Suite, leaf_node: LeafNode) -> RatchetTree:
        """The tree of a new group: one leaf."""
        return cls(suite, Subtree.leaf(0, leaf_node))

    @classmethod
    def stored(cls, suite: Suite, level: int, root: StoredChild, store: NodeStore) -> RatchetTree:
        """A tree whose nodes come out of a store one by one, when they are needed."""
        if 1 << level > MAX_LEAVES:
            msg = f"the stored ratchet tree has {level} levels, which none has; restore it from a backup"
            raise StorageError(msg)
        return cls(suite, Subtree.stored(level, 0, root, store))

    # -- what it is

    @property
    def leaf_count(self) -> int:
        """How many leaves there is room for: a power of two."""
        return self.root.size

    @property
    def member_count(self) -> int:
        """How many leaves are not blank."""
        return self.root.members

    def tree_hash(self) -> bytes:
        """The hash of the whole tree (§7.8)."""
        for level in self._levels:
            hash_level(self.suite, level)
        return self.root.tree_hash(self.suite)

    def leaf(self, index: LeafIndex | int) -> LeafNode | None:
        """The leaf node of a member; None where the leaf is blank or outside the tree."""
        return self.root.leaf_at(index) if 0 <= index < 1 << self.root.level else None

    def member(self, index: LeafIndex | int, *, rule: str) -> LeafNode:
        """The leaf node of a member; raises `RuleViolation` under the given rule where there is none."""
        leaf = self.leaf(index)
        if leaf is None:
            msg = f"there is no member at leaf {int(index)}"
            raise RuleViolation(msg, rule=rule)
        return leaf

    def members(self) -> Iterator[tuple[LeafIndex, LeafNode]]:
        """Every member, left to right."""
        if self._levels:
            return ((LeafIndex(t.start), t.node) for t in self._levels[0] if t.members)  # type: ignore[misc]
        return self.root.members_below()

    def find(self, encryption_key: bytes) -> LeafIndex | None:
        """The member whose leaf has an encryption key: looks at all of them."""
        for place, leaf in enumerate(self.leaf_nodes()):
            if leaf.encryption_key == encryption_key:
                return LeafIndex(self.member_places()[place])
        return None

    def leaf_nodes(self) -> Sequence[LeafNode]:
        """Every member's leaf node, left to right."""
        if not self._levels:
            return [leaf for _, leaf in self.members()]
        if not self._leaves:
            self._leaves = [tree.node for tree in self._levels[0] if tree.members]  # type: ignore[misc]
        return self._leaves

    def member_places(self) -> list[int]:
        """Every member's leaf index, left to right, as plain numbers."""
        if self._levels:
            return [tree.start for tree in self._levels[0] if tree.members]
        return [int(index) for index, _ in self.members()]

    def node(self, index: NodeIndex) -> LeafNode | ParentNode | None:
        """The node at a place of the array form; None where it is blank."""
        return self.root.at(index.level(), index.first_leaf()).node

    def parents(self) -> Sequence[Subtree]:
        """Every parent that is not blank, level by level from the root."""
        if not self._levels:
            return list(self.root.parents_below())
        if not self._parents:
            above = self._levels[:0:-1]
            self._parents = [
                t for level in above for t in level if t.resolution_size and t.node is not None
            ]
        return self._parents

    def settled(self) -> RatchetTree:
        """The tree for keeping: without what only makes looking at all of it faster."""
        return RatchetTree(self.suite, self.root)

    def direct_path(self, leaf: LeafIndex | int) -> list[tuple[Subtree, Subtree]]:
        """The nodes above a leaf, lowest first, each with its child on the copath."""
        path = []
        tree = self.root
        for level in range(tree.level - 1, -1, -1):
            left, right = tree.left, tree.right
            if leaf >> level & 1:
                path.append((tree, left))
                tree = right
            else:
                path.append((tree, right))
                tree = left
        path.reverse()
        return path

    def filtered_direct_path(self, leaf: LeafIndex | int) -> list[PathNode]:
        """The direct path without nodes whose copath child has an empty resolution (§4.1.2), lowest first."""
        return [
            PathNode(tree.index, tree.level, sibling)
            for tree, sibling in self.direct_path(leaf)
            if sibling.resolution_size
        ]

    def leftmost_blank(self) -> LeafIndex:
        """Where the next member goes: the first blank leaf, or the first one right of a full tree (§7.7)."""
        return next(self.root.blank_leaves(), LeafIndex(self.leaf_count))

    def blank_positions(self, count: int) -> list[LeafIndex]:
        """Where the next `count` members go, in order."""
        found: list[LeafIndex] = []
        if not count:
            return found
        for leaf in self.root.blank_leaves():
            if len(found) == count:
                return found
            found.append(leaf)
        start = self.leaf_count
        return found + [LeafIndex(start + n) for n in range(count - len(found))]

    # -- changes

    def with_leaves(self, leaves: Mapping[int, LeafNode | None]) -> RatchetTree:
        """Applies Updates and Removes (§12.1.2, §12.1.3): sets leaves or blanks them, blanks the paths above."""
        if not leaves:
            return self
        return RatchetTree(self.suite, _replace(self.root, sorted(leaves), leaves)).truncated()

    def with_added(self, leaves: Sequence[LeafNode]) -> tuple[RatchetTree, list[LeafIndex]]:
        """Applies Adds in order (§12.1.1); returns the tree and where the new members are."""
        positions = self.blank_positions(len(leaves))
        if not positions:
            return self, positions
        tree = self.extended(positions[-1] + 1)
        return RatchetTree(self.suite, _add(tree.root, positions, leaves)), positions

    def extended(self, leaf_count: int) -> RatchetTree:
        """The tree doubled until it has room for `leaf_count` leaves (§7.7)."""
        root = self.root
        while root.size < leaf_count:
            root = Subtree.parent(None, root, Subtree.blank(root.level, root.size))
        return self if root is self.root else RatchetTree(self.suite, root)

    def truncated(self) -> RatchetTree:
        """The tree without right halves that have no member (§7.7)."""
        root = self.root
        while root.level and root.right.members == 0:
            root = root.left
        return self if root is self.root else RatchetTree(self.suite, root)

    def with_path(
        self, leaf: LeafIndex, leaf_node: LeafNode, nodes: Mapping[NodeIndex, ParentNode]
    ) -> RatchetTree:
        """Replaces a leaf and its direct path (§7.5): nodes that are not given are blanked."""
        tree = Subtree.leaf(leaf, leaf_node)
        for above, sibling in self.direct_path(leaf):
            node = nodes.get(above.index)
            if sibling.start < tree.start:
                tree = Subtree.parent(node, sibling, tree)
            else:
                tree = Subtree.parent(node, tree, sibling)
        return RatchetTree(self.suite, tree)

    def path_parents(
        self, path: Sequence[PathNode], keys: Sequence[bytes]
    ) -> tuple[dict[NodeIndex, ParentNode], bytes]:
        """The parent nodes of an UpdatePath with these keys, and the parent hash of its leaf (§7.9)."""
        suite, nodes = self.suite, dict[NodeIndex, ParentNode]()
        header = encode_varint(suite.hash_length)
        parent_hash, encoded_hash = b"", b"\0"
        for place, key in zip(reversed(path), reversed(keys), strict=True):
            fields = encode_opaque(key) + encoded_hash
            nodes[place.index] = ParentNode.assembled(fields + b"\0", key, parent_hash, ())
            parent_hash = suite.hash(fields + header + place.sibling.tree_hash(suite))
            encoded_hash = header + parent_hash
        return nodes, parent_hash

    # -- encryption

    def recipients(self, sibling: Subtree, new: Sequence[int]) -> Iterator[bytes]:
        """The public keys to which a path secret for the node above `sibling` is sealed, in order (§7.6)."""
        if sibling.resolution_size == 1 and sibling.node is not None and not new:
            # So it is all along a path in a warm tree.
            yield sibling.node.encryption_key
            return
        fresh = set(new)
        for tree in sibling.resolution():
            if tree.level or tree.start not in fresh:
                yield tree.node.encryption_key  # type: ignore[union-attr]

    # -- bytes

    def encode(self) -> bytes:
        """The vector `optional<Node> ratchet_tree<V>` (§12.4.3.3)."""
        last = 2 * self.root.rightmost_member()
        parts: list[bytes] = []
        _write(self.root, parts, last)
        return encode_opaque(b"".join(parts))

    def new_nodes(self, old: RatchetTree | None) -> Iterable[Subtree]:
        """The nodes that this tree has and `old` has not; nothing is looked at below shared subtrees."""
        return _difference(self.root, None) if old is None else self.changes_since(old)[1]

    def changes_since(self, old: RatchetTree) -> tuple[Nodes, Nodes]:
        """The nodes that `old` has and this tree has not, and the other way round.

        What is indexed, kept and stored of a Commit depends on it, so the last answer is remembered.
        """
        known = self._changes
        if known is not None and known[0]() is old:
            return known[1:]
        gone, new = _compare(old.root, self.root)
        self._changes = (ref(old), gone, new)
        return gone, new

    def store_changes(self, old: RatchetTree | None) -> tuple[dict[bytes, bytes], set[bytes]]:
        """What a store that has `old` must add and may drop to have this tree: O(log n) after one commit."""
        suite = self.suite
        puts = {
            NODE_PREFIX + tree.tree_hash(suite): tree.stored_value(suite)
            for tree in self.new_nodes(old)
        }
        if old is None:
            return puts, set()
        drops = {NODE_PREFIX + tree.tree_hash(suite) for tree in self.changes_since(old)[0]}
        return puts, drops - puts.keys()


def ciphertext_position(
    sibling: Subtree, leaf: LeafIndex, held: Mapping[NodeIndex, object], new: Sequence[int]
) -> tuple[int, NodeIndex]:
    """Which ciphertext for the resolution of `sibling` a member below it can open, and with which node's key.

    `held` are the nodes whose private keys the member has, `new` the sorted leaves that were added by the same
    Commit and get no ciphertext (§7.6). Counts along one path instead of listing the resolution.
    """
    offset, tree = 0, sibling
    while True:
        node = tree.node
        if node is not None and (tree.level == 0 or tree.index in held):
            return offset, tree.index
        if node is not None:
            unmerged = node.unmerged_leaves  # type: ignore[union-attr]
            before = unmerged[: bisect_left(unmerged, leaf)]
            return offset + 1 + len(before) - count_in(new, before), leaf.node()
        if leaf < tree.right_start:
            tree = tree.left
        else:
            left = tree.left
            offset += left.resolution_size - count_below(new, left)
            tree = tree.right


def parent_hash_input(key: bytes, parent_hash: bytes, sibling_hash: bytes) -> bytes:
    """The encoding of ParentHashInput (§7.9)."""
    return encode_opaque(key) + encode_opaque(parent_hash) + encode_opaque(sibling_hash)


def count_below(leaves: Sequence[int], tree: Subtree) -> int:
    """How many of the sorted leaves are below a subtree."""
    if not leaves:
        return 0
    return bisect_left(leaves, tree.start + tree.size) - bisect_left(leaves, tree.start)


def count_in(leaves: Sequence[int], among: Iterable[int]) -> int:
    """How many of `among` are in the sorted leaves."""
    count = 0
    for leaf in among:
        place = bisect_left(leaves, leaf)
        count += place < len(leaves) and leaves[place] == leaf
    return count


def _replace(tree: Subtree, order: Sequence[int], leaves: Mapping[int, LeafNode | None]) -> Subtree:
    if tree.level == 0:
        leaf = leaves[order[0]]
        return Subtree.blank(0, tree.start) if leaf is None else Subtree.leaf(tree.start, leaf)
    middle = bisect_left(order, tree.right_start)
    left = _replace(tree.left, order[:middle], leaves) if middle else tree.left
    right = _replace(tree.right, order[middle:], leaves) if middle < len(order) else tree.right
    return Subtree.parent(None, left, right)


def _add(tree: Subtree, positions: Sequence[LeafIndex], leaves: Sequence[LeafNode]) -> Subtree:
    if tree.level == 0:
        return Subtree.leaf(tree.start, leaves[0])
    middle = bisect_left(positions, tree.right_start)
    left, right, node = tree.left, tree.right, tree.node
    if middle:
        left = _add(left, positions[:middle], leaves[:middle])
    if middle < len(positions):
        right = _add(right, positions[middle:], leaves[middle:])
    if isinstance(node, ParentNode):
        unmerged = tuple(sorted({*node.unmerged_leaves, *positions}))
        node = ParentNode(node.encryption_key, node.parent_hash, unmerged)
    return Subtree.parent(node, left, right)  # type: ignore[arg-type]


def _write(tree: Subtree, parts: list[bytes], last: int) -> None:
    first = 2 * tree.start
    if first > last:
        return
    if tree.is_blank:
        parts.append(bytes(min(2 * tree.size - 1, last - first + 1)))
    elif tree.level == 0:
        parts.append(b"\x01\x01" + tree.node.encode())  # type: ignore[union-attr]
    else:
        _write(tree.left, parts, last)
        if tree.index <= last:
            parts.append(b"\x00" if tree.node is None else b"\x01\x02" + tree.node.encode())
        _write(tree.right, parts, last)


def encode_nodes(tree: Subtree) -> bytes:
    """`optional<Node> nodes<V>` of one subtree, in the order of the array, blanks at its end kept."""
    parts: list[bytes] = []
    _write(tree, parts, 2 * (tree.start + tree.size))
    return encode_opaque(b"".join(parts))


def _compare(old: Subtree, new: Subtree) -> tuple[Nodes, Nodes]:
    """The stored nodes that only the one and only the other tree has."""
    if old.level != new.level:
        return (
            tuple(_difference(old, _counterpart(new, old))),
            tuple(_difference(new, _counterpart(old, new))),
        )
    gone: list[Subtree] = []
    gained: list[Subtree] = []
    stack = [(old, new)]
    while stack:
        a, b = stack.pop()
        if a is b or (a._hash is not None and a._hash == b._hash):
            continue
        if not (a.resolution_size and b.resolution_size):
            gone += _difference(a, None)
            gained += _difference(b, None)
            continue
        gone.append(a)
        gained.append(b)
        if a.level:
            stack += ((a.right, b.right), (a.left, b.left))
    return tuple(gone), tuple(gained)


def _counterpart(other: Subtree, tree: Subtree) -> Subtree:
    """The part of another tree that lies where this one does, whichever is larger."""
    while other.level > tree.level:
        other = other.left
    return other


def _difference(new: Subtree, old: Subtree | None) -> Iterator[Subtree]:
    """The stored nodes of `new` that are not in the old subtree at the same place."""
    stack: list[tuple[Subtree, Subtree | None]] = [(new, old)]
    while stack:
        tree, old = stack.pop()
        if tree is old or tree.is_blank or _same_stored(tree, old):
            continue
        yield tree
        if tree.level == 0:
            continue
        if old is None or old.level < tree.level:
            stack += ((tree.right, None), (tree.left, old))
        elif old.is_blank:
            stack += ((tree.right, None), (tree.left, None))
        else:
            stack += ((tree.right, old.right), (tree.left, old.left))


def _same_stored(tree: Subtree, old: Subtree | None) -> bool:
    """Whether both are one node that was never looked into."""
    return (
        old is not None
        and tree.level == old.level
        and tree._hash is not None
        and tree._hash == old._hash
    )


class UnverifiedTree:
    """A ratchet tree as it arrived: nothing about it is known but that it decodes.

    `verified` in `validation` turns it into a `RatchetTree`.
    """

    __slots__ = ("_levels", "suite")

    def __init__(self, suite: Suite, levels: Levels) -> None:
        self.suite = suite
        self._levels = levels

    @classmethod
    def decode(cls, data: bytes, suite: Suite) -> UnverifiedTree:
        """Reads `optional<Node> ratchet_tree<V>`; raises `DecodeError` or `RuleViolation` (§12.4.3.3)."""
        length, start = decode_varint(data, 0)
        if start + length != len(data):
            msg = f"the tree has {length} bytes, {len(data) - start} are there"
            rule = Rule.TRAILING_BYTES if start + length < len(data) else Rule.TRUNCATED
            raise DecodeError(msg, rule=rule)
        return cls(suite, _assemble(_read_nodes(data, start)))

    def trust(self) -> RatchetTree:
        """The tree without any check: for tests, and for what this client verified and stored itself."""
        return RatchetTree(self.suite, self._levels[-1][0], self._levels)


@contextmanager
def collector_paused(*, when: bool = True) -> Iterator[None]:
    """No garbage collection while much is made that stays: it would look at it again and again, and find nothing.

    What was made goes on as old: else the first collection after it would look at all of it once more.
    """
    was_enabled = when and gc.isenabled()
    if was_enabled:
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_count()[0] >= _MANY_YOUNG and not gc.get_freeze_count():
                # Both move lists without looking at objects. Who has frozen some keeps them: `unfreeze` is for all.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _read_nodes(data: bytes, pos: int) -> list[LeafNode | ParentNode | None]:
    nodes: list[LeafNode | ParentNode | None] = []
    append, end = nodes.append, len(data)
    leaf_decode, parent_decode = LeafNode._decode, ParentNode._decode
    node: LeafNode | ParentNode
    try:
        while pos < end:
            present = data[pos]
            if present == 0:
                append(None)
                pos += 1
                continue
            kind, odd = data[pos + 1], len(nodes) & 1
            if present != 1:
                msg = f"ratchet_tree: presence octet {present}, must be 0 or 1"
                raise DecodeError(msg, rule=Rule.PRESENCE_OCTET)
            if kind != 1 + odd:
                _refuse_kind(kind, len(nodes))
            node, pos = (parent_decode if odd else leaf_decode)(data, pos + 2, end)
            append(node)
    except IndexError:
        raise DecodeError("the ratchet tree ends in a node", rule=Rule.TRUNCATED) from None
    return nodes


def _refuse_kind(kind: int, index: int) -> None:
    if kind not in {1, 2}:
        raise DecodeError(f"NodeType has no value {kind}", rule=Rule.ENUM_VALUE)
    msg = f"node {index} of the tree is a {'leaf' if kind == 1 else 'parent'}, by its place it is none"
    raise RuleViolation(msg, rule=Rule.TREE_NODE_PARITY)


def _assemble(nodes: list[LeafNode | ParentNode | None]) -> Levels:
    if not nodes or nodes[-1] is None:
        msg = "a ratchet tree must end with a node that is not blank"
        raise RuleViolation(msg, rule=Rule.TREE_TRAILING_BLANK)
    if not len(nodes) & 1:
        msg = "a ratchet tree must end with a leaf: parents have members on their right"
        raise RuleViolation(msg, rule=Rule.TREE_LENGTH)
    depth = tree_depth((len(nodes) + 1) // 2)
    if len(nodes) > 2 * MAX_LEAVES:
        msg = f"a tree of {len(nodes)} nodes, at most {2 * MAX_LEAVES} are read"
        raise RuleViolation(msg, rule=Rule.TREE_SIZE)
    levels = [leaf_level(nodes[::2])]  # type: ignore[arg-type]
    for height in range(1, depth + 1):
        parents = nodes[(1 << height) - 1 :: 1 << (height + 1)]
        parents += [None] * ((len(levels[-1]) + 1) // 2 - len(parents))
        levels.append(parent_level(parents, levels[-1], height))  # type: ignore[arg-type]
    return levels
