"""The checks of many leaves at once: the same verdict, and the same error, as one leaf after the other."""

from __future__ import annotations

from itertools import permutations

import pytest

from bench.shapes import build
from coterie.errors import CoterieError
from coterie.mls.extension import Extension
from coterie.mls.group import Group
from coterie.mls.leaf_node import LeafNode, Lifetime, check_all, check_contents, check_lifetime
from coterie.mls.ratchet_tree import UnverifiedTree
from coterie.mls.types import CredentialType, ExtensionType

SHAPE = build(6, "half")
GOOD = [leaf for _, leaf in SHAPE.tree.members()]
MONTH = 30 * 24 * 3600


def defects() -> dict[str, LeafNode]:
    leaf = GOOD[1]
    own = leaf.capabilities
    other = type(leaf.credential)(CredentialType(0xF00F), b"somebody")
    unlisted = Extension(ExtensionType(0xF00D), b"")
    return {
        "encryption key": leaf.replace(encryption_key=bytes(32)),
        "signature key": leaf.replace(signature_key=bytes(31)),
        "versions": leaf.replace(capabilities=own.replace(versions=())),
        "cipher suites": leaf.replace(capabilities=own.replace(cipher_suites=())),
        "credential": leaf.replace(credential=other),
        "extension": leaf.replace(extensions=(unlisted,)),
        "extension twice": leaf.replace(extensions=(unlisted, unlisted)),
        "lifetime": leaf.replace(lifetime=Lifetime(0, 2 * MONTH)),
    }


def verdict(leaves: list[LeafNode]) -> str:
    """What one leaf after the other gives."""
    try:
        for leaf in leaves:
            check_contents(leaf, SHAPE.suite)
            check_lifetime(leaf, now=None, max_lifetime=MONTH)
    except CoterieError as error:
        return str(error)
    return "good"


def verdict_of_all(leaves: list[LeafNode]) -> str:
    try:
        check_all(leaves, SHAPE.suite, max_lifetime=MONTH)
    except CoterieError as error:
        return str(error)
    return "good"


def test_good_leaves_pass() -> None:
    assert verdict(GOOD) == verdict_of_all(GOOD) == "good"


@pytest.mark.parametrize("defect", defects())
def test_each_defect_is_found_wherever_it_stands(defect: str) -> None:
    bad = defects()[defect]
    for place in range(len(GOOD)):
        leaves = [*GOOD[:place], bad, *GOOD[place:]]
        assert verdict(leaves) != "good"
        assert verdict_of_all(leaves) == verdict(leaves)


def test_of_several_defects_the_first_leaf_is_told() -> None:
    for first, second in permutations(defects().values(), 2):
        leaves = [GOOD[0], first, GOOD[2], second]
        assert verdict_of_all(leaves) == verdict(leaves)


def test_a_member_is_found_by_its_encryption_key_and_a_joiner_keeps_no_lists() -> None:
    given = UnverifiedTree.decode(SHAPE.tree.encode(), SHAPE.suite).trust()
    assert given._levels
    for tree in (given, given.settled(), SHAPE.tree):
        assert [tree.find(leaf.encryption_key) for leaf in GOOD] == list(range(6))
        assert tree.find(bytes(32)) is None
        assert tree.leaf_nodes() == GOOD
        assert [p.index for p in tree.parents()] == [p.index for p in SHAPE.tree.parents()]
        assert list(tree.members()) == list(SHAPE.tree.members())
        assert tree.tree_hash() == SHAPE.tree.tree_hash()
    bundle, me = SHAPE.bundle(b"joiner"), SHAPE.member(0)
    package = bundle.key_package.validate(SHAPE.suite, SHAPE.config.authenticator, now=1_000)
    pending = me.commit([package], now=1_000)
    assert pending.welcome is not None
    group = Group.join(pending.welcome, bundle, SHAPE.config)
    assert group.tree._levels == ()
