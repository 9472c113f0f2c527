"""Vectors of the public tree: tree-operations and tree-validation (RFC 9420 §7.7-§7.9, §12.1)."""

from __future__ import annotations

from collections.abc import Callable

from coterie.interop.vectors.kind import Case, Generated, Kind, Mismatch, expect
from coterie.interop.vectors.sources import SimulatedTree, new_client
from coterie.mls.crypto import Suite
from coterie.mls.hpke import RandomSource
from coterie.mls.leaf_node import LeafNodeTBS, check_signature
from coterie.mls.proposal import Add, Proposal, Remove, Update
from coterie.mls.ratchet_tree import (
    RatchetTree,
    UnverifiedTree,
    verify_parent_hashes,
    verify_structure,
)
from coterie.mls.rules import Rule
from coterie.mls.tls import JSON
from coterie.mls.tree_math import LeafIndex, NodeIndex, node_width
from coterie.mls.types import LeafNodeSource


def read_tree(suite: Suite, data: bytes) -> RatchetTree:
    """A vector's tree, which is taken as it is: what of it holds is what is verified."""
    return UnverifiedTree.decode(data, suite).trust()


# -- tree-operations


def verify_tree_operations(case: Case) -> None:
    """An Add, Update or Remove applied to a tree."""
    tree = read_tree(case.suite, case.data("tree_before"))
    expect("tree_hash_before", tree.tree_hash(), case.data("tree_hash_before"))
    proposal = Proposal.decode(case.data("proposal"))
    after = _applied(tree, proposal, case.number("proposal_sender", 1 << 32))
    expect("tree_after", after.encode(), case.data("tree_after"))
    expect("tree_hash_after", after.tree_hash(), case.data("tree_hash_after"))


def _applied(tree: RatchetTree, proposal: Proposal, sender: int) -> RatchetTree:
    match proposal.content:
        case Add(key_package=package):
            return tree.with_added([package.leaf_node])[0]
        case Update(leaf_node=leaf):
            tree.member(sender, rule=Rule.SENDER_BLANK)
            return tree.with_leaves({sender: leaf})
        case Remove(removed=removed):
            tree.member(removed, rule=Rule.REMOVE_BLANK)
            return tree.with_leaves({removed: None})
    msg = f"a proposal of type {proposal.proposal_type.name} does not change the tree"
    raise Mismatch(msg)


def generate_tree_operations(suite: Suite, rng: RandomSource) -> Generated:
    """Adds into a full tree and into a gap, an Update, and Removes that truncate the tree and that do not."""
    made: Generated = []
    for leaf_count, removed, make in (
        (4, (), _add),
        (5, (1,), _add),
        (6, (), _update),
        (6, (), lambda _: Proposal.of(Remove(LeafIndex(2)))),
        (5, (), lambda _: Proposal.of(Remove(LeafIndex(4)))),
    ):
        source = SimulatedTree.of(suite, rng, rng(16), leaf_count)
        if removed:
            source.remove(*removed)
        made.append(_operation(source, make(source)))
    return made


def _add(source: SimulatedTree) -> Proposal:
    return Proposal.of(Add(new_client(source.suite, source.rng).key_package))


def _update(source: SimulatedTree) -> Proposal:
    """Leaf 0 proposes a new leaf for itself."""
    old = source.tree.member(0, rule=Rule.SENDER_BLANK)
    leaf = LeafNodeTBS(
        encryption_key=source.suite.generate_hpke_key(source.rng).public,
        signature_key=old.signature_key,
        credential=old.credential,
        capabilities=old.capabilities,
        leaf_node_source=LeafNodeSource.UPDATE,
        lifetime=None,
        parent_hash=None,
        extensions=(),
        group_id=source.group_id,
        leaf_index=LeafIndex(0),
    )
    return Proposal.of(Update(leaf.sign(source.suite, source.members[LeafIndex(0)].signature_key)))


def _operation(source: SimulatedTree, proposal: Proposal) -> dict[str, JSON]:
    after = _applied(source.tree, proposal, 0)
    return {
        "cipher_suite": int(source.suite.cipher_suite),
        "tree_before": source.tree.encode().hex(),
        "proposal": proposal.encode().hex(),
        "proposal_sender": 0,
        "tree_hash_before": source.tree.tree_hash().hex(),
        "tree_after": after.encode().hex(),
        "tree_hash_after": after.tree_hash().hex(),
    }


# -- tree-validation


def verify_tree_validation(case: Case) -> None:
    """Resolutions, tree hashes, parent hashes and signatures of a whole tree."""
    tree = read_tree(case.suite, case.data("tree"))
    expect("tree, encoded again", tree.encode(), case.data("tree"))
    expect("resolutions", _resolutions(tree), case.lists("resolutions"))
    expect("tree_hashes", _tree_hashes(tree), case.datas("tree_hashes"))
    verify_structure(tree)
    verify_parent_hashes(tree)
    group_id = case.data("group_id")
    for leaf, node in tree.members():
        check_signature(node, tree.suite, group_id, leaf)


def _nodes(tree: RatchetTree) -> list[NodeIndex]:
    return [NodeIndex(n) for n in range(node_width(tree.leaf_count))]


def _resolutions(tree: RatchetTree) -> list[list[int]]:
    return [
        [int(below.index) for below in tree.root.at(n.level(), n.first_leaf()).resolution()]
        for n in _nodes(tree)
    ]


def _tree_hashes(tree: RatchetTree) -> list[bytes]:
    return [tree.root.at(n.level(), n.first_leaf()).tree_hash(tree.suite) for n in _nodes(tree)]


def generate_tree_validation(suite: Suite, rng: RandomSource) -> Generated:
    """The working group's small trees: full, with trailing blanks, with gaps, with unmerged leaves."""
    shapes: list[Callable[[bytes], SimulatedTree]] = [
        lambda group_id, n=n: SimulatedTree.of(suite, rng, group_id, n)  # type: ignore[misc]
        for n in (2, 3, 4, 5, 7, 8)
    ]
    shapes += [
        lambda group_id: gap_tree(suite, rng, group_id, (2, 3), add=True),
        lambda group_id: gap_tree(suite, rng, group_id, (1, 2, 3), add=False),
        lambda group_id: unmerged_tree(suite, rng, group_id),
    ]
    made: Generated = []
    for shape in shapes:
        group_id = rng(16)
        tree = shape(group_id).tree
        resolutions: list[JSON] = [list(each) for each in _resolutions(tree)]
        made.append(
            {
                "cipher_suite": int(suite.cipher_suite),
                "tree": tree.encode().hex(),
                "group_id": group_id.hex(),
                "resolutions": resolutions,
                "tree_hashes": [each.hex() for each in _tree_hashes(tree)],
            }
        )
    return made


def gap_tree(
    suite: Suite, rng: RandomSource, group_id: bytes, gone: tuple[int, ...], *, add: bool
) -> SimulatedTree:
    """Eight leaves of which leaf 0 removes some, and adds one where the issue is a gap that is filled in part."""
    source = SimulatedTree.of(suite, rng, group_id, 8)
    source.remove(*gone)
    if add:
        source.add()
    source.commit(LeafIndex(0))
    return source


def unmerged_tree(suite: Suite, rng: RandomSource, group_id: bytes) -> SimulatedTree:
    """Seven leaves and an eighth that is unmerged everywhere above it but on leaf 0's path."""
    source = SimulatedTree.of(suite, rng, group_id, 7)
    source.add()
    source.commit(LeafIndex(0))
    return source


TREE_OPERATIONS = Kind(
    "tree-operations",
    frozenset({"cipher_suite", "tree_before", "proposal", "tree_after"}),
    verify_tree_operations,
    generate_tree_operations,
)
TREE_VALIDATION = Kind(
    "tree-validation",
    frozenset({"cipher_suite", "tree", "resolutions", "tree_hashes"}),
    verify_tree_validation,
    generate_tree_validation,
)
