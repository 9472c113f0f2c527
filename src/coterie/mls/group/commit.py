"""Creating and processing Commits, from one epoch value to the next (RFC 9420 §12.4.1, §12.4.2).

Nothing here changes anything: both sides return a `StagedEpoch`. `begin_epoch` is where they meet: the transcript and
the key schedule of the new epoch are computed by the same code, whoever made the Commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coterie.errors import DecryptionError, RuleViolation
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey
from coterie.mls.extension import Capabilities, Extension
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    VerifiedContent,
    confirmed_transcript_hash,
    interim_transcript_hash,
    sign_content,
)
from coterie.mls.group.config import CommitOptions, Config
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_schedule import (
    Joiner,
    confirmation_tag,
    external_init_open,
    psk_secret,
)
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS
from coterie.mls.proposal import Commit, ProposalOrRef
from coterie.mls.ratchet_tree import RatchetTree, UpdatePath
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_index import Counters
from coterie.mls.tree_math import LeafIndex
from coterie.mls.treekem import DerivedPath, PrivatePath, derive_path, open_path, seal_path
from coterie.mls.types import (
    ContentType,
    LeafNodeSource,
    ProposalOrRefType,
    ResumptionPSKUsage,
    WireFormat,
)
from coterie.mls.validation import (
    CommittedProposal,
    ProposalList,
    PublicState,
    StagedPublic,
    list_for_commit,
    list_for_external_commit,
    stage_path,
    stage_proposals,
)
from coterie.mls.validation.commit import check_next_tree, with_path

PskSecrets = Sequence[tuple[PreSharedKeyID, bytes]]
PskFinder = Callable[[Sequence[PreSharedKeyID]], PskSecrets]


@dataclass(frozen=True, slots=True, repr=False)
class OwnUpdate:
    """The private keys of an own Update that waits for somebody's Commit."""

    encryption_key: HPKEPrivateKey
    signature_key: SignaturePrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class BuiltPath:
    """A committer's path: the private side, and what goes into the Commit."""

    derived: DerivedPath
    update: UpdatePath
    staged: StagedPublic
    tree_hash: bytes


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


@dataclass(frozen=True, slots=True, repr=False)
class NewLeaf:
    """What the committer's new leaf says, besides what is derived."""

    signature_key: SignaturePrivateKey
    credential: Credential
    capabilities: Capabilities
    extensions: tuple[Extension, ...] = ()

    @classmethod
    def like(cls, leaf: LeafNode, signature_key: SignaturePrivateKey) -> NewLeaf:
        """A leaf that says what another one does."""
        return cls(signature_key, leaf.credential, leaf.capabilities, leaf.extensions)


def build_path(
    state: PublicState,
    staged: StagedPublic,
    committer: LeafIndex,
    leaf: NewLeaf,
    config: Config,
) -> BuiltPath:
    """Derives the committer's path, signs its leaf, and only then seals (§7.5, §12.4.1)."""
    suite, rng = state.suite, config.rng
    tree = staged.tree.extended(committer + 1)
    derived = derive_path(suite, tree, committer, rng)
    path = tuple(step.node for step in derived.steps)
    nodes, parent_hash = tree.path_parents(path, [step.key.public for step in derived.steps])
    node = LeafNodeTBS(
        encryption_key=derived.leaf_key.public,
        signature_key=leaf.signature_key.public,
        credential=leaf.credential,
        capabilities=leaf.capabilities,
        leaf_node_source=LeafNodeSource.COMMIT,
        lifetime=None,
        parent_hash=parent_hash,
        extensions=leaf.extensions,
        group_id=state.context.group_id,
        leaf_index=committer,
    ).sign(suite, leaf.signature_key)
    merged = tree.with_path(committer, node, nodes)
    staged = with_path(state, staged, merged, path, node, config.policy())
    provisional = next_context(state.context, staged, state.context.confirmed_transcript_hash)
    sealed = seal_path(suite, tree, derived, provisional.encode(), staged.new_leaves, rng)
    return BuiltPath(derived, UpdatePath(node, sealed), staged, provisional.tree_hash)


@dataclass(frozen=True, slots=True, repr=False)
class BegunEpoch:
    """The secrets and hashes of a new epoch."""

    context: GroupContext
    joiner: Joiner
    epoch: Epoch
    encryption_secret: Secret


def begin_epoch(
    present: Epoch | PublicState,
    staged: StagedPublic,
    wire_format: WireFormat,
    content: FramedContent,
    signature: bytes,
    *,
    interim: bytes,
    init_secret: bytes,
    commit_secret: bytes,
    psks: PskSecrets,
    private: PrivatePath,
    signature_key: SignaturePrivateKey,
) -> BegunEpoch:
    """Transcript, key schedule and confirmation tag of the epoch that a Commit begins (§8)."""
    suite = present.suite
    confirmed = confirmed_transcript_hash(suite, interim, wire_format, content, signature)
    context = next_context(present.context, staged, confirmed)
    joiner = Joiner.of_commit(suite, init_secret, commit_secret, psk_secret(suite, psks), context)
    secrets, encryption_secret = joiner.epoch(context)
    tag = confirmation_tag(suite, secrets.confirmation_key, confirmed)
    epoch = Epoch(
        suite,
        context,
        staged.tree,
        private,
        signature_key,
        secrets,
        interim_transcript_hash(suite, confirmed, tag),
        tag,
        staged.proposals.reinit,
    )
    return BegunEpoch(context, joiner, epoch, encryption_secret)


@dataclass(frozen=True, slots=True, repr=False)
class CreatedCommit:
    """A Commit that was made and signed, not yet framed."""

    content: FramedContent
    auth: FramedContentAuthData
    staged: StagedPublic
    begun: BegunEpoch
    path: BuiltPath | None

    @property
    def next(self) -> StagedEpoch:
        """The epoch that it begins."""
        return StagedEpoch(self.begun.epoch, self.begun.encryption_secret, self.staged.changes)


def create_commit(
    present: Epoch,
    index: Counters,
    proposals: Sequence[CommittedProposal],
    options: CommitOptions,
    config: Config,
    find_psks: PskFinder,
    *,
    new_leaf: NewLeaf,
    wire_format: WireFormat,
    now: int | None,
    psk_usage: ResumptionPSKUsage | None = None,
) -> CreatedCommit:
    """Makes a member's Commit (§12.4.1); raises `RuleViolation` where the proposals may not stand together."""
    suite, state = present.suite, present.public(index)
    checked = list_for_commit(
        proposals, present.leaf, suite.hash_length, present.context.version, psk_usage
    )
    policy = config.policy()
    staged = stage_proposals(state, checked, policy, present.leaf, now=now)
    psks = find_psks(checked.psks)
    path = None
    commit_secret = Secret(bytes(suite.hash_length))
    private = present.private
    if options.path or checked.path_required(policy.custom):
        path = build_path(state, staged, present.leaf, new_leaf, config)
        staged, commit_secret = path.staged, path.derived.commit_secret
        private = private.fitting(staged.tree, path.derived.keys(), path.derived.leaf_key)
    else:
        private = private.fitting(staged.tree, {})
    check_next_tree(state, staged)
    commit = Commit(tuple(map(proposal_or_ref, proposals)), path.update if path else None)
    content = FramedContent(
        present.context.group_id,
        present.number,
        present.sender,
        options.authenticated_data,
        ContentType.COMMIT,
        commit,
    )
    signature = sign_content(suite, present.signature_key, wire_format, content, present.context)
    begun = begin_epoch(
        present,
        staged,
        wire_format,
        content,
        signature,
        interim=present.interim_transcript_hash,
        init_secret=present.secrets.init_secret,
        commit_secret=commit_secret,
        psks=psks,
        private=private,
        signature_key=new_leaf.signature_key if path else present.signature_key,
    )
    auth = FramedContentAuthData(signature, begun.epoch.confirmation_tag)
    return CreatedCommit(content, auth, staged, begun, path)


def proposal_or_ref(entry: CommittedProposal) -> ProposalOrRef:
    """How a Commit names a proposal: by value, or by the reference of the message it came in (§12.4)."""
    if entry.reference is None:
        return ProposalOrRef(ProposalOrRefType.PROPOSAL, entry.proposal)
    return ProposalOrRef(ProposalOrRefType.REFERENCE, entry.reference)


@dataclass(frozen=True, slots=True)
class ProcessedCommit:
    """A Commit that was found valid: the public part, and the next epoch unless it removes this member."""

    committer: LeafIndex
    proposals: ProposalList
    staged: StagedPublic
    next: StagedEpoch | None


def stage_public_commit(
    state: PublicState,
    content: VerifiedContent,
    proposals: Sequence[CommittedProposal],
    config: Config,
    *,
    now: int | None,
) -> tuple[LeafIndex, StagedPublic]:
    """The public part of a received Commit: all rules that need no secret; returns the committer's leaf."""
    policy, suite = config.policy(), state.suite
    commit = content.content.body
    assert isinstance(commit, Commit)
    sender = content.sender.leaf_index
    if sender is None:
        checked = list_for_external_commit(proposals, suite.hash_length)
    else:
        checked = list_for_commit(proposals, sender, suite.hash_length, state.context.version)
    if commit.path is None and (sender is None or checked.path_required(policy.custom)):
        rule = Rule.EXTERNAL_COMMIT_PATH if sender is None else Rule.PATH_REQUIRED
        msg = "the Commit has no path, which its proposals ask for"
        raise RuleViolation(msg, rule=rule, leaf=sender)
    staged = stage_proposals(state, checked, policy, sender, now=now)
    committer = staged.tree.leftmost_blank() if sender is None else sender
    if commit.path is not None:
        staged = stage_path(
            state,
            staged,
            commit.path,
            committer,
            policy,
            replaced=_replaced(state.tree, checked, sender),
            now=now,
        )
    check_next_tree(state, staged)
    return committer, staged


def _replaced(
    tree: RatchetTree, proposals: ProposalList, sender: LeafIndex | None
) -> LeafNode | None:
    """The leaf whose place the path's leaf takes: the committer's, or the one that an external Commit removes."""
    if sender is not None:
        return tree.leaf(sender)
    return tree.leaf(proposals.removes[0]) if proposals.removes else None


def process_commit(
    present: Epoch,
    index: Counters,
    content: VerifiedContent,
    proposals: Sequence[CommittedProposal],
    config: Config,
    find_psks: PskFinder,
    own_updates: Mapping[bytes, OwnUpdate],
    *,
    now: int | None,
) -> ProcessedCommit:
    """Processes a verified Commit of the present epoch (§12.4.2).

    Raises `RuleViolation` or `VerificationError` where it breaks a rule that all members judge alike, `DecryptionError`
    where this member's own path secret fails.
    """
    committer, staged = stage_public_commit(
        present.public(index), content, proposals, config, now=now
    )
    checked = staged.proposals
    if present.leaf in checked.removes:
        return ProcessedCommit(committer, checked, staged, None)
    psks = find_psks(checked.psks)
    private, signature_key = _own_keys(present, checked, own_updates)
    commit_secret = Secret(bytes(present.suite.hash_length))
    commit = content.content.body
    assert isinstance(commit, Commit)
    if commit.path is not None:
        private, commit_secret = _follow_path(present, staged, commit.path, private)
    else:
        private = private.fitting(staged.tree, {})
    init_secret: bytes = present.secrets.init_secret
    if checked.external_init is not None:
        init_secret = external_init_open(
            present.suite, present.external_key(), checked.external_init.kem_output
        )
    begun = begin_epoch(
        present,
        staged,
        content.wire_format,
        content.content,
        content.auth.signature,
        interim=present.interim_transcript_hash,
        init_secret=init_secret,
        commit_secret=commit_secret,
        psks=psks,
        private=private,
        signature_key=signature_key,
    )
    present.suite.verify_mac(
        begun.epoch.secrets.confirmation_key,
        begun.context.confirmed_transcript_hash,
        content.auth.confirmation_tag or b"",
        rule=Rule.CONFIRMATION_TAG,
    )
    next_epoch = StagedEpoch(begun.epoch, begun.encryption_secret, staged.changes)
    return ProcessedCommit(committer, checked, staged, next_epoch)


def _own_keys(
    present: Epoch, proposals: ProposalList, own_updates: Mapping[bytes, OwnUpdate]
) -> tuple[PrivatePath, SignaturePrivateKey]:
    """This member's keys after the proposals: an own Update may be among them."""
    found = proposals.updates.get(present.leaf)
    if found is None:
        return present.private, present.signature_key
    own = own_updates.get(found[0].leaf_node.encryption_key)
    if own is None:
        msg = "the Commit covers an own Update whose private key is not held (any more)"
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_OPENS)
    return PrivatePath(present.leaf, own.encryption_key, {}), own.signature_key


def _follow_path(
    present: Epoch, staged: StagedPublic, update: UpdatePath, private: PrivatePath
) -> tuple[PrivatePath, Secret]:
    provisional = next_context(present.context, staged, present.context.confirmed_transcript_hash)
    before = private.fitting(staged.tree, {})
    keys, commit_secret = open_path(
        present.suite, before, staged.path, update, provisional.encode(), staged.new_leaves
    )
    return before.fitting(staged.tree, keys), commit_secret
