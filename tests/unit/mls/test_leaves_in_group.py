"""New leaves judged together: the first leaf's first error, whatever is wrong with which of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from bench.shapes import build
from coterie.errors import RuleViolation
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.extension import Extension, RequiredCapabilities
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_index import TreeIndex
from coterie.mls.types import CredentialType, ExtensionType
from coterie.mls.validation.leaves import check_leaf_in_group, check_leaves_in_group

POOL = build(12, "blank")
OLD, *MADE = [leaf for _, leaf in POOL.tree.members()]
USED, REQUIRED = ExtensionType(0xF00D), ExtensionType(0xF00E)
ABLE = OLD.capabilities.replace(extensions=(USED, REQUIRED))
NEW = [leaf.replace(capabilities=ABLE) for leaf in MADE]
WANTED = RequiredCapabilities((REQUIRED,), (), (CredentialType.BASIC,))


def defects() -> dict[str, LeafNode]:
    leaf = NEW[9]
    other = CredentialType(0xF00F)
    return {
        Rule.LEAF_REQUIRED_CAPABILITIES: leaf.replace(
            capabilities=ABLE.replace(extensions=(USED,))
        ),
        Rule.LEAF_GROUP_EXTENSION: leaf.replace(capabilities=ABLE.replace(extensions=(REQUIRED,))),
        Rule.LEAF_CREDENTIAL_SUPPORT: leaf.replace(
            credential=Credential(other, b"somebody"),
            capabilities=ABLE.replace(credentials=(*ABLE.credentials, other)),
        ),
        Rule.UNIQUE_SIGNATURE_KEY: leaf.replace(signature_key=OLD.signature_key),
        Rule.UNIQUE_ENCRYPTION_KEY: leaf.replace(encryption_key=OLD.encryption_key),
    }


def verdict(leaves: Sequence[LeafNode], *, together: bool) -> str:
    tree = RatchetTree.of_one(POOL.suite, OLD).with_added(leaves)[0]
    index = TreeIndex.of_tree(tree, AcceptAnything())
    given = ((Extension(USED, b""),), WANTED, index, tree.member_count)
    try:
        if together:
            check_leaves_in_group(leaves, *given)
        else:
            for leaf in leaves:
                check_leaf_in_group(leaf, *given)
    except RuleViolation as error:
        return str(error)
    return "good"


def test_good_leaves_fit() -> None:
    assert verdict(NEW[:8], together=True) == verdict(NEW[:8], together=False) == "good"
    assert verdict([], together=True) == "good"


@pytest.mark.parametrize("rule", defects())
@pytest.mark.parametrize("place", [0, 3, 8])
def test_each_defect_is_found_wherever_it_stands(rule: str, place: int) -> None:
    leaves = [*NEW[:place], defects()[rule], *NEW[place:8]]
    assert verdict(leaves, together=True) == verdict(leaves, together=False) != "good"


def test_of_several_defects_the_first_leaf_is_told() -> None:
    for first, second in permutations(defects().values(), 2):
        leaves = [NEW[0], first, NEW[1], second]
        assert verdict(leaves, together=True) == verdict(leaves, together=False) != "good"
