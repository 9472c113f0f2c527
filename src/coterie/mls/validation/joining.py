"""What a joiner verifies of the group that it is about to enter (RFC 9420 §12.4.3.1, §7.3, §7.9.2).

Strategy: what is cheap comes first: hash, shape, parent hashes, uniqueness, then all signatures in one call that an
executor may spread over the cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from coterie.errors import DecodeError, RuleViolation, VerificationError
from coterie.mls.credential import authenticate_all
from coterie.mls.crypto import Suite
from coterie.mls.extension import check_extension_list
from coterie.mls.framing import MLSMessage
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import part_of
from coterie.mls.leaf_node import LeafNode, check_all, signature_jobs
from coterie.mls.ratchet_tree import (
    RatchetTree,
    UnverifiedTree,
    collector_paused,
    verify_parent_hashes,
    verify_structure,
)
from coterie.mls.rules import Rule
from coterie.mls.tree_index import TreeIndex
from coterie.mls.types import ExtensionType, ProtocolVersion
from coterie.mls.validation.commit import Policy, check_external_senders
from coterie.mls.validation.leaves import all_support, check_group_extensions
from coterie.mls.welcome import GroupInfo

Map = Callable[..., Iterable[Any]]


def verify_tree(
    unverified: UnverifiedTree, context: GroupContext, policy: Policy, run: Map = map
) -> tuple[RatchetTree, TreeIndex]:
    """Makes every check of a given ratchet tree and of the group's extensions.

    `run` is `map` or an executor's, for signatures and credentials. Lifetimes are not compared with the clock: a member
    whose key package expired after it joined must keep nobody out. Who keeps the tree keeps it `settled`.
    Raises `RuleViolation` or `VerificationError`.
    """
    if context.version != ProtocolVersion.MLS10:
        msg = f"the group is of protocol version {int(context.version)}, only MLS 1.0 is spoken"
        raise RuleViolation(msg, rule=Rule.GROUP_VERSION)
    tree = unverified.trust()
    suite = tree.suite
    if tree.tree_hash() != context.tree_hash:
        msg = "the ratchet tree does not have the hash that the GroupInfo names"
        raise VerificationError(msg, rule=Rule.TREE_HASH)
    verify_structure(tree)
    verify_parent_hashes(tree)
    index = TreeIndex.of_tree(tree, policy.authenticator)
    _check_unique(tree, index)
    required = context.required_capabilities()
    check_group_extensions(context.extensions, required, index, tree.member_count)
    leaves = tree.leaf_nodes()
    _check_leaves(suite, leaves, index, policy)
    told = part_of(policy.progress, 0, len(leaves))
    jobs = signature_jobs(zip(tree.member_places(), leaves, strict=True), context.group_id)
    suite.verify_many(jobs, rule=Rule.LEAF_SIGNATURE, map=run, progress=told)
    holders = ((leaf.credential, leaf.signature_key) for leaf in leaves)
    authenticate_all(policy.authenticator, holders, now=None, run=run)
    return tree, index


def _check_unique(tree: RatchetTree, index: TreeIndex) -> None:
    for name, count in index.duplicates():
        if name[:1] == b"s":
            msg = "two members of the tree have the same signature key"
            raise RuleViolation(msg, rule=Rule.UNIQUE_SIGNATURE_KEY)
        msg = f"{count} nodes of the tree have the same encryption key"
        raise RuleViolation(msg, rule=Rule.UNIQUE_ENCRYPTION_KEY)
    keys = [parent.node.encryption_key for parent in tree.parents()]  # type: ignore[union-attr]
    tree.suite.check_hpke_public_keys(keys)


def _check_leaves(
    suite: Suite, leaves: Sequence[LeafNode], index: TreeIndex, policy: Policy
) -> None:
    in_use = index.credential_types_in_use()
    for kind in in_use:
        if not all_support(index, b"c", kind, len(leaves)):
            msg = f"not every member supports credential type {kind}, which is in use"
            raise RuleViolation(msg, rule=Rule.LEAF_CREDENTIAL_IN_USE)
    check_all(leaves, suite, max_lifetime=policy.max_lifetime)


def verify_group_info(
    info: GroupInfo, suite: Suite, tree: bytes | None, policy: Policy, run: Map = map
) -> tuple[RatchetTree, TreeIndex]:
    """Verifies a GroupInfo with the tree that is in it or given beside it (§12.4.3).

    `run` is `map` or an executor's, for the signatures. Raises `RuleViolation` or `VerificationError`.
    """
    if info.group_context.cipher_suite != suite.cipher_suite:
        msg = "the GroupInfo is for another cipher suite than the key package"
        raise RuleViolation(msg, rule=Rule.WELCOME_CIPHER_SUITE)
    check_extension_list(info.extensions)
    for extension in info.extensions:
        if extension.extension_type == ExtensionType.RATCHET_TREE:
            tree = extension.extension_data
    if tree is None:
        msg = "the ratchet tree is neither in the message nor given beside it"
        raise RuleViolation(msg, rule=Rule.TREE_MISSING)
    with collector_paused():
        return _verify_with_tree(info, UnverifiedTree.decode(tree, suite), policy, run)


def _verify_with_tree(
    info: GroupInfo, unverified: UnverifiedTree, policy: Policy, run: Map
) -> tuple[RatchetTree, TreeIndex]:
    signer = unverified.trust().leaf(info.signer)
    if signer is None:
        msg = f"the GroupInfo names leaf {int(info.signer)} as its signer, which is blank"
        raise RuleViolation(msg, rule=Rule.GROUP_INFO_SIGNER)
    info.verify(unverified.suite, signer.signature_key)
    check_external_senders(info.group_context.extensions, (), policy.authenticator, now=None)
    return verify_tree(unverified, info.group_context, policy, run)


def read_group_info(message: MLSMessage | GroupInfo) -> GroupInfo:
    """The GroupInfo of a message; raises `DecodeError` where it is something else."""
    body = message.body if isinstance(message, MLSMessage) else message
    if not isinstance(body, GroupInfo):
        msg = f"expected a GroupInfo, found a {type(body).__name__}"
        raise DecodeError(msg, rule=Rule.ENUM_VALUE)
    return body
