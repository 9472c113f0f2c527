"""What a Commit costs in a warm tree, counted: it follows from the path, and from nothing that grows faster.

The trees have 10, 1,000, 1,024 and 10,000 members, and 50,000 where COTERIE_LARGE is set. A tree is warm when every
copath resolution of every filtered direct path has one node.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from types import FrameType

import pytest

from bench.shapes import NOW, Shape, build
from coterie.mls.group import CommitOptions, Group, StagedCommit
from coterie.mls.proposal import Add, Proposal
from coterie.mls.ratchet_tree import UnverifiedTree, subtree
from coterie.mls.tree_math import LeafIndex, common_ancestor_level
from coterie.mls.validation import verify_tree
from coterie.testing import MemoryStore
from coterie.testing.counting import count_operations

SIZES = (10, 1_000, 1_024, 10_000, *((50_000,) if os.environ.get("COTERIE_LARGE") else ()))

EPOCH = Counter({"kdf": 2 + 2 + 9, "mac": 1, "hash": 2})
"""Key schedule, confirmation tag, transcript hashes (§8): 2 extractions, 2 labelled expansions, 9 secrets."""
GENERATION = 3 + 2
"""Key, nonce and next secret of a ratchet; key and nonce of the sender data (§9.1, §6.3.2)."""


@cache
def warm(n: int) -> Shape:
    return build(n, "warm")


def first_leaf_way(depth: int) -> int:
    """KDF steps from the root of the secret tree to one leaf's two ratchets (§9)."""
    return 2 * depth + 2


def hashes(depth: int, path: int) -> int:
    """The tree hashes of a leaf and all above it, and a parent hash for each node of the path (§7.8, §7.9)."""
    return 1 + depth + path


def creating(depth: int, path: int) -> Counter[str]:
    """What creating an empty Commit takes: two secrets, a key pair and a ciphertext for each node of the path."""
    return EPOCH + Counter(
        {
            "generate key": 1,
            "kdf": 2 * path + first_leaf_way(depth) + GENERATION,
            "derive key": path,
            "hpke seal": path,
            "hash": hashes(depth, path),
            "sign": 2,
            "aead seal": 2,
        }
    )


def processing(depth: int, path: int, shared: int) -> Counter[str]:
    """What receiving it takes, where `shared` nodes of the path are above the receiver too."""
    return EPOCH + Counter(
        {
            "kdf": 2 * shared + first_leaf_way(depth) + GENERATION,
            "derive key": shared,
            "hpke open": 1,
            "hash": hashes(depth, path),
            "mac": 1,
            "verify": 2,
            "aead open": 2,
        }
    )


def receive(group: Group, message: bytes) -> None:
    staged = group.receive(message, now=NOW)
    assert isinstance(staged, StagedCommit)
    group.adopt(staged)


def committers(n: int) -> list[int]:
    return [0, n - 1, n // 2]


@pytest.mark.parametrize("n", SIZES)
def test_a_commit_takes_the_operations_of_its_path_and_no_more(n: int) -> None:
    shape = warm(n)
    for leaf in committers(n):
        group = shape.member(leaf)
        path = group.tree.filtered_direct_path(leaf)
        assert all(node.sibling.resolution_size == 1 for node in path)
        with count_operations() as counts:
            pending = group.commit()
            group.adopt(pending)
        assert counts == creating(shape.tree.root.level, len(path))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("distance", ["near", "far"])
def test_processing_a_commit_takes_the_operations_above_the_common_ancestor(
    n: int, distance: str
) -> None:
    shape = warm(n)
    for leaf in committers(n):
        group = shape.member(leaf)
        message = group.commit().message.encode()
        other = leaf ^ 1 if distance == "near" else (0 if leaf else n - 1)
        receiver = shape.member(other)
        path = group.tree.filtered_direct_path(leaf)
        lowest = common_ancestor_level(LeafIndex(leaf), LeafIndex(other))
        shared = sum(node.level >= lowest for node in path)
        with count_operations() as counts:
            receive(receiver, message)
        assert counts == processing(shape.tree.root.level, len(path), shared)
        if distance == "near":
            assert shared == len(path)


@pytest.mark.parametrize("n", SIZES)
def test_saving_a_commit_writes_bytes_in_proportion_to_the_depth(n: int) -> None:
    shape = warm(n)
    sender, receiver = shape.member(0), shape.member(n - 1)
    sender.save()
    receiver.save()
    pending = sender.commit()
    message = pending.message.encode()
    receive(receiver, message)
    bound = 400 * shape.tree.root.level + 2_000
    assert receiver.save().size <= bound
    # The pending Commit is stored whole, with the epoch that it begins.
    assert sender.save().size <= 2 * bound
    sender.adopt(pending)
    assert sender.save().size <= bound


def calls_of(action: Callable[[], object]) -> int:
    """How many functions are called, Python's own included."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def step_calls(shape: Shape) -> list[int]:
    """Function calls of creating, adopting, saving, processing, exporting, sending and reading."""
    sender, receiver = shape.member(0), shape.member(shape.n - 1)
    sender.save()
    receiver.save()
    message = b""

    def create() -> None:
        nonlocal message
        message = sender.commit().message.encode()

    def adopt() -> None:
        pending = sender.pending_commit
        assert pending is not None
        sender.adopt(pending)

    found = [calls_of(create), calls_of(adopt), calls_of(sender.save)]
    found.append(calls_of(lambda: receive(receiver, message)))
    found.append(calls_of(receiver.save))
    found.append(calls_of(lambda: receiver.export_secret("a label", b"context", 32)))
    sent = receiver.encrypt(b"hello").encode()
    found.append(calls_of(lambda: sender.receive(sent)))
    return found


def test_no_step_calls_functions_in_proportion_to_the_members() -> None:
    small, large = step_calls(warm(1_000)), step_calls(warm(10_000))
    ratio = warm(10_000).tree.root.level / warm(1_000).tree.root.level
    for few, many in zip(small, large, strict=True):
        assert many <= 1.1 * ratio * few


class CountingStore(MemoryStore):
    """A store that counts what is read."""

    reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(key)


@pytest.mark.parametrize("n", SIZES)
def test_a_loaded_group_reads_what_a_commit_touches_and_no_more(n: int) -> None:
    shape = warm(n)
    sender, receiver = shape.member(0), shape.member(n - 1)
    store = CountingStore()
    store.apply(receiver.save())
    loaded = Group.load(store.entries(), store, shape.config)
    assert store.reads <= 1
    receive(loaded, sender.commit().message.encode())
    store.apply(loaded.save())
    assert store.reads <= 8 * shape.tree.root.level + 20
    again = Group.load(store.entries(), store, shape.config)
    assert again.epoch_authenticator == loaded.epoch_authenticator


@pytest.mark.parametrize("shape", ["blank", "warm", "half"])
@pytest.mark.parametrize("n", [2, 11, 1_000])
def test_a_built_tree_is_one_that_a_joiner_accepts(n: int, shape: str) -> None:
    made = build(n, shape)
    given = UnverifiedTree.decode(made.tree.encode(), made.suite)
    tree, _ = verify_tree(given, made.context, made.config.policy())
    assert tree.tree_hash() == made.context.tree_hash


@pytest.mark.parametrize("shape", ["blank", "warm", "half"])
def test_what_a_joiner_verifies_grows_no_faster_than_the_members(shape: str) -> None:
    def work(n: int) -> int:
        made = build(n, shape)
        encoded = made.tree.encode()

        def join() -> None:
            verify_tree(UnverifiedTree.decode(encoded, made.suite), made.context, policy)

        policy = made.config.policy()
        return calls_of(join)

    few, many = work(256), work(2_048)
    assert many <= 1.1 * 8 * few


@pytest.mark.parametrize("shape", ["blank", "warm", "half"])
def test_members_of_a_built_group_follow_each_others_commits(shape: str) -> None:
    made = build(100, shape)
    groups = [made.member(leaf) for leaf in (0, 1, 42, 99)]
    for sender in groups:
        pending = sender.commit()
        for group in groups:
            if group is not sender:
                receive(group, pending.message.encode())
        sender.adopt(pending)
        assert len({group.epoch_authenticator for group in groups}) == 1


def test_a_tree_that_doubles_hashes_its_new_half_once_for_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = warm(1_024)
    shape.tree.tree_hash()
    monkeypatch.setattr(subtree, "_BLANK_HASHES", {})
    found = []
    for name in (b"the 1,025th", b"another 1,025th"):
        add = Proposal.of(Add(shape.bundle(name).key_package))
        group = shape.member(0)
        with count_operations() as counts:
            group.commit([add], now=NOW, options=CommitOptions(tree_inside=False))
        found.append(counts["hash"])
    assert found[0] >= 2 * 1_023
    assert found[1] <= 8 * shape.tree.root.level
