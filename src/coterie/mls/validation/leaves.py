"""What a leaf must be to stand in this group (RFC 9420 §7.3), and what a group's extensions ask of all members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from coterie.errors import RuleViolation
from coterie.mls.extension import (
    Extension,
    RequiredCapabilities,
    check_extension_list,
)
from coterie.mls.group_context import GroupContext
from coterie.mls.leaf_node import LeafNode, check_required
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_index import (
    Counters,
    encryption_key_name,
    signature_key_name,
    type_name,
)
from coterie.mls.types import DEFAULT_EXTENSION_TYPES, DEFAULT_PROPOSAL_TYPES, GREASE_VALUES
from coterie.mls.validation.proposal_list import ProposalList


class GroupRules(Protocol):
    """Rules that the members of a group agreed on besides the RFC's, judged alike by all (§12.2, §16.11)."""

    def check_commit(
        self,
        before: GroupContext,
        tree: RatchetTree,
        committer: int | None,
        proposals: ProposalList,
    ) -> None:
        """Raises `RuleViolation` where the group's rules forbid the Commit.

        `before` and `tree` are those of the epoch that the Commit ends; `committer` is a leaf index, None for an
        external Commit.
        """


def all_support(index: Counters, kind: bytes, value: int, member_count: int) -> bool:
    """Whether every member supports a type; a GREASE value nobody does, though all may list it (§13.5).

    `kind` is one of x, p, c, as in the index.
    """
    return value not in GREASE_VALUES and index.count(type_name(kind, value)) == member_count


def check_leaf_in_group(
    leaf: LeafNode, extensions: Iterable[Extension], required: RequiredCapabilities | None,
    index: Counters, member_count: int
) -> None:  # fmt: skip
    """Raises `RuleViolation` unless a new leaf fits the group as it will be (§7.3, §13.4).

    `index` and `member_count` include the leaf itself.
    """
    check_required(leaf, required)
    for extension in extensions:
        if not leaf.capabilities.supports_extension(extension.extension_type):
            msg = f"the leaf does not support the group's extension {int(extension.extension_type)}"
            raise RuleViolation(msg, rule=Rule.LEAF_GROUP_EXTENSION)
    own = leaf.credential.credential_type
    if not all_support(index, b"c", own, member_count):
        msg = f"not every member supports the leaf's credential type {int(own)}"
        raise RuleViolation(msg, rule=Rule.LEAF_CREDENTIAL_SUPPORT)
    missing = index.credential_types_in_use() - set(leaf.capabilities.credentials)
    if missing:
        msg = f"the leaf does not support credential types in use: {sorted(missing)}"
        raise RuleViolation(msg, rule=Rule.LEAF_CREDENTIAL_IN_USE)
    if index.count(signature_key_name(leaf.signature_key)) > 1:
        msg = "the leaf's signature key is another member's as well"
        raise RuleViolation(msg, rule=Rule.UNIQUE_SIGNATURE_KEY)
    if index.count(encryption_key_name(leaf.encryption_key)) > 1:
        msg = "the leaf's encryption key stands elsewhere in the tree as well"
        raise RuleViolation(msg, rule=Rule.UNIQUE_ENCRYPTION_KEY)


def check_leaves_in_group(
    leaves: Sequence[LeafNode], extensions: Iterable[Extension],
    required: RequiredCapabilities | None, index: Counters, member_count: int
) -> None:  # fmt: skip
    """`check_leaf_in_group` for each: raises for the first leaf that does not fit.

    Keys are looked up together, and what many leaves share is judged once; where that fails, leaf by leaf.
    """
    names = [encryption_key_name(leaf.encryption_key) for leaf in leaves]
    names += [signature_key_name(leaf.signature_key) for leaf in leaves]
    alike = {(id(leaf.capabilities), int(leaf.credential.credential_type)): leaf for leaf in leaves}
    if max(index.counts(names), default=0) <= 1:
        with suppress(RuleViolation):
            for leaf in alike.values():
                check_leaf_in_group(leaf, extensions, required, index, member_count)
            return
    for leaf in leaves:
        check_leaf_in_group(leaf, extensions, required, index, member_count)


def check_group_extensions(
    extensions: tuple[Extension, ...],
    required: RequiredCapabilities | None,
    index: Counters,
    member_count: int,
) -> None:
    """Raises `RuleViolation` unless all members support a GroupContext's extensions (§11.1, §12.1.7, §13.4)."""
    check_extension_list(extensions)
    for extension in extensions:
        kind = extension.extension_type
        if kind in DEFAULT_EXTENSION_TYPES:
            continue
        if not all_support(index, b"x", kind, member_count):
            msg = f"not every member supports the group extension {int(kind)}"
            raise RuleViolation(msg, rule=Rule.EXTENSION_SUPPORT)
    if required is None:
        return
    needed = [
        *((b"x", t) for t in required.extension_types if t not in DEFAULT_EXTENSION_TYPES),
        *((b"p", t) for t in required.proposal_types if t not in DEFAULT_PROPOSAL_TYPES),
        *((b"c", t) for t in required.credential_types),
    ]
    for letter, value in needed:
        if not all_support(index, letter, value, member_count):
            msg = f"not every member supports the required type {int(value)}"
            raise RuleViolation(msg, rule=Rule.REQUIRED_CAPABILITIES_SUPPORT)
