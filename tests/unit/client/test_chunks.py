"""The chunks of a tree: every member computes the same ones, a Commit changes few, and they make up the tree again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.shapes import NOW, SHAPES, Shape, build
from coterie.client import chunks
from coterie.client.chunks import Place, SharedState, StateChange, assemble, open_chunk
from coterie.errors import StorageError, VerificationError
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, UnverifiedTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.validation import verify_tree
from coterie.testing import MemoryStore
from coterie.transport import api

SECRET = bytes(range(32))
LARGE = (50_000,) if os.environ.get("COTERIE_LARGE") else ()


@cache
def shape(n: int, kind: str = "warm") -> Shape:
    return build(n, kind)


def first(tree: RatchetTree) -> RatchetTree:
    """A tree without chunks, before a large one."""
    leaf = tree.leaf(0)
    assert leaf is not None
    return RatchetTree.of_one(tree.suite, leaf)


def state_of(tree: RatchetTree) -> SharedState:
    shared, before = SharedState(), first(tree)
    shared.apply(shared.change(before, tree, SECRET), before, tree)
    return shared


class Service:
    """Chunks by address."""

    def __init__(self) -> None:
        self.stored: dict[bytes, bytes] = {}

    def take(self, change: StateChange, shared: SharedState, tree: RatchetTree) -> None:
        for place, ref in change.chunks.items():
            data = change.data.get(place) or shared.data(tree, place, ref)
            assert api.sha256(data) == ref.address
            self.stored[ref.address] = data

    def tree(self, root: api.ChunkRef, place: Place) -> bytes:
        """What a new member makes of it."""
        parents: dict[Place, api.ChunkContent] = {}
        waiting = {place: root}
        while waiting:
            at, ref = waiting.popitem()
            if not at.level:
                continue
            content = chunks.read_parent(at, self.stored[ref.address], ref, root=at == place)
            parents[at] = content
            waiting |= {at.child(n): r for n, r in enumerate(content.children) if r is not None}
        return assemble(place, parents, lambda ref: self.stored[ref.address])


@pytest.mark.parametrize("n", [17, 31, 32, 33, 100, 257, 600, 4_100])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_tree_comes_out_of_its_chunks_as_it_went_in(n: int, kind: str) -> None:
    tree = shape(n, kind).tree
    shared, service, before = SharedState(), Service(), first(tree)
    change = shared.change(before, tree, SECRET)
    shared.apply(change, before, tree)
    service.take(change, shared, tree)
    place = chunks.root_place(tree)
    assert place is not None
    assert change.root is not None
    assert chunks.root_place_of(change.root, SECRET) == place
    assert service.tree(change.root, place) == tree.encode()


@pytest.mark.parametrize("n", [1, 2, 15, 16])
def test_a_small_tree_has_no_chunks(n: int) -> None:
    tree = shape(n).tree
    change = SharedState().change(first(tree), tree, SECRET)
    assert (change.root, change.added, change.root_address) == (None, (), api.ZERO32)


@pytest.mark.parametrize("n", [100, 1_000, 10_000, *LARGE])
def test_a_commit_in_a_warm_tree_adds_one_chunk_for_each_level_and_looks_at_little(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shape(n)
    group = made.member(n // 2)
    shared = state_of(group.tree)
    pending = group.commit()
    assert pending.next is not None
    seen: list[Place] = []
    real = chunks._Walk.visit

    def visit(walk: chunks._Walk, place: Place) -> api.ChunkRef | None:
        seen.append(place)
        return real(walk, place)

    monkeypatch.setattr(chunks._Walk, "visit", visit)
    change = shared.change(group.tree, pending.next.epoch.tree, SECRET)
    levels = -(-(group.tree.root.level) // chunks.LEVELS)
    assert [place.level for place in change.chunks] == list(range(levels))
    assert len(seen) <= 1 + chunks.WIDTH * (levels - 1)
    leaf = pending.next.epoch.tree.leaf(0)
    assert leaf is not None
    a_chunk_of_leaves = chunks.WIDTH * (len(leaf.encode()) + 2) + 15 * 200
    a_chunk_of_parents = chunks.WIDTH * 65 + 15 * 200
    assert change.size <= a_chunk_of_leaves + (levels - 1) * a_chunk_of_parents + levels * 2048


@pytest.mark.parametrize("n", [40, 300])
def test_whoever_processes_the_commit_has_the_same_chunks_also_out_of_its_store(n: int) -> None:
    made = shape(n)
    groups = [made.member(leaf) for leaf in (0, n - 1)]
    states = [state_of(group.tree) for group in groups]
    store = MemoryStore()
    for number in range(6):
        committer = groups[number % 2]
        proposals = [Proposal.of(Add(made.bundle(b"new %d" % number).key_package))]
        if number % 3 == 2:
            proposals = [Proposal.of(Remove(LeafIndex(n // 2 + number)))]
        pending = committer.commit(proposals, now=NOW)
        message = pending.message.encode()
        roots = []
        for group, shared in zip(groups, states, strict=True):
            staged = group.receive(message, now=NOW) if group is not committer else pending
            old = group.tree
            group.adopt(staged)  # type: ignore[arg-type]
            change = shared.change(old, group.tree, SECRET)
            shared.apply(change, old, group.tree)
            roots.append((change.root, change.added))
        assert roots[0] == roots[1]
        _keep(store, states[1])
        states[1] = SharedState(store)
    assert dict(states[0].all_refs(groups[0].tree)) == dict(states[1].all_refs(groups[1].tree))


def test_a_tree_that_was_read_again_and_is_equal_has_no_new_chunks() -> None:
    made = shape(300)
    state, encoded = state_of(made.tree), made.tree.encode()
    given = UnverifiedTree.decode(encoded, made.suite)
    again, _ = verify_tree(given, made.context, made.config.policy())
    change = state.change(made.tree, again, bytes(32))
    assert (change.added, change.root) == ((), state.root)


def _keep(store: MemoryStore, shared: SharedState) -> None:
    for key, value in shared.take_changes().items():
        if value is None:
            store.data.pop(key, None)
        else:
            store.data[key] = value


def _fake_leaves(count: int) -> list[LeafNode]:
    made = shape(2)
    return [made.bundle(b"leaf %d" % n).key_package.leaf_node for n in range(count)]


def _grow(tree: RatchetTree, rng: random.Random, leaves: list[LeafNode]) -> RatchetTree:
    """A random step: some added, some gone, a path renewed, a large part of the tree gone."""
    members = [int(leaf) for leaf, _ in tree.members()]
    match rng.randrange(5):
        case 0:
            return tree.with_added(rng.sample(leaves, rng.choice([1, 5, 60, 300])))[0]
        case 1 if len(members) > 3:
            gone = rng.sample(members[1:], rng.randint(1, min(40, len(members) - 2)))
            return tree.with_leaves(dict.fromkeys(gone))
        case 2 if len(members) > 3:
            return tree.with_leaves(dict.fromkeys(members[rng.randint(1, len(members) - 1) :]))
        case 3:
            start = rng.choice(members)
            return tree.with_leaves({n: None for n in members if start <= n < start + 70 and n})
        case _:
            leaf = LeafIndex(rng.choice(members))
            key = rng.randbytes(32)
            nodes = {p.index: ParentNode(key, b"", ()) for p in tree.filtered_direct_path(leaf)}
            return tree.with_path(leaf, rng.choice(leaves), nodes)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_to_a_tree_its_state_is_complete_and_lists_what_is_new(seed: int) -> None:
    rng, leaves = random.Random(seed), _fake_leaves(301)
    tree = RatchetTree.of_one(shape(2).suite, leaves[0])
    shared, service, store = SharedState(), Service(), MemoryStore()
    known: set[bytes] = set()
    for step in range(60):
        new = _grow(tree, rng, leaves)
        change = shared.change(tree, new, SECRET[:-1] + bytes([step]))
        shared.apply(change, tree, new)
        tree = new
        service.take(change, shared, tree)
        refs = dict(shared.all_refs(tree))
        addresses = {ref.address for ref in refs.values()}
        assert set(change.added) == addresses - known
        assert list(change.chunks) == sorted(change.chunks)
        known = addresses
        place = chunks.root_place(tree)
        assert (place is None) == (change.root is None)
        if place is not None and change.root is not None:
            assert service.tree(change.root, place) == tree.encode()
        # No reference to a chunk that is no more is kept: its key would open what was.
        _keep(store, shared)
        assert {key for key in store.data if key[:1] == b"c"} == {
            p.stored_key() for p in refs if p.level
        }
        if rng.random() < 0.3:
            shared = SharedState(store)


def _one() -> tuple[bytes, api.ChunkRef]:
    tree = shape(40).tree
    change = SharedState().change(first(tree), tree, SECRET)
    place, ref = next(iter(change.chunks.items()))
    return change.data[place], ref


def test_a_chunk_opens_with_its_key_only_and_as_it_is_only() -> None:
    data, ref = _one()
    open_chunk(data, ref.key)
    changed = data[:-1] + bytes([data[-1] ^ 1])
    for wrong, key in ((changed, ref.key), (data, bytes(32)), (b"", ref.key)):
        with pytest.raises(VerificationError, match="D-CHK-6"):
            open_chunk(wrong, key)


@pytest.mark.parametrize(
    "other",
    [
        lambda plain: plain + bytes(1024),
        lambda plain: plain[:-1] + b"\1",
        lambda plain: plain + b"\0",
        lambda _: b"",
    ],
    ids=["longer padding", "padding that is not zero", "no multiple", "nothing"],
)
def test_a_chunk_that_nobody_else_could_make_again_is_refused(
    other: Callable[[bytes], bytes],
) -> None:
    data, ref = _one()
    plain = AESGCM(ref.key).decrypt(bytes(12), data, None)
    sealed = AESGCM(ref.key).encrypt(bytes(12), other(plain), None)
    with pytest.raises(VerificationError, match="D-CHK-6"):
        open_chunk(sealed, ref.key)


def test_sizes_of_chunks_hide_the_sizes_of_leaves() -> None:
    for n in (40, 600):
        tree = shape(n).tree
        change = SharedState().change(first(tree), tree, SECRET)
        assert all((len(data) - 16) % 1024 == 0 for data in change.data.values())


def test_keys_differ_by_place_and_by_epoch() -> None:
    places = [Place(level, number) for level in range(3) for number in range(5)]
    keys = {place.key(secret) for place in places for secret in (SECRET, bytes(32))}
    assert len(keys) == 2 * len(places)


def test_a_reference_to_the_root_of_another_epoch_is_noticed() -> None:
    tree = shape(40).tree
    change = SharedState().change(first(tree), tree, SECRET)
    assert change.root is not None
    assert chunks.root_place_of(change.root, bytes(32)) is None
    assert chunks.root_place_of(change.root.replace(key=bytes(32)), SECRET) is None
    leaf = next(iter(change.chunks.values()))
    assert chunks.root_place_of(leaf, SECRET) is None


@pytest.mark.parametrize("count", [0, 1, 3, 5, 15])
def test_a_chunk_with_a_number_of_children_that_none_has_is_refused(count: int) -> None:
    key = bytes(32)
    ref = api.ChunkRef(bytes(32), key)
    data = chunks.seal_chunk(api.ChunkContent(b"\0", (ref,) * count), key)
    with pytest.raises(VerificationError, match="D-CHK-2"):
        chunks.read_parent(Place(1, 0), data, ref, root=True)


def test_a_chunk_with_too_many_children_is_refused() -> None:
    key = bytes(32)
    ref = api.ChunkRef(bytes(32), key)
    data = chunks.seal_chunk(api.ChunkContent(b"\0", (ref,) * 17), key)
    with pytest.raises(VerificationError, match="D-CHK-6"):
        open_chunk(data, key)


@pytest.mark.parametrize(
    ("nodes", "children"),
    [(b"\0", 2), (b"\x02\0\0", 2), (b"\x01\x07", 2), (b"\x02\0\0", 0)],
    ids=["no node", "a node too many", "bytes that are no nodes", "all children absent"],
)
def test_chunks_that_make_up_no_tree_are_refused(nodes: bytes, children: int) -> None:
    key = bytes(32)
    leaf = chunks.seal_chunk(api.ChunkContent(b"\0"), key)
    ref = api.ChunkRef(api.sha256(leaf), key)
    content = api.ChunkContent(nodes, (ref,) * children or (None, None))
    with pytest.raises(VerificationError, match="D-CHK-2"):
        assemble(Place(1, 0), {Place(1, 0): content}, lambda _: leaf)


def test_references_that_are_damaged_on_the_disk_are_reported() -> None:
    store = MemoryStore()
    store.data[b"r"] = b"?"
    with pytest.raises(StorageError, match="damaged"):
        SharedState(store)


def test_a_place_is_where_its_leaves_are() -> None:
    starts = [Place(0, n).start for n in range(4)]
    assert [b - a for a, b in pairwise(starts)] == [16, 16, 16]
    assert Place(1, 1).start == 256
    assert Place(1, 1).child(2) == Place(0, 18)
