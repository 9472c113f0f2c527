"""A Commit applied to the public state (RFC 9420 §12.3, §12.4.1, §12.4.2): proposals first, then the path.

Members and observers do the same here; what needs secrets comes after. Nothing is changed: the result is the public
part of the next epoch, and it costs O(log n) where the list of proposals is short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import RuleViolation
from coterie.mls.credential import Authenticator, authenticate, check_successor
from coterie.mls.crypto import Suite
from coterie.mls.extension import Extension, ExternalSenders, find_extension
from coterie.mls.group_context import GroupContext, required_capabilities
from coterie.mls.key_package import MAX_LIFETIME, Progress, validate_all
from coterie.mls.leaf_node import (
    LeafNode,
    check_contents,
    check_credential,
    check_signature,
    check_source,
)
from coterie.mls.proposal import Add, Update
from coterie.mls.ratchet_tree import PathNode, RatchetTree, UpdatePath, count_below
from coterie.mls.rules import Rule
from coterie.mls.tree_index import (
    Counters,
    IndexView,
    added_up,
    changes_between,
    client_name,
    encryption_key_name,
    type_name,
)
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ExtensionType, LeafNodeSource
from coterie.mls.validation.leaves import GroupRules, check_group_extensions, check_leaves_in_group
from coterie.mls.validation.proposal_list import CustomProposal, ProposalList, custom_types

MAX_EPOCH = (1 << 64) - 1
"""The last epoch that a GroupContext can number."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides about validity besides the RFC."""

    authenticator: Authenticator
    rules: GroupRules | None = None
    custom: Mapping[int, CustomProposal] = field(default_factory=dict)
    max_lifetime: int | None = MAX_LIFETIME
    run: Callable[..., Iterable[Any]] = map
    """`map`, or an executor's, for many signatures at once."""
    progress: Progress | None = None
    """Called while many signatures are verified: so many of so many hold."""


@dataclass(frozen=True, slots=True)
class PublicState:
    """The public part of an epoch."""

    suite: Suite
    context: GroupContext
    tree: RatchetTree
    index: Counters


@dataclass(frozen=True, slots=True)
class StagedPublic:
    """The public part of the next epoch, as far as it is built: after the proposals, or after the path as well."""

    proposals: ProposalList
    tree: RatchetTree
    extensions: tuple[Extension, ...]
    changes: Mapping[bytes, int]
    new_leaves: tuple[LeafIndex, ...]
    """Sorted: the leaves that were added and get no path secret from the path."""
    touched: tuple[LeafNode, ...]
    """Every leaf node that was not in the old tree."""
    path: tuple[PathNode, ...] = ()


def stage_proposals(
    state: PublicState,
    proposals: ProposalList,
    policy: Policy,
    committer: LeafIndex | None,
    *,
    now: int | None,
) -> StagedPublic:
    """Applies the proposals in the RFC's order (§12.3); raises where one of them is invalid.

    `committer` is None for an external Commit. `now` is None where the verdict must not depend on the time.
    """
    if state.context.epoch >= MAX_EPOCH:
        msg = f"epoch {state.context.epoch} is the last one that has a number: start a new group"
        raise RuleViolation(msg, rule=Rule.GROUP_EPOCH)
    if policy.rules is not None:
        policy.rules.check_commit(state.context, state.tree, committer, proposals)
    if not proposals.all:
        # A Commit that only renews keys, as most are: what follows would find nothing to look at.
        return StagedPublic(proposals, state.tree, state.context.extensions, {}, (), ())
    extensions = _new_extensions(state, proposals, policy, now)
    leaves: dict[int, LeafNode | None] = {}
    for leaf, (update, checked) in proposals.updates.items():
        if not checked:
            check_update(state, leaf, update, policy, now=now)
        leaves[leaf] = update.leaf_node
    for leaf in proposals.removes:
        state.tree.member(leaf, rule=Rule.REMOVE_BLANK)
        leaves[leaf] = None
    validate_all(
        [add.key_package for add, checked in proposals.adds if not checked],
        state.suite,
        policy.authenticator,
        now=now,
        max_lifetime=policy.max_lifetime,
        run=policy.run,
        progress=policy.progress,
    )
    added = [add.key_package.leaf_node for add, _ in proposals.adds]
    tree, positions = state.tree.with_leaves(leaves).with_added(added)
    changes: Mapping[bytes, int] = {}
    if tree is not state.tree:
        changes = changes_between(state.tree, tree, policy.authenticator)
    touched = (*added, *(update.leaf_node for update, _ in proposals.updates.values()))
    staged = StagedPublic(proposals, tree, extensions, changes, tuple(positions), touched)
    _check_clients(state, staged, policy)
    _check_custom(state, proposals, policy)
    return staged


def _new_extensions(
    state: PublicState, proposals: ProposalList, policy: Policy, now: int | None
) -> tuple[Extension, ...]:
    if proposals.extensions is None:
        return state.context.extensions
    extensions = proposals.extensions.extensions
    check_external_senders(extensions, state.context.extensions, policy.authenticator, now=now)
    return extensions


def check_external_senders(
    extensions: Sequence[Extension],
    before: Sequence[Extension],
    authenticator: Authenticator,
    *,
    now: int | None,
) -> None:
    """Authenticates every external sender that is new (§5.3.1); raises its `VerificationError`."""
    new = find_extension(extensions, ExtensionType.EXTERNAL_SENDERS, ExternalSenders)
    old = find_extension(before, ExtensionType.EXTERNAL_SENDERS, ExternalSenders)
    known = set() if old is None else set(old.external_senders)
    for sender in () if new is None else new.external_senders:
        if sender not in known:
            authenticate(authenticator, sender.credential, sender.signature_key, now=now)


def check_add(state: PublicState, add: Add, policy: Policy, *, now: int | None) -> None:
    """Raises where the key package of an Add is invalid by itself (§12.1.1, §10.1)."""
    add.key_package.validate(
        state.suite, policy.authenticator, now=now, max_lifetime=policy.max_lifetime
    )


def check_update(
    state: PublicState, leaf: LeafIndex, update: Update, policy: Policy, *, now: int | None
) -> None:
    """Raises where an Update is invalid for the leaf it replaces (§12.1.2, §7.3)."""
    old = state.tree.member(leaf, rule=Rule.SENDER_BLANK)
    node = update.leaf_node
    check_source(node, LeafNodeSource.UPDATE)
    check_contents(node, state.suite)
    if node.encryption_key == old.encryption_key:
        msg = "an Update that keeps the encryption key"
        raise RuleViolation(msg, rule=Rule.UPDATE_SAME_KEY, leaf=leaf)
    check_signature(node, state.suite, state.context.group_id, leaf)
    check_replacement(old, node, policy, now)


def check_replacement(old: LeafNode | None, new: LeafNode, policy: Policy, now: int | None) -> None:
    """Raises where the credential of a leaf that takes another's place is invalid (§5.3.1); `old` is None for none."""
    if old is not None and old.credential == new.credential:
        if old.signature_key == new.signature_key:
            return
    elif old is not None:
        check_successor(policy.authenticator, old.credential, new.credential)
    check_credential(new, policy.authenticator, now=now)


def _check_clients(state: PublicState, staged: StagedPublic, policy: Policy) -> None:
    view = IndexView(state.index, staged.changes)
    for add, _ in staged.proposals.adds:
        credential = add.key_package.leaf_node.credential
        if view.count(client_name(policy.authenticator.client_id(credential))) > 1:
            msg = "an Add of a client that is in the group already, or is added twice"
            raise RuleViolation(msg, rule=Rule.LIST_SAME_CLIENT)


def _check_custom(state: PublicState, proposals: ProposalList, policy: Policy) -> None:
    """Every member that stays must support every proposal type that is used (§12.2)."""
    for kind in custom_types(proposals):
        name = type_name(b"p", kind)
        leaving = [state.tree.leaf(leaf) for leaf in proposals.removes]
        supporting = state.index.count(name) - sum(
            leaf is not None and leaf.capabilities.supports_proposal(kind) for leaf in leaving
        )
        if kind not in policy.custom or supporting != state.tree.member_count - len(leaving):
            msg = f"not every member supports proposals of type {kind}"
            raise RuleViolation(msg, rule=Rule.LIST_CUSTOM_SUPPORT)


def stage_path(
    state: PublicState,
    staged: StagedPublic,
    update: UpdatePath,
    committer: LeafIndex,
    policy: Policy,
    *,
    replaced: LeafNode | None,
    now: int | None,
) -> StagedPublic:
    """Validates an UpdatePath and merges it into the tree (§12.4.2, §7.5); raises where it is invalid.

    `replaced` is the leaf that the committer had before: for an external Commit the one it removes, or None.
    """
    leaf = update.leaf_node
    check_source(leaf, LeafNodeSource.COMMIT)
    check_contents(leaf, state.suite)
    if replaced is not None and replaced.encryption_key == leaf.encryption_key:
        msg = "a path that keeps the committer's encryption key"
        raise RuleViolation(msg, rule=Rule.PATH_LEAF_KEY, leaf=committer)
    check_signature(leaf, state.suite, state.context.group_id, committer)
    check_replacement(replaced, leaf, policy, now)
    tree = staged.tree.extended(committer + 1)
    path = tuple(tree.filtered_direct_path(committer))
    check_path_shape(path, update, staged.new_leaves)
    keys = [node.encryption_key for node in update.nodes]
    _check_path_keys(state, staged, [leaf.encryption_key, *keys])
    nodes, parent_hash = tree.path_parents(path, keys)
    if leaf.parent_hash != parent_hash:
        msg = "the parent hash of the path's leaf is not that of the node above it"
        raise RuleViolation(msg, rule=Rule.PATH_PARENT_HASH, leaf=committer)
    merged = tree.with_path(committer, leaf, nodes)
    return with_path(staged, merged, path, leaf, policy)


def with_path(
    staged: StagedPublic,
    merged: RatchetTree,
    path: tuple[PathNode, ...],
    leaf: LeafNode,
    policy: Policy,
) -> StagedPublic:
    """The staged state with a path merged into its tree."""
    return StagedPublic(
        staged.proposals,
        merged,
        staged.extensions,
        added_up(staged.changes, changes_between(staged.tree, merged, policy.authenticator)),
        staged.new_leaves,
        (*staged.touched, leaf),
        path,
    )


def check_path_shape(
    path: Sequence[PathNode], update: UpdatePath, new_leaves: Sequence[int]
) -> None:
    """Raises `RuleViolation` unless the UpdatePath has the nodes and ciphertexts that the tree asks for (§7.6)."""
    if len(update.nodes) != len(path):
        msg = f"a path of {len(update.nodes)} nodes, the tree asks for {len(path)}"
        raise RuleViolation(msg, rule=Rule.PATH_LENGTH)
    for place, node in zip(path, update.nodes, strict=True):
        expected = place.sibling.resolution_size
        if new_leaves:
            expected -= count_below(new_leaves, place.sibling)
        if len(node.encrypted_path_secret) != expected:
            msg = (
                f"{len(node.encrypted_path_secret)} ciphertexts for {place.index!r}, "
                f"the tree asks for {expected}"
            )
            raise RuleViolation(msg, rule=Rule.PATH_CIPHERTEXTS)


def _check_path_keys(state: PublicState, staged: StagedPublic, keys: Sequence[bytes]) -> None:
    view = IndexView(state.index, staged.changes)
    if len(set(keys)) != len(keys):
        msg = "an UpdatePath with the same key twice"
        raise RuleViolation(msg, rule=Rule.PATH_KEY_REUSED)
    state.suite.check_hpke_public_keys(keys)
    if any(view.counts(map(encryption_key_name, keys))):
        msg = "an UpdatePath with a key that the tree has already"
        raise RuleViolation(msg, rule=Rule.PATH_KEY_REUSED)


def check_next_tree(state: PublicState, staged: StagedPublic) -> None:
    """The rules that the finished tree must keep (§12.2, last one): every new leaf, the group's extensions."""
    view = IndexView(state.index, staged.changes)
    required = required_capabilities(staged.extensions)
    members = staged.tree.member_count
    check_leaves_in_group(staged.touched, staged.extensions, required, view, members)
    if staged.proposals.extensions is not None:
        check_group_extensions(staged.extensions, required, view, members)


def next_context(context: GroupContext, staged: StagedPublic, confirmed: bytes) -> GroupContext:
    """The GroupContext of the next epoch; with the old confirmed hash it is the provisional one (§12.4.1)."""
    return GroupContext(
        context.version,
        context.cipher_suite,
        context.group_id,
        context.epoch + 1,
        staged.tree.tree_hash(),
        confirmed,
        staged.extensions,
    )
