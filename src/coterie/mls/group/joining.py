"""Entering a group: as its creator, by a Welcome, by an external Commit (RFC 9420 §11, §12.4.3.1, §12.4.3.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from coterie.errors import DecryptionError, RuleViolation, StateError
from coterie.mls.crypto import Suite, suite_of
from coterie.mls.extension import Extension, ExternalPub, find_extension
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    interim_transcript_hash,
    own_content,
    protect_public,
    sign_content,
)
from coterie.mls.group.commit import (
    Inputs,
    NewLeaf,
    OwnKeys,
    begin_epoch,
    build_path,
    proposal_or_ref,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group.psks import PskFinder
from coterie.mls.group.welcoming import OpenedWelcome
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.key_schedule import confirmation_tag, epoch_secrets, external_init_seal
from coterie.mls.leaf_node import Lifetime, check_contents
from coterie.mls.proposal import Commit, ExternalInit, PreSharedKey, Proposal, Remove
from coterie.mls.ratchet_tree import PathNode, RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex, NodeIndex, common_ancestor_level
from coterie.mls.treekem import PrivatePath, keys_above
from coterie.mls.types import (
    CipherSuite,
    ContentType,
    ExtensionType,
    LeafNodeSource,
    ProtocolVersion,
    Sender,
    SenderType,
    WireFormat,
)
from coterie.mls.validation import (
    CommittedProposal,
    PublicState,
    list_for_external_commit,
    stage_proposals,
    verify_group_info,
)
from coterie.mls.validation.commit import check_external_senders, check_next_tree
from coterie.mls.validation.leaves import check_group_extensions
from coterie.mls.welcome import GroupInfo


@dataclass(frozen=True, slots=True, repr=False)
class Entered:
    """The first epoch of this member in a group."""

    staged: StagedEpoch
    index: TreeIndex


def create_first_epoch(
    suite: Suite,
    group_id: bytes,
    leaf: NewLeaf,
    extensions: tuple[Extension, ...],
    lifetime: Lifetime,
    config: Config,
) -> Entered:
    """Epoch 0 of a new group with one member (§11)."""
    leaf_key = suite.generate_hpke_key(config.rng)
    node = leaf.sign(suite, leaf_key.public, LeafNodeSource.KEY_PACKAGE, lifetime=lifetime)
    check_contents(node, suite)
    tree = RatchetTree.of_one(suite, node)
    context = GroupContext(
        ProtocolVersion.MLS10,
        CipherSuite(suite.cipher_suite),
        group_id,
        0,
        tree.tree_hash(),
        b"",
        extensions,
    )
    index = TreeIndex.of_tree(tree, config.authenticator)
    check_external_senders(extensions, (), config.authenticator, now=None)
    check_group_extensions(extensions, context.required_capabilities(), index, 1)
    secrets, encryption_secret = epoch_secrets(suite, Secret(config.rng(suite.hash_length)))
    tag = confirmation_tag(suite, secrets.confirmation_key, b"")
    epoch = Epoch(
        suite,
        context,
        tree,
        PrivatePath(LeafIndex(0), leaf_key, {}),
        leaf.signature_key,
        secrets,
        interim_transcript_hash(suite, b"", tag),
        tag,
    )
    return Entered(StagedEpoch(epoch, encryption_secret, {}), index)


def enter_by_welcome(
    opened: OpenedWelcome, bundle: KeyPackageBundle, tree: bytes | None, config: Config
) -> Entered:
    """The epoch that an opened Welcome leads into, verified (§12.4.3.1).

    Raises `RuleViolation` or `VerificationError` for what is wrong with the group, `DecryptionError` where the path
    secret is not the tree's.
    """
    suite, info = opened.suite, opened.info
    verified, index = verify_group_info(info, suite, tree, config.policy(), config.run)
    mine = bundle.key_package.leaf_node.encode()
    # No two nodes of a verified tree have one encryption key.
    leaf = verified.find(bundle.encryption_key.public)
    if leaf is None or verified.member(leaf, rule=Rule.WELCOME_OWN_LEAF).encode() != mine:
        msg = "the tree has no leaf that is the key package's"
        raise RuleViolation(msg, rule=Rule.WELCOME_OWN_LEAF)
    parents: dict[NodeIndex, HPKEPrivateKey] = {}
    if opened.path_secret is not None:
        parents = _path_keys(suite, verified, leaf, info.signer, opened.path_secret)
    context = info.group_context
    secrets, encryption_secret = opened.joiner.epoch(context)
    suite.verify_mac(
        secrets.confirmation_key,
        context.confirmed_transcript_hash,
        info.confirmation_tag,
        rule=Rule.CONFIRMATION_TAG,
    )
    epoch = Epoch(
        suite,
        context,
        verified.settled(),
        PrivatePath(leaf, bundle.encryption_key, parents),
        bundle.signature_key,
        secrets,
        interim_transcript_hash(suite, context.confirmed_transcript_hash, info.confirmation_tag),
        info.confirmation_tag,
    )
    return Entered(StagedEpoch(epoch, encryption_secret, {}), index)


def _path_keys(
    suite: Suite, tree: RatchetTree, leaf: LeafIndex, signer: LeafIndex, path_secret: Secret
) -> dict[NodeIndex, HPKEPrivateKey]:
    """The private keys from the lowest common ancestor with the committer up."""
    lowest = common_ancestor_level(leaf, signer)
    above = [
        (PathNode(node.index, node.level, sibling), node.node.encryption_key)
        for node, sibling in tree.direct_path(signer)
        if node.level >= lowest and node.node is not None
    ]
    if not above or above[0][0].level != lowest:
        msg = "the Welcome has a path secret for a node that is blank"
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_MATCHES)
    path, keys = [node for node, _ in above], [key for _, key in above]
    return keys_above(suite, path, keys, path_secret)[0]


@dataclass(frozen=True, slots=True)
class ExternalJoin:
    """What an external joiner says besides its leaf: whom it replaces, which keys it brings."""

    remove: LeafIndex | None = None
    psks: Sequence[PreSharedKeyID] = ()
    authenticated_data: bytes = b""


def enter_by_external_commit(
    info: GroupInfo,
    tree: bytes | None,
    leaf: NewLeaf,
    join: ExternalJoin,
    config: Config,
    find_psks: PskFinder,
    *,
    now: int | None,
) -> tuple[Entered, MLSMessage]:
    """Makes the external Commit that adds this client, and the epoch that it begins (§12.4.3.2).

    Raises `RuleViolation` or `VerificationError` for what is wrong with the GroupInfo or the group.
    """
    context = info.group_context
    suite = suite_of(context.cipher_suite)
    policy = config.policy()
    verified, index = verify_group_info(info, suite, tree, policy, config.run)
    pub = find_extension(info.extensions, ExtensionType.EXTERNAL_PUB, ExternalPub)
    if pub is None:
        msg = "the GroupInfo has no external_pub: the group is not open to external Commits"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_PUB_MISSING)
    state = PublicState(suite, context, verified.settled(), index)
    kem_output, init_secret = external_init_seal(suite, pub.external_pub, config.rng)
    sender = Sender(SenderType.NEW_MEMBER_COMMIT)
    proposals = [Proposal.of(ExternalInit(kem_output))]
    proposals += [Proposal.of(PreSharedKey(psk)) for psk in join.psks]
    if join.remove is not None:
        proposals.append(Proposal.of(Remove(join.remove)))
    entries = [CommittedProposal(proposal, sender) for proposal in proposals]
    checked = list_for_external_commit(entries, suite.hash_length)
    staged = stage_proposals(state, checked, policy, None, now=now)
    own = staged.tree.leftmost_blank()
    replaced = None if join.remove is None else verified.leaf(join.remove)
    built = build_path(state, staged, own, leaf, config, replaced=replaced, now=now)
    check_next_tree(state, built.staged)
    commit = Commit(tuple(map(proposal_or_ref, entries)), built.update)
    content = FramedContent(
        context.group_id,
        context.epoch,
        sender,
        join.authenticated_data,
        ContentType.COMMIT,
        commit,
    )
    wire_format = WireFormat.MLS_PUBLIC_MESSAGE
    signature = sign_content(suite, leaf.signature_key, wire_format, content, context)
    signed = own_content(wire_format, content, FramedContentAuthData(signature))
    interim = interim_transcript_hash(
        suite, context.confirmed_transcript_hash, info.confirmation_tag
    )
    inputs = Inputs(interim, init_secret, built.derived.commit_secret, find_psks(checked.psks))
    private = built.private(PrivatePath(own, built.derived.leaf_key, {}))
    begun = begin_epoch(state, built.staged, signed, inputs, OwnKeys(private, leaf.signature_key))
    auth = FramedContentAuthData(signature, begun.epoch.confirmation_tag)
    message = MLSMessage.of(protect_public(suite, content, auth, context, None))
    entered = StagedEpoch(begun.epoch, begun.encryption_secret, built.staged.changes)
    return Entered(entered, index), message


def check_group_id(group_id: bytes, taken: Collection[bytes]) -> None:
    """Raises `StateError` where the client is in a group with this id already (§12.4.3)."""
    if group_id in taken:
        msg = (
            f"this client is in a group with the id {group_id.hex()} already; leave that one first"
        )
        raise StateError(msg, rule=Rule.GROUP_ID_UNIQUE)
