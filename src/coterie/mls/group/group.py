"""`Group`: one member's handle on a group (RFC 9420 §11, §12).

An epoch is a value; what changes is here: the message keys of the present epoch and of a few past ones, the proposals
that wait, own Updates whose keys are still secret, the Commit that is pending. `receive` and `encrypt` change only
those; `adopt` is the only switch of epochs.

The rule of storage: after every call, also one that raised, `save()` returns what changed since the last `save()`; store
that in one transaction before anything that the call returned leaves the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from coterie.errors import RuleViolation, StateError
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import Capabilities, Extension
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    VerifiedContent,
    own_content,
    protect_public,
    sign_content,
)
from coterie.mls.group.commit import (
    CreatedCommit,
    NewLeaf,
    OwnUpdate,
    create_commit,
    process_commit,
)
from coterie.mls.group.config import CommitOptions, Config
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group.joining import (
    Entered,
    ExternalJoin,
    check_group_id,
    create_first_epoch,
    enter_by_external_commit,
    enter_by_welcome,
)
from coterie.mls.group.past import KeyRing
from coterie.mls.group.pending import ProposalCache
from coterie.mls.group.receiving import Opener
from coterie.mls.group.results import (
    ApplicationMessage,
    Delta,
    Member,
    OwnMessage,
    PendingCommit,
    ProposalReceived,
    Received,
    SecretHeld,
    StagedCommit,
    describe_commit,
)
from coterie.mls.group.saving import Saver, load_parts
from coterie.mls.group.successor import check_continuing
from coterie.mls.group.welcoming import (
    group_info,
    open_welcome,
    read_group_info,
    read_welcome,
    welcomes,
)
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle, VerifiedKeyPackage
from coterie.mls.key_schedule import exported_secret
from coterie.mls.leaf_node import LeafNodeTBS, Lifetime
from coterie.mls.private_message import protect_private, ratchet_of
from coterie.mls.proposal import (
    Add,
    Commit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.ratchet_tree import NodeStore, RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    ContentType,
    LeafNodeSource,
    PSKType,
    ResumptionPSKUsage,
    WireFormat,
)
from coterie.mls.validation import CommittedProposal
from coterie.mls.welcome import GroupInfo, Welcome


class Group:
    """One member's state in one group. Not safe for use by several threads at once."""

    def __init__(
        self, epoch: Epoch, secret_tree: SecretTree, index: TreeIndex, config: Config
    ) -> None:
        """For `create`, `join` and `load`; use those."""
        self._epoch = epoch
        self._index = index
        self._config = config
        self._keys = KeyRing(epoch, secret_tree, config.limits)
        self._proposals = ProposalCache(config.limits.max_proposals)
        self._pending: PendingCommit | None = None
        self._closed: str | None = None
        self._opener = Opener(self._keys, config)
        self._saver = Saver()

    # -- beginning

    @classmethod
    def create(
        cls,
        group_id: bytes,
        suite: Suite,
        signature_key: SignaturePrivateKey,
        credential: Credential,
        capabilities: Capabilities,
        config: Config,
        *,
        lifetime: Lifetime,
        extensions: Iterable[Extension] = (),
    ) -> Self:
        """A new group with this client as its only member (§11)."""
        leaf = NewLeaf(signature_key, credential, capabilities)
        entered = create_first_epoch(suite, group_id, leaf, tuple(extensions), lifetime, config)
        return cls._enter(entered, config)

    @classmethod
    def join(
        cls,
        welcome: MLSMessage | Welcome,
        bundle: KeyPackageBundle,
        config: Config,
        *,
        tree: bytes | None = None,
        groups: frozenset[bytes] = frozenset(),
        continues: Group | None = None,
    ) -> Self:
        """Joins by a Welcome (§12.4.3.1).

        `tree` is the encoded ratchet tree where the Welcome has none inside; `groups` are the ids of the groups that
        this client is in; `continues` is the group that a reinitialised or branched one comes from (§11.2, §11.3).
        Raises `RuleViolation`, `VerificationError` or `DecryptionError`; the key package can be used again then.
        """
        suite = suite_of(bundle.key_package.cipher_suite)

        def find(psks: Sequence[PreSharedKeyID]) -> list[tuple[PreSharedKeyID, bytes]]:
            return [(psk, _require(psk, _continued_psk(psk, continues, config))) for psk in psks]

        opened = open_welcome(read_welcome(welcome), bundle, suite, find)
        check_group_id(opened.info.group_context.group_id, groups)
        entered = enter_by_welcome(opened, bundle, tree, config)
        check_continuing(opened, entered.staged.epoch, continues, config.authenticator)
        return cls._enter(entered, config)

    @classmethod
    def join_external(
        cls,
        info: MLSMessage | GroupInfo,
        signature_key: SignaturePrivateKey,
        credential: Credential,
        capabilities: Capabilities,
        config: Config,
        *,
        tree: bytes | None = None,
        groups: frozenset[bytes] = frozenset(),
        join: ExternalJoin = ExternalJoin(),  # noqa: B008 - frozen
        now: int | None = None,
    ) -> tuple[Self, MLSMessage]:
        """Joins, or comes back, by an external Commit (§12.4.3.2); returns the group and the Commit to send.

        Drop the group where another Commit won. Raises `RuleViolation` or `VerificationError`.
        """
        read = read_group_info(info)
        check_group_id(read.group_context.group_id, groups)
        leaf = NewLeaf(signature_key, credential, capabilities)

        def find(psks: Sequence[PreSharedKeyID]) -> list[tuple[PreSharedKeyID, bytes]]:
            return [(psk, _require(psk, config.psk(psk))) for psk in psks]

        entered, message = enter_by_external_commit(read, tree, leaf, join, config, find, now=now)
        group = cls._enter(entered, config)
        group._keys.remember_own(message.encode(), group.epoch - 1)
        return group, message

    @classmethod
    def _enter(cls, entered: Entered, config: Config) -> Self:
        staged = entered.staged
        entered.index.apply(staged.index_changes)
        tree = SecretTree.of_epoch(
            staged.epoch.suite,
            staged.epoch.tree.leaf_count,
            staged.encryption_secret,
            config.limits.ratchets,
        )
        return cls(staged.epoch, tree, entered.index, config)

    # -- what it is

    def __repr__(self) -> str:
        return f"Group({self.group_id.hex()}, epoch {self.epoch}, {self.own_leaf!r})"

    @property
    def suite(self) -> Suite:
        """The cipher suite."""
        return self._epoch.suite

    @property
    def context(self) -> GroupContext:
        """What all members agree on (§8.1)."""
        return self._epoch.context

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self._epoch.context.group_id

    @property
    def epoch(self) -> int:
        """The number of the present epoch."""
        return self._epoch.number

    @property
    def tree(self) -> RatchetTree:
        """The public ratchet tree."""
        return self._epoch.tree

    @property
    def own_leaf(self) -> LeafIndex:
        """This member's leaf."""
        return self._epoch.leaf

    @property
    def epoch_authenticator(self) -> bytes:
        """Equal for all members that are in the same epoch of the same history (§8.7)."""
        return bytes(self._epoch.secrets.epoch_authenticator)

    @property
    def pending_commit(self) -> PendingCommit | None:
        """The own Commit that was made and not adopted."""
        return self._pending

    @property
    def pending_proposals(self) -> tuple[CommittedProposal, ...]:
        """The proposals that wait for a Commit."""
        return self._proposals.entries()

    @property
    def reinit(self) -> ReInit | None:
        """What the group was reinitialised to: it is over then, and a new one follows (§11.2)."""
        return self._epoch.reinit

    @property
    def is_active(self) -> bool:
        """Whether messages can still be sent."""
        return self._closed is None and self._epoch.reinit is None

    def member(self, leaf: LeafIndex | int) -> Member:
        """The member at a leaf; raises `StateError` where there is none."""
        node = self.tree.leaf(leaf)
        if node is None:
            msg = f"there is no member at leaf {int(leaf)}"
            raise StateError(msg)
        return Member(LeafIndex(leaf), node)

    def members(self) -> Iterator[Member]:
        """All members, by leaf."""
        for leaf, node in self.tree.members():
            yield Member(leaf, node)

    def export_secret(self, label: str, context: bytes, length: int) -> Secret:
        """A secret of `length` bytes for the application, the same for all members of the epoch (§8.5)."""
        return exported_secret(
            self.suite, self._epoch.secrets.exporter_secret, label, context, length
        )

    def sign(self, label: str, content: bytes) -> bytes:
        """A signature under this member's leaf key with the application's own label (§5.1.2, §17.6)."""
        return self.suite.sign_with_label(self._epoch.signature_key, label, content)

    def resumption_psk(self, epoch: int) -> Secret | None:
        """The resumption key of the present or a past epoch, if it is still held (§8.6)."""
        return self._keys.resumption_psk(epoch)

    def group_info(self, *, tree: bool = True, external_pub: bool = True) -> MLSMessage:
        """A signed GroupInfo of the present epoch (§12.4.3)."""
        self._require_active()
        info = group_info(self._epoch, self._config, tree=tree, external_pub=external_pub)
        return MLSMessage.of(info)

    def secrets_held(self) -> list[SecretHeld]:
        """Every secret that this group holds, since which epoch, and why."""
        held = list(self._keys.held(self._epoch))
        held += self._proposals.held(self.epoch)
        if self._pending is not None and self._pending.next is not None:
            held.append(SecretHeld("the pending epoch", self.epoch + 1, "own Commit, not adopted"))
        return held

    # -- sending

    def encrypt(self, data: bytes, *, authenticated_data: bytes = b"") -> MLSMessage:
        """A private message with application data (§15).

        Raises `StateError` while proposals wait that must be committed first (§12.4).
        """
        self._require_active()
        if len(self._proposals):
            msg = f"{len(self._proposals)} proposals wait: commit them before sending data"
            raise StateError(msg)
        content = self._content(ContentType.APPLICATION, data, authenticated_data)
        return self._send(content, self._sign(content, WireFormat.MLS_PRIVATE_MESSAGE))

    def propose(self, proposal: Proposal, *, authenticated_data: bytes = b"") -> MLSMessage:
        """A message with a proposal, which is kept for the next Commit (§12.1)."""
        self._require_active()
        content = self._content(ContentType.PROPOSAL, proposal, authenticated_data)
        auth = self._sign(content, self._handshake_format())
        verified = own_content(self._handshake_format(), content, auth)
        self._opener.check_proposal(self._epoch, self._index, verified, now=None)
        self._proposals.add(self._reference(verified), verified, proposal)
        return self._send(content, auth)

    def propose_add(self, package: VerifiedKeyPackage) -> MLSMessage:
        """Proposes to add a client."""
        return self.propose(Proposal.of(Add(package.key_package)))

    def propose_remove(self, leaf: LeafIndex | int) -> MLSMessage:
        """Proposes to remove a member."""
        return self.propose(Proposal.of(Remove(LeafIndex(leaf))))

    def propose_update(
        self,
        *,
        signature_key: SignaturePrivateKey | None = None,
        credential: Credential | None = None,
    ) -> MLSMessage:
        """Proposes new keys for the own leaf; the private ones are kept until the epoch ends (§12.1.2)."""
        old, key = self._epoch.leaf_node, signature_key or self._epoch.signature_key
        encryption_key = self.suite.generate_hpke_key(self._config.rng)
        leaf = LeafNodeTBS(
            encryption_key=encryption_key.public,
            signature_key=key.public,
            credential=credential or old.credential,
            capabilities=old.capabilities,
            leaf_node_source=LeafNodeSource.UPDATE,
            lifetime=None,
            parent_hash=None,
            extensions=old.extensions,
            group_id=self.group_id,
            leaf_index=self.own_leaf,
        ).sign(self.suite, key)
        message = self.propose(Proposal.of(Update(leaf)))
        self._proposals.keep_update(OwnUpdate(encryption_key, key))
        return message

    def propose_psk(self, psk: PreSharedKeyID) -> MLSMessage:
        """Proposes to mix a pre-shared key into the next epoch."""
        return self.propose(Proposal.of(PreSharedKey(psk)))

    def propose_extensions(self, extensions: Iterable[Extension]) -> MLSMessage:
        """Proposes to replace the GroupContext's extensions."""
        return self.propose(Proposal.of(GroupContextExtensions(tuple(extensions))))

    def propose_reinit(self, reinit: ReInit) -> MLSMessage:
        """Proposes to end the group in favour of a new one (§11.2)."""
        return self.propose(Proposal.of(reinit))

    def external_psk(self, psk_id: bytes) -> PreSharedKeyID:
        """A PreSharedKeyID with a fresh nonce for an external key (§8.4)."""
        return PreSharedKeyID.external(psk_id, self._config.rng(self.suite.hash_length))

    def application_psk(self, epoch: int) -> PreSharedKeyID:
        """A PreSharedKeyID with a fresh nonce for this group's own resumption key (§8.4, §8.6)."""
        return PreSharedKeyID.resumption(
            ResumptionPSKUsage.APPLICATION,
            self.group_id,
            epoch,
            self._config.rng(self.suite.hash_length),
        )

    def commit(
        self,
        proposals: Sequence[Proposal] = (),
        *,
        now: int | None = None,
        options: CommitOptions = CommitOptions(),  # noqa: B008 - frozen
        signature_key: SignaturePrivateKey | None = None,
        credential: Credential | None = None,
    ) -> PendingCommit:
        """Makes a Commit of the given proposals and of those that wait (§12.4.1).

        Its handshake generation is burnt even where the Commit is dropped. A signature key or credential that is given
        takes the place of the present one with it. Raises `RuleViolation` where the proposals may not stand together.
        """
        return self._commit(proposals, now, options, signature_key, credential, None)

    def _commit(
        self,
        proposals: Sequence[Proposal],
        now: int | None,
        options: CommitOptions,
        signature_key: SignaturePrivateKey | None,
        credential: Credential | None,
        psk_usage: ResumptionPSKUsage | None,
    ) -> PendingCommit:
        self._require_active()
        if self._pending is not None:
            msg = "an own Commit is pending: adopt it or drop it before making another"
            raise StateError(msg)
        entries = [CommittedProposal(proposal, self._epoch.sender) for proposal in proposals]
        if options.pending:
            entries = self._proposals.select(self.own_leaf, entries)
        key = signature_key or self._epoch.signature_key
        old = self._epoch.leaf_node
        leaf = NewLeaf(key, credential or old.credential, old.capabilities, old.extensions)
        created = create_commit(
            self._epoch,
            self._index,
            entries,
            options,
            self._config,
            self._find_psks,
            new_leaf=leaf,
            wire_format=self._handshake_format(),
            now=now,
            psk_usage=psk_usage,
        )
        message = self._send(created.content, created.auth)
        self._pending = self._pend(created, message, options)
        self._saver.pending_changed = True
        return self._pending

    def _pend(
        self, created: CreatedCommit, message: MLSMessage, options: CommitOptions
    ) -> PendingCommit:
        info: GroupInfo | None = None
        sent: tuple[MLSMessage, ...] = ()
        if created.staged.new_leaves or options.group_info:
            # Not for every Commit: with the tree in it, it is as long as the group is large.
            info = group_info(
                created.begun.epoch,
                self._config,
                tree=options.tree_inside,
                external_pub=options.external_pub,
            )
            sent = tuple(welcomes(created, info, options, self._config))
        staged = describe_commit(
            self._epoch,
            created.next,
            self.own_leaf,
            created.staged.proposals.all,
            created.staged.new_leaves,
            options.authenticated_data,
            external=False,
            tree=created.staged.tree,
        )
        return PendingCommit(message, sent, MLSMessage.of(info) if info else None, staged)

    def drop_pending(self) -> None:
        """Gives up the own pending Commit: another one won (§14)."""
        self._pending = None
        self._saver.pending_changed = True

    # -- receiving

    def receive(self, message: MLSMessage | bytes, *, now: int | None = None) -> Received:
        """Takes a message of this group, whatever it is.

        `now` is in seconds since 1970; None judges nothing by the time. Raises an error of `coterie.errors` where the
        message is not acceptable; then nothing has changed, but that a verified message's key is consumed.
        """
        if isinstance(message, bytes):
            message = MLSMessage.read(message)
        if self._closed is not None:
            raise StateError(self._closed)
        opened = self._opener.open(self._epoch, message, now=now)
        if isinstance(opened, ApplicationMessage):
            return opened
        if isinstance(opened, OwnMessage):
            pending = self._pending is not None and self._pending.message == message
            return OwnMessage(opened.content_type, opened.epoch, pending)
        if opened.content.content_type == ContentType.PROPOSAL:
            return self._receive_proposal(opened, now)
        return self._receive_commit(opened, now)

    def _receive_proposal(self, content: VerifiedContent, now: int | None) -> ProposalReceived:
        self._opener.check_proposal(self._epoch, self._index, content, now=now)
        proposal = content.content.body
        assert isinstance(proposal, Proposal)
        reference = self._reference(content)
        self._proposals.add(reference, content, proposal)
        return ProposalReceived(
            proposal, content.sender, reference, content.content.authenticated_data
        )

    def _receive_commit(self, content: VerifiedContent, now: int | None) -> StagedCommit:
        if self._epoch.reinit is not None:
            msg = "the group was reinitialised and takes no more Commits"
            raise StateError(msg)
        commit = content.content.body
        assert isinstance(commit, Commit)
        proposals = self._proposals.resolve(commit, content.sender)
        processed = process_commit(
            self._epoch,
            self._index,
            content,
            proposals,
            self._config,
            self._find_psks,
            self._proposals.own_updates,
            now=now,
        )
        return describe_commit(
            self._epoch,
            processed.next,
            processed.committer,
            processed.proposals.all,
            processed.staged.new_leaves,
            content.content.authenticated_data,
            external=content.sender.leaf_index is None,
            tree=processed.staged.tree,
        )

    # -- the switch of epochs

    def adopt(self, commit: StagedCommit | PendingCommit, *, now: int = 0) -> None:
        """Goes to the epoch that a Commit begins: the only switch of epochs.

        `now` (seconds since 1970) is when the present epoch ends, for keeping its message keys a while. Raises
        `StateError` where the Commit is not one of the present epoch.
        """
        staged = commit.commit if isinstance(commit, PendingCommit) else commit
        if staged.epoch != self.epoch or self._closed is not None:
            msg = f"the Commit ends epoch {staged.epoch}, the group is in epoch {self.epoch}"
            raise StateError(msg)
        if staged.next is None:
            self._close("this member was removed from the group")
            return
        self._adopt(staged.next, now)

    def _adopt(self, staged: StagedEpoch, now: int) -> None:
        old, self._epoch = self._epoch, staged.epoch
        tree = SecretTree.of_epoch(
            self.suite,
            staged.epoch.tree.leaf_count,
            staged.encryption_secret,
            self._config.limits.ratchets,
        )
        self._keys.advance(old, staged.epoch, tree, now)
        self._index.apply(staged.index_changes)
        self._proposals.clear()
        self._pending = None
        self._saver.pending_changed = True

    def expire(self, now: int) -> None:
        """Gives up what is older than the limits allow: past epochs and skipped keys (§9.2)."""
        self._keys.expire(self._epoch, now)

    def _close(self, why: str) -> None:
        self._closed = why
        self._keys.clear()
        self._proposals.clear()
        self._pending = None

    # -- storage

    def save(self) -> Delta:
        """What changed since the last call; store it in one transaction before what the step returned is used."""
        return self._saver.delta(
            self._epoch,
            self._keys,
            self._index,
            self._proposals,
            self._pending,
            closed=self._closed is not None,
        )

    @classmethod
    def load(cls, entries: Mapping[bytes, bytes], store: NodeStore, config: Config) -> Self:
        """The group that was saved.

        `entries` are all that `save` gave but those under `n/` and `i/`, which are read through `store`. Raises
        `StorageError` where something is missing, damaged or of another format.
        """
        parts = load_parts(entries, store, config.limits)
        group = cls(parts.epoch, parts.secret_tree, TreeIndex(store), config)
        group._keys.restore(parts.past, parts.resumption, parts.own)
        for content, proposal in parts.proposals:
            group._proposals.add(group._reference(content), content, proposal)
        for update in parts.updates:
            group._proposals.keep_update(update)
        group._pending = parts.pending
        group._proposals.forget_changes()
        group._saver = Saver(parts.epoch)
        return group

    # -- inside

    def _require_active(self) -> None:
        if self._closed is not None:
            raise StateError(self._closed)
        if self._epoch.reinit is not None:
            msg = "the group was reinitialised: use the group that follows it"
            raise StateError(msg)

    def _handshake_format(self) -> WireFormat:
        private = self._config.limits.private_handshakes
        return WireFormat.MLS_PRIVATE_MESSAGE if private else WireFormat.MLS_PUBLIC_MESSAGE

    def _content(
        self, kind: ContentType, body: bytes | Proposal | Commit, authenticated_data: bytes
    ) -> FramedContent:
        return FramedContent(
            self.group_id, self.epoch, self._epoch.sender, authenticated_data, kind, body
        )

    def _sign(self, content: FramedContent, wire_format: WireFormat) -> FramedContentAuthData:
        epoch = self._epoch
        signature = sign_content(
            epoch.suite, epoch.signature_key, wire_format, content, epoch.context
        )
        return FramedContentAuthData(signature)

    def _send(self, content: FramedContent, auth: FramedContentAuthData) -> MLSMessage:
        epoch, suite = self._epoch, self.suite
        application = content.content_type == ContentType.APPLICATION
        if application or self._config.limits.private_handshakes:
            key = self._keys.next_sending(self.own_leaf, ratchet_of(content.content_type))
            message = MLSMessage.of(
                protect_private(
                    suite,
                    key,
                    epoch.secrets.sender_data_secret,
                    content,
                    auth,
                    self._config.limits.padding,
                    self._config.rng,
                )
            )
        else:
            message = MLSMessage.of(
                protect_public(suite, content, auth, epoch.context, epoch.secrets.membership_key)
            )
        self._keys.remember_own(message.encode(), epoch.number, content.content_type)
        return message

    def _reference(self, content: VerifiedContent) -> bytes:
        return self.suite.proposal_ref(content.authenticated_content().encode())

    def _find_psks(self, psks: Sequence[PreSharedKeyID]) -> list[tuple[PreSharedKeyID, bytes]]:
        return [(psk, _require(psk, self._own_psk(psk))) for psk in psks]

    def _own_psk(self, psk: PreSharedKeyID) -> bytes | None:
        if psk.psktype == PSKType.RESUMPTION and psk.psk_group_id == self.group_id:
            found = self._keys.resumption_psk(psk.psk_epoch or 0)
            if found is not None:
                return found
        return self._config.psk(psk)


def _require(psk: PreSharedKeyID, found: bytes | None) -> bytes:
    if found is None:
        msg = f"the pre-shared key {psk!r} is not known here"
        raise RuleViolation(msg, rule=Rule.PSK_UNKNOWN)
    return found


def _continued_psk(psk: PreSharedKeyID, continues: Group | None, config: Config) -> bytes | None:
    if continues is not None and psk.psk_group_id == continues.group_id:
        return continues.resumption_psk(psk.psk_epoch or 0)
    return config.psk(psk)
