"""The structs of the ratchet tree (RFC 9420 §7.1, §7.6, §7.8, §7.9, §12.4.3.3)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from coterie.mls.leaf_node import LeafNode
from coterie.mls.tls import Lazy, Select, Struct, Uint
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import NodeType


class ParentNode(Struct):
    """§7.1."""

    _detached: ClassVar[bool] = True

    encryption_key: bytes
    parent_hash: bytes
    unmerged_leaves: tuple[Annotated[LeafIndex, Uint(4)], ...]


class HPKECiphertext(Struct):
    """§7.6."""

    kem_output: bytes
    ciphertext: bytes


class UpdatePathNode(Struct):
    """§7.6."""

    encryption_key: bytes
    encrypted_path_secret: Annotated[tuple[HPKECiphertext, ...], Lazy()]


class UpdatePath(Struct):
    """§7.6."""

    leaf_node: LeafNode
    nodes: tuple[UpdatePathNode, ...]


class LeafNodeHashInput(Struct):
    """§7.8."""

    leaf_index: Annotated[LeafIndex, Uint(4)]
    leaf_node: LeafNode | None


class ParentNodeHashInput(Struct):
    """§7.8."""

    parent_node: ParentNode | None
    left_hash: bytes
    right_hash: bytes


class TreeHashInput(Struct):
    """§7.8."""

    node_type: NodeType
    node: Annotated[
        LeafNodeHashInput | ParentNodeHashInput,
        Select(
            "node_type", {NodeType.LEAF: LeafNodeHashInput, NodeType.PARENT: ParentNodeHashInput}
        ),
    ]


class ParentHashInput(Struct):
    """§7.9."""

    encryption_key: bytes
    parent_hash: bytes
    original_sibling_tree_hash: bytes


class Node(Struct):
    """§12.4.3.3."""

    node_type: NodeType
    node: Annotated[
        LeafNode | ParentNode,
        Select("node_type", {NodeType.LEAF: LeafNode, NodeType.PARENT: ParentNode}),
    ]
