"""One immutable node of the persistent ratchet tree, with everything below it (RFC 9420 §4.1, §7.8).

A `Subtree` never changes. A new epoch's tree shares with the old one all subtrees that did not change, so a commit
makes O(log n) of them. Each caches what searches need: how many members are below, how long its resolution is, and,
once somebody asked, its tree hash.

Two kinds make their contents only when these are asked for: a blank subtree (no member, no parent node below), whose
children are blank subtrees again, and a stored one, of which the store keeps the contents under the tree hash. Both
leave the slots `node`, `left` and `right` empty; reading an empty slot comes to `__getattr__`, which fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Protocol, Self

from coterie.errors import DecodeError, StorageError
from coterie.mls.crypto import Suite
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree.structs import ParentNode
from coterie.mls.tls import Struct, Uint, encode_varint
from coterie.mls.tree_math import LeafIndex, NodeIndex


class NodeStore(Protocol):
    """Where a tree that is loaded piece by piece comes from; all that the core knows of storage."""

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key, or None."""


class StoredLeaf(Struct):
    """What the store keeps of a leaf."""

    leaf_node: LeafNode


class StoredChild(Struct):
    """What a stored parent says of a child; both counts are 0 for a blank subtree, which is not stored."""

    tree_hash: bytes
    members: Annotated[int, Uint(4)]
    resolution_size: Annotated[int, Uint(4)]


class StoredParent(Struct):
    """What the store keeps of a parent."""

    parent_node: ParentNode | None
    left: StoredChild
    right: StoredChild


NODE_PREFIX = b"n/"
"""Stored nodes have this before their tree hash."""


class Subtree:
    """A node at `level` above the leaves, and all below it; its first leaf is `start`."""

    __slots__ = (
        "_hash",
        "_load",
        "left",
        "level",
        "members",
        "node",
        "resolution_size",
        "right",
        "start",
    )

    node: LeafNode | ParentNode | None
    left: Subtree
    right: Subtree
    level: int
    start: int
    members: int
    resolution_size: int
    _hash: bytes | None
    _load: Callable[[Subtree], None] | None

    @classmethod
    def leaf(cls, index: int, leaf_node: LeafNode) -> Subtree:
        """The leaf of a member."""
        self = cls()
        self.level, self.start, self.node = 0, index, leaf_node
        self.members = self.resolution_size = 1
        self._hash = self._load = None
        return self

    @classmethod
    def parent(cls, node: ParentNode | None, left: Subtree, right: Subtree) -> Subtree:
        """A parent, blank or not, over two subtrees of one level."""
        self = cls()
        self.level, self.start = left.level + 1, left.start
        self.node, self.left, self.right = node, left, right
        self.members = left.members + right.members
        if node is None:
            self.resolution_size = left.resolution_size + right.resolution_size
        else:
            self.resolution_size = 1 + len(node.unmerged_leaves)
        self._hash = self._load = None
        return self

    @classmethod
    def blank(cls, level: int, start: int) -> Self:
        """A subtree without members and without parent nodes."""
        self = cls()
        self.level, self.start = level, start
        self.members = self.resolution_size = 0
        self._hash, self._load = None, _fill_blank
        return self

    @classmethod
    def stored(cls, level: int, start: int, child: StoredChild, store: NodeStore) -> Self:
        """A subtree whose contents are read from the store when somebody asks."""
        self = cls()
        self.level, self.start = level, start
        self.members, self.resolution_size = child.members, child.resolution_size
        self._hash, self._load = child.tree_hash, lambda tree: _fill_stored(tree, store)
        return self

    def __getattr__(self, name: str) -> Subtree | LeafNode | ParentNode | None:
        if name in {"node", "left", "right"}:
            load = self._load
            if load is not None:
                self._load = None
                try:
                    load(self)
                except BaseException:
                    self._load = load
                    raise
                return getattr(self, name)  # type: ignore[no-any-return]
        raise AttributeError(name)

    def parent_node(self) -> ParentNode:
        """The node, of a subtree that is known to be a parent that is not blank."""
        if not isinstance(self.node, ParentNode):
            msg = f"{self.index!r} is no parent node"
            raise TypeError(msg)
        return self.node

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing in it: no member and no parent node."""
        return self.resolution_size == 0

    @property
    def is_loaded(self) -> bool:
        """Whether the contents are in memory."""
        return self._load is None

    @property
    def size(self) -> int:
        """How many leaves it has, blank ones included."""
        return 1 << self.level

    @property
    def index(self) -> NodeIndex:
        """Its place in the array form of the tree."""
        return NodeIndex(2 * self.start + (1 << self.level) - 1)

    def covers(self, leaf: int) -> bool:
        """Whether the leaf is below (or is) this node."""
        return self.start <= leaf < self.start + (1 << self.level)

    def leaf_at(self, leaf: int) -> LeafNode | None:
        """The leaf node of a member below, or None."""
        tree = self
        for below in range(tree.level - 1, -1, -1):
            if not tree.members:
                return None
            tree = tree.right if leaf >> below & 1 else tree.left
        return tree.node if tree.members else None  # type: ignore[return-value]

    @property
    def right_start(self) -> int:
        """The first leaf of the right child."""
        return self.start + (1 << (self.level - 1))

    def tree_hash(self, suite: Suite) -> bytes:
        """The tree hash (§7.8), Nh bytes; computed once, below included."""
        cached = self._hash
        if cached is not None:
            return cached
        if self.level == 0:
            value = suite.hash(self._leaf_hash_input())
        elif self.members == 0 and self.resolution_size == 0:
            value = _blank_hash(suite, self.level, self.start)
        else:
            left, right = self.left, self.right
            value = suite.hash(
                _parent_hash_input(
                    self.node,  # type: ignore[arg-type]
                    left._hash or left.tree_hash(suite),
                    right._hash or right.tree_hash(suite),
                )
            )
        self._hash = value
        return value

    def _leaf_hash_input(self) -> bytes:
        head = b"\x01" + self.start.to_bytes(4)
        if self.members == 0:
            return head + b"\x00"
        return head + b"\x01" + self.node.encode()  # type: ignore[union-attr]

    def resolution(self) -> Iterator[Subtree]:
        """The resolution (§4.1.1): nodes that together reach all members below, left to right.

        Unmerged leaves of a parent come right after it.
        """
        stack = [self]
        while stack:
            tree = stack.pop()
            if tree.resolution_size == 0:
                continue
            if tree.node is not None:
                yield tree
                if tree.level:
                    for leaf in tree.node.unmerged_leaves:  # type: ignore[union-attr]
                        yield tree.at(0, leaf)
            else:
                stack += (tree.right, tree.left)

    def at(self, level: int, leaf: int) -> Subtree:
        """The subtree at `level` above a leaf that is below this node."""
        tree = self
        for below in range(tree.level - 1, level - 1, -1):
            tree = tree.right if leaf >> below & 1 else tree.left
        return tree

    def members_below(self) -> Iterator[tuple[LeafIndex, LeafNode]]:
        """Every member below with its leaf, left to right."""
        level = [self] if self.members else []
        for _ in range(self.level):
            level = [half for tree in level for half in (tree.left, tree.right) if half.members]
        for tree in level:
            yield LeafIndex(tree.start), tree.node  # type: ignore[misc]

    def parents_below(self) -> Iterator[Subtree]:
        """Every parent from here down that is not blank, level by level."""
        level = [self]
        for _ in range(self.level):
            yield from (tree for tree in level if tree.node is not None)
            level = [
                half for tree in level for half in (tree.left, tree.right) if not half.is_blank
            ]

    def blank_leaves(self) -> Iterator[LeafIndex]:
        """Every blank leaf below, left to right."""
        stack = [self]
        while stack:
            tree = stack.pop()
            if tree.members == tree.size:
                continue
            if tree.members == 0:
                yield from map(LeafIndex, range(tree.start, tree.start + tree.size))
            else:
                stack += (tree.right, tree.left)

    def rightmost_member(self) -> int:
        """The index of the last member below, -1 where there is none."""
        tree = self
        if not tree.members:
            return -1
        while tree.level:
            tree = tree.right if tree.right.members else tree.left
        return tree.start

    def stored_value(self, suite: Suite) -> bytes:
        """What the store has to keep of this node, under `NODE_PREFIX` and its tree hash."""
        if self.level == 0:
            return StoredLeaf(self.node).encode()  # type: ignore[arg-type]
        return StoredParent(
            self.node,  # type: ignore[arg-type]
            self.left.as_stored_child(suite),
            self.right.as_stored_child(suite),
        ).encode()

    def as_stored_child(self, suite: Suite) -> StoredChild:
        """What its stored parent says of it."""
        return StoredChild(self.tree_hash(suite), self.members, self.resolution_size)


def leaf_level(nodes: Sequence[LeafNode | None]) -> list[Subtree]:
    """All leaves of a tree, blank ones included: as `Subtree.leaf` and `blank` make them, without a call for each."""
    level = []
    for start, node in enumerate(nodes):
        if node is None:
            level.append(Subtree.blank(0, start))
            continue
        tree = Subtree()
        tree.level, tree.start, tree.node = 0, start, node
        tree.members = tree.resolution_size = 1
        tree._hash = tree._load = None
        level.append(tree)
    return level


def parent_level(
    nodes: Sequence[ParentNode | None], below: Sequence[Subtree], height: int
) -> list[Subtree]:
    """The parents over two of `below` each, as `Subtree.parent` and `blank` make them.

    `below` may end early, where everything to the right is blank; `nodes` are as many as parents are needed.
    """
    level = []
    lefts, rights = below[::2], below[1::2]
    if len(lefts) > len(rights):
        rights = [*rights, Subtree.blank(height - 1, lefts[-1].start + (1 << (height - 1)))]
    for node, left, right in zip(nodes, lefts, rights, strict=True):
        if node is not None:
            size = 1 + len(node.unmerged_leaves)
        else:
            size = left.resolution_size + right.resolution_size
            if not size:
                level.append(Subtree.blank(height, left.start))
                continue
        tree = Subtree()
        tree.level, tree.start = height, left.start
        tree.node, tree.left, tree.right = node, left, right
        tree.members, tree.resolution_size = left.members + right.members, size
        tree._hash = tree._load = None
        level.append(tree)
    return level


def hash_level(suite: Suite, level: Sequence[Subtree]) -> None:
    """Computes the tree hashes (§7.8) of subtrees of one level, those below being known; blank ones are left out."""
    todo = [tree for tree in level if tree._hash is None and tree.resolution_size]
    if not todo:
        return
    if todo[0].level == 0:
        inputs = [
            b"\x01%b\x01%b" % (tree.start.to_bytes(4), tree.node.encode())  # type: ignore[union-attr]
            for tree in todo
        ]
    else:
        header = encode_varint(suite.hash_length)
        inputs = [
            b"".join(
                (
                    b"\x02\x00" if tree.node is None else b"\x02\x01" + tree.node.encode(),
                    header,
                    tree.left._hash or tree.left.tree_hash(suite),
                    header,
                    tree.right._hash or tree.right.tree_hash(suite),
                )
            )
            for tree in todo
        ]
    for tree, value in zip(todo, suite.hash_many(inputs), strict=True):
        tree._hash = value


def _parent_hash_input(node: ParentNode | None, left: bytes, right: bytes) -> bytes:
    body = b"\x02\x00" if node is None else b"\x02\x01" + node.encode()
    header = encode_varint(len(left))
    return body + header + left + header + right


def _fill_blank(tree: Subtree) -> None:
    tree.node = None
    if tree.level:
        tree.left = Subtree.blank(tree.level - 1, tree.start)
        tree.right = Subtree.blank(tree.level - 1, tree.right_start)


def _fill_stored(tree: Subtree, store: NodeStore) -> None:
    value = store.get(NODE_PREFIX + (tree._hash or b""))
    if value is None:
        msg = f"{tree.index!r} of the ratchet tree is not in the store any more"
        raise StorageError(msg)
    try:
        if tree.level == 0:
            tree.node = StoredLeaf.decode(value).leaf_node
            return
        stored = StoredParent.decode(value)
    except DecodeError as error:
        msg = f"{tree.index!r} of the stored ratchet tree is damaged: {error}; restore it from a backup"
        raise StorageError(msg) from error
    tree.node = stored.parent_node
    tree.left = _child(tree.level - 1, tree.start, stored.left, store)
    tree.right = _child(tree.level - 1, tree.right_start, stored.right, store)


def _child(level: int, start: int, child: StoredChild, store: NodeStore) -> Subtree:
    if child.members == 0 and child.resolution_size == 0:
        tree = Subtree.blank(level, start)
        tree._hash = child.tree_hash
        return tree
    return Subtree.stored(level, start, child, store)


_BLANK_HASHES: dict[tuple[str, int, int], bytes] = {}
_SMALLEST_KEPT = 2


def _blank_hash(suite: Suite, level: int, start: int) -> bytes:
    """The tree hash of a blank subtree, from one table per hash function for the whole process.

    Leaves have their index in their hash, so every position has its own; the two lowest levels are computed again
    rather than kept, since they are three quarters of the table.
    """
    if level == 0:
        return suite.hash(b"\x01" + start.to_bytes(4) + b"\x00")
    key = (suite.hash_name, level, start)
    value = _BLANK_HASHES.get(key)
    if value is None:
        half = 1 << (level - 1)
        left = _blank_hash(suite, level - 1, start)
        right = _blank_hash(suite, level - 1, start + half)
        value = suite.hash(_parent_hash_input(None, left, right))
        if level >= _SMALLEST_KEPT:
            _BLANK_HASHES[key] = value
    return value
