"""The public ratchet tree (RFC 9420 §4.1, §7): structs, the persistent tree, its verification.

`structs` declares what travels, `subtree` is one immutable node of the persistent tree, `tree` the tree that a group
has in one epoch, `parent_hash` the check that a joiner makes of a tree that somebody else gives it.
"""

from __future__ import annotations

from coterie.mls.ratchet_tree.parent_hash import verify_parent_hashes, verify_structure
from coterie.mls.ratchet_tree.structs import (
    HPKECiphertext,
    Node,
    ParentNode,
    UpdatePath,
    UpdatePathNode,
)
from coterie.mls.ratchet_tree.subtree import NodeStore, Subtree
from coterie.mls.ratchet_tree.tree import (
    PathNode,
    RatchetTree,
    UnverifiedTree,
    ciphertext_position,
    collector_paused,
    count_below,
    encode_nodes,
)

__all__ = [
    "HPKECiphertext",
    "Node",
    "NodeStore",
    "ParentNode",
    "PathNode",
    "RatchetTree",
    "Subtree",
    "UnverifiedTree",
    "UpdatePath",
    "UpdatePathNode",
    "ciphertext_position",
    "collector_paused",
    "count_below",
    "encode_nodes",
    "verify_parent_hashes",
    "verify_structure",
]
