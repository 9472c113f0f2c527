"""The group's ratchet tree in chunks (docs/delivery-protocol.md, section 5): where each is, what opens it, what is new.

A chunk covers a subtree of 16 leaves, or four levels of parents above sixteen chunks, to which it refers. `SharedState`
has the references of the present epoch; every member computes them alike, so nobody downloads what it knows. What a
Commit changes is a `StateChange`: the chunks along the changed paths, whatever the size of the group. Nothing here does
I/O; a reference is read from the store when it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from coterie.errors import DecodeError, VerificationError
from coterie.mls.group.state import decode_stored
from coterie.mls.ratchet_tree import Node, NodeStore, RatchetTree, Subtree, encode_nodes
from coterie.mls.tls import Struct, decode_varint, encode_opaque, encode_varint
from coterie.transport import api

LEVELS = 4
"""The levels of the tree that one chunk covers; level 0 has the leaves besides."""
WIDTH = 1 << LEVELS
"""Leaves, or children, of a chunk. A tree that has no more leaves stands in the Welcome and has no chunks (D-CHK-1)."""
MOST_LEVELS = 6
"""The largest tree that is read has 2^24 leaves, hence chunks of six levels."""
KEPT_DATA = 1 << 20
"""Chunks of one Commit up to this size together are made once and go with the bundle; more is uploaded before it."""
_NONCE = bytes(12)
_STEP = 1024
_ROOT = b"r"


class Place(NamedTuple):
    """Which subtree a chunk covers (D-CHK-1)."""

    level: int
    number: int

    @property
    def start(self) -> int:
        """The first leaf below."""
        return self.number << LEVELS * (self.level + 1)

    def child(self, number: int) -> Place:
        """The place of a child."""
        return Place(self.level - 1, self.number * WIDTH + number)

    def key(self, state_secret: bytes) -> bytes:
        """The key of the chunk here that an epoch adds (D-CHK-3)."""
        info = api.CHUNK_KEY_INFO + api.ChunkPosition(self.level, self.number).encode()
        expand = HKDFExpand(algorithm=hashes.SHA256(), length=32, info=info)
        return expand.derive(state_secret)

    def stored_key(self) -> bytes:
        """Under which the children's references are stored."""
        return b"c" + self.level.to_bytes(1) + self.number.to_bytes(4)


class StoredChildren(Struct):
    """The references in one chunk, as they are stored."""

    children: tuple[api.ChunkRef | None, ...]


def has_chunks(leaf_count: int) -> bool:
    """Whether a tree with room for so many leaves is kept in chunks, not in Welcomes (D-CHK-1)."""
    return leaf_count > WIDTH


def root_place(tree: RatchetTree) -> Place | None:
    """Where the chunk with the tree's root is; None for a tree that has no chunks."""
    return Place((tree.root.level - 1) // LEVELS, 0) if has_chunks(tree.leaf_count) else None


def root_place_of(ref: api.ChunkRef, state_secret: bytes) -> Place | None:
    """Which root chunk of the epoch a reference is to; None where it is to none (D-INB-7).

    The root changes with every Commit, so its key is one that the epoch gives.
    """
    places = (Place(level, 0) for level in range(1, MOST_LEVELS))
    return next((place for place in places if place.key(state_secret) == ref.key), None)


def covered(tree: RatchetTree, place: Place) -> Subtree:
    """The part of the tree that a chunk covers, which must exist."""
    return tree.root.at(min(LEVELS * (place.level + 1), tree.root.level), place.start)


def content_of(
    tree: Subtree, place: Place, children: tuple[api.ChunkRef | None, ...]
) -> api.ChunkContent:
    """The plaintext of the chunk that covers a subtree (D-CHK-2)."""
    if place.level == 0:
        return api.ChunkContent(encode_nodes(tree))
    parts: list[bytes] = []
    _write_parents(tree, LEVELS * place.level, parts)
    return api.ChunkContent(encode_opaque(b"".join(parts)), children)


def _write_parents(tree: Subtree, base: int, parts: list[bytes]) -> None:
    if tree.level == base:
        return
    _write_parents(tree.left, base, parts)
    parts.append(b"\0" if tree.node is None else b"\1\2" + tree.node.encode())
    _write_parents(tree.right, base, parts)


def _padded(content: api.ChunkContent) -> bytes:
    bare = content.encode()
    return bare + bytes(-len(bare) % _STEP)


def seal_chunk(content: api.ChunkContent, key: bytes) -> bytes:
    """The chunk's data; its address is the SHA-256 of it (D-CHK-3)."""
    return AESGCM(key).encrypt(_NONCE, _padded(content), None)


def open_chunk(data: bytes, key: bytes) -> api.ChunkContent:
    """The content of a chunk; raises `VerificationError` where it is not one, or not written as D-CHK-3 says.

    Any member must be able to make the same bytes again, so no other padding or encoding is taken.
    """
    try:
        plain = AESGCM(key).decrypt(_NONCE, data, None)
        content, _ = api.ChunkContent.decode_prefix(plain)
    except (InvalidTag, DecodeError) as error:
        msg = "a chunk of the group's state does not open"
        raise VerificationError(msg, rule="D-CHK-6") from error
    if _padded(content) != plain or len(content.children) > WIDTH:
        msg = "a chunk of the group's state is not written as it must be"
        raise VerificationError(msg, rule="D-CHK-6")
    return content


@dataclass(frozen=True, slots=True, repr=False)
class StateChange:
    """What an epoch's state has that its parent's had not; O(log n) chunks after one Commit in a warm tree."""

    root: api.ChunkRef | None
    chunks: Mapping[Place, api.ChunkRef]
    """The new chunks, by level, then index."""
    children: Mapping[Place, tuple[api.ChunkRef | None, ...]]
    size: int
    """Bytes of the new chunks."""
    data: Mapping[Place, bytes] = field(default_factory=dict)
    """The chunks themselves, where they are few."""

    @property
    def added(self) -> tuple[bytes, ...]:
        """The addresses that the bundle lists (D-CHK-4)."""
        return tuple(ref.address for ref in self.chunks.values())

    @property
    def root_address(self) -> bytes:
        """What the manifest names (D-BUN-2)."""
        return api.ZERO32 if self.root is None else self.root.address


class SharedState:
    """The references to all chunks of the present epoch's tree."""

    def __init__(self, store: NodeStore | None = None) -> None:
        self._store = store
        self._children: dict[Place, tuple[api.ChunkRef | None, ...]] = {}
        self._changed: dict[bytes, bytes | None] = {}
        stored = None if store is None else store.get(_ROOT)
        self.root = None if stored is None else decode_stored(api.ChunkRef, stored)

    @classmethod
    def gathered(
        cls, root: api.ChunkRef, children: Mapping[Place, tuple[api.ChunkRef | None, ...]]
    ) -> SharedState:
        """That of a new member, who has read it in the chunks themselves."""
        self = cls()
        self._set(root, children)
        return self

    def children(self, place: Place) -> tuple[api.ChunkRef | None, ...]:
        """The references in the chunk at a place; empty where there is no chunk."""
        known = self._children.get(place)
        if known is None:
            value = None if self._store is None else self._store.get(place.stored_key())
            known = () if value is None else decode_stored(StoredChildren, value).children
            self._children[place] = known
        return known

    def ref(self, tree: RatchetTree, place: Place) -> api.ChunkRef | None:
        """The reference to the chunk at a place; `tree` is the present epoch's. None where there is no chunk."""
        root = root_place(tree)
        if root is None or place.level > root.level:
            return None
        if place == root:
            return self.root
        parent = Place(place.level + 1, place.number // WIDTH)
        children, number = self.children(parent), place.number % WIDTH
        return children[number] if number < len(children) else None

    def all_refs(self, tree: RatchetTree) -> Iterator[tuple[Place, api.ChunkRef]]:
        """Every chunk of the present state; looks at all."""
        root = root_place(tree)
        waiting = [] if root is None or self.root is None else [(root, self.root)]
        while waiting:
            place, ref = waiting.pop()
            yield place, ref
            if place.level:
                children = enumerate(self.children(place))
                waiting += [(place.child(n), child) for n, child in children if child is not None]

    def data(self, tree: RatchetTree, place: Place, ref: api.ChunkRef) -> bytes:
        """A chunk of the present state, made again: whoever is a member can."""
        return seal_chunk(content_of(covered(tree, place), place, self.children(place)), ref.key)

    def change(self, old: RatchetTree, new: RatchetTree, state_secret: bytes) -> StateChange:
        """What the state of `new` adds to that of `old`, the present one; keys come from the new epoch (D-CHK-3)."""
        root = root_place(new)
        if root is None:
            return StateChange(None, {}, {}, 0)
        walk = _Walk(self, old, new, state_secret)
        ref = walk.visit(root)
        chunks = dict(sorted(walk.chunks.items()))
        data = walk.data if walk.size <= KEPT_DATA else {}
        return StateChange(ref, chunks, walk.children, walk.size, data)

    def apply(self, change: StateChange, old: RatchetTree, new: RatchetTree) -> None:
        """Adopts a change, and forgets the references of chunks that are no more."""
        root, before = root_place(new), root_place(old)
        lowest = 0 if root is None else root.level
        while before is not None and before.level > lowest:
            self._forget_children(before, first=1)
            self._drop(before)
            before = before.child(0)
        for place, children in change.children.items():
            for number, ref in enumerate(self.children(place)):
                if ref is not None and (number >= len(children) or children[number] is None):
                    self._forget(place.child(number))
        self._set(change.root, change.children)

    def _set(
        self,
        root: api.ChunkRef | None,
        changed: Mapping[Place, tuple[api.ChunkRef | None, ...]],
    ) -> None:
        self.root = root
        self._changed[_ROOT] = None if root is None else root.encode()
        for place, children in changed.items():
            self._children[place] = children
            self._changed[place.stored_key()] = StoredChildren(children).encode()

    def _forget(self, place: Place) -> None:
        if place.level:
            self._forget_children(place)
            self._drop(place)

    def _forget_children(self, place: Place, first: int = 0) -> None:
        for number, ref in enumerate(self.children(place)):
            if number >= first and ref is not None:
                self._forget(place.child(number))

    def _drop(self, place: Place) -> None:
        self._children[place] = ()
        self._changed[place.stored_key()] = None

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What changed since the last call, as it is stored; None for what is gone."""
        changed, self._changed = self._changed, {}
        return changed


class _Walk:
    """One pass over what differs between two trees."""

    def __init__(
        self, shared: SharedState, old: RatchetTree, new: RatchetTree, state_secret: bytes
    ) -> None:
        self._shared, self._old, self._new, self._secret = shared, old, new, state_secret
        self.chunks: dict[Place, api.ChunkRef] = {}
        self.children: dict[Place, tuple[api.ChunkRef | None, ...]] = {}
        self.data: dict[Place, bytes] = {}
        self.size = 0

    def visit(self, place: Place) -> api.ChunkRef | None:
        """The reference to the chunk at a place of the new tree; what is below is visited where it differs."""
        tree = covered(self._new, place)
        if tree.is_blank:
            return None
        known = self._shared.ref(self._old, place)
        if known is not None and self._is_unchanged(place, tree):
            return known
        children: tuple[api.ChunkRef | None, ...] = ()
        if place.level:
            count = 1 << (tree.level - LEVELS * place.level)
            children = self.children[place] = tuple(
                self.visit(place.child(n)) for n in range(count)
            )
        key = place.key(self._secret)
        data = seal_chunk(content_of(tree, place, children), key)
        self.size += len(data)
        if self.size <= KEPT_DATA:
            self.data[place] = data
        ref = self.chunks[place] = api.ChunkRef(api.sha256(data), key)
        return ref

    def _is_unchanged(self, place: Place, tree: Subtree) -> bool:
        before = covered(self._old, place)
        suite = self._new.suite
        return before is tree or (
            before.level == tree.level
            and not before.is_blank
            and before.tree_hash(suite) == tree.tree_hash(suite)
        )


# -- what a new member makes of them


class _Nodes(Struct):
    """The nodes of one chunk."""

    nodes: tuple[Node | None, ...]


def read_parent(place: Place, data: bytes, ref: api.ChunkRef, *, root: bool) -> api.ChunkContent:
    """A chunk that refers to others; raises `VerificationError` where it has not the shape of one (D-CHK-2)."""
    content = open_chunk(data, ref.key)
    count = len(content.children)
    if count != WIDTH and not (root and count in {2, 4, 8}):
        msg = f"a chunk of level {place.level} with {count} children"
        raise VerificationError(msg, rule="D-CHK-2")
    return content


def assemble(
    root: Place, parents: Mapping[Place, api.ChunkContent], data: Callable[[api.ChunkRef], bytes]
) -> bytes:
    """The encoded ratchet tree out of its chunks; `parents` are those above the leaves, `data` finds the others.

    What it returns is not verified: the tree hash of the GroupInfo says whether it is the group's. Raises
    `VerificationError` where the chunks do not even make up something like a tree.
    """
    last = root
    while last.level:
        children = parents[last].children
        present = [number for number, ref in enumerate(children) if ref is not None]
        if not present:
            msg = "a chunk above chunks that are all absent"
            raise VerificationError(msg, rule="D-CHK-2")
        last = last.child(present[-1])
    parts = list(_array(root, parents, data, last))
    return b"".join([encode_varint(sum(map(len, parts))), *parts])


def _array(
    place: Place,
    parents: Mapping[Place, api.ChunkContent],
    data: Callable[[api.ChunkRef], bytes],
    last: Place,
) -> Iterator[bytes]:
    """The nodes below a place in the order of the array, up to the last that is not blank."""
    content = parents[place]
    between = _nodes(content)
    if len(between) != len(content.children) - 1:
        msg = f"a chunk with {len(between)} nodes above {len(content.children)} chunks"
        raise VerificationError(msg, rule="D-CHK-2")
    for number, ref in enumerate(content.children):
        below = place.child(number)
        if below.start > last.start:
            return
        if number:
            node = between[number - 1]
            yield b"\0" if node is None else b"\1" + node.encode()
        if ref is None:
            yield bytes(2 * (WIDTH << LEVELS * below.level) - 1)
        elif below.level:
            yield from _array(below, parents, data, last)
        else:
            yield _leaves(open_chunk(data(ref), ref.key), is_last=below == last)


def _leaves(content: api.ChunkContent, *, is_last: bool) -> bytes:
    """The nodes of a chunk of leaves; after the last one no blank may stand (RFC 9420 §12.4.3.3)."""
    if not is_last:
        length, start = decode_varint(content.nodes, 0)
        return content.nodes[start : start + length]
    nodes = list(_nodes(content))
    while nodes and nodes[-1] is None:
        nodes.pop()
    return b"".join(b"\0" if node is None else b"\1" + node.encode() for node in nodes)


def _nodes(content: api.ChunkContent) -> tuple[Node | None, ...]:
    try:
        return _Nodes.decode(content.nodes).nodes
    except DecodeError as error:
        msg = f"a chunk whose nodes are none: {error}"
        raise VerificationError(msg, rule="D-CHK-2") from error
