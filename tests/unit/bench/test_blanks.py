"""The simulation of how blanks fill: its tree is the core's, its counts are those of real Commits."""

from __future__ import annotations

import pytest

from bench.blanks import WAYS, at_random, committed, grown, simulate
from bench.shapes import build
from coterie.mls.crypto import suite_of
from coterie.mls.ratchet_tree import RatchetTree


def _cost(tree: RatchetTree, leaf: int) -> int:
    return sum(place.sibling.resolution_size for place in tree.filtered_direct_path(leaf))


@pytest.mark.parametrize("members", [2, 3, 9, 16, 45])
def test_the_sum_over_all_members_is_that_of_their_paths(members: int) -> None:
    tree, choose = grown(members), at_random(members, 1)
    for epoch in range(12):
        whole = RatchetTree(suite_of(1), tree)
        costs = [_cost(whole, leaf) for leaf in range(members)]
        assert tree.seals == sum(costs)
        leaf = choose(tree, epoch)
        tree, sealed = committed(tree, leaf)
        assert sealed == costs[leaf]


@pytest.mark.parametrize("shape", ["blank", "warm"])
@pytest.mark.parametrize("members", [2, 7, 33])
def test_the_trees_are_those_of_real_groups(members: int, shape: str) -> None:
    real = build(members, shape).tree
    tree = grown(members, warm=shape == "warm")
    assert tree.seals == sum(_cost(real, leaf) for leaf in range(members))


@pytest.mark.parametrize("members", [2, 5, 33])
def test_when_all_have_committed_the_tree_is_warm(members: int) -> None:
    tree = grown(members)
    for leaf in range(members):
        tree, _ = committed(tree, leaf)
    assert tree.seals == grown(members, warm=True).seals


@pytest.mark.parametrize("way", WAYS)
def test_commits_end_small_enough_and_no_sooner(way: str) -> None:
    run = simulate(300, way)
    assert run.course[0][1] > 10
    assert [size > 2 for _, size in run.course] == [True] * (len(run.course) - 1) + [False]
    assert run.course[-1][0] == run.commits


def test_the_clients_order_fills_with_fewer_commits_than_chance() -> None:
    ordered, random = simulate(1_000, "in order"), simulate(1_000, "random members")
    assert ordered.commits * 1.5 < random.commits
    assert ordered.sealed < random.sealed
