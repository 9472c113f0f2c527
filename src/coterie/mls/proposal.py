"""Proposals and Commits, the structs (RFC 9420 §12.1 and §12.4)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from coterie.mls.extension import Extension
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackage
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import UpdatePath
from coterie.mls.tls import Select, Struct, Uint
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ProposalOrRefType, ProposalType, ProtocolVersion


class Add(Struct):
    """§12.1.1."""

    key_package: KeyPackage
    proposal_type: ClassVar = ProposalType.ADD


class Update(Struct):
    """§12.1.2."""

    leaf_node: LeafNode
    proposal_type: ClassVar = ProposalType.UPDATE


class Remove(Struct):
    """§12.1.3."""

    removed: Annotated[LeafIndex, Uint(4)]
    proposal_type: ClassVar = ProposalType.REMOVE


class PreSharedKey(Struct):
    """§12.1.4."""

    psk: PreSharedKeyID
    proposal_type: ClassVar = ProposalType.PSK


class ReInit(Struct):
    """§12.1.5."""

    group_id: bytes
    version: ProtocolVersion
    cipher_suite: CipherSuite
    extensions: tuple[Extension, ...]
    proposal_type: ClassVar = ProposalType.REINIT


class ExternalInit(Struct):
    """§12.1.6."""

    kem_output: bytes
    proposal_type: ClassVar = ProposalType.EXTERNAL_INIT


class GroupContextExtensions(Struct):
    """§12.1.7."""

    extensions: tuple[Extension, ...]
    proposal_type: ClassVar = ProposalType.GROUP_CONTEXT_EXTENSIONS


ProposalContent = (
    Add | Update | Remove | PreSharedKey | ReInit | ExternalInit | GroupContextExtensions | bytes
)


class Proposal(Struct):
    """§12.1; the content of a type that the application registers is one opaque vector."""

    proposal_type: ProposalType
    content: Annotated[
        ProposalContent,
        Select(
            "proposal_type",
            {
                cls.proposal_type: cls
                for cls in (
                    Add,
                    Update,
                    Remove,
                    PreSharedKey,
                    ReInit,
                    ExternalInit,
                    GroupContextExtensions,
                )
            },
            default=bytes,
        ),
    ]

    @classmethod
    def of(
        cls,
        content: Add
        | Update
        | Remove
        | PreSharedKey
        | ReInit
        | ExternalInit
        | GroupContextExtensions,
    ) -> Proposal:
        """The proposal with this content."""
        return cls(content.proposal_type, content)

    @classmethod
    def custom(cls, proposal_type: int, content: bytes) -> Proposal:
        """A proposal of a type that the application defines."""
        return cls(ProposalType(proposal_type), content)


NO_PATH_REQUIRED = frozenset({ProposalType.ADD, ProposalType.PSK, ProposalType.REINIT})
"""The proposal types that a Commit without a path may cover (§12.4, §17.4)."""

EXTERNAL_SENDER_TYPES = frozenset(
    {
        ProposalType.ADD,
        ProposalType.REMOVE,
        ProposalType.PSK,
        ProposalType.REINIT,
        ProposalType.GROUP_CONTEXT_EXTENSIONS,
    }
)
"""The proposal types that an external sender may send (§12.1.8)."""


class ProposalOrRef(Struct):
    """§12.4."""

    type: ProposalOrRefType
    content: Annotated[
        Proposal | bytes,
        Select("type", {ProposalOrRefType.PROPOSAL: Proposal, ProposalOrRefType.REFERENCE: bytes}),
    ]


class Commit(Struct):
    """§12.4."""

    proposals: tuple[ProposalOrRef, ...]
    path: UpdatePath | None
