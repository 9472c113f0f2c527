"""Creating and processing Commits, from one epoch value to the next (RFC 9420 §12.4.1, §12.4.2).

Nothing here changes anything: both sides return a `StagedEpoch`. `begin_epoch` is where they meet: the transcript and
the key schedule of the new epoch are computed by the same code, whoever made the Commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coterie.errors import CoterieError, DecryptionError
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.extension import Capabilities, Extension, grease_extensions
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    VerifiedContent,
    confirmed_transcript_hash,
    interim_transcript_hash,
    own_content,
    sign_content,
)
from coterie.mls.group.config import CommitOptions, Config
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group.psks import PskFinder, PskSecrets
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_schedule import (
    Joiner,
    confirmation_tag,
    external_init_open,
    psk_secret,
)
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS, Lifetime, check_contents
from coterie.mls.proposal import Commit, ProposalOrRef
from coterie.mls.ratchet_tree import UpdatePath
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
    Policy,
    ProposalList,
    PublicState,
    StagedPublic,
    list_for_commit,
    next_context,
    stage_proposals,
    stage_public_commit,
)
from coterie.mls.validation.commit import check_next_tree, check_replacement, with_path

_MOST_TRIED = 1 << 16
"""How many proposals are looked at, again and again, to find those that fit: of Adds so many take a second."""
_TRIED_EACH = 64
"""How many more for each that there is."""


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

    def private(self, before: PrivatePath) -> PrivatePath:
        """The committer's private keys in the next epoch."""
        return before.fitting(self.staged.tree, self.derived.keys(), self.derived.leaf_key)


@dataclass(frozen=True, slots=True, repr=False)
class NewLeaf:
    """What the committer's new leaf says, besides what is derived."""

    signature_key: SignaturePrivateKey
    credential: Credential
    capabilities: Capabilities
    extensions: tuple[Extension, ...]

    @classmethod
    def first(
        cls,
        signature_key: SignaturePrivateKey,
        credential: Credential,
        capabilities: Capabilities,
        config: Config,
    ) -> NewLeaf:
        """What a leaf says that is not made from a key package; with a GREASE extension where one may stand (§13.5)."""
        extra = grease_extensions(capabilities, config.rng) if config.limits.grease else ()
        return cls(signature_key, credential, capabilities, extra)

    def sign(
        self,
        suite: Suite,
        encryption_key: bytes,
        source: LeafNodeSource,
        *,
        lifetime: Lifetime | None = None,
        parent_hash: bytes | None = None,
        group_id: bytes | None = None,
        leaf_index: LeafIndex | None = None,
    ) -> LeafNode:
        """The leaf node with this encryption key; what else is needed depends on its source (§7.2)."""
        return LeafNodeTBS(
            encryption_key=encryption_key,
            signature_key=self.signature_key.public,
            credential=self.credential,
            capabilities=self.capabilities,
            leaf_node_source=source,
            lifetime=lifetime,
            parent_hash=parent_hash,
            extensions=self.extensions,
            group_id=group_id,
            leaf_index=leaf_index,
        ).sign(suite, self.signature_key)


def build_path(
    state: PublicState,
    staged: StagedPublic,
    committer: LeafIndex,
    leaf: NewLeaf,
    config: Config,
    *,
    replaced: LeafNode | None,
    now: int | None,
) -> BuiltPath:
    """Derives the committer's path, signs its leaf, and only then seals (§7.5, §12.4.1).

    The leaf is judged as others will judge it (§7.3): who adopted a Commit that nobody accepts would be alone.
    """
    suite, rng = state.suite, config.rng
    tree = staged.tree.extended(committer + 1)
    derived = derive_path(suite, tree, committer, rng)
    path = tuple(step.node for step in derived.steps)
    nodes, parent_hash = tree.path_parents(path, [step.key.public for step in derived.steps])
    node = leaf.sign(
        suite,
        derived.leaf_key.public,
        LeafNodeSource.COMMIT,
        parent_hash=parent_hash,
        group_id=state.context.group_id,
        leaf_index=committer,
    )
    check_contents(node, suite)
    check_replacement(replaced, node, config.policy(), now)
    merged = tree.with_path(committer, node, nodes)
    staged = with_path(staged, merged, path, node, config.policy())
    provisional = next_context(state.context, staged, state.context.confirmed_transcript_hash)
    encoded = provisional.encode()
    sealed = seal_path(suite, tree, derived, encoded, staged.new_leaves, rng, config.run)
    return BuiltPath(derived, UpdatePath(node, sealed), staged)


@dataclass(frozen=True, slots=True, repr=False)
class Inputs:
    """What the key schedule of a new epoch takes up besides its GroupContext (§8)."""

    interim_transcript_hash: bytes
    init_secret: bytes
    commit_secret: bytes
    psks: PskSecrets


@dataclass(frozen=True, slots=True, repr=False)
class OwnKeys:
    """A member's private keys in a new epoch."""

    private: PrivatePath
    signature_key: SignaturePrivateKey


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
    commit: VerifiedContent,
    inputs: Inputs,
    own: OwnKeys,
) -> BegunEpoch:
    """Transcript, key schedule and confirmation tag of the epoch that a Commit begins (§8)."""
    suite = present.suite
    confirmed = confirmed_transcript_hash(
        suite,
        inputs.interim_transcript_hash,
        commit.wire_format,
        commit.content,
        commit.auth.signature,
    )
    context = next_context(present.context, staged, confirmed)
    psks = psk_secret(suite, inputs.psks)
    joiner = Joiner.of_commit(suite, inputs.init_secret, inputs.commit_secret, psks, context)
    secrets, encryption_secret = joiner.epoch(context)
    tag = confirmation_tag(suite, secrets.confirmation_key, confirmed)
    epoch = Epoch(
        suite,
        context,
        staged.tree,
        own.private,
        own.signature_key,
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


@dataclass(frozen=True, slots=True, repr=False)
class CommitPlan:
    """What a Commit shall cover and say, and where its pre-shared keys come from.

    `psk_usage` is reinit or branch in the first Commit of a group that continues another one.
    """

    proposals: Sequence[CommittedProposal]
    new_leaf: NewLeaf
    find_psks: PskFinder
    options: CommitOptions
    psk_usage: ResumptionPSKUsage | None = None


def create_commit(
    present: Epoch, index: Counters, plan: CommitPlan, config: Config, *, now: int | None
) -> CreatedCommit:
    """Makes a member's Commit (§12.4.1); raises `RuleViolation` where the proposals may not stand together."""
    suite, state, policy = present.suite, present.public(index), config.policy()
    checked = list_for_commit(
        plan.proposals, present.leaf, suite.hash_length, present.context.version, plan.psk_usage
    )
    staged = stage_proposals(state, checked, policy, present.leaf, now=now)
    psks = plan.find_psks(checked.psks)
    path = None
    commit_secret = Secret(bytes(suite.hash_length))
    own = OwnKeys(present.private, present.signature_key)
    if plan.options.path or checked.path_required(policy.custom):
        path = build_path(
            state,
            staged,
            present.leaf,
            plan.new_leaf,
            config,
            replaced=present.leaf_node,
            now=now,
        )
        staged, commit_secret = path.staged, path.derived.commit_secret
        own = OwnKeys(path.private(present.private), plan.new_leaf.signature_key)
    else:
        own = OwnKeys(present.private.fitting(staged.tree, {}), present.signature_key)
    check_next_tree(state, staged)
    update = path.update if path else None
    commit = Commit(tuple(map(proposal_or_ref, plan.proposals)), update)
    content = present.content(ContentType.COMMIT, commit, plan.options.authenticated_data)
    signed = sign(present, config.limits.handshake_format, content)
    inputs = Inputs(
        present.interim_transcript_hash, present.secrets.init_secret, commit_secret, psks
    )
    begun = begin_epoch(present, staged, signed, inputs, own)
    auth = FramedContentAuthData(signed.auth.signature, begun.epoch.confirmation_tag)
    return CreatedCommit(content, auth, staged, begun, path)


def fitting_proposals(
    state: PublicState,
    committer: LeafIndex,
    plan: CommitPlan,
    waiting: Sequence[CommittedProposal],
    policy: Policy,
    *,
    now: int | None,
) -> list[CommittedProposal]:
    """The plan's proposals and those of what waits that make a valid Commit with them (§12.2).

    A proposal that is valid by itself may be invalid beside others; whoever commits leaves it out (§12.4). All are
    tried at once, then halves of what failed, so that a few bad ones among thousands cost little. Where many are bad,
    the search ends before it takes quadratic time: what was not tried by then is left out too, and that is of those who
    proposed most.
    """
    left = _MOST_TRIED + _TRIED_EACH * (len(plan.proposals) + len(waiting))

    def fit(chosen: list[CommittedProposal], more: Sequence[CommittedProposal]) -> None:
        nonlocal left
        if left <= 0:
            return
        left -= len(chosen) + len(more)
        try:
            _check_proposals(state, committer, plan, [*chosen, *more], policy, now=now)
        except CoterieError:
            if len(more) > 1:
                fit(chosen, more[: len(more) // 2])
                fit(chosen, more[len(more) // 2 :])
        else:
            chosen.extend(more)

    counts = Counter(entry.sender for entry in waiting)
    fitting = list(plan.proposals)
    fit(fitting, sorted(waiting, key=lambda entry: counts[entry.sender]))
    found = set(map(id, fitting))
    return [*plan.proposals, *(entry for entry in waiting if id(entry) in found)]


def _check_proposals(
    state: PublicState,
    committer: LeafIndex,
    plan: CommitPlan,
    proposals: Sequence[CommittedProposal],
    policy: Policy,
    *,
    now: int | None,
) -> None:
    """Raises where these proposals, as part of a plan, do not make a valid Commit."""
    length, version = state.suite.hash_length, state.context.version
    checked = list_for_commit(proposals, committer, length, version, plan.psk_usage)
    staged = stage_proposals(state, checked, policy, committer, now=now)
    check_next_tree(state, staged)
    plan.find_psks(checked.psks)


def sign(epoch: Epoch, wire_format: WireFormat, content: FramedContent) -> VerifiedContent:
    """Content with this member's signature (§6.1)."""
    signature = sign_content(epoch.suite, epoch.signature_key, wire_format, content, epoch.context)
    return own_content(wire_format, content, FramedContentAuthData(signature))


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
    state, policy = present.public(index), config.policy()
    committer, staged = stage_public_commit(state, content, proposals, policy, now=now)
    checked = staged.proposals
    if present.leaf in checked.removes:
        return ProcessedCommit(committer, checked, staged, None)
    psks = find_psks(checked.psks)
    own = _own_keys(present, checked, own_updates)
    commit_secret = Secret(bytes(present.suite.hash_length))
    path = content.body(Commit).path
    if path is not None:
        private, commit_secret = _follow_path(present, staged, path, own.private)
    else:
        private = own.private.fitting(staged.tree, {})
    init_secret = present.secrets.init_secret
    if checked.external_init is not None:
        init_secret = external_init_open(
            present.suite, present.external_key(), checked.external_init.kem_output
        )
    inputs = Inputs(present.interim_transcript_hash, init_secret, commit_secret, psks)
    begun = begin_epoch(present, staged, content, inputs, OwnKeys(private, own.signature_key))
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
) -> OwnKeys:
    """This member's keys after the proposals: an own Update may be among them."""
    found = proposals.updates.get(present.leaf)
    if found is None:
        return OwnKeys(present.private, present.signature_key)
    own = own_updates.get(found[0].leaf_node.encryption_key)
    if own is None:
        msg = "the Commit covers an own Update whose private key is not held (any more)"
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_OPENS)
    return OwnKeys(PrivatePath(present.leaf, own.encryption_key, {}), own.signature_key)


def _follow_path(
    present: Epoch, staged: StagedPublic, update: UpdatePath, private: PrivatePath
) -> tuple[PrivatePath, Secret]:
    provisional = next_context(present.context, staged, present.context.confirmed_transcript_hash)
    keys, commit_secret = open_path(
        present.suite, private, staged.path, update, provisional.encode(), staged.new_leaves
    )
    return private.fitting(staged.tree, keys), commit_secret
