"""The order in which members commit: alike for all, fair, cheap to compute, and better than chance."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from coterie.client import scheduling
from coterie.client.events import KeysRenewed
from coterie.client.scheduling import own_turn, own_turn_to_fill, preferred, rank, slot, worth
from coterie.mls.crypto import suite_of
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, Subtree
from coterie.mls.tree_math import LeafIndex, tree_depth
from tests.client_world import world

_PARENT = ParentNode(b"key", b"", ())
_LEAF = cast("LeafNode", object())
"""The order looks at no leaf's content."""


def _blank(n: int, absent: frozenset[int] = frozenset()) -> RatchetTree:
    """A tree of `n` leaves, some of them blank, in which nobody has committed."""

    def below(level: int, start: int) -> Subtree:
        if start >= n or (level == 0 and start in absent):
            return Subtree.blank(level, start)
        if level == 0:
            return Subtree.leaf(start, _LEAF)
        half = 1 << (level - 1)
        return Subtree.parent(None, below(level - 1, start), below(level - 1, start + half))

    return RatchetTree(suite_of(1), below(tree_depth(n), 0))


def _cost(tree: RatchetTree, leaf: int) -> int:
    return sum(place.sibling.resolution_size for place in tree.filtered_direct_path(leaf))


def _commit(tree: RatchetTree, leaf: int) -> RatchetTree:
    nodes = {place.index: _PARENT for place in tree.filtered_direct_path(leaf)}
    return tree.with_path(LeafIndex(leaf), _LEAF, nodes)


def _committed(n: int, commits: int, seed: int, absent: frozenset[int]) -> RatchetTree:
    chosen = random.Random(seed)
    tree = _blank(n, absent)
    present = [leaf for leaf in range(n) if leaf not in absent]
    for _ in range(commits):
        tree = _commit(tree, chosen.choice(present))
    return tree


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 45])
@pytest.mark.parametrize("commits", [0, 1, 5])
def test_every_member_has_a_place_of_its_own_in_the_order(n: int, commits: int) -> None:
    absent = frozenset(leaf for leaf in range(1, n) if leaf % 5 == 3)
    tree = _committed(n, commits, n, absent)
    present = [leaf for leaf in range(n) if leaf not in absent]
    for epoch in (0, 1, 6, 1_000_003):
        ranks = {rank(tree, leaf, epoch): leaf for leaf in present}
        assert sorted(ranks) == list(range(len(present)))
        assert preferred(tree, epoch) == ranks[0]


def test_who_leaves_has_no_turn_and_holds_up_nobody() -> None:
    tree = _committed(20, 3, 1, frozenset())
    leaving = {4, 5, 6, 7, 19}
    staying = [leaf for leaf in range(20) if leaf not in leaving]
    for epoch in range(8):
        ranks = sorted(rank(tree, leaf, epoch, leaving) for leaf in staying)
        assert ranks == list(range(15))
        assert preferred(tree, epoch, leaving) in staying
        for leaf in leaving:
            assert not own_turn(tree, leaf, 0, 10**9, epoch=epoch, leaving=leaving)
    assert preferred(tree, 0, set(range(20))) is None


def test_the_longer_resolution_goes_first_whatever_the_epoch() -> None:
    tree = _commit(_blank(64), 0)
    for epoch in range(64):
        first = preferred(tree, epoch)
        assert first is not None
        assert first >= 32
        assert _cost(tree, first) == min(_cost(tree, leaf) for leaf in range(64))


def test_in_a_warm_tree_successive_epochs_visit_everybody_once() -> None:
    tree = _blank(32)
    for leaf in range(32):
        tree = _commit(tree, leaf)
    assert {preferred(tree, epoch) for epoch in range(100, 132)} == set(range(32))


def test_slots_double_so_that_few_online_members_are_met_soon_and_many_do_not_collide() -> None:
    assert [slot(place) for place in (0, 1, 2, 3, 4, 7, 8, 49_999)] == [0, 1, 2, 2, 3, 3, 4, 16]
    tree = _blank(200)
    at_once = [leaf for leaf in range(200) if own_turn(tree, leaf, 1000, 1000, epoch=9)]
    assert at_once == [preferred(tree, 9)]
    for slots in range(9):
        now = 1000 + slots * scheduling.SLOT
        ready = sum(own_turn(tree, leaf, 1000, now, epoch=9) for leaf in range(200))
        assert ready == min(1 << slots, 200)


def test_a_place_in_the_order_reads_only_the_nodes_on_the_own_path() -> None:
    """A stored tree is loaded node by node; the order of a group of 50,000 must not load all of it."""
    loads = []

    def stored(level: int, start: int) -> Subtree:
        tree = Subtree.blank(level, start)
        tree.members = tree.resolution_size = 1 << level

        def load(into: Subtree) -> None:
            loads.append(into.level)
            into.node = None
            if level:
                half = 1 << (level - 1)
                into.left, into.right = stored(level - 1, start), stored(level - 1, start + half)

        tree._load = load
        return tree

    rank(RatchetTree(suite_of(1), stored(16, 0)), 12_345, 7)
    assert len(loads) == 16


def test_blanks_are_filled_with_half_the_commits_and_ciphertexts_that_chance_needs() -> None:
    n = 1000
    sealed = {}
    needed = {}
    for how in ("chance", "order"):
        chosen = random.Random(5)
        tree = _commit(_blank(n), 0)
        sealed[how] = needed[how] = 0
        while sum(_cost(tree, chosen.randrange(n)) for _ in range(200)) / 200 > 20:
            needed[how] += 1
            leaf = chosen.randrange(n) if how == "chance" else preferred(tree, needed[how])
            assert leaf is not None
            sealed[how] += _cost(tree, leaf)
            tree = _commit(tree, leaf)
    assert 2 * sealed["order"] < sealed["chance"]
    assert 1.5 * needed["order"] < needed["chance"]


def test_filling_ends_when_no_commit_spares_much() -> None:
    n, tree = 1000, _commit(_blank(1000), 0)
    commits = 0
    while True:
        first = preferred(tree, commits)
        assert first is not None
        if not own_turn_to_fill(tree, first, 0, scheduling.FILL_SLOT, epoch=commits):
            break
        assert worth(tree, first) >= scheduling.WORTH
        assert not own_turn_to_fill(tree, first, 0, scheduling.FILL_SLOT - 1, epoch=commits)
        tree = _commit(tree, first)
        commits += 1
    assert commits < 2 * n // scheduling.WORTH
    assert max(_cost(tree, leaf) for leaf in range(n)) < 3 * scheduling.WORTH


def test_a_small_group_is_never_filled() -> None:
    tree = _blank(scheduling.WORTH)
    assert not any(own_turn_to_fill(tree, leaf, 0, 10**9) for leaf in range(scheduling.WORTH))


def test_a_client_renews_early_where_that_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "WORTH", 2)

    async def story() -> None:
        async with world(tmp_path) as w:
            names = ["alice", "bob", "carol", "dave"]
            alice, *_ = [await w.device(name) for name in names]
            group = await alice.create_group("Friends")
            await group.add("bob", "carol", "dave")
            await w.settle()
            before = group.epoch
            for _ in range(20):
                w.now += scheduling.FILL_SLOT
                told = await w.settle(rounds=1)
                if any(isinstance(e, KeysRenewed) for e in told["alice"]):
                    break
            await w.settle()
            # One Commit fills the only blank: the parent of carol and dave.
            assert group.epoch == before + 1
            assert worth(w.clients["bob"].groups()[0]._conversation.group.tree, 0) < 2
            w.now += 20 * scheduling.FILL_SLOT
            await w.settle()
            assert group.epoch == before + 1

    asyncio.run(story())
